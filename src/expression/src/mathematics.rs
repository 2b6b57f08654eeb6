//! Mathematical functions.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use neorunbase_types::cast::out_of_range;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType, numeric, numeric_arithmetic};

use crate::arithmetic::{float_overflow, float_underflow};
use crate::call::mismatch;
use crate::function::Function as F;

fn logarithm_error(value: f64) -> Option<Box<SqlError>> {
    let message = if value == 0.0 {
        "cannot take logarithm of zero"
    } else if value < 0.0 {
        "cannot take logarithm of a negative number"
    } else {
        return None;
    };
    Some(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_LOGARITHM, message))
}

fn input_out_of_range() -> Box<SqlError> {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}

fn checked(result: f64, argument: f64) -> Result<f64> {
    if result.is_infinite() && !argument.is_infinite() {
        Err(float_overflow())
    } else {
        Ok(result)
    }
}

pub(crate) fn unary(function: F, argument: &Datum) -> Result<Datum> {
    match argument {
        Datum::DoublePrecision(value) => double(function, *value).map(Datum::DoublePrecision),
        Datum::Numeric(value) => decimal(function, value),
        Datum::BigInt(value) if function == F::Factorial => factorial(*value),
        _ => Err(mismatch(function)),
    }
}

fn double(function: F, value: f64) -> Result<f64> {
    Ok(match function {
        F::Ceil => value.ceil(),
        F::Floor => value.floor(),
        F::Round => value.round_ties_even(),
        F::Truncate => value.trunc(),
        F::Sign if value > 0.0 => 1.0,
        F::Sign if value < 0.0 => -1.0,
        F::Sign => value * 0.0,
        F::SquareRoot => {
            if value < 0.0 {
                return Err(SqlError::new(
                    SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
                    "cannot take square root of a negative number",
                ));
            }
            value.sqrt()
        }
        F::CubeRoot => value.cbrt(),
        F::Exponential => {
            let result = checked(value.exp(), value)?;
            if result == 0.0 && !value.is_infinite() {
                return Err(float_underflow());
            }
            result
        }
        F::NaturalLogarithm => match logarithm_error(value) {
            Some(error) => return Err(error),
            None => value.ln(),
        },
        F::Logarithm => match logarithm_error(value) {
            Some(error) => return Err(error),
            None => value.log10(),
        },
        F::Degrees => checked(value / 0.017_453_292_519_943_295, value)?,
        F::Radians => value * 0.017_453_292_519_943_295,
        F::Sine | F::Cosine | F::Tangent | F::Cotangent => {
            if value.is_infinite() {
                return Err(input_out_of_range());
            }
            match function {
                F::Sine => value.sin(),
                F::Cosine => value.cos(),
                F::Tangent => value.tan(),
                _ => 1.0 / value.tan(),
            }
        }
        F::ArcSine | F::ArcCosine => {
            if value.abs() > 1.0 {
                return Err(input_out_of_range());
            }
            if function == F::ArcSine {
                value.asin()
            } else {
                value.acos()
            }
        }
        F::ArcTangent => value.atan(),
        _ => return Err(mismatch(function)),
    })
}

fn decimal(function: F, value: &BigDecimal) -> Result<Datum> {
    let result = match function {
        F::Ceil => numeric_arithmetic::ceil(value),
        F::Floor => numeric_arithmetic::floor(value),
        F::Round => numeric::round(value, 0),
        F::Truncate => numeric::truncate(value, 0),
        F::SquareRoot => numeric_arithmetic::square_root(value)?,
        F::Exponential => numeric_arithmetic::exponential(value)?,
        F::NaturalLogarithm => numeric_arithmetic::natural_logarithm(value)?,
        F::Logarithm => numeric_arithmetic::logarithm(&BigDecimal::from(10), value)?,
        F::Sign => numeric_arithmetic::sign(value),
        F::Scale => return Ok(Datum::Integer(value.as_bigint_and_scale().1 as i32)),
        F::MinimumScale => return Ok(Datum::Integer(minimum_scale(value) as i32)),
        F::TrimScale => numeric::truncate(value, minimum_scale(value)),
        _ => return Err(mismatch(function)),
    };
    Ok(Datum::Numeric(result))
}

fn minimum_scale(value: &BigDecimal) -> i64 {
    value.normalized().as_bigint_and_scale().1.max(0)
}

fn factorial(value: i64) -> Result<Datum> {
    if value < 0 {
        return Err(SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "factorial of a negative number is undefined",
        ));
    }
    if value > 32_177 {
        return Err(numeric::overflow());
    }
    let mut product = BigInt::from(1);
    for factor in 2..=value {
        product *= factor;
    }
    Ok(Datum::Numeric(BigDecimal::new(product, 0)))
}

pub(crate) fn binary(function: F, left: &Datum, right: &Datum) -> Result<Datum> {
    match (function, left, right) {
        (F::Power, Datum::DoublePrecision(base), Datum::DoublePrecision(exponent)) => {
            power(*base, *exponent).map(Datum::DoublePrecision)
        }
        (F::ArcTangent2, Datum::DoublePrecision(left), Datum::DoublePrecision(right)) => {
            Ok(Datum::DoublePrecision(left.atan2(*right)))
        }
        (F::Power, Datum::Numeric(base), Datum::Numeric(exponent)) => {
            numeric_arithmetic::power(base, exponent).map(Datum::Numeric)
        }
        (F::Logarithm, Datum::Numeric(base), Datum::Numeric(value)) => {
            numeric_arithmetic::logarithm(base, value).map(Datum::Numeric)
        }
        (F::IntegerQuotient, Datum::Numeric(left), Datum::Numeric(right)) => {
            numeric_arithmetic::integer_quotient(left, right).map(Datum::Numeric)
        }
        (F::GreatestCommonDivisor, Datum::Numeric(left), Datum::Numeric(right)) => {
            numeric_arithmetic::greatest_common_divisor(left, right).map(Datum::Numeric)
        }
        (F::LeastCommonMultiple, Datum::Numeric(left), Datum::Numeric(right)) => {
            numeric_arithmetic::least_common_multiple(left, right).map(Datum::Numeric)
        }
        // Beyond these scales there is nothing left to round.
        (F::Round, Datum::Numeric(value), Datum::Integer(scale)) => Ok(Datum::Numeric(numeric::round(
            value,
            i64::from(*scale).clamp(-131_072, 2_000),
        ))),
        (F::Truncate, Datum::Numeric(value), Datum::Integer(scale)) => Ok(Datum::Numeric(numeric::truncate(
            value,
            i64::from(*scale).clamp(-131_072, 2_000),
        ))),
        (F::GreatestCommonDivisor | F::LeastCommonMultiple, Datum::Integer(left), Datum::Integer(right)) => {
            integers(function, i64::from(*left), i64::from(*right))
                .and_then(|value| i32::try_from(value).ok())
                .map(Datum::Integer)
                .ok_or_else(|| out_of_range(&SqlType::Integer))
        }
        (F::GreatestCommonDivisor | F::LeastCommonMultiple, Datum::BigInt(left), Datum::BigInt(right)) => {
            integers(function, *left, *right)
                .map(Datum::BigInt)
                .ok_or_else(|| out_of_range(&SqlType::BigInt))
        }
        _ => Err(mismatch(function)),
    }
}

fn integers(function: F, left: i64, right: i64) -> Option<i64> {
    let (mut first, mut second) = (left.unsigned_abs(), right.unsigned_abs());
    while second != 0 {
        (first, second) = (second, first % second);
    }
    let divisor = first;
    if function == F::GreatestCommonDivisor {
        return i64::try_from(divisor).ok();
    }
    if divisor == 0 {
        return Some(0);
    }
    let multiple = (left.unsigned_abs() / divisor).checked_mul(right.unsigned_abs())?;
    i64::try_from(multiple).ok()
}

fn power(base: f64, exponent: f64) -> Result<f64> {
    let undefined = |message| {
        Err(SqlError::new(
            SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
            message,
        ))
    };
    if base.is_nan() || exponent.is_nan() {
        return Ok(if base == 1.0 || exponent == 0.0 {
            1.0
        } else {
            f64::NAN
        });
    }
    if base == 0.0 && exponent < 0.0 {
        return undefined("zero raised to a negative power is undefined");
    }
    if base < 0.0 && !exponent.is_infinite() && exponent.floor() != exponent {
        return undefined("a negative number raised to a non-integer power yields a complex result");
    }
    let result = base.powf(exponent);
    if base.is_infinite() || exponent.is_infinite() {
        return Ok(result);
    }
    if result.is_infinite() {
        return Err(float_overflow());
    }
    if result == 0.0 && base != 0.0 {
        return Err(float_underflow());
    }
    Ok(result)
}
