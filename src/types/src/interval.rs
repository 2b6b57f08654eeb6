//! Arithmetic of intervals with each other and with dates and timestamps.

use crate::calendar::{
    DATE_INFINITY, DATE_MINUS_INFINITY, MICROS_PER_DAY, MICROS_PER_SECOND, TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY, civil_from_days, date_in_range, days_from_civil, days_in_month,
    split_timestamp, timestamp_in_range,
};
use crate::{Interval, Result, SqlError, SqlState};

/// `22008` `interval out of range`
pub fn interval_out_of_range() -> Box<SqlError> {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

/// `22008` `timestamp out of range`
pub fn timestamp_out_of_range() -> Box<SqlError> {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// `22008` `date out of range`
pub fn date_out_of_range() -> Box<SqlError> {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

/// Whether the timestamp is one of the two infinities.
pub fn is_infinite_timestamp(micros: i64) -> bool {
    matches!(micros, TIMESTAMP_INFINITY | TIMESTAMP_MINUS_INFINITY)
}

/// Whether the date is one of the two infinities.
pub fn is_infinite_date(days: i32) -> bool {
    matches!(days, DATE_INFINITY | DATE_MINUS_INFINITY)
}

/// A date's midnight.
///
/// # Errors
/// `22008` if no timestamp reaches that far.
pub fn timestamp_from_date(days: i32) -> Result<i64> {
    match days {
        DATE_INFINITY => Ok(TIMESTAMP_INFINITY),
        DATE_MINUS_INFINITY => Ok(TIMESTAMP_MINUS_INFINITY),
        _ => i64::from(days)
            .checked_mul(MICROS_PER_DAY)
            .filter(|&micros| timestamp_in_range(micros))
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    "date out of range for timestamp",
                )
            }),
    }
}

/// A timestamp's day.
pub fn date_from_timestamp(micros: i64) -> i32 {
    match micros {
        TIMESTAMP_INFINITY => DATE_INFINITY,
        TIMESTAMP_MINUS_INFINITY => DATE_MINUS_INFINITY,
        _ => split_timestamp(micros).0 as i32,
    }
}

/// `timestamp + interval`: months first (the day is cut to the month's length), then days, then the rest.
///
/// # Errors
/// `22008` out of range.
pub fn add_to_timestamp(micros: i64, span: &Interval) -> Result<i64> {
    if is_infinite_timestamp(micros) {
        return Ok(micros);
    }
    let (mut days, time) = split_timestamp(micros);
    if span.months != 0 {
        let (year, month, day) = civil_from_days(days);
        let total = year * 12 + i64::from(month) - 1 + i64::from(span.months);
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
        days = days_from_civil(
            year,
            i64::from(month),
            i64::from(day.min(days_in_month(year, month))),
        );
    }
    days += i64::from(span.days);
    days.checked_mul(MICROS_PER_DAY)
        .and_then(|sum| sum.checked_add(time))
        .and_then(|sum| sum.checked_add(span.micros))
        .filter(|&sum| timestamp_in_range(sum))
        .ok_or_else(timestamp_out_of_range)
}

/// `date + integer`
///
/// # Errors
/// `22008` out of range.
pub fn add_days(date: i32, days: i32) -> Result<i32> {
    if is_infinite_date(date) {
        return Ok(date);
    }
    let sum = i64::from(date) + i64::from(days);
    if date_in_range(sum) {
        Ok(sum as i32)
    } else {
        Err(date_out_of_range())
    }
}

/// `timestamp - timestamp`: days and the rest of a day.
///
/// # Errors
/// `22008` for infinite timestamps.
pub fn subtract_timestamps(left: i64, right: i64) -> Result<Interval> {
    if is_infinite_timestamp(left) || is_infinite_timestamp(right) {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "cannot subtract infinite timestamps",
        ));
    }
    let micros = left.checked_sub(right).ok_or_else(interval_out_of_range)?;
    justify_hours(&Interval {
        months: 0,
        days: 0,
        micros,
    })
}

/// `- interval`
///
/// # Errors
/// `22008` out of range.
pub fn negate(span: &Interval) -> Result<Interval> {
    let negated = || {
        Some(Interval {
            months: span.months.checked_neg()?,
            days: span.days.checked_neg()?,
            micros: span.micros.checked_neg()?,
        })
    };
    negated().ok_or_else(interval_out_of_range)
}

/// `interval + interval`
///
/// # Errors
/// `22008` out of range.
pub fn add(left: &Interval, right: &Interval) -> Result<Interval> {
    let sum = || {
        Some(Interval {
            months: left.months.checked_add(right.months)?,
            days: left.days.checked_add(right.days)?,
            micros: left.micros.checked_add(right.micros)?,
        })
    };
    sum().ok_or_else(interval_out_of_range)
}

/// `interval - interval`
///
/// # Errors
/// `22008` out of range.
pub fn subtract(left: &Interval, right: &Interval) -> Result<Interval> {
    let difference = || {
        Some(Interval {
            months: left.months.checked_sub(right.months)?,
            days: left.days.checked_sub(right.days)?,
            micros: left.micros.checked_sub(right.micros)?,
        })
    };
    difference().ok_or_else(interval_out_of_range)
}

fn round_to_micros(value: f64) -> f64 {
    (value * 1_000_000.0).round_ties_even() / 1_000_000.0
}

fn scale_with(span: &Interval, apply: impl Fn(f64) -> f64) -> Result<Interval> {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    let whole = |value: f64| {
        // NaN fails both comparisons.
        if value >= f64::from(i32::MIN) && value < -f64::from(i32::MIN) {
            Ok(value as i32)
        } else {
            Err(interval_out_of_range())
        }
    };
    let exact_months = apply(f64::from(span.months));
    let months = whole(exact_months)?;
    let exact_days = apply(f64::from(span.days));
    let mut days = whole(exact_days)?;
    // Fractions of months become days, and fractions of days time.
    let month_days = round_to_micros((exact_months - f64::from(months)) * 30.0);
    let mut seconds = (exact_days - f64::from(days) + month_days - month_days.trunc()) * SECONDS_PER_DAY;
    seconds = round_to_micros(seconds);
    if seconds.abs() >= SECONDS_PER_DAY {
        let carried = (seconds / SECONDS_PER_DAY).trunc();
        days = days
            .checked_add(carried as i32)
            .ok_or_else(interval_out_of_range)?;
        seconds -= carried * SECONDS_PER_DAY;
    }
    days = days
        .checked_add(month_days as i32)
        .ok_or_else(interval_out_of_range)?;
    let micros = (apply(span.micros as f64) + seconds * MICROS_PER_SECOND as f64).round_ties_even();
    if !(micros >= i64::MIN as f64 && micros < -(i64::MIN as f64)) {
        return Err(interval_out_of_range());
    }
    Ok(Interval {
        months,
        days,
        micros: micros as i64,
    })
}

/// `interval * double precision`
///
/// # Errors
/// `22008` out of range.
pub fn multiply(span: &Interval, factor: f64) -> Result<Interval> {
    scale_with(span, |value| value * factor)
}

/// `interval / double precision`
///
/// # Errors
/// `22012` for zero, `22008` out of range.
pub fn divide(span: &Interval, divisor: f64) -> Result<Interval> {
    if divisor == 0.0 {
        return Err(SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
    }
    scale_with(span, |value| value / divisor)
}

/// `justify_hours(interval)`: 24 hours make a day.
///
/// # Errors
/// `22008` out of range.
pub fn justify_hours(span: &Interval) -> Result<Interval> {
    let carried = i32::try_from(span.micros / MICROS_PER_DAY).map_err(|_| interval_out_of_range())?;
    let mut days = span.days.checked_add(carried).ok_or_else(interval_out_of_range)?;
    let mut micros = span.micros % MICROS_PER_DAY;
    if days > 0 && micros < 0 {
        micros += MICROS_PER_DAY;
        days -= 1;
    } else if days < 0 && micros > 0 {
        micros -= MICROS_PER_DAY;
        days += 1;
    }
    Ok(Interval {
        months: span.months,
        days,
        micros,
    })
}

/// `justify_days(interval)`: 30 days make a month.
///
/// # Errors
/// `22008` out of range.
pub fn justify_days(span: &Interval) -> Result<Interval> {
    let mut months = span
        .months
        .checked_add(span.days / 30)
        .ok_or_else(interval_out_of_range)?;
    let mut days = span.days % 30;
    if months > 0 && days < 0 {
        days += 30;
        months -= 1;
    } else if months < 0 && days > 0 {
        days -= 30;
        months += 1;
    }
    Ok(Interval {
        months,
        days,
        micros: span.micros,
    })
}

/// `age(left, right)`: the difference in years, months, days and time.
///
/// # Errors
/// `22008` for infinite timestamps.
pub fn age(left: i64, right: i64) -> Result<Interval> {
    if is_infinite_timestamp(left) || is_infinite_timestamp(right) {
        return Err(timestamp_out_of_range());
    }
    let fields = |micros: i64| {
        let (days, time) = split_timestamp(micros);
        let (year, month, day) = civil_from_days(days);
        (year, i64::from(month), i64::from(day), time)
    };
    let (left_year, left_month, left_day, left_time) = fields(left);
    let (right_year, right_month, right_day, right_time) = fields(right);
    let negative = left < right;
    let sign = if negative { -1 } else { 1 };
    let mut time = (left_time - right_time) * sign;
    let mut days = (left_day - right_day) * sign;
    let mut months = ((left_year - right_year) * 12 + left_month - right_month) * sign;
    if time < 0 {
        time += MICROS_PER_DAY;
        days -= 1;
    }
    // Borrowed days are those of the earlier moment's month.
    let borrowed = if negative {
        days_in_month(left_year, left_month as u32)
    } else {
        days_in_month(right_year, right_month as u32)
    };
    while days < 0 {
        days += i64::from(borrowed);
        months -= 1;
    }
    Ok(Interval {
        months: (months * sign) as i32,
        days: (days * sign) as i32,
        micros: time * sign,
    })
}
