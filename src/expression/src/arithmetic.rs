//! The arithmetic operators, of numbers and of dates.

use neorunbase_types::calendar::MICROS_PER_DAY;
use neorunbase_types::cast::out_of_range;
use neorunbase_types::interval::{
    add_days, add_to_timestamp, date_out_of_range, is_infinite_date, is_infinite_timestamp,
    subtract_timestamps, timestamp_from_date, timestamp_out_of_range,
};
use neorunbase_types::{
    Datum, Interval, Result, SqlError, SqlState, SqlType, calendar, interval, numeric_arithmetic,
};

use crate::call::mismatch;
use crate::function::Function;

/// `22012`
pub(crate) fn division_by_zero() -> Box<SqlError> {
    numeric_arithmetic::division_by_zero()
}

pub(crate) fn float_overflow() -> Box<SqlError> {
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "value out of range: overflow",
    )
}

pub(crate) fn float_underflow() -> Box<SqlError> {
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "value out of range: underflow",
    )
}

fn small_overflow() -> Box<SqlError> {
    out_of_range(&SqlType::SmallInt)
}

fn integer_overflow() -> Box<SqlError> {
    out_of_range(&SqlType::Integer)
}

fn big_overflow() -> Box<SqlError> {
    out_of_range(&SqlType::BigInt)
}

fn double(result: f64, operands_infinite: bool) -> Result<Datum> {
    if result.is_infinite() && !operands_infinite {
        return Err(float_overflow());
    }
    Ok(Datum::DoublePrecision(result))
}

fn real(result: f32, operands_infinite: bool) -> Result<Datum> {
    if result.is_infinite() && !operands_infinite {
        return Err(float_overflow());
    }
    Ok(Datum::Real(result))
}

fn negated(span: &Interval) -> Result<Interval> {
    interval::negate(span)
}

/// `time` arithmetic wraps around midnight.
fn time(micros: i64) -> Datum {
    Datum::Time(micros.rem_euclid(MICROS_PER_DAY))
}

fn date_and_time(date: i32, micros: i64) -> Result<Datum> {
    let midnight = timestamp_from_date(date)?;
    if is_infinite_timestamp(midnight) {
        return Ok(Datum::Timestamp(midnight));
    }
    let sum = midnight + micros;
    if calendar::timestamp_in_range(sum) {
        Ok(Datum::Timestamp(sum))
    } else {
        Err(timestamp_out_of_range())
    }
}

/// `+`
pub(crate) fn add(left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    match (left, right) {
        (D::Integer(left), D::Integer(right)) => left
            .checked_add(*right)
            .map(D::Integer)
            .ok_or_else(integer_overflow),
        (D::BigInt(left), D::BigInt(right)) => {
            left.checked_add(*right).map(D::BigInt).ok_or_else(big_overflow)
        }
        (D::SmallInt(left), D::SmallInt(right)) => left
            .checked_add(*right)
            .map(D::SmallInt)
            .ok_or_else(small_overflow),
        (D::Numeric(left), D::Numeric(right)) => numeric_arithmetic::add(left, right).map(D::Numeric),
        (D::DoublePrecision(left), D::DoublePrecision(right)) => {
            double(left + right, left.is_infinite() || right.is_infinite())
        }
        (D::Real(left), D::Real(right)) => real(left + right, left.is_infinite() || right.is_infinite()),
        (D::Date(date), D::Integer(days)) | (D::Integer(days), D::Date(date)) => {
            add_days(*date, *days).map(D::Date)
        }
        (D::Date(date), D::Interval(span)) | (D::Interval(span), D::Date(date)) => {
            add_to_timestamp(timestamp_from_date(*date)?, span).map(D::Timestamp)
        }
        (D::Date(date), D::Time(micros)) | (D::Time(micros), D::Date(date)) => date_and_time(*date, *micros),
        (D::Timestamp(moment), D::Interval(span)) | (D::Interval(span), D::Timestamp(moment)) => {
            add_to_timestamp(*moment, span).map(D::Timestamp)
        }
        (D::TimestampTz(moment), D::Interval(span)) | (D::Interval(span), D::TimestampTz(moment)) => {
            add_to_timestamp(*moment, span).map(D::TimestampTz)
        }
        (D::Time(micros), D::Interval(span)) | (D::Interval(span), D::Time(micros)) => {
            Ok(time(micros + span.micros % MICROS_PER_DAY))
        }
        (D::Interval(left), D::Interval(right)) => interval::add(left, right).map(D::Interval),
        _ => Err(mismatch(Function::Add)),
    }
}

/// `-`
pub(crate) fn subtract(left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    match (left, right) {
        (D::Integer(left), D::Integer(right)) => left
            .checked_sub(*right)
            .map(D::Integer)
            .ok_or_else(integer_overflow),
        (D::BigInt(left), D::BigInt(right)) => {
            left.checked_sub(*right).map(D::BigInt).ok_or_else(big_overflow)
        }
        (D::SmallInt(left), D::SmallInt(right)) => left
            .checked_sub(*right)
            .map(D::SmallInt)
            .ok_or_else(small_overflow),
        (D::Numeric(left), D::Numeric(right)) => numeric_arithmetic::subtract(left, right).map(D::Numeric),
        (D::DoublePrecision(left), D::DoublePrecision(right)) => {
            double(left - right, left.is_infinite() || right.is_infinite())
        }
        (D::Real(left), D::Real(right)) => real(left - right, left.is_infinite() || right.is_infinite()),
        (D::Date(left), D::Date(right)) => {
            if is_infinite_date(*left) || is_infinite_date(*right) {
                return Err(SqlError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    "cannot subtract infinite dates",
                ));
            }
            left.checked_sub(*right)
                .map(D::Integer)
                .ok_or_else(date_out_of_range)
        }
        (D::Date(date), D::Integer(days)) => {
            add_days(*date, days.checked_neg().ok_or_else(date_out_of_range)?).map(D::Date)
        }
        (D::Date(date), D::Interval(span)) => {
            add_to_timestamp(timestamp_from_date(*date)?, &negated(span)?).map(D::Timestamp)
        }
        (D::Timestamp(moment), D::Interval(span)) => {
            add_to_timestamp(*moment, &negated(span)?).map(D::Timestamp)
        }
        (D::TimestampTz(moment), D::Interval(span)) => {
            add_to_timestamp(*moment, &negated(span)?).map(D::TimestampTz)
        }
        (D::Timestamp(left), D::Timestamp(right)) | (D::TimestampTz(left), D::TimestampTz(right)) => {
            subtract_timestamps(*left, *right).map(D::Interval)
        }
        (D::Time(micros), D::Interval(span)) => Ok(time(micros - span.micros % MICROS_PER_DAY)),
        (D::Time(left), D::Time(right)) => Ok(D::Interval(Interval {
            months: 0,
            days: 0,
            micros: left - right,
        })),
        (D::Interval(left), D::Interval(right)) => interval::subtract(left, right).map(D::Interval),
        _ => Err(mismatch(Function::Subtract)),
    }
}

/// `*`
pub(crate) fn multiply(left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    match (left, right) {
        (D::Integer(left), D::Integer(right)) => left
            .checked_mul(*right)
            .map(D::Integer)
            .ok_or_else(integer_overflow),
        (D::BigInt(left), D::BigInt(right)) => {
            left.checked_mul(*right).map(D::BigInt).ok_or_else(big_overflow)
        }
        (D::SmallInt(left), D::SmallInt(right)) => left
            .checked_mul(*right)
            .map(D::SmallInt)
            .ok_or_else(small_overflow),
        (D::Numeric(left), D::Numeric(right)) => numeric_arithmetic::multiply(left, right).map(D::Numeric),
        (D::DoublePrecision(left), D::DoublePrecision(right)) => {
            let product = left * right;
            if product == 0.0 && *left != 0.0 && *right != 0.0 {
                return Err(float_underflow());
            }
            double(product, left.is_infinite() || right.is_infinite())
        }
        (D::Real(left), D::Real(right)) => {
            let product = left * right;
            if product == 0.0 && *left != 0.0 && *right != 0.0 {
                return Err(float_underflow());
            }
            real(product, left.is_infinite() || right.is_infinite())
        }
        (D::Interval(span), D::DoublePrecision(factor)) | (D::DoublePrecision(factor), D::Interval(span)) => {
            interval::multiply(span, *factor).map(D::Interval)
        }
        _ => Err(mismatch(Function::Multiply)),
    }
}

/// `/`
pub(crate) fn divide(left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    match (left, right) {
        (D::Integer(_), D::Integer(0)) | (D::BigInt(_), D::BigInt(0)) | (D::SmallInt(_), D::SmallInt(0)) => {
            Err(division_by_zero())
        }
        (D::Integer(left), D::Integer(right)) => left
            .checked_div(*right)
            .map(D::Integer)
            .ok_or_else(integer_overflow),
        (D::BigInt(left), D::BigInt(right)) => {
            left.checked_div(*right).map(D::BigInt).ok_or_else(big_overflow)
        }
        (D::SmallInt(left), D::SmallInt(right)) => left
            .checked_div(*right)
            .map(D::SmallInt)
            .ok_or_else(small_overflow),
        (D::Numeric(left), D::Numeric(right)) => numeric_arithmetic::divide(left, right).map(D::Numeric),
        (D::DoublePrecision(left), D::DoublePrecision(right)) => {
            if *right == 0.0 && !left.is_nan() {
                return Err(division_by_zero());
            }
            let quotient = left / right;
            if quotient == 0.0 && *left != 0.0 && !right.is_infinite() {
                return Err(float_underflow());
            }
            double(quotient, left.is_infinite())
        }
        (D::Real(left), D::Real(right)) => {
            if *right == 0.0 && !left.is_nan() {
                return Err(division_by_zero());
            }
            let quotient = left / right;
            if quotient == 0.0 && *left != 0.0 && !right.is_infinite() {
                return Err(float_underflow());
            }
            real(quotient, left.is_infinite())
        }
        (D::Interval(span), D::DoublePrecision(divisor)) => interval::divide(span, *divisor).map(D::Interval),
        _ => Err(mismatch(Function::Divide)),
    }
}

/// `%`
pub(crate) fn modulo(left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    match (left, right) {
        (D::Integer(_), D::Integer(0)) | (D::BigInt(_), D::BigInt(0)) | (D::SmallInt(_), D::SmallInt(0)) => {
            Err(division_by_zero())
        }
        // The least integer divided by -1 leaves nothing, and does not overflow.
        (D::Integer(left), D::Integer(right)) => Ok(D::Integer(left.wrapping_rem(*right))),
        (D::BigInt(left), D::BigInt(right)) => Ok(D::BigInt(left.wrapping_rem(*right))),
        (D::SmallInt(left), D::SmallInt(right)) => Ok(D::SmallInt(left.wrapping_rem(*right))),
        (D::Numeric(left), D::Numeric(right)) => numeric_arithmetic::remainder(left, right).map(D::Numeric),
        _ => Err(mismatch(Function::Modulo)),
    }
}

/// `& | # << >>`
pub(crate) fn bits(function: Function, left: &Datum, right: &Datum) -> Result<Datum> {
    use Datum as D;
    use Function as F;
    Ok(match (function, left, right) {
        (F::BitAnd, D::SmallInt(left), D::SmallInt(right)) => D::SmallInt(left & right),
        (F::BitAnd, D::Integer(left), D::Integer(right)) => D::Integer(left & right),
        (F::BitAnd, D::BigInt(left), D::BigInt(right)) => D::BigInt(left & right),
        (F::BitOr, D::SmallInt(left), D::SmallInt(right)) => D::SmallInt(left | right),
        (F::BitOr, D::Integer(left), D::Integer(right)) => D::Integer(left | right),
        (F::BitOr, D::BigInt(left), D::BigInt(right)) => D::BigInt(left | right),
        (F::BitXor, D::SmallInt(left), D::SmallInt(right)) => D::SmallInt(left ^ right),
        (F::BitXor, D::Integer(left), D::Integer(right)) => D::Integer(left ^ right),
        (F::BitXor, D::BigInt(left), D::BigInt(right)) => D::BigInt(left ^ right),
        // Counts are taken modulo the register's width, as the hardware below PostgreSQL does.
        (F::ShiftLeft, D::SmallInt(left), D::Integer(right)) => {
            D::SmallInt(i32::from(*left).wrapping_shl(*right as u32) as i16)
        }
        (F::ShiftLeft, D::Integer(left), D::Integer(right)) => D::Integer(left.wrapping_shl(*right as u32)),
        (F::ShiftLeft, D::BigInt(left), D::Integer(right)) => D::BigInt(left.wrapping_shl(*right as u32)),
        (F::ShiftRight, D::SmallInt(left), D::Integer(right)) => {
            D::SmallInt(i32::from(*left).wrapping_shr(*right as u32) as i16)
        }
        (F::ShiftRight, D::Integer(left), D::Integer(right)) => D::Integer(left.wrapping_shr(*right as u32)),
        (F::ShiftRight, D::BigInt(left), D::Integer(right)) => D::BigInt(left.wrapping_shr(*right as u32)),
        _ => return Err(mismatch(function)),
    })
}

/// `~`
pub(crate) fn bit_not(argument: &Datum) -> Result<Datum> {
    Ok(match argument {
        Datum::SmallInt(value) => Datum::SmallInt(!value),
        Datum::Integer(value) => Datum::Integer(!value),
        Datum::BigInt(value) => Datum::BigInt(!value),
        _ => return Err(mismatch(Function::BitNot)),
    })
}

/// Prefix `-`
pub(crate) fn negate(argument: &Datum) -> Result<Datum> {
    match argument {
        Datum::SmallInt(value) => value
            .checked_neg()
            .map(Datum::SmallInt)
            .ok_or_else(small_overflow),
        Datum::Integer(value) => value
            .checked_neg()
            .map(Datum::Integer)
            .ok_or_else(integer_overflow),
        Datum::BigInt(value) => value.checked_neg().map(Datum::BigInt).ok_or_else(big_overflow),
        Datum::Real(value) => Ok(Datum::Real(-value)),
        Datum::DoublePrecision(value) => Ok(Datum::DoublePrecision(-value)),
        Datum::Numeric(value) => Ok(Datum::Numeric(numeric_arithmetic::negate(value))),
        Datum::Interval(value) => negated(value).map(Datum::Interval),
        _ => Err(mismatch(Function::Negate)),
    }
}

/// `abs`
pub(crate) fn absolute(argument: &Datum) -> Result<Datum> {
    match argument {
        Datum::SmallInt(value) => value
            .checked_abs()
            .map(Datum::SmallInt)
            .ok_or_else(small_overflow),
        Datum::Integer(value) => value
            .checked_abs()
            .map(Datum::Integer)
            .ok_or_else(integer_overflow),
        Datum::BigInt(value) => value.checked_abs().map(Datum::BigInt).ok_or_else(big_overflow),
        Datum::Real(value) => Ok(Datum::Real(value.abs())),
        Datum::DoublePrecision(value) => Ok(Datum::DoublePrecision(value.abs())),
        Datum::Numeric(value) => Ok(Datum::Numeric(numeric_arithmetic::absolute(value))),
        _ => Err(mismatch(Function::Absolute)),
    }
}
