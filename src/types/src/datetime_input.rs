//! Input of date, time, timestamp and timestamptz: `DateStyle ISO, MDY`, zones as offsets, UTC and fixed
//! abbreviations. The session's zone is UTC.

use crate::calendar::{
    DATE_INFINITY, DATE_MINUS_INFINITY, MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE,
    MICROS_PER_SECOND, TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, date_in_range, days_from_civil,
    days_in_month, split_timestamp, timestamp_in_range,
};
use crate::datetime_decode::DateTimeError::BadFormat;
use crate::datetime_decode::{decode, decode_bare_time, decode_zone};
use crate::datetime_tokens::zone_minutes;
use crate::{Result, SqlError, SqlState};

/// `date_in`: days since 2000-01-01.
pub(crate) fn parse_date(text: &str, now_unix_micros: Option<i64>) -> Result<i32> {
    let parsed = decode(text, now_unix_micros).map_err(|error| error.report("date", text))?;
    if let Some(positive) = parsed.infinity {
        return Ok(if positive {
            DATE_INFINITY
        } else {
            DATE_MINUS_INFINITY
        });
    }
    let days = match parsed.moment {
        Some(moment) => split_timestamp(moment).0,
        None if parsed.has_date => days_from_civil(parsed.year, parsed.month, parsed.day),
        None => return Err(BadFormat.report("date", text)),
    };
    if date_in_range(days) {
        return Ok(days as i32);
    }
    Err(SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date out of range: \"{text}\""),
    ))
}

/// `time_in`: microseconds since midnight.
pub(crate) fn parse_time(text: &str, now_unix_micros: Option<i64>) -> Result<i64> {
    let bad = || BadFormat.report("time", text);
    // A bare `hhmmss` or `hhmm` is a time here, and a bare number without a colon is one after a `t`.
    let trimmed = text.trim();
    let bare = trimmed.strip_prefix(['t', 'T']).unwrap_or(trimmed);
    let whole = bare.split('.').next().unwrap_or(bare);
    if matches!(whole.len(), 4 | 6) && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return decode_bare_time(bare).map_err(|error| error.report("time", text));
    }
    let timed = if bare.starts_with(|first: char| first.is_ascii_digit()) {
        bare
    } else {
        text
    };
    let parsed = decode(timed, now_unix_micros).map_err(|error| error.report("time", text))?;
    if parsed.infinity.is_some() {
        return Err(bad());
    }
    match parsed.moment {
        Some(moment) => Ok(split_timestamp(moment).1),
        None if parsed.has_time => Ok(parsed.time_micros),
        None => Err(bad()),
    }
}

/// `YYYY-MM-DD hh:mm:ss[.ffffff][Z|+hh|-hh]` without any of the freedoms, which is how programs write: an order
/// of magnitude faster than the general way. `None` for anything else, errors included.
fn canonical_timestamp(text: &str, zoned: bool) -> Option<i64> {
    let bytes = text.as_bytes();
    let (head, tail) = bytes.split_at_checked(19)?;
    let digits = |range: std::ops::Range<usize>| {
        head[range].iter().try_fold(0_i64, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    if head[4] != b'-'
        || head[7] != b'-'
        || !matches!(head[10], b' ' | b'T')
        || head[13] != b':'
        || head[16] != b':'
    {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let valid = year > 0
        && (1..=12).contains(&month)
        && day >= 1
        && day <= i64::from(days_in_month(year, month as u32))
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let mut rest = tail;
    let mut micros = 0;
    if let [b'.', fraction @ ..] = tail {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || length > 6 {
            return None;
        }
        for byte in &fraction[..length] {
            micros = micros * 10 + i64::from(byte - b'0');
        }
        micros *= 10_i64.pow(6 - length as u32);
        rest = &fraction[length..];
    }
    let east_hours = match rest {
        b"" | b"Z" | b"+00" | b"-00" => 0,
        [sign @ (b'+' | b'-'), tens @ b'0'..=b'1', ones @ b'0'..=b'9'] => {
            let hours = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            if hours > 15 {
                return None;
            }
            if *sign == b'-' { -hours } else { hours }
        }
        _ => return None,
    };
    let local = days_from_civil(year, month, day) * MICROS_PER_DAY
        + hour * MICROS_PER_HOUR
        + minute * MICROS_PER_MINUTE
        + second * MICROS_PER_SECOND
        + micros;
    Some(if zoned {
        local - east_hours * MICROS_PER_HOUR
    } else {
        local
    })
}

fn timestamp(text: &str, now: Option<i64>, type_name: &str, zoned: bool) -> Result<i64> {
    if let Some(micros) = canonical_timestamp(text, zoned) {
        return Ok(micros);
    }
    let parsed = decode(text, now).map_err(|error| error.report(type_name, text))?;
    if let Some(positive) = parsed.infinity {
        return Ok(if positive {
            TIMESTAMP_INFINITY
        } else {
            TIMESTAMP_MINUS_INFINITY
        });
    }
    if let Some(moment) = parsed.moment {
        return Ok(moment);
    }
    if !parsed.has_date {
        return Err(BadFormat.report(type_name, text));
    }
    let days = i128::from(days_from_civil(parsed.year, parsed.month, parsed.day));
    let mut micros = days * i128::from(MICROS_PER_DAY) + i128::from(parsed.time_micros);
    // A timestamp without time zone ignores the zone that it is given.
    if zoned {
        micros -= i128::from(parsed.zone_east_micros.unwrap_or(0));
    }
    i64::try_from(micros)
        .ok()
        .filter(|&micros| timestamp_in_range(micros))
        .ok_or_else(|| {
            SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("timestamp out of range: \"{text}\""),
            )
        })
}

/// `timestamp_in`: microseconds since 2000-01-01.
pub(crate) fn parse_timestamp(text: &str, now_unix_micros: Option<i64>) -> Result<i64> {
    timestamp(text, now_unix_micros, "timestamp", false)
}

/// `timestamptz_in`: microseconds since 2000-01-01 UTC.
pub(crate) fn parse_timestamp_tz(text: &str, now_unix_micros: Option<i64>) -> Result<i64> {
    timestamp(text, now_unix_micros, "timestamp with time zone", true)
}

/// Microseconds east of Greenwich of a zone as `SET TIME ZONE`, `AT TIME ZONE` and inputs name it: an offset,
/// UTC, or an abbreviation.
///
/// # Errors
/// `22023` for a zone that is not known.
pub fn zone_offset_micros(zone: &str) -> Result<i64> {
    let lower = zone.trim().to_ascii_lowercase();
    let unknown = || {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("time zone \"{zone}\" not recognized"),
        )
    };
    if let Some(minutes) = zone_minutes(&lower) {
        return Ok(minutes * MICROS_PER_MINUTE);
    }
    if lower.starts_with(['+', '-']) || lower.starts_with(|first: char| first.is_ascii_digit()) {
        // A bare offset is read as POSIX does: positive is west.
        return decode_zone(&lower).map(|east| -east).map_err(|_| unknown());
    }
    Err(unknown())
}
