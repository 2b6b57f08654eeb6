//! Casts: which exist, in which context, and what they do (`pg_cast` and the casts through text).

use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};

use crate::calendar::{MICROS_PER_DAY, split_timestamp};
use crate::text_input::fit_character_data;
use crate::{
    Datum, Interval, Result, SqlError, SqlState, SqlType, TypeCategory, float_format, interval, numeric,
    numeric_arithmetic,
};

/// Where a cast stands, from the most to the least demanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CastContext {
    /// Inside an expression, not written by the user.
    Implicit,
    /// Into a column.
    Assignment,
    /// `CAST(x AS type)`, `x::type`
    Explicit,
}

/// The weakest context in which a cast may be used; `None` if there is no such cast.
pub fn required_context(from: &SqlType, to: &SqlType) -> Option<CastContext> {
    use CastContext::{Assignment, Explicit, Implicit};
    use SqlType as T;
    if from.same_base(to) || *from == T::Unknown {
        return Some(Implicit);
    }
    let context = match (from, to) {
        (T::SmallInt, T::Integer | T::BigInt | T::Real | T::DoublePrecision | T::Numeric(_) | T::Oid)
        | (T::Integer, T::BigInt | T::Real | T::DoublePrecision | T::Numeric(_) | T::Oid)
        | (T::BigInt, T::Real | T::DoublePrecision | T::Numeric(_) | T::Oid)
        | (T::Real, T::DoublePrecision)
        | (T::Numeric(_), T::Real | T::DoublePrecision)
        | (T::Text | T::VarChar(_), T::VarChar(_) | T::Char(_) | T::Text | T::Name)
        | (T::Char(_), T::Text | T::VarChar(_) | T::Name)
        | (T::Name, T::Text)
        | (T::Date, T::Timestamp | T::TimestampTz)
        | (T::Timestamp, T::TimestampTz)
        | (T::Time, T::Interval) => Implicit,
        (T::Integer, T::SmallInt)
        | (T::BigInt, T::SmallInt | T::Integer)
        | (T::Real, T::SmallInt | T::Integer | T::BigInt | T::Numeric(_))
        | (T::DoublePrecision, T::SmallInt | T::Integer | T::BigInt | T::Real | T::Numeric(_))
        | (T::Numeric(_), T::SmallInt | T::Integer | T::BigInt)
        | (T::Oid, T::Integer | T::BigInt)
        | (T::Timestamp, T::Date | T::Time)
        | (T::TimestampTz, T::Date | T::Time | T::Timestamp)
        | (T::Interval, T::Time) => Assignment,
        (T::Integer, T::Boolean) | (T::Boolean, T::Integer) => Explicit,
        // Everything goes to text when assigned, and comes from text when asked for.
        (_, to) if to.category() == TypeCategory::String => Assignment,
        (from, _) if from.category() == TypeCategory::String => Explicit,
        _ => return None,
    };
    Some(context)
}

/// Whether a cast from one type to another is allowed in a context.
pub fn can_cast(from: &SqlType, to: &SqlType, context: CastContext) -> bool {
    required_context(from, to).is_some_and(|required| required <= context)
}

/// Converts a value. NULL stays NULL.
///
/// # Errors
/// `42846` if there is no such cast, or the error of the value: `22001`, `22003`, `22P02`, `22008`, ...
pub fn cast(value: &Datum, from: &SqlType, to: &SqlType, context: CastContext) -> Result<Datum> {
    cast_at(value, from, to, context, None)
}

/// As [`cast`], with the moment (in microseconds since 1970-01-01 UTC) that `'now'` and `'today'` mean.
///
/// # Errors
/// As [`cast`].
pub fn cast_at(
    value: &Datum,
    from: &SqlType,
    to: &SqlType,
    context: CastContext,
    now_unix_micros: Option<i64>,
) -> Result<Datum> {
    let explicit = context == CastContext::Explicit;
    Ok(match (value, to) {
        (Datum::Null, _) => Datum::Null,
        (Datum::Text(text), _) if to.is_string() => fit_character_data(to, text, explicit)?,
        (Datum::Text(text), SqlType::Unknown) => Datum::Text(text.clone()),
        (Datum::Text(text), _) => Datum::from_text_at(to, text, now_unix_micros)?,
        (_, SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown) => {
            let text = match value {
                Datum::Boolean(true) => "true".to_owned(),
                Datum::Boolean(false) => "false".to_owned(),
                _ => value.to_text(from),
            };
            fit_character_data(to, &text, explicit)?
        }
        (_, SqlType::SmallInt) if from.is_numeric() => Datum::SmallInt(
            to_integer(value)
                .and_then(|value| i16::try_from(value).ok())
                .ok_or_else(|| out_of_range(to))?,
        ),
        (Datum::Boolean(value), SqlType::Integer) => Datum::Integer(i32::from(*value)),
        (_, SqlType::Integer) => match value {
            Datum::Integer(_) => value.clone(),
            // An oid keeps its bits.
            Datum::Oid(oid) => Datum::Integer(*oid as i32),
            _ if from.is_numeric() => Datum::Integer(
                to_integer(value)
                    .and_then(|value| i32::try_from(value).ok())
                    .ok_or_else(|| out_of_range(to))?,
            ),
            _ => return Err(no_cast(from, to)),
        },
        (_, SqlType::BigInt) if from.is_numeric() => {
            Datum::BigInt(to_integer(value).ok_or_else(|| out_of_range(to))?)
        }
        (Datum::Oid(value), SqlType::BigInt) => Datum::BigInt(i64::from(*value)),
        (Datum::SmallInt(value), SqlType::Oid) => Datum::Oid(i32::from(*value) as u32),
        (Datum::Integer(value), SqlType::Oid) => Datum::Oid(*value as u32),
        (Datum::BigInt(value), SqlType::Oid) => {
            Datum::Oid(u32::try_from(*value).map_err(|_| out_of_range(to))?)
        }
        (Datum::Integer(value), SqlType::Boolean) => Datum::Boolean(*value != 0),
        (_, SqlType::DoublePrecision) => Datum::DoublePrecision(match value {
            Datum::SmallInt(value) => f64::from(*value),
            Datum::Integer(value) => f64::from(*value),
            Datum::BigInt(value) => *value as f64,
            Datum::Real(value) => f64::from(*value),
            Datum::DoublePrecision(value) => *value,
            Datum::Numeric(value) => {
                let double = numeric_arithmetic::to_double(value);
                if double.is_infinite() || (double == 0.0 && !is_zero(value)) {
                    return Err(numeric_out_of_range(value, "double precision"));
                }
                double
            }
            _ => return Err(no_cast(from, to)),
        }),
        (_, SqlType::Real) => Datum::Real(match value {
            Datum::SmallInt(value) => f32::from(*value),
            Datum::Integer(value) => *value as f32,
            Datum::BigInt(value) => *value as f32,
            Datum::Real(value) => *value,
            Datum::DoublePrecision(value) => narrow_double(*value)?,
            Datum::Numeric(value) => {
                let real = value.to_string().parse::<f32>().unwrap_or(f32::INFINITY);
                if real.is_infinite() || (real == 0.0 && !is_zero(value)) {
                    return Err(numeric_out_of_range(value, "real"));
                }
                real
            }
            _ => return Err(no_cast(from, to)),
        }),
        (_, SqlType::Numeric(modifier)) => {
            let converted = match value {
                Datum::SmallInt(value) => BigDecimal::from(*value),
                Datum::Integer(value) => BigDecimal::from(*value),
                Datum::BigInt(value) => BigDecimal::from(*value),
                Datum::Numeric(value) => value.clone(),
                Datum::Real(value) => float_to_numeric(f64::from(*value), 6)?,
                Datum::DoublePrecision(value) => float_to_numeric(*value, 15)?,
                _ => return Err(no_cast(from, to)),
            };
            Datum::Numeric(numeric::apply_modifier(converted, *modifier)?)
        }
        (Datum::Boolean(_), SqlType::Boolean)
        | (Datum::Bytea(_), SqlType::Bytea)
        | (Datum::Date(_), SqlType::Date)
        | (Datum::Time(_), SqlType::Time)
        | (Datum::Timestamp(_), SqlType::Timestamp)
        | (Datum::TimestampTz(_), SqlType::TimestampTz)
        | (Datum::Interval(_), SqlType::Interval)
        | (Datum::Uuid(_), SqlType::Uuid)
        | (Datum::Oid(_), SqlType::Oid) => value.clone(),
        (Datum::Date(days), SqlType::Timestamp) => Datum::Timestamp(interval::timestamp_from_date(*days)?),
        (Datum::Date(days), SqlType::TimestampTz) => {
            Datum::TimestampTz(interval::timestamp_from_date(*days)?)
        }
        // The session's time zone is UTC.
        (Datum::Timestamp(micros), SqlType::TimestampTz) => Datum::TimestampTz(*micros),
        (Datum::TimestampTz(micros), SqlType::Timestamp) => Datum::Timestamp(*micros),
        (Datum::Timestamp(micros) | Datum::TimestampTz(micros), SqlType::Date) => {
            Datum::Date(interval::date_from_timestamp(*micros))
        }
        (Datum::Timestamp(micros) | Datum::TimestampTz(micros), SqlType::Time) => {
            if interval::is_infinite_timestamp(*micros) {
                Datum::Null
            } else {
                Datum::Time(split_timestamp(*micros).1)
            }
        }
        (Datum::Time(micros), SqlType::Interval) => Datum::Interval(Interval {
            months: 0,
            days: 0,
            micros: *micros,
        }),
        (Datum::Interval(span), SqlType::Time) => Datum::Time(span.micros.rem_euclid(MICROS_PER_DAY)),
        _ => return Err(no_cast(from, to)),
    })
}

/// `42846` `cannot cast type integer to date`
pub fn no_cast(from: &SqlType, to: &SqlType) -> Box<SqlError> {
    SqlError::new(
        SqlState::CANNOT_COERCE,
        format!("cannot cast type {} to {}", from.base_name(), to.base_name()),
    )
}

/// `22003` `integer out of range`
pub fn out_of_range(sql_type: &SqlType) -> Box<SqlError> {
    let name = if *sql_type == SqlType::Oid {
        "OID"
    } else {
        sql_type.base_name()
    };
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("{name} out of range"),
    )
}

fn numeric_out_of_range(value: &BigDecimal, type_name: &str) -> Box<SqlError> {
    let text = Datum::Numeric(value.clone()).to_text(&SqlType::Numeric(None));
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("\"{text}\" is out of range for type {type_name}"),
    )
}

fn is_zero(value: &BigDecimal) -> bool {
    *value == BigDecimal::default()
}

fn to_integer(value: &Datum) -> Option<i64> {
    match value {
        Datum::SmallInt(value) => Some(i64::from(*value)),
        Datum::Integer(value) => Some(i64::from(*value)),
        Datum::BigInt(value) => Some(*value),
        Datum::Real(value) => double_to_integer(f64::from(*value)),
        Datum::DoublePrecision(value) => double_to_integer(*value),
        Datum::Numeric(value) => numeric_arithmetic::to_rounded_integer(value),
        _ => None,
    }
}

/// Rounds half to even; NaN and what does not fit is `None`.
fn double_to_integer(value: f64) -> Option<i64> {
    let rounded = value.round_ties_even();
    (rounded >= i64::MIN as f64 && rounded < -(i64::MIN as f64)).then_some(rounded as i64)
}

/// `double precision` to `real`.
///
/// # Errors
/// `22003` on overflow and underflow.
pub fn narrow_double(value: f64) -> Result<f32> {
    let narrow = value as f32;
    let what = if narrow.is_infinite() && !value.is_infinite() {
        "overflow"
    } else if narrow == 0.0 && value != 0.0 {
        "underflow"
    } else {
        return Ok(narrow);
    };
    Err(SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value out of range: {what}"),
    ))
}

/// Through decimal digits, as many as the float can vouch for.
fn float_to_numeric(value: f64, significant_digits: usize) -> Result<BigDecimal> {
    if !value.is_finite() {
        let mut text = bytes::BytesMut::new();
        float_format::write_double(value, &mut text);
        return Err(SqlError::unsupported(format_args!(
            "numeric value \"{}\"",
            String::from_utf8_lossy(&text)
        )));
    }
    // As `%.15g`: trailing zeros of the digits are not shown.
    let text = format!("{value:.*e}", significant_digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    numeric::parse(&format!("{mantissa}e{exponent}"))
}
