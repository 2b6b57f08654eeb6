//! Input of intervals: `1 year 2 mons 3 days 04:05:06`, ISO 8601 `P1Y2M3DT4H5M6S`, SQL `1-2` and `3 4:05:06`.

use crate::calendar::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};
use crate::datetime_decode::{DateTimeError, clock_micros};
use crate::datetime_tokens::{TokenKind, tokenize};
use crate::{Interval, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecond" | "useconds" | "usecs" | "microsecond" | "microseconds" | "microsecon" => {
            Unit::Microsecond
        }
        "ms" | "msec" | "msecond" | "mseconds" | "msecs" | "millisecond" | "milliseconds" | "millisecon" => {
            Unit::Millisecond
        }
        "s" | "sec" | "second" | "seconds" | "secs" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hour" | "hours" | "hr" | "hrs" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "year" | "years" | "yr" | "yrs" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennia" | "millennium" => Unit::Millennium,
        _ => return None,
    })
}

#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

type Outcome<T = ()> = std::result::Result<T, DateTimeError>;

impl Sum {
    fn add_micros(&mut self, value: i64, fraction: f64, unit_micros: i64) -> Outcome {
        let whole = value
            .checked_mul(unit_micros)
            .ok_or(DateTimeError::IntervalOverflow)?;
        let part = (fraction * unit_micros as f64).round_ties_even() as i64;
        self.micros = self
            .micros
            .checked_add(whole)
            .and_then(|sum| sum.checked_add(part))
            .ok_or(DateTimeError::IntervalOverflow)?;
        Ok(())
    }

    fn add_days(&mut self, value: i64, fraction: f64, unit_days: i64) -> Outcome {
        let days = value
            .checked_mul(unit_days)
            .ok_or(DateTimeError::IntervalOverflow)?;
        let part = fraction * unit_days as f64;
        let whole = part.trunc();
        self.days = self
            .days
            .checked_add(days + whole as i64)
            .ok_or(DateTimeError::IntervalOverflow)?;
        self.add_micros(0, part - whole, MICROS_PER_DAY)
    }

    fn add_months(&mut self, value: i64, months: i64) -> Outcome {
        let product = value.checked_mul(months).ok_or(DateTimeError::IntervalOverflow)?;
        self.months = self
            .months
            .checked_add(product)
            .ok_or(DateTimeError::IntervalOverflow)?;
        Ok(())
    }

    fn add(&mut self, value: i64, fraction: f64, unit: Unit) -> Outcome {
        let years = |sum: &mut Self, count: i64| {
            // PostgreSQL counts years in an int.
            let whole = value
                .checked_mul(count)
                .filter(|years| i32::try_from(*years).is_ok());
            whole.ok_or(DateTimeError::IntervalOverflow)?;
            sum.add_months(value, 12 * count)?;
            sum.add_months((fraction * 12.0 * count as f64).round_ties_even() as i64, 1)
        };
        match unit {
            Unit::Microsecond => self.add_micros(value, fraction, 1),
            Unit::Millisecond => self.add_micros(value, fraction, 1_000),
            Unit::Second => self.add_micros(value, fraction, MICROS_PER_SECOND),
            Unit::Minute => self.add_micros(value, fraction, MICROS_PER_MINUTE),
            Unit::Hour => self.add_micros(value, fraction, MICROS_PER_HOUR),
            Unit::Day => self.add_days(value, fraction, 1),
            Unit::Week => self.add_days(value, fraction, 7),
            Unit::Month => {
                self.add_months(value, 1)?;
                self.add_days(0, fraction, 30)
            }
            Unit::Year => years(self, 1),
            Unit::Decade => years(self, 10),
            Unit::Century => years(self, 100),
            Unit::Millennium => years(self, 1_000),
        }
    }

    fn finish(self) -> Outcome<Interval> {
        let narrow = |value: i64| i32::try_from(value).map_err(|_| DateTimeError::IntervalOverflow);
        let months = i32::try_from(self.months).map_err(|_| DateTimeError::IntervalOutOfRange)?;
        Ok(Interval {
            months,
            days: narrow(self.days)?,
            micros: self.micros,
        })
    }
}

/// A signed number split into its whole part and its fraction, which carries the sign too.
fn split_number(text: &str) -> Outcome<(i64, f64)> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(DateTimeError::BadFormat);
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| DateTimeError::IntervalOverflow)?
    };
    let fraction: f64 = if fraction.is_empty() {
        0.0
    } else {
        format!("0.{fraction}")
            .parse()
            .map_err(|_| DateTimeError::BadFormat)?
    };
    Ok(if negative {
        (-whole, -fraction)
    } else {
        (whole, fraction)
    })
}

fn add_clock(sum: &mut Sum, text: &str) -> Outcome {
    let (negative, clock) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        _ => (false, text.trim_start_matches('+')),
    };
    let (hours, minutes, second_micros) = clock_micros(clock).map_err(|error| match error {
        DateTimeError::FieldOverflow => DateTimeError::IntervalOverflow,
        other => other,
    })?;
    if minutes > 59 || second_micros >= 60 * MICROS_PER_SECOND {
        return Err(DateTimeError::FieldOverflow);
    }
    let sign = if negative { -1 } else { 1 };
    sum.add_micros(sign * hours, 0.0, MICROS_PER_HOUR)?;
    sum.add_micros(sign * (minutes * MICROS_PER_MINUTE + second_micros), 0.0, 1)
}

fn verbose(text: &str) -> Outcome<Interval> {
    let lower = text.to_ascii_lowercase();
    let mut scratch = String::new();
    let tokens = tokenize(&lower, &mut scratch).ok_or(DateTimeError::BadFormat)?;
    if tokens.is_empty() {
        return Err(DateTimeError::BadFormat);
    }
    let mut sum = Sum::default();
    let mut seen_units = Vec::new();
    let mut seen_clock = false;
    let mut index = 0;
    let mut anything = false;
    let mut ago = false;
    while index < tokens.len() {
        let token = tokens[index];
        index += 1;
        match token.kind {
            TokenKind::Time => {
                if std::mem::replace(&mut seen_clock, true) {
                    return Err(DateTimeError::BadFormat);
                }
                add_clock(&mut sum, token.text)?;
            }
            TokenKind::Zone if token.text.contains(':') => {
                if std::mem::replace(&mut seen_clock, true) {
                    return Err(DateTimeError::BadFormat);
                }
                add_clock(&mut sum, token.text)?;
            }
            TokenKind::Date | TokenKind::Zone if token.text[1..].contains('-') => {
                // SQL's years-months.
                let (sign, unsigned) = match token.text.as_bytes()[0] {
                    b'-' => (-1, &token.text[1..]),
                    b'+' => (1, &token.text[1..]),
                    _ => (1, token.text),
                };
                let (years, months) = unsigned.split_once('-').ok_or(DateTimeError::BadFormat)?;
                let (years, _) = split_number(years)?;
                let (months, fraction) = split_number(months)?;
                if !(0..12).contains(&months) || fraction != 0.0 {
                    return Err(DateTimeError::FieldOverflow);
                }
                sum.add_months(sign * years, 12)?;
                sum.add_months(sign * months, 1)?;
            }
            TokenKind::Number | TokenKind::Zone => {
                let (value, fraction) = split_number(token.text)?;
                let next = tokens.get(index);
                let chosen = match next {
                    Some(next) if next.kind == TokenKind::Word && next.text != "ago" => {
                        index += 1;
                        unit(next.text).ok_or(DateTimeError::BadFormat)?
                    }
                    // `3 4:05:06`
                    Some(next)
                        if next.kind == TokenKind::Time
                            || (next.kind == TokenKind::Zone && next.text.contains(':')) =>
                    {
                        Unit::Day
                    }
                    None => Unit::Second,
                    Some(next) if next.text == "ago" => Unit::Second,
                    Some(_) => return Err(DateTimeError::BadFormat),
                };
                if seen_units.contains(&chosen) {
                    return Err(DateTimeError::BadFormat);
                }
                seen_units.push(chosen);
                sum.add(value, fraction, chosen)?;
            }
            TokenKind::Word if token.text == "ago" && anything => {
                ago = true;
                continue;
            }
            _ => return Err(DateTimeError::BadFormat),
        }
        anything = true;
    }
    if ago {
        sum = Sum {
            months: -sum.months,
            days: -sum.days,
            micros: sum.micros.saturating_neg(),
        };
    }
    sum.finish()
}

fn iso8601(text: &str) -> Outcome<Interval> {
    let mut sum = Sum::default();
    let mut in_time = false;
    let mut rest = &text[1..];
    if rest.is_empty() {
        return Err(DateTimeError::BadFormat);
    }
    if let Some(interval) = iso8601_alternative(rest)? {
        return Ok(interval);
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T') {
            if in_time {
                return Err(DateTimeError::BadFormat);
            }
            in_time = true;
            rest = after;
            continue;
        }
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || b"+-.".contains(byte))
            .count();
        let (value, fraction) = split_number(&rest[..length])?;
        let chosen = match (in_time, rest.as_bytes().get(length)) {
            (false, Some(b'Y')) => Unit::Year,
            (false, Some(b'M')) => Unit::Month,
            (false, Some(b'W')) => Unit::Week,
            (false, Some(b'D')) => Unit::Day,
            (true, Some(b'H')) => Unit::Hour,
            (true, Some(b'M')) => Unit::Minute,
            (true, Some(b'S')) => Unit::Second,
            _ => return Err(DateTimeError::BadFormat),
        };
        sum.add(value, fraction, chosen)?;
        rest = &rest[length + 1..];
    }
    sum.finish()
}

/// `P0001-02-03T04:05:06` and `P00010203T040506`; `None` if the text is not of this form.
fn iso8601_alternative(text: &str) -> Outcome<Option<Interval>> {
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut sum = Sum::default();
    if date.len() == 8 && all_digits(date) {
        sum.add(split_number(&date[..4])?.0, 0.0, Unit::Year)?;
        sum.add(split_number(&date[4..6])?.0, 0.0, Unit::Month)?;
        sum.add(split_number(&date[6..])?.0, 0.0, Unit::Day)?;
    } else if !date.is_empty() {
        let parts: Vec<&str> = date.split('-').collect();
        if parts.len() < 2 || parts.len() > 3 || !parts.iter().all(|part| all_digits(part)) {
            return Ok(None);
        }
        for (part, unit) in parts.iter().zip([Unit::Year, Unit::Month, Unit::Day]) {
            sum.add(split_number(part)?.0, 0.0, unit)?;
        }
    }
    if time.contains(':') {
        add_clock(&mut sum, time)?;
    } else if time.len() == 6 && all_digits(time) {
        add_clock(
            &mut sum,
            &format!("{}:{}:{}", &time[..2], &time[2..4], &time[4..]),
        )?;
    } else if !time.is_empty() || date.is_empty() {
        return Ok(None);
    }
    sum.finish().map(Some)
}

/// `interval_in`.
pub(crate) fn parse_interval(text: &str) -> Result<Interval> {
    let parsed = if text.starts_with('P') {
        iso8601(text)
    } else {
        verbose(text)
    };
    let parsed = parsed.map_err(|error| match error {
        DateTimeError::FieldOverflow => DateTimeError::IntervalOverflow,
        other => other,
    });
    parsed.map_err(|error| error.report("interval", text))
}
