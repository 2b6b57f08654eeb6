//! `date_trunc`, `date_part` and `extract`.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use neorunbase_types::calendar::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, UNIX_EPOCH_TO_POSTGRES_DAYS,
    civil_from_days, days_from_civil, split_timestamp, timestamp_in_range,
};
use neorunbase_types::interval::{
    is_infinite_date, is_infinite_timestamp, timestamp_from_date, timestamp_out_of_range,
};
use neorunbase_types::{Datum, Interval, Result, SqlError, SqlState, SqlType, numeric_arithmetic};

use crate::call::mismatch;
use crate::function::Function;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Epoch,
    Julian,
    DayOfWeek,
    IsoDayOfWeek,
    IsoYear,
    DayOfYear,
    TimeZone,
    TimeZoneHour,
    TimeZoneMinute,
}

fn field(lower: &str) -> Option<Field> {
    Some(match lower {
        "microseconds" | "microsecond" | "microsecon" | "us" | "usec" | "usecs" | "usecond" | "useconds" => {
            Field::Microseconds
        }
        "milliseconds" | "millisecond" | "millisecon" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => {
            Field::Milliseconds
        }
        "second" | "seconds" | "sec" | "secs" | "s" => Field::Second,
        "minute" | "minutes" | "min" | "mins" | "m" => Field::Minute,
        "hour" | "hours" | "hr" | "hrs" | "h" => Field::Hour,
        "day" | "days" | "d" => Field::Day,
        "week" | "weeks" | "w" => Field::Week,
        "month" | "months" | "mon" | "mons" => Field::Month,
        "quarter" | "qtr" => Field::Quarter,
        "year" | "years" | "yr" | "yrs" | "y" => Field::Year,
        "decade" | "decades" | "dec" | "decs" => Field::Decade,
        "century" | "centuries" | "cent" | "c" => Field::Century,
        "millennium" | "millennia" | "mil" | "mils" => Field::Millennium,
        "epoch" => Field::Epoch,
        "julian" | "jd" => Field::Julian,
        "dow" => Field::DayOfWeek,
        "isodow" => Field::IsoDayOfWeek,
        "isoyear" => Field::IsoYear,
        "doy" => Field::DayOfYear,
        "timezone" => Field::TimeZone,
        "timezone_hour" | "timezone_h" => Field::TimeZoneHour,
        "timezone_minute" | "timezone_m" => Field::TimeZoneMinute,
        _ => return None,
    })
}

fn type_of(value: &Datum) -> SqlType {
    match value {
        Datum::Date(_) => SqlType::Date,
        Datum::Time(_) => SqlType::Time,
        Datum::TimestampTz(_) => SqlType::TimestampTz,
        Datum::Interval(_) => SqlType::Interval,
        _ => SqlType::Timestamp,
    }
}

fn not_recognized(unit: &str, value: &Datum) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!(
            "unit \"{unit}\" not recognized for type {}",
            type_of(value).base_name()
        ),
    )
}

fn not_supported(unit: &str, value: &Datum) -> Box<SqlError> {
    SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!(
            "unit \"{unit}\" not supported for type {}",
            type_of(value).base_name()
        ),
    )
}

/// Days since 2000-01-01 of the Monday that begins week 1 of an ISO year.
fn iso_year_start(year: i64) -> i64 {
    // 4 January is always in week 1.
    let fourth = days_from_civil(year, 1, 4);
    fourth - (iso_weekday(fourth) - 1)
}

/// 1 for Monday to 7 for Sunday; 2000-01-01 was a Saturday.
pub(crate) fn iso_weekday(days: i64) -> i64 {
    (days + 5).rem_euclid(7) + 1
}

/// ISO year and week of a day.
pub(crate) fn iso_year_and_week(days: i64) -> (i64, i64) {
    let (calendar_year, _, _) = civil_from_days(days);
    let year = if days >= iso_year_start(calendar_year + 1) {
        calendar_year + 1
    } else if days < iso_year_start(calendar_year) {
        calendar_year - 1
    } else {
        calendar_year
    };
    (year, (days - iso_year_start(year)) / 7 + 1)
}

fn decade(year: i64) -> i64 {
    year.div_euclid(10)
}

/// Centuries (or millennia) count from 1 and there is none between 1 BC and 1 AD.
fn counted_from_one(year: i64, length: i64) -> i64 {
    if year > 0 {
        (year + length - 1) / length
    } else {
        -((length - 1 - (year - 1)) / length)
    }
}

/// A field's value: an unscaled integer and its scale.
type Scaled = (i128, i64);

fn of_timestamp(field: Field, unit: &str, micros: i64, value: &Datum) -> Result<Scaled> {
    let (days, time) = split_timestamp(micros);
    let (year, month, _) = civil_from_days(days);
    let zoned = matches!(value, Datum::TimestampTz(_));
    Ok(match field {
        Field::Epoch => {
            let unix = i128::from(days + UNIX_EPOCH_TO_POSTGRES_DAYS) * i128::from(MICROS_PER_DAY);
            (unix + i128::from(time), 6)
        }
        Field::TimeZone | Field::TimeZoneHour | Field::TimeZoneMinute if zoned => (0, 0),
        Field::TimeZone | Field::TimeZoneHour | Field::TimeZoneMinute => {
            return Err(not_supported(unit, value));
        }
        Field::Julian => {
            // The day, and its fraction with the scale of a numeric division.
            let fraction =
                numeric_arithmetic::divide(&BigDecimal::from(time), &BigDecimal::from(MICROS_PER_DAY))?;
            let sum = numeric_arithmetic::add(&BigDecimal::from(days + 2_451_545), &fraction)?;
            let (unscaled, scale) = sum.into_bigint_and_scale();
            (unscaled.try_into().unwrap_or(i128::MAX), scale)
        }
        Field::Microseconds | Field::Milliseconds | Field::Second | Field::Minute | Field::Hour => {
            of_clock(field, time)
        }
        Field::Day
        | Field::Month
        | Field::Quarter
        | Field::Year
        | Field::Decade
        | Field::Century
        | Field::Millennium
        | Field::Week
        | Field::IsoYear
        | Field::DayOfWeek
        | Field::IsoDayOfWeek
        | Field::DayOfYear => (i128::from(of_day(field, days, year, i64::from(month))), 0),
    })
}

fn of_clock(field: Field, time: i64) -> Scaled {
    let time = i128::from(time);
    let in_minute = time % i128::from(MICROS_PER_MINUTE);
    match field {
        Field::Microseconds => (in_minute, 0),
        Field::Milliseconds => (in_minute, 3),
        Field::Second => (in_minute, 6),
        Field::Minute => (time / i128::from(MICROS_PER_MINUTE) % 60, 0),
        _ => (time / i128::from(MICROS_PER_HOUR), 0),
    }
}

fn of_day(field: Field, days: i64, year: i64, month: i64) -> i64 {
    match field {
        Field::Month => month,
        Field::Quarter => (month - 1) / 3 + 1,
        // There is no year 0.
        Field::Year => {
            if year > 0 {
                year
            } else {
                year - 1
            }
        }
        Field::Decade => decade(year),
        Field::Century => counted_from_one(year, 100),
        Field::Millennium => counted_from_one(year, 1_000),
        Field::Week => iso_year_and_week(days).1,
        Field::IsoYear => {
            let year = iso_year_and_week(days).0;
            if year > 0 { year } else { year - 1 }
        }
        Field::DayOfWeek => iso_weekday(days) % 7,
        Field::IsoDayOfWeek => iso_weekday(days),
        Field::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
        _ => i64::from(civil_from_days(days).2),
    }
}

fn of_interval(field: Field, unit: &str, span: &Interval, value: &Datum) -> Result<Scaled> {
    let years = i64::from(span.months / 12);
    let months = i64::from(span.months % 12);
    Ok(match field {
        Field::Microseconds | Field::Milliseconds | Field::Second | Field::Minute | Field::Hour => {
            of_clock(field, span.micros)
        }
        Field::Day => (i128::from(span.days), 0),
        Field::Month => (i128::from(months), 0),
        Field::Quarter => (i128::from(months / 3 + 1), 0),
        Field::Year => (i128::from(years), 0),
        Field::Decade => (i128::from(years / 10), 0),
        Field::Century => (i128::from(years / 100), 0),
        Field::Millennium => (i128::from(years / 1_000), 0),
        Field::Epoch => {
            // A year has 365.25 days here, a month 30.
            let seconds = i128::from(years) * 31_557_600
                + i128::from(months) * 2_592_000
                + i128::from(span.days) * 86_400;
            (seconds * 1_000_000 + i128::from(span.micros), 6)
        }
        _ => return Err(not_supported(unit, value)),
    })
}

enum Answer {
    Value(Scaled),
    Infinite(bool),
    Null,
}

fn answer(unit: &str, value: &Datum, date_as_timestamp: bool) -> Result<Answer> {
    let lower = unit.to_ascii_lowercase();
    let field = field(&lower).ok_or_else(|| not_recognized(&lower, value))?;
    let unit = lower.as_str();
    let infinite = |positive: bool| {
        // What grows with time is infinite with it; what turns around is nothing.
        match field {
            Field::Year
            | Field::Decade
            | Field::Century
            | Field::Millennium
            | Field::Julian
            | Field::IsoYear
            | Field::Epoch => Answer::Infinite(positive),
            _ => Answer::Null,
        }
    };
    Ok(match value {
        Datum::Timestamp(micros) | Datum::TimestampTz(micros) if is_infinite_timestamp(*micros) => {
            infinite(*micros > 0)
        }
        Datum::Timestamp(micros) | Datum::TimestampTz(micros) => {
            Answer::Value(of_timestamp(field, unit, *micros, value)?)
        }
        Datum::Date(date) if is_infinite_date(*date) => infinite(*date > 0),
        Datum::Date(date) if date_as_timestamp => {
            let moment = timestamp_from_date(*date)?;
            Answer::Value(of_timestamp(field, unit, moment, &Datum::Timestamp(moment))?)
        }
        Datum::Date(date) => {
            let days = i64::from(*date);
            let (year, month, _) = civil_from_days(days);
            let result = match field {
                Field::Epoch => (days + UNIX_EPOCH_TO_POSTGRES_DAYS) * 86_400,
                Field::Julian => days + 2_451_545,
                Field::Microseconds
                | Field::Milliseconds
                | Field::Second
                | Field::Minute
                | Field::Hour
                | Field::TimeZone
                | Field::TimeZoneHour
                | Field::TimeZoneMinute => {
                    return Err(not_supported(unit, value));
                }
                _ => of_day(field, days, year, i64::from(month)),
            };
            Answer::Value((i128::from(result), 0))
        }
        Datum::Time(micros) => match field {
            Field::Microseconds | Field::Milliseconds | Field::Second | Field::Minute | Field::Hour => {
                Answer::Value(of_clock(field, *micros))
            }
            Field::Epoch => Answer::Value((i128::from(*micros), 6)),
            _ => return Err(not_supported(unit, value)),
        },
        Datum::Interval(span) => Answer::Value(of_interval(field, unit, span, value)?),
        _ => return Err(mismatch(Function::Extract)),
    })
}

/// `extract(unit from value)`
pub(crate) fn extract(unit: &Datum, value: &Datum) -> Result<Datum> {
    let Datum::Text(unit) = unit else {
        return Err(mismatch(Function::Extract));
    };
    match answer(unit, value, false)? {
        Answer::Value((unscaled, scale)) => {
            Ok(Datum::Numeric(BigDecimal::new(BigInt::from(unscaled), scale)))
        }
        Answer::Null => Ok(Datum::Null),
        Answer::Infinite(_) => Err(SqlError::unsupported("numeric value \"Infinity\"")),
    }
}

/// `date_part(unit, value)`
pub(crate) fn date_part(unit: &Datum, value: &Datum) -> Result<Datum> {
    let Datum::Text(unit) = unit else {
        return Err(mismatch(Function::DatePart));
    };
    Ok(match answer(unit, value, true)? {
        Answer::Value((unscaled, scale)) => Datum::DoublePrecision(numeric_arithmetic::to_double(
            &BigDecimal::new(BigInt::from(unscaled), scale),
        )),
        Answer::Null => Datum::Null,
        Answer::Infinite(positive) => Datum::DoublePrecision(if positive {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        }),
    })
}

/// `date_trunc(unit, value)`
pub(crate) fn truncate(unit: &Datum, value: &Datum) -> Result<Datum> {
    let Datum::Text(unit) = unit else {
        return Err(mismatch(Function::DateTrunc));
    };
    let lower = unit.to_ascii_lowercase();
    let field = field(&lower).ok_or_else(|| not_recognized(&lower, value))?;
    match value {
        Datum::Timestamp(micros) => truncate_timestamp(field, &lower, *micros, value).map(Datum::Timestamp),
        Datum::TimestampTz(micros) => {
            truncate_timestamp(field, &lower, *micros, value).map(Datum::TimestampTz)
        }
        Datum::Interval(span) => truncate_interval(field, &lower, span, value).map(Datum::Interval),
        _ => Err(mismatch(Function::DateTrunc)),
    }
}

fn clock_unit(field: Field) -> Option<i64> {
    Some(match field {
        Field::Microseconds => 1,
        Field::Milliseconds => 1_000,
        Field::Second => MICROS_PER_SECOND,
        Field::Minute => MICROS_PER_MINUTE,
        Field::Hour => MICROS_PER_HOUR,
        _ => return None,
    })
}

fn truncate_timestamp(field: Field, unit: &str, micros: i64, value: &Datum) -> Result<i64> {
    if is_infinite_timestamp(micros) {
        return Ok(micros);
    }
    if let Some(length) = clock_unit(field) {
        return Ok(micros - micros.rem_euclid(length));
    }
    let (days, _) = split_timestamp(micros);
    let (year, month, _) = civil_from_days(days);
    let start_of_year = |year: i64| days_from_civil(year, 1, 1);
    let first_day = match field {
        Field::Day => days,
        Field::Week => days - (iso_weekday(days) - 1),
        Field::Month => days_from_civil(year, i64::from(month), 1),
        Field::Quarter => days_from_civil(year, i64::from((month - 1) / 3 * 3 + 1), 1),
        Field::Year => start_of_year(year),
        Field::Decade => start_of_year(decade(year) * 10),
        Field::Century | Field::Millennium => {
            let length = if field == Field::Century { 100 } else { 1_000 };
            start_of_year((year - 1).div_euclid(length) * length + 1)
        }
        Field::TimeZone | Field::TimeZoneHour | Field::TimeZoneMinute => {
            return Err(not_supported(unit, value));
        }
        _ => return Err(not_recognized(unit, value)),
    };
    let truncated = first_day * MICROS_PER_DAY;
    if timestamp_in_range(truncated) {
        Ok(truncated)
    } else {
        Err(timestamp_out_of_range())
    }
}

fn truncate_interval(field: Field, unit: &str, span: &Interval, value: &Datum) -> Result<Interval> {
    if let Some(length) = clock_unit(field) {
        return Ok(Interval {
            micros: span.micros / length * length,
            ..*span
        });
    }
    let months = |length: i32| Interval {
        months: span.months / length * length,
        days: 0,
        micros: 0,
    };
    Ok(match field {
        Field::Day => Interval { micros: 0, ..*span },
        Field::Month => months(1),
        // Within the year, as its months are counted.
        Field::Quarter => months(3),
        Field::Year => months(12),
        Field::Decade => months(120),
        Field::Century => months(1_200),
        Field::Millennium => months(12_000),
        Field::Week => {
            return Err(not_supported(unit, value).with_detail("Months usually have fractional weeks."));
        }
        Field::TimeZone | Field::TimeZoneHour | Field::TimeZoneMinute => {
            return Err(not_supported(unit, value));
        }
        _ => return Err(not_recognized(unit, value)),
    })
}
