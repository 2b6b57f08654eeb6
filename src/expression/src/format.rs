//! `to_char` of timestamps and intervals; numbers are in [`crate::format_number`].

use neorunbase_types::calendar::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, civil_from_days, days_from_civil,
    split_timestamp,
};
use neorunbase_types::interval::is_infinite_timestamp;
use neorunbase_types::{Datum, Result, SqlError, SqlState};

use crate::call::mismatch;
use crate::datetime_fields::{iso_weekday, iso_year_and_week};
use crate::format_keyword::{DAYS, Keyword, LetterCase, MONTHS, Part, ROMAN_MONTHS, parts};
use crate::format_number;
use crate::function::Function;

/// The fields that patterns show.
struct Fields {
    /// Astronomical.
    year: i64,
    month: i64,
    day: i64,
    /// Of the day, or of the interval.
    time: i64,
    /// Days since 2000-01-01; `None` for intervals.
    date: Option<i64>,
    zoned: bool,
}

/// `to_char(value, pattern)`
pub(crate) fn to_char(value: &Datum, pattern: &Datum) -> Result<Datum> {
    let Datum::Text(pattern) = pattern else {
        return Err(mismatch(Function::ToChar));
    };
    let fields = match value {
        Datum::Timestamp(micros) | Datum::TimestampTz(micros) => {
            if is_infinite_timestamp(*micros) || pattern.is_empty() {
                return Ok(Datum::Null);
            }
            let (days, time) = split_timestamp(*micros);
            let (year, month, day) = civil_from_days(days);
            Fields {
                year,
                month: i64::from(month),
                day: i64::from(day),
                time,
                date: Some(days),
                zoned: matches!(value, Datum::TimestampTz(_)),
            }
        }
        Datum::Interval(span) => {
            if pattern.is_empty() {
                return Ok(Datum::Null);
            }
            Fields {
                year: i64::from(span.months / 12),
                month: i64::from(span.months % 12),
                day: i64::from(span.days),
                time: span.micros,
                date: None,
                zoned: false,
            }
        }
        _ => return format_number::to_char(value, pattern).map(|text| Datum::Text(text.into())),
    };
    let mut output = String::new();
    for part in parts(pattern) {
        match part {
            Part::Literal(character) => output.push(character),
            Part::Field {
                keyword,
                case,
                fill_mode,
                ordinal,
            } => {
                let text = field(&fields, keyword, case, fill_mode)?;
                if let Some(case) = ordinal {
                    let suffix = ordinal_suffix(text.trim());
                    output.push_str(&text);
                    output.push_str(&if case == LetterCase::Upper {
                        suffix.to_uppercase()
                    } else {
                        suffix.to_owned()
                    });
                } else {
                    output.push_str(&text);
                }
            }
        }
    }
    Ok(Datum::Text(output.into()))
}

/// `st`, `nd`, `rd` or `th`.
pub(crate) fn ordinal_suffix(digits: &str) -> &'static str {
    let bytes = digits.as_bytes();
    let last = bytes.last().copied().unwrap_or(b'0');
    if bytes.len() > 1 && bytes[bytes.len() - 2] == b'1' {
        return "th";
    }
    match last {
        b'1' => "st",
        b'2' => "nd",
        b'3' => "rd",
        _ => "th",
    }
}

fn cased(text: &str, case: LetterCase) -> String {
    match case {
        LetterCase::Upper => text.to_uppercase(),
        LetterCase::Lower => text.to_lowercase(),
        LetterCase::Capitalised => text.to_owned(),
    }
}

/// As C's `%0*d`: a sign takes its place of the width.
fn padded_number(value: i64, width: usize, fill_mode: bool) -> String {
    if fill_mode {
        value.to_string()
    } else {
        format!("{value:0width$}")
    }
}

fn needs_date(fields: &Fields) -> Result<i64> {
    fields.date.ok_or_else(|| {
        SqlError::new(
            SqlState::INVALID_DATETIME_FORMAT,
            "invalid format specification for an interval value",
        )
        .with_hint("Intervals are not tied to specific calendar dates.")
    })
}

fn field(fields: &Fields, keyword: Keyword, case: LetterCase, fill_mode: bool) -> Result<String> {
    let number = |value: i64, width: usize| padded_number(value, width, fill_mode);
    // Fields of the clock, and years, keep their digits when they are negative.
    let clock = |value: i64, width: usize| padded_number(value, width + usize::from(value < 0), fill_mode);
    let name = |text: &str, width: usize| {
        let text = cased(text, case);
        if fill_mode { text } else { format!("{text:width$}") }
    };
    let hour = fields.time / MICROS_PER_HOUR;
    let in_day = fields.time.rem_euclid(MICROS_PER_DAY);
    let fraction = fields.time % MICROS_PER_SECOND;
    // There is no year 0: 1 BC is shown as 1.
    let year = if fields.date.is_some() && fields.year <= 0 {
        1 - fields.year
    } else {
        fields.year
    };
    Ok(match keyword {
        Keyword::Era { dots } => {
            let text = match (fields.year <= 0 && fields.date.is_some(), dots) {
                (true, true) => "B.C.",
                (true, false) => "BC",
                (false, true) => "A.D.",
                (false, false) => "AD",
            };
            cased(text, case)
        }
        Keyword::Meridiem { dots } => {
            let afternoon = in_day >= 12 * MICROS_PER_HOUR;
            let text = match (afternoon, dots) {
                (true, true) => "P.M.",
                (true, false) => "PM",
                (false, true) => "A.M.",
                (false, false) => "AM",
            };
            cased(text, case)
        }
        Keyword::Century => {
            let century = if fields.date.is_none() {
                fields.year / 100
            } else if fields.year > 0 {
                (fields.year - 1) / 100 + 1
            } else {
                fields.year / 100 - 1
            };
            if (-99..=99).contains(&century) {
                number(century, 2)
            } else {
                century.to_string()
            }
        }
        Keyword::DayName => name(DAYS[(iso_weekday(needs_date(fields)?) % 7) as usize], 9),
        Keyword::DayAbbreviation => cased(&DAYS[(iso_weekday(needs_date(fields)?) % 7) as usize][..3], case),
        Keyword::DayOfYear => match fields.date {
            Some(date) => number(date - days_from_civil(fields.year, 1, 1) + 1, 3),
            None => number(fields.year * 365 + fields.month * 30 + fields.day, 3),
        },
        Keyword::IsoDayOfYear => {
            let date = needs_date(fields)?;
            let (_, week) = iso_year_and_week(date);
            number((week - 1) * 7 + iso_weekday(date), 3)
        }
        Keyword::Day => number(fields.day, 2),
        Keyword::DayOfWeek => (iso_weekday(needs_date(fields)?) % 7 + 1).to_string(),
        Keyword::IsoDayOfWeek => iso_weekday(needs_date(fields)?).to_string(),
        Keyword::Fraction(digits) => {
            let divisor = 10_i64.pow(6 - digits);
            let width = digits as usize;
            format!("{:0width$}", fraction.abs() / divisor)
        }
        Keyword::Hour12 => {
            let twelve = hour % 12;
            clock(if twelve == 0 { 12 } else { twelve }, 2)
        }
        Keyword::Hour24 => clock(hour, 2),
        Keyword::IsoYear(digits) => {
            let (iso_year, _) = iso_year_and_week(needs_date(fields)?);
            let iso_year = if iso_year <= 0 { 1 - iso_year } else { iso_year };
            year_digits(iso_year, digits, fill_mode)
        }
        Keyword::IsoWeek => number(iso_year_and_week(needs_date(fields)?).1, 2),
        Keyword::Julian => (needs_date(fields)? + 2_451_545).to_string(),
        Keyword::Minute => clock(fields.time / MICROS_PER_MINUTE % 60, 2),
        Keyword::Month => number(fields.month, 2),
        Keyword::MonthName => name(month_of(fields, &MONTHS)?, 9),
        Keyword::MonthAbbreviation => {
            let text = month_of(fields, &MONTHS)?;
            cased(text.get(..3).unwrap_or(text), case)
        }
        Keyword::Milliseconds => format!("{:03}", fraction / 1_000),
        Keyword::Microseconds => format!("{fraction:06}"),
        Keyword::ZoneOffset => {
            needs_date(fields)?;
            "+00".to_owned()
        }
        Keyword::ZoneHours => {
            needs_date(fields)?;
            "+00".to_owned()
        }
        Keyword::ZoneMinutes => {
            needs_date(fields)?;
            "00".to_owned()
        }
        Keyword::ZoneName => {
            needs_date(fields)?;
            if fields.zoned {
                cased("UTC", case)
            } else {
                String::new()
            }
        }
        Keyword::Quarter => {
            if fields.month == 0 {
                String::new()
            } else {
                ((fields.month - 1) / 3 + 1).to_string()
            }
        }
        Keyword::RomanMonth => {
            let text = cased(month_of(fields, &ROMAN_MONTHS)?, case);
            if fill_mode { text } else { format!("{text:4}") }
        }
        Keyword::Seconds => clock(fields.time / MICROS_PER_SECOND % 60, 2),
        Keyword::SecondsOfDay => (fields.time / MICROS_PER_SECOND).to_string(),
        Keyword::Week => {
            let date = needs_date(fields)?;
            number((date - days_from_civil(fields.year, 1, 1)) / 7 + 1, 2)
        }
        Keyword::WeekOfMonth => ((fields.day - 1) / 7 + 1).to_string(),
        Keyword::YearWithComma => {
            let (thousands, rest) = (year / 1_000, year % 1_000);
            format!("{thousands},{rest:03}")
        }
        Keyword::Year(digits) => year_digits(year, digits, fill_mode),
    })
}

fn year_digits(year: i64, digits: u32, fill_mode: bool) -> String {
    let shown = if digits == 4 {
        year
    } else {
        year % 10_i64.pow(digits)
    };
    padded_number(shown, digits as usize + usize::from(shown < 0), fill_mode)
}

fn month_of<'names>(fields: &Fields, names: &[&'names str; 12]) -> Result<&'names str> {
    if fields.date.is_none() && fields.month == 0 {
        return Ok("");
    }
    let index = (fields.month - 1).rem_euclid(12) as usize;
    Ok(names[index])
}
