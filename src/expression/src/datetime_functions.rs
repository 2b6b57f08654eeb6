//! Functions that make and change dates, times and intervals.

use neorunbase_types::calendar::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY, UNIX_EPOCH_TO_POSTGRES_MICROS, date_in_range, days_from_civil, days_in_month,
    split_timestamp, timestamp_from_unix_micros, timestamp_in_range,
};
use neorunbase_types::interval::{
    is_infinite_date, is_infinite_timestamp, justify_days, justify_hours, timestamp_out_of_range,
};
use neorunbase_types::{Datum, Interval, Result, SqlError, SqlState, SqlType, datetime_input, interval};

use crate::call::mismatch;
use crate::function::Function as F;

fn field_out_of_range(message: String) -> Box<SqlError> {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message)
}

/// `now()`, `current_date` and so on.
pub(crate) fn current(function: F, now_unix_micros: i64) -> Datum {
    let now = timestamp_from_unix_micros(now_unix_micros);
    match function {
        F::CurrentDate => Datum::Date(split_timestamp(now).0 as i32),
        F::LocalTimestamp => Datum::Timestamp(now),
        F::LocalTime => Datum::Time(split_timestamp(now).1),
        _ => Datum::TimestampTz(now),
    }
}

/// `to_timestamp(double precision)`: seconds since 1970.
pub(crate) fn to_timestamp(argument: &Datum) -> Result<Datum> {
    let Datum::DoublePrecision(seconds) = argument else {
        return Err(mismatch(F::ToTimestamp));
    };
    if seconds.is_nan() {
        return Err(field_out_of_range("timestamp cannot be NaN".to_owned()));
    }
    if seconds.is_infinite() {
        let micros = if *seconds > 0.0 {
            TIMESTAMP_INFINITY
        } else {
            TIMESTAMP_MINUS_INFINITY
        };
        return Ok(Datum::TimestampTz(micros));
    }
    let out_of_range = || field_out_of_range(format!("timestamp out of range: \"{seconds}\""));
    let since_2000 = seconds - (UNIX_EPOCH_TO_POSTGRES_MICROS / MICROS_PER_SECOND) as f64;
    let micros = (since_2000 * MICROS_PER_SECOND as f64).round_ties_even();
    if !(micros >= i64::MIN as f64 && micros < -(i64::MIN as f64)) {
        return Err(out_of_range());
    }
    let micros = micros as i64;
    if timestamp_in_range(micros) {
        Ok(Datum::TimestampTz(micros))
    } else {
        Err(out_of_range())
    }
}

pub(crate) fn unary(function: F, argument: &Datum) -> Result<Datum> {
    Ok(match (function, argument) {
        (F::JustifyDays, Datum::Interval(span)) => Datum::Interval(justify_days(span)?),
        (F::JustifyHours, Datum::Interval(span)) => Datum::Interval(justify_hours(span)?),
        (F::JustifyInterval, Datum::Interval(span)) => Datum::Interval(justify_interval(span)?),
        (F::IsFinite, Datum::Date(date)) => Datum::Boolean(!is_infinite_date(*date)),
        (F::IsFinite, Datum::Timestamp(moment) | Datum::TimestampTz(moment)) => {
            Datum::Boolean(!is_infinite_timestamp(*moment))
        }
        (F::IsFinite, Datum::Interval(_)) => Datum::Boolean(true),
        _ => return Err(mismatch(function)),
    })
}

fn justify_interval(span: &Interval) -> Result<Interval> {
    let carried = span.micros / MICROS_PER_DAY;
    let out_of_range = interval::interval_out_of_range;
    let mut micros = span.micros % MICROS_PER_DAY;
    let days = i64::from(span.days) + carried;
    let mut months = i32::try_from(i64::from(span.months) + days / 30).map_err(|_| out_of_range())?;
    let mut days = (days % 30) as i32;
    if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
        days += 30;
        months -= 1;
    } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
        days -= 30;
        months += 1;
    }
    if days > 0 && micros < 0 {
        micros += MICROS_PER_DAY;
        days -= 1;
    } else if days < 0 && micros > 0 {
        micros -= MICROS_PER_DAY;
        days += 1;
    }
    Ok(Interval { months, days, micros })
}

pub(crate) fn age(left: &Datum, right: &Datum) -> Result<Datum> {
    match (left, right) {
        (Datum::Timestamp(left), Datum::Timestamp(right))
        | (Datum::TimestampTz(left), Datum::TimestampTz(right)) => {
            interval::age(*left, *right).map(Datum::Interval)
        }
        _ => Err(mismatch(F::Age)),
    }
}

/// `timezone(zone, moment)`, which is `moment AT TIME ZONE zone`.
pub(crate) fn time_zone(zone: &Datum, moment: &Datum) -> Result<Datum> {
    let Datum::Text(zone) = zone else {
        return Err(mismatch(F::TimeZone));
    };
    let east = datetime_input::zone_offset_micros(zone)?;
    let shifted = |micros: i64, by: i64| {
        if is_infinite_timestamp(micros) {
            return Ok(micros);
        }
        let sum = micros.saturating_add(by);
        if timestamp_in_range(sum) {
            Ok(sum)
        } else {
            Err(timestamp_out_of_range())
        }
    };
    match moment {
        Datum::TimestampTz(micros) => shifted(*micros, east).map(Datum::Timestamp),
        Datum::Timestamp(micros) => shifted(*micros, -east).map(Datum::TimestampTz),
        _ => Err(mismatch(F::TimeZone)),
    }
}

/// A date from its fields; a negative year is before Christ.
fn civil(year: i32, month: i32, day: i32) -> Result<i64> {
    let invalid = || {
        field_out_of_range(format!(
            "date field value out of range: {year}-{month:02}-{day:02}"
        ))
    };
    let astronomical = if year < 0 {
        i64::from(year) + 1
    } else {
        i64::from(year)
    };
    if year == 0 || !(1..=12).contains(&month) || day < 1 {
        return Err(invalid());
    }
    if day as u32 > days_in_month(astronomical, month as u32) {
        return Err(invalid());
    }
    let days = days_from_civil(astronomical, i64::from(month), i64::from(day));
    if date_in_range(days) {
        return Ok(days);
    }
    Err(field_out_of_range(format!(
        "date out of range: {year}-{month:02}-{day:02}"
    )))
}

fn clock(hour: i32, minute: i32, second: f64) -> Result<i64> {
    let micros = (second * MICROS_PER_SECOND as f64).round_ties_even();
    let valid = (0..=24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..=60.0 * MICROS_PER_SECOND as f64).contains(&micros)
        && (hour < 24 || (minute == 0 && micros == 0.0));
    if !valid {
        return Err(field_out_of_range(format!(
            "time field value out of range: {hour}:{minute:02}:{}{second}",
            if second < 10.0 { "0" } else { "" }
        )));
    }
    Ok(i64::from(hour) * MICROS_PER_HOUR + i64::from(minute) * MICROS_PER_MINUTE + micros as i64)
}

pub(crate) fn make_date(arguments: &[Datum]) -> Result<Datum> {
    match arguments {
        [Datum::Integer(year), Datum::Integer(month), Datum::Integer(day)] => {
            civil(*year, *month, *day).map(|days| Datum::Date(days as i32))
        }
        _ => Err(mismatch(F::MakeDate)),
    }
}

pub(crate) fn make_time(arguments: &[Datum]) -> Result<Datum> {
    match arguments {
        [
            Datum::Integer(hour),
            Datum::Integer(minute),
            Datum::DoublePrecision(second),
        ] => clock(*hour, *minute, *second).map(Datum::Time),
        _ => Err(mismatch(F::MakeTime)),
    }
}

pub(crate) fn make_timestamp(arguments: &[Datum], sql_type: &SqlType) -> Result<Datum> {
    let [
        Datum::Integer(year),
        Datum::Integer(month),
        Datum::Integer(day),
        Datum::Integer(hour),
        Datum::Integer(minute),
        Datum::DoublePrecision(second),
    ] = arguments
    else {
        return Err(mismatch(F::MakeTimestamp));
    };
    let days = civil(*year, *month, *day)?;
    let micros = days
        .checked_mul(MICROS_PER_DAY)
        .and_then(|midnight| Some(midnight + clock(*hour, *minute, *second).ok()?));
    // The clock's own complaint comes first.
    clock(*hour, *minute, *second)?;
    let micros = micros
        .filter(|&micros| timestamp_in_range(micros))
        .ok_or_else(timestamp_out_of_range)?;
    Ok(if *sql_type == SqlType::TimestampTz {
        Datum::TimestampTz(micros)
    } else {
        Datum::Timestamp(micros)
    })
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`, all optional.
pub(crate) fn make_interval(arguments: &[Datum]) -> Result<Datum> {
    let whole = |index: usize| match arguments.get(index) {
        None => Ok(0_i64),
        Some(Datum::Integer(value)) => Ok(i64::from(*value)),
        Some(_) => Err(mismatch(F::MakeInterval)),
    };
    let seconds = match arguments.get(6) {
        None => 0.0,
        Some(Datum::DoublePrecision(seconds)) if seconds.is_finite() => *seconds,
        Some(Datum::DoublePrecision(_)) => return Err(interval::interval_out_of_range()),
        Some(_) => return Err(mismatch(F::MakeInterval)),
    };
    let narrow = |value: i64| i32::try_from(value).map_err(|_| interval::interval_out_of_range());
    let second_micros = (seconds * MICROS_PER_SECOND as f64).round_ties_even();
    if second_micros.abs() >= 9e18 {
        return Err(interval::interval_out_of_range());
    }
    let micros = (whole(4)? * MICROS_PER_HOUR + whole(5)? * MICROS_PER_MINUTE)
        .checked_add(second_micros as i64)
        .ok_or_else(interval::interval_out_of_range)?;
    Ok(Datum::Interval(Interval {
        months: narrow(whole(0)? * 12 + whole(1)?)?,
        days: narrow(whole(2)? * 7 + whole(3)?)?,
        micros,
    }))
}

/// `date_bin(stride, source, origin)`
pub(crate) fn date_bin(arguments: &[Datum]) -> Result<Datum> {
    let [Datum::Interval(stride), source, origin] = arguments else {
        return Err(mismatch(F::DateBin));
    };
    let ((Datum::Timestamp(source_micros), Datum::Timestamp(origin_micros))
    | (Datum::TimestampTz(source_micros), Datum::TimestampTz(origin_micros))) = (source, origin)
    else {
        return Err(mismatch(F::DateBin));
    };
    if is_infinite_timestamp(*source_micros) {
        return Ok(source.clone());
    }
    if is_infinite_timestamp(*origin_micros) {
        return Err(field_out_of_range("origin out of range".to_owned()));
    }
    if stride.months != 0 {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let stride_micros = i64::from(stride.days)
        .checked_mul(MICROS_PER_DAY)
        .and_then(|days| days.checked_add(stride.micros))
        .ok_or_else(interval::interval_out_of_range)?;
    if stride_micros <= 0 {
        return Err(field_out_of_range("stride must be greater than zero".to_owned()));
    }
    let distance = i128::from(*source_micros) - i128::from(*origin_micros);
    let binned = i128::from(*origin_micros)
        + distance.div_euclid(i128::from(stride_micros)) * i128::from(stride_micros);
    let binned = i64::try_from(binned).map_err(|_| timestamp_out_of_range())?;
    Ok(match source {
        Datum::TimestampTz(_) => Datum::TimestampTz(binned),
        _ => Datum::Timestamp(binned),
    })
}
