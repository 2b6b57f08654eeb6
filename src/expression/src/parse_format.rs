//! `to_date` and `to_timestamp` with a pattern.

use neorunbase_types::calendar::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, date_in_range, days_from_civil,
    days_in_month, timestamp_in_range,
};
use neorunbase_types::{Datum, Result, SqlError, SqlState};

use crate::call::mismatch;
use crate::format_keyword::{DAYS, Keyword, MONTHS, Part, ROMAN_MONTHS, parts};
use crate::function::Function;

#[derive(Default)]
struct Fields {
    year: Option<i64>,
    two_digits: bool,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_day: Option<i64>,
    hour: i64,
    twelve_hours: bool,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    micros: i64,
    second_of_day: Option<i64>,
    zone_hours: i64,
    zone_minutes: i64,
    zone_negative: bool,
}

fn invalid(message: String) -> Box<SqlError> {
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, message)
}

fn keyword_name(keyword: Keyword) -> &'static str {
    match keyword {
        Keyword::Year(4) => "YYYY",
        Keyword::Year(3) => "YYY",
        Keyword::Year(2) => "YY",
        Keyword::Year(_) => "Y",
        Keyword::Month => "MM",
        Keyword::MonthName => "MONTH",
        Keyword::MonthAbbreviation => "MON",
        Keyword::Day => "DD",
        Keyword::DayOfYear => "DDD",
        Keyword::Hour24 => "HH24",
        Keyword::Hour12 => "HH12",
        Keyword::Minute => "MI",
        Keyword::Seconds => "SS",
        Keyword::Milliseconds => "MS",
        Keyword::Microseconds => "US",
        Keyword::DayName => "DAY",
        Keyword::DayAbbreviation => "DY",
        Keyword::RomanMonth => "RM",
        _ => "field",
    }
}

struct Reader<'text> {
    rest: &'text str,
}

impl<'text> Reader<'text> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Digits: as many as there are, or at most `width` when the next field follows directly.
    fn number(&mut self, keyword: Keyword, width: usize, greedy: bool) -> Result<(i64, usize)> {
        self.skip_blanks();
        let limit = if greedy { 10 } else { width };
        let length = self
            .rest
            .bytes()
            .take(limit)
            .take_while(u8::is_ascii_digit)
            .count();
        if length == 0 {
            let shown: String = self.rest.chars().take(width).collect();
            return Err(invalid(format!(
                "invalid value \"{shown}\" for \"{}\"",
                keyword_name(keyword)
            ))
            .with_detail("Value must be an integer."));
        }
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        let value = digits
            .parse::<i64>()
            .map_err(|_| invalid("value is out of range".to_owned()))?;
        Ok((value, length))
    }

    fn name(&mut self, keyword: Keyword, names: &[&str], abbreviated: bool) -> Result<usize> {
        self.skip_blanks();
        // Longest first: VIII before VII, and a full name before its beginning.
        let mut best: Option<(usize, usize)> = None;
        for (index, name) in names.iter().enumerate() {
            let name = if abbreviated {
                name.get(..3).unwrap_or(name)
            } else {
                name
            };
            let matches = self
                .rest
                .get(..name.len())
                .is_some_and(|text| text.eq_ignore_ascii_case(name));
            if matches && best.is_none_or(|(_, length)| length < name.len()) {
                best = Some((index, name.len()));
            }
        }
        let Some((index, length)) = best else {
            let shown: String = self
                .rest
                .chars()
                .take_while(|character| !character.is_whitespace())
                .collect();
            return Err(invalid(format!(
                "invalid value \"{shown}\" for \"{}\"",
                keyword_name(keyword)
            ))
            .with_detail("The given value did not match any of the allowed values for this field."));
        };
        self.rest = &self.rest[length..];
        Ok(index)
    }
}

fn read(text: &str, pattern: &str) -> Result<Fields> {
    let parts = parts(pattern);
    let mut reader = Reader { rest: text };
    let mut fields = Fields::default();
    for (index, part) in parts.iter().enumerate() {
        if reader.rest.is_empty() {
            break;
        }
        match part {
            Part::Literal(character) if character.is_whitespace() => reader.skip_blanks(),
            Part::Literal(character) => {
                // Any separator stands for any other.
                reader.skip_blanks();
                if let Some(next) = reader.rest.chars().next() {
                    let both_separators = !character.is_alphanumeric() && !next.is_alphanumeric();
                    let sign_of_zone = matches!(next, '+' | '-')
                        && matches!(
                            parts.get(index + 1),
                            Some(Part::Field {
                                keyword: Keyword::ZoneHours | Keyword::ZoneOffset,
                                ..
                            })
                        );
                    if (both_separators && !sign_of_zone) || character.is_alphanumeric() {
                        reader.rest = &reader.rest[next.len_utf8()..];
                    }
                }
            }
            Part::Field { keyword, ordinal, .. } => {
                let greedy = !matches!(parts.get(index + 1), Some(Part::Field { .. }));
                field(&mut fields, &mut reader, *keyword, greedy)?;
                if ordinal.is_some() {
                    reader.rest = reader.rest.get(2..).unwrap_or("");
                }
            }
        }
    }
    Ok(fields)
}

fn field(fields: &mut Fields, reader: &mut Reader<'_>, keyword: Keyword, greedy: bool) -> Result<()> {
    let flag = |reader: &mut Reader<'_>, dots: bool, words: [&str; 4]| {
        reader.skip_blanks();
        let choices = if dots {
            [words[2], words[3]]
        } else {
            [words[0], words[1]]
        };
        let found = choices.iter().position(|word| {
            reader
                .rest
                .get(..word.len())
                .is_some_and(|text| text.eq_ignore_ascii_case(word))
        });
        match found {
            Some(index) => {
                reader.rest = &reader.rest[choices[index].len()..];
                Ok(index == 1)
            }
            None => Err(invalid(format!(
                "invalid value \"{}\" for \"{}\"",
                reader.rest.chars().take(2).collect::<String>(),
                choices[0]
            ))
            .with_detail("The given value did not match any of the allowed values for this field.")),
        }
    };
    let fraction = |reader: &mut Reader<'_>, width: u32| {
        let (value, length) = reader.number(keyword, width as usize, false)?;
        // `.5` with MS is 500 milliseconds.
        Ok::<i64, Box<SqlError>>(value * 10_i64.pow(6_u32.saturating_sub(length as u32)))
    };
    match keyword {
        Keyword::Year(width) => {
            let (value, length) = reader.number(keyword, width as usize, greedy && width == 4)?;
            fields.year = Some(if width < 4 && length < 4 {
                // The year nearest to 2020.
                match length {
                    3 if value < 100 => value + 2_000,
                    3 if value < 520 => value + 2_000,
                    3 => value + 1_000,
                    _ if value < 70 => value + 2_000,
                    _ => value + 1_900,
                }
            } else {
                value
            });
            fields.two_digits = width < 4;
        }
        Keyword::YearWithComma => {
            let (thousands, _) = reader.number(keyword, 1, true)?;
            reader.rest = reader.rest.strip_prefix(',').unwrap_or(reader.rest);
            let (rest, _) = reader.number(keyword, 3, false)?;
            fields.year = Some(thousands * 1_000 + rest);
        }
        Keyword::Month => fields.month = Some(reader.number(keyword, 2, greedy)?.0),
        Keyword::MonthName => fields.month = Some(reader.name(keyword, &MONTHS, false)? as i64 + 1),
        Keyword::MonthAbbreviation => fields.month = Some(reader.name(keyword, &MONTHS, true)? as i64 + 1),
        Keyword::RomanMonth => fields.month = Some(reader.name(keyword, &ROMAN_MONTHS, false)? as i64 + 1),
        Keyword::Day => fields.day = Some(reader.number(keyword, 2, greedy)?.0),
        Keyword::DayOfYear => fields.day_of_year = Some(reader.number(keyword, 3, greedy)?.0),
        Keyword::Julian => fields.julian = Some(reader.number(keyword, 7, true)?.0),
        Keyword::IsoYear(4) => fields.iso_year = Some(reader.number(keyword, 4, greedy)?.0),
        Keyword::IsoWeek => fields.iso_week = Some(reader.number(keyword, 2, greedy)?.0),
        Keyword::IsoDayOfWeek => fields.iso_day = Some(reader.number(keyword, 1, greedy)?.0),
        Keyword::DayName => {
            reader.name(keyword, &DAYS, false)?;
        }
        Keyword::DayAbbreviation => {
            reader.name(keyword, &DAYS, true)?;
        }
        Keyword::DayOfWeek => {
            reader.number(keyword, 1, greedy)?;
        }
        Keyword::Hour24 => fields.hour = reader.number(keyword, 2, greedy)?.0,
        Keyword::Hour12 => {
            fields.hour = reader.number(keyword, 2, greedy)?.0;
            fields.twelve_hours = true;
        }
        Keyword::Minute => fields.minute = reader.number(keyword, 2, greedy)?.0,
        Keyword::Seconds => fields.second = reader.number(keyword, 2, greedy)?.0,
        Keyword::Milliseconds => fields.micros += fraction(reader, 3)?,
        Keyword::Microseconds => fields.micros += fraction(reader, 6)?,
        Keyword::Fraction(width) => fields.micros += fraction(reader, width)?,
        Keyword::SecondsOfDay => fields.second_of_day = Some(reader.number(keyword, 5, greedy)?.0),
        Keyword::Meridiem { dots } => {
            fields.afternoon = Some(flag(reader, dots, ["AM", "PM", "A.M.", "P.M."])?);
            fields.twelve_hours = true;
        }
        Keyword::Era { dots } => fields.before_christ = flag(reader, dots, ["AD", "BC", "A.D.", "B.C."])?,
        Keyword::ZoneHours | Keyword::ZoneOffset => {
            reader.skip_blanks();
            fields.zone_negative = reader.rest.starts_with('-');
            reader.rest = reader.rest.strip_prefix(['+', '-']).unwrap_or(reader.rest);
            fields.zone_hours = reader.number(keyword, 2, false)?.0;
            if keyword == Keyword::ZoneOffset
                && let Some(rest) = reader.rest.strip_prefix(':')
            {
                reader.rest = rest;
                fields.zone_minutes = reader.number(keyword, 2, false)?.0;
            }
        }
        Keyword::ZoneMinutes => fields.zone_minutes = reader.number(keyword, 2, false)?.0,
        Keyword::Quarter => {
            // Read and ignored: no date follows from it.
            reader.number(keyword, 1, greedy)?;
        }
        Keyword::Century
        | Keyword::IsoYear(_)
        | Keyword::IsoDayOfYear
        | Keyword::Week
        | Keyword::WeekOfMonth => {
            return Err(SqlError::unsupported("this field of a date pattern"));
        }
        Keyword::ZoneName => {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "formatting field \"TZ\" is only supported in to_char",
            ));
        }
    }
    Ok(())
}

fn out_of_range(text: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

fn days_of(fields: &Fields, text: &str) -> Result<i64> {
    if let Some(julian) = fields.julian {
        return Ok(julian - 2_451_545);
    }
    if let Some(iso_year) = fields.iso_year {
        let week = fields.iso_week.unwrap_or(1);
        let day = fields.iso_day.unwrap_or(1);
        if !(1..=53).contains(&week) || !(1..=7).contains(&day) {
            return Err(out_of_range(text));
        }
        let fourth = days_from_civil(iso_year, 1, 4);
        let monday = fourth - (crate::datetime_fields::iso_weekday(fourth) - 1);
        return Ok(monday + (week - 1) * 7 + day - 1);
    }
    let year = match fields.year {
        Some(year) if fields.before_christ => 1 - year,
        // PostgreSQL reads year 0 as 1 BC here.
        Some(year) => year,
        None => 0,
    };
    if let Some(day_of_year) = fields.day_of_year {
        if !(1..=366).contains(&day_of_year) {
            return Err(out_of_range(text));
        }
        return Ok(days_from_civil(year, 1, 1) + day_of_year - 1);
    }
    let (month, day) = (fields.month.unwrap_or(1), fields.day.unwrap_or(1));
    let valid = (1..=12).contains(&month) && day >= 1 && day <= i64::from(days_in_month(year, month as u32));
    if valid {
        Ok(days_from_civil(year, month, day))
    } else {
        Err(out_of_range(text))
    }
}

/// `to_date(text, pattern)`
pub(crate) fn to_date(text: &Datum, pattern: &Datum) -> Result<Datum> {
    let (Datum::Text(text), Datum::Text(pattern)) = (text, pattern) else {
        return Err(mismatch(Function::ToDate));
    };
    let days = days_of(&read(text, pattern)?, text)?;
    if date_in_range(days) {
        return Ok(Datum::Date(days as i32));
    }
    Err(SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date out of range: \"{text}\""),
    ))
}

/// `to_timestamp(text, pattern)`
pub(crate) fn to_timestamp(text: &Datum, pattern: &Datum) -> Result<Datum> {
    let (Datum::Text(text), Datum::Text(pattern)) = (text, pattern) else {
        return Err(mismatch(Function::ToTimestamp));
    };
    let fields = read(text, pattern)?;
    let days = days_of(&fields, text)?;
    let mut hour = fields.hour;
    if fields.twelve_hours {
        if !(1..=12).contains(&hour) {
            return Err(
                invalid(format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."),
            );
        }
        match fields.afternoon {
            Some(true) if hour < 12 => hour += 12,
            Some(false) | None if hour == 12 => hour = 0,
            _ => {}
        }
    }
    if !(0..24).contains(&hour) || fields.minute > 59 || fields.second > 59 || fields.zone_minutes > 59 {
        return Err(out_of_range(text));
    }
    let time = match fields.second_of_day {
        Some(seconds) if seconds < 86_400 => seconds * MICROS_PER_SECOND,
        Some(_) => return Err(out_of_range(text)),
        None => {
            hour * MICROS_PER_HOUR + fields.minute * MICROS_PER_MINUTE + fields.second * MICROS_PER_SECOND
        }
    };
    let zone = fields.zone_hours * MICROS_PER_HOUR + fields.zone_minutes * MICROS_PER_MINUTE;
    let zone = if fields.zone_negative { -zone } else { zone };
    days.checked_mul(MICROS_PER_DAY)
        .and_then(|midnight| midnight.checked_add(time + fields.micros - zone))
        .filter(|&micros| timestamp_in_range(micros))
        .map(Datum::TimestampTz)
        .ok_or_else(|| {
            SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("timestamp out of range: \"{text}\""),
            )
        })
}
