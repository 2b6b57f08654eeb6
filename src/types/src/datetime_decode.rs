//! Understands the fields of date and time texts, as PostgreSQL's `DecodeDateTime` does for `DateStyle ISO, MDY`.

use crate::calendar::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, UNIX_EPOCH_TO_POSTGRES_MICROS,
    civil_from_days, days_from_civil, days_in_month, split_timestamp, timestamp_from_unix_micros,
};
use crate::datetime_tokens::{Token, TokenKind, is_weekday, month_number, tokenize, zone_minutes};
use crate::{SqlError, SqlState};

/// Why a text is refused; the message is made where the type is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DateTimeError {
    BadFormat,
    FieldOverflow,
    MonthDayOverflow,
    IntervalOverflow,
    IntervalOutOfRange,
    ZoneOverflow,
    UnknownZone(String),
    NeedsClock,
}

impl DateTimeError {
    pub(crate) fn report(self, type_name: &str, text: &str) -> Box<SqlError> {
        let range = || {
            SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("date/time field value out of range: \"{text}\""),
            )
        };
        match self {
            Self::BadFormat => SqlError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Self::FieldOverflow => range(),
            Self::MonthDayOverflow => {
                range().with_hint("Perhaps you need a different \"datestyle\" setting.")
            }
            Self::IntervalOverflow => SqlError::new(
                SqlState::INTERVAL_FIELD_OVERFLOW,
                format!("interval field value out of range: \"{text}\""),
            ),
            Self::IntervalOutOfRange => crate::interval::interval_out_of_range(),
            Self::ZoneOverflow => SqlError::new(
                SqlState::INVALID_TIME_ZONE_DISPLACEMENT_VALUE,
                format!("time zone displacement out of range: \"{text}\""),
            ),
            Self::UnknownZone(zone) => SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("time zone \"{zone}\" not recognized"),
            ),
            Self::NeedsClock => {
                SqlError::unsupported(format_args!("date/time value \"{text}\" in this place"))
            }
        }
    }
}

/// A text that has been understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    pub infinity: Option<bool>,
    /// Microseconds since 2000 of a special word, in place of the fields.
    pub moment: Option<i64>,
    pub has_date: bool,
    pub has_time: bool,
    pub year: i64,
    pub month: i64,
    pub day: i64,
    /// May be 24:00:00 or have a leap second.
    pub time_micros: i64,
    pub zone_east_micros: Option<i64>,
}

const YEAR: u8 = 1;
const MONTH: u8 = 2;
const DAY: u8 = 4;
const TIME: u8 = 8;
const ZONE: u8 = 16;
const DATE: u8 = YEAR | MONTH | DAY;

#[derive(Default)]
struct Decoder {
    mask: u8,
    text_month: bool,
    two_digit_year: bool,
    weekday_seen: bool,
    before_christ: bool,
    era_seen: bool,
    afternoon: Option<bool>,
    iso_time_next: bool,
    julian_next: bool,
    julian: bool,
    parsed: Parsed,
    now: Option<i64>,
}

pub(crate) type Outcome<T = ()> = std::result::Result<T, DateTimeError>;
use DateTimeError::{BadFormat, FieldOverflow, MonthDayOverflow};

fn number(digits: &str) -> Outcome<i64> {
    // PostgreSQL reads fields as C ints.
    digits.parse::<i32>().map(i64::from).map_err(|_| FieldOverflow)
}

/// Microseconds of `.digits`, rounded.
pub(crate) fn fraction_micros(digits: &str) -> Outcome<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadFormat);
    }
    let mut micros = 0_i64;
    for place in 0..6 {
        micros = micros * 10
            + digits
                .as_bytes()
                .get(place)
                .map_or(0, |digit| i64::from(digit - b'0'));
    }
    let Some(next) = digits.as_bytes().get(6) else {
        return Ok(micros);
    };
    // Half to even, as rint does with the decimal's nearest double.
    let tail_is_half = *next == b'5' && digits.as_bytes()[7..].iter().all(|&digit| digit == b'0');
    let up = if tail_is_half {
        micros % 2 == 1
    } else {
        *next >= b'5'
    };
    Ok(micros + i64::from(up))
}

/// `hh:mm[:ss[.ffffff]]` as microseconds, without a limit for the hours.
pub(crate) fn clock_micros(text: &str) -> Outcome<(i64, i64, i64)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut fields = whole.split(':');
    let mut next = || {
        fields
            .next()
            .filter(|field| field.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let first = next().filter(|field| !field.is_empty()).ok_or(BadFormat)?;
    let second = next().ok_or(BadFormat)?;
    let third = next();
    if fields.next().is_some() || (third.is_none() && whole.matches(':').count() > 1) {
        return Err(BadFormat);
    }
    let zero_if_empty = |field: &str| if field.is_empty() { Ok(0) } else { number(field) };
    let first = number(first)?;
    let second = zero_if_empty(second)?;
    let fraction = fraction.map_or(Ok(0), fraction_micros)?;
    Ok(match third {
        Some(seconds) => (
            first,
            second,
            zero_if_empty(seconds)? * MICROS_PER_SECOND + fraction,
        ),
        // `mm:ss.fff`
        None if text.contains('.') => (0, first, second * MICROS_PER_SECOND + fraction),
        None => (first, second, 0),
    })
}

impl Decoder {
    fn claim(&mut self, bits: u8) -> Outcome {
        if self.mask & bits != 0 {
            return Err(BadFormat);
        }
        self.mask |= bits;
        Ok(())
    }

    fn set_time(&mut self, hour: i64, minute: i64, second_micros: i64) -> Outcome {
        self.claim(TIME)?;
        if minute > 59 || second_micros > 60 * MICROS_PER_SECOND || hour > 24 {
            return Err(FieldOverflow);
        }
        self.parsed.has_time = true;
        self.parsed.time_micros = hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE + second_micros;
        Ok(())
    }

    fn run(mut self, tokens: &[Token<'_>]) -> Outcome<Parsed> {
        let mut index = 0;
        while index < tokens.len() {
            self.token(tokens[index], tokens.get(index + 1))?;
            index += 1;
        }
        self.complete()
    }

    fn token(&mut self, token: Token<'_>, next: Option<&Token<'_>>) -> Outcome {
        match token.kind {
            TokenKind::Date => {
                if self.julian_next || self.iso_time_next {
                    return Err(BadFormat);
                }
                if token.text.as_bytes()[0].is_ascii_alphabetic() && month_word(token.text).is_none() {
                    return self.zone_word(token.text);
                }
                if self.mask & (MONTH | DAY) == MONTH | DAY {
                    // `hhmmss-zone` after a date.
                    let (time, zone) = token.text.split_once(['-', '/']).ok_or(BadFormat)?;
                    self.number_field(time)?;
                    return self.zone(&format!("-{zone}"));
                }
                self.date(token.text)
            }
            TokenKind::Time => {
                self.iso_time_next = false;
                let (hour, minute, second_micros) = clock_micros(token.text)?;
                self.set_time(hour, minute, second_micros)
            }
            TokenKind::Zone => self.zone(token.text),
            TokenKind::Number => self.number_token(token.text),
            TokenKind::Word | TokenKind::Special => self.word(token.text, next),
        }
    }

    fn number_token(&mut self, text: &str) -> Outcome {
        if std::mem::take(&mut self.julian_next) {
            self.claim(DATE)?;
            self.julian = true;
            let days = number(text.split('.').next().unwrap_or(text))?;
            let (year, month, day) = civil_from_days(days - 2_451_545);
            (self.parsed.year, self.parsed.month, self.parsed.day) = (year, i64::from(month), i64::from(day));
            return Ok(());
        }
        if std::mem::take(&mut self.iso_time_next) {
            return self.number_field(text);
        }
        match text.find('.') {
            Some(_) if self.mask & DATE == 0 => self.date(text),
            Some(point) if point > 2 => self.number_field(text),
            None if text.len() >= 6 && (self.mask & DATE == 0 || self.mask & TIME == 0) => {
                self.number_field(text)
            }
            _ => self.date_number(text),
        }
    }

    /// Digits without separators: `yyyymmdd`, `yymmdd`, `hhmmss`, `hhmm`.
    fn number_field(&mut self, text: &str) -> Outcome {
        let (digits, fraction) = match text.split_once('.') {
            Some((digits, fraction)) => (digits, Some(fraction)),
            None => (text, None),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadFormat);
        }
        let fraction_micros = fraction.map_or(Ok(0), fraction_micros)?;
        if self.mask & DATE != DATE && fraction.is_none() && digits.len() >= 6 {
            let (year, rest) = digits.split_at(digits.len() - 4);
            self.claim(DATE)?;
            self.parsed.year = number(year)?;
            self.parsed.month = number(&rest[..2])?;
            self.parsed.day = number(&rest[2..])?;
            self.two_digit_year = year.len() == 2;
            return Ok(());
        }
        if self.mask & TIME == 0 {
            match digits.len() {
                6 => {
                    let seconds = number(&digits[4..])? * MICROS_PER_SECOND + fraction_micros;
                    return self.set_time(number(&digits[..2])?, number(&digits[2..4])?, seconds);
                }
                4 => return self.set_time(number(&digits[..2])?, number(&digits[2..])?, 0),
                2 if self.mask & DATE == DATE => return self.set_time(number(digits)?, 0, 0),
                _ => {}
            }
        }
        Err(BadFormat)
    }

    /// A date whose parts are joined.
    fn date(&mut self, text: &str) -> Outcome {
        let parts = text.split(['-', '/', '.']).flat_map(|part| {
            // `08jan` holds two fields.
            let split = part
                .bytes()
                .zip(part.bytes().skip(1))
                .position(|(left, right)| left.is_ascii_digit() != right.is_ascii_digit())
                .map_or(part.len(), |position| position + 1);
            let (left, right) = part.split_at(split);
            [left, right]
        });
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.len() > 3 {
            return Err(BadFormat);
        }
        // PostgreSQL wants joined dates before all else.
        if self.mask & TIME != 0 || self.weekday_seen {
            return Err(BadFormat);
        }
        // The name of the month first: it decides how the numbers read.
        let mut numbers = Vec::with_capacity(3);
        for part in parts {
            match month_number(part) {
                Some(month) if !self.text_month => {
                    self.claim(MONTH)?;
                    self.text_month = true;
                    self.parsed.month = i64::from(month);
                }
                _ if part.bytes().all(|byte| byte.is_ascii_digit()) => numbers.push(part),
                _ => return Err(BadFormat),
            }
        }
        for part in numbers {
            if self.mask & DATE == DATE {
                return Err(BadFormat);
            }
            self.date_number(part)?;
        }
        if self.mask & DATE == DATE {
            Ok(())
        } else {
            Err(BadFormat)
        }
    }

    /// One number of a date in `MDY` order, or with its year in front.
    fn date_number(&mut self, text: &str) -> Outcome {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadFormat);
        }
        let value = number(text)?;
        let long = text.len() >= 3;
        let date_mask = self.mask & DATE;
        if date_mask == YEAR && text.len() == 3 && (1..=366).contains(&value) {
            // The day of the year.
            let (year, month, day) = civil_from_days(days_from_civil(self.parsed.year, 1, 1) + value - 1);
            (self.parsed.year, self.parsed.month, self.parsed.day) = (year, i64::from(month), i64::from(day));
            self.mask |= DATE;
            return Ok(());
        }
        let bit = match date_mask {
            0 if long => YEAR,
            0 => MONTH,
            YEAR => MONTH,
            MONTH if self.text_month && long => YEAR,
            MONTH => DAY,
            DAY => MONTH,
            _ if date_mask == YEAR | MONTH && self.text_month && long && self.two_digit_year => {
                // The first number was the day after all.
                self.parsed.day = self.parsed.year;
                self.parsed.year = value;
                self.two_digit_year = false;
                self.mask |= DAY;
                return Ok(());
            }
            _ if date_mask == YEAR | MONTH => DAY,
            _ if date_mask == MONTH | DAY => YEAR,
            _ if date_mask == YEAR | DAY => MONTH,
            _ => return self.number_field(text),
        };
        self.claim(bit)?;
        match bit {
            YEAR => {
                self.parsed.year = value;
                self.two_digit_year = text.len() <= 2;
            }
            MONTH => self.parsed.month = value,
            _ => self.parsed.day = value,
        }
        Ok(())
    }

    fn zone(&mut self, text: &str) -> Outcome {
        if self.mask & ZONE != 0 {
            // `UTC+3` and friends: POSIX signs, which nobody means.
            return Err(BadFormat);
        }
        self.claim(ZONE)?;
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            _ => (false, text.trim_start_matches('+')),
        };
        let mut fields = digits.split(':');
        let first = fields.next().unwrap_or("");
        let second = fields.next();
        let third = fields.next();
        let all_digits = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        if fields.next().is_some()
            || !all_digits(first)
            || ![second, third].into_iter().flatten().all(all_digits)
        {
            return Err(BadFormat);
        }
        let (hours, minutes, seconds) = match second {
            None if first.len() > 4 => {
                let whole = number(first)?;
                (whole / 10_000, whole / 100 % 100, whole % 100)
            }
            None if first.len() > 2 => {
                let whole = number(first)?;
                (whole / 100, whole % 100, 0)
            }
            None => (number(first)?, 0, 0),
            Some(minutes) => (number(first)?, number(minutes)?, third.map_or(Ok(0), number)?),
        };
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(DateTimeError::ZoneOverflow);
        }
        let east = ((hours * 60 + minutes) * 60 + seconds) * MICROS_PER_SECOND;
        self.parsed.zone_east_micros = Some(if negative { -east } else { east });
        Ok(())
    }

    fn zone_word(&mut self, word: &str) -> Outcome {
        let Some(minutes) = zone_minutes(word) else {
            // Only names with a slash can be zones that we do not know; the rest is noise.
            let is_zone = word.contains('/') && word.as_bytes()[0].is_ascii_alphabetic();
            return Err(if is_zone {
                DateTimeError::UnknownZone(word.to_owned())
            } else {
                BadFormat
            });
        };
        self.claim(ZONE)?;
        self.parsed.zone_east_micros = Some(minutes * MICROS_PER_MINUTE);
        Ok(())
    }

    fn word(&mut self, word: &str, next: Option<&Token<'_>>) -> Outcome {
        let special = |moment: i64, decoder: &mut Self| {
            decoder.claim(DATE)?;
            decoder.parsed.has_date = true;
            decoder.parsed.moment = Some(moment);
            Ok(())
        };
        if let Some(month) = month_number(word) {
            if self.mask & MONTH != 0 && !self.text_month && self.mask & DAY == 0 {
                // `2 Jan`: what looked like the month was the day.
                self.mask = (self.mask & !MONTH) | DAY;
                self.parsed.day = self.parsed.month;
            }
            self.claim(MONTH)?;
            self.text_month = true;
            self.parsed.month = i64::from(month);
            return Ok(());
        }
        match word {
            "infinity" | "inf" | "+infinity" | "+inf" => {
                self.claim(DATE | TIME | ZONE)?;
                self.parsed.infinity = Some(true);
                Ok(())
            }
            "-infinity" | "-inf" => {
                self.claim(DATE | TIME | ZONE)?;
                self.parsed.infinity = Some(false);
                Ok(())
            }
            "epoch" => {
                self.claim(TIME | ZONE)?;
                self.parsed.has_time = true;
                special(-UNIX_EPOCH_TO_POSTGRES_MICROS, self)
            }
            "now" => {
                let now = self.now.ok_or(DateTimeError::NeedsClock)?;
                self.claim(TIME | ZONE)?;
                self.parsed.has_time = true;
                special(now, self)
            }
            "today" | "tomorrow" | "yesterday" => {
                let now = self.now.ok_or(DateTimeError::NeedsClock)?;
                let shift = match word {
                    "tomorrow" => 1,
                    "yesterday" => -1,
                    _ => 0,
                };
                self.claim(DATE)?;
                let (year, month, day) = civil_from_days(split_timestamp(now).0 + shift);
                (self.parsed.year, self.parsed.month, self.parsed.day) =
                    (year, i64::from(month), i64::from(day));
                self.julian = true;
                Ok(())
            }
            "allballs" => {
                self.claim(ZONE)?;
                self.parsed.zone_east_micros = Some(0);
                self.set_time(0, 0, 0)
            }
            "am" | "pm" => {
                self.afternoon = Some(word == "pm");
                Ok(())
            }
            "ad" | "bc" => {
                if self.era_seen {
                    return Err(BadFormat);
                }
                self.era_seen = true;
                self.before_christ = word == "bc";
                Ok(())
            }
            "t" => {
                // Must separate a date from a time.
                if self.mask & DATE == 0 && !self.julian {
                    return Err(BadFormat);
                }
                match next {
                    Some(next)
                        if matches!(next.kind, TokenKind::Number | TokenKind::Time | TokenKind::Date) =>
                    {
                        self.iso_time_next = next.kind == TokenKind::Number;
                        Ok(())
                    }
                    _ => Err(BadFormat),
                }
            }
            "j" | "jd" | "julian" => {
                self.julian_next = true;
                Ok(())
            }
            "at" | "on" => Ok(()),
            weekday if is_weekday(weekday) => {
                self.weekday_seen = true;
                Ok(())
            }
            zone => self.zone_word(zone),
        }
    }

    fn complete(mut self) -> Outcome<Parsed> {
        if self.iso_time_next || self.julian_next {
            return Err(BadFormat);
        }
        if self.parsed.infinity.is_some() || self.parsed.moment.is_some() {
            return Ok(self.parsed);
        }
        if let Some(afternoon) = self.afternoon {
            let hour = self.parsed.time_micros / MICROS_PER_HOUR;
            if self.mask & TIME == 0 || hour > 12 {
                return Err(FieldOverflow);
            }
            if afternoon && hour != 12 {
                self.parsed.time_micros += 12 * MICROS_PER_HOUR;
            } else if !afternoon && hour == 12 {
                self.parsed.time_micros -= 12 * MICROS_PER_HOUR;
            }
        }
        if self.parsed.time_micros > MICROS_PER_DAY {
            return Err(FieldOverflow);
        }
        match self.mask & DATE {
            0 => {
                return if self.era_seen {
                    Err(BadFormat)
                } else {
                    Ok(self.parsed)
                };
            }
            DATE => {}
            _ => return Err(BadFormat),
        }
        self.parsed.has_date = true;
        let parsed = &mut self.parsed;
        if !self.julian {
            if self.before_christ {
                if parsed.year <= 0 {
                    return Err(FieldOverflow);
                }
                parsed.year = 1 - parsed.year;
            } else if self.two_digit_year {
                parsed.year += if parsed.year < 70 { 2_000 } else { 1_900 };
            } else if parsed.year <= 0 {
                return Err(FieldOverflow);
            }
        }
        if !(1..=12).contains(&parsed.month) || !(1..=31).contains(&parsed.day) {
            return Err(MonthDayOverflow);
        }
        if parsed.day > i64::from(days_in_month(parsed.year, parsed.month as u32)) {
            return Err(FieldOverflow);
        }
        Ok(self.parsed)
    }
}

/// The month a joined field begins with, as in `jan-08-1999`.
fn month_word(text: &str) -> Option<u32> {
    let end = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    month_number(&text[..end])
}

pub(crate) fn decode(text: &str, now_unix_micros: Option<i64>) -> Outcome<Parsed> {
    let lower = text.to_ascii_lowercase();
    let mut scratch = String::new();
    let tokens = tokenize(&lower, &mut scratch).ok_or(BadFormat)?;
    if tokens.is_empty() {
        return Err(BadFormat);
    }
    Decoder {
        now: now_unix_micros.map(timestamp_from_unix_micros),
        ..Decoder::default()
    }
    .run(&tokens)
}

/// `hhmmss` or `hhmm`, perhaps with a fraction, where only a time can be meant.
pub(crate) fn decode_bare_time(text: &str) -> Outcome<i64> {
    let mut decoder = Decoder {
        mask: DATE,
        ..Decoder::default()
    };
    decoder.number_field(text)?;
    decoder.mask = TIME;
    decoder.complete().map(|parsed| parsed.time_micros)
}

/// `+hh[:mm[:ss]]` and its like: microseconds east of Greenwich.
pub(crate) fn decode_zone(text: &str) -> Outcome<i64> {
    let mut decoder = Decoder::default();
    decoder.zone(text)?;
    Ok(decoder.parsed.zone_east_micros.unwrap_or(0))
}
