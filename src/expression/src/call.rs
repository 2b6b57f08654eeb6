//! Dispatch of calls by the number of arguments; none of them is NULL here.

use neorunbase_types::{Datum, Result, SqlError, SqlType};

use crate::function::Function as F;
use crate::{
    arithmetic, datetime_fields, datetime_functions, format, mathematics, parse_format, pattern, text,
};

/// A program from elsewhere may pair a function with arguments that it does not take.
pub(crate) fn mismatch(function: F) -> Box<SqlError> {
    SqlError::internal(format!("function {function:?} does not take these arguments"))
}

/// Functions without arguments.
pub(crate) fn nullary(function: F, now_unix_micros: i64) -> Result<Datum> {
    match function {
        F::Pi => Ok(Datum::DoublePrecision(std::f64::consts::PI)),
        F::Now | F::CurrentDate | F::LocalTimestamp | F::LocalTime => {
            Ok(datetime_functions::current(function, now_unix_micros))
        }
        F::MakeInterval => datetime_functions::make_interval(&[]),
        _ => Err(mismatch(function)),
    }
}

/// Functions and operators of one argument.
pub(crate) fn unary(function: F, argument: &Datum) -> Result<Datum> {
    match function {
        F::Negate => arithmetic::negate(argument),
        F::BitNot => arithmetic::bit_not(argument),
        F::Absolute => arithmetic::absolute(argument),
        F::Ceil
        | F::Floor
        | F::Round
        | F::Truncate
        | F::SquareRoot
        | F::CubeRoot
        | F::Exponential
        | F::NaturalLogarithm
        | F::Logarithm
        | F::Sign
        | F::Degrees
        | F::Radians
        | F::Sine
        | F::Cosine
        | F::Tangent
        | F::Cotangent
        | F::ArcSine
        | F::ArcCosine
        | F::ArcTangent
        | F::Scale
        | F::MinimumScale
        | F::TrimScale
        | F::Factorial => mathematics::unary(function, argument),
        F::ToTimestamp => datetime_functions::to_timestamp(argument),
        F::JustifyDays | F::JustifyHours | F::JustifyInterval | F::IsFinite => {
            datetime_functions::unary(function, argument)
        }
        F::MakeInterval => datetime_functions::make_interval(std::slice::from_ref(argument)),
        _ => text::unary(function, argument),
    }
}

/// Functions and operators of two arguments, comparisons excepted.
pub(crate) fn binary(function: F, left: &Datum, right: &Datum) -> Result<Datum> {
    match function {
        F::Add => arithmetic::add(left, right),
        F::Subtract => arithmetic::subtract(left, right),
        F::Multiply => arithmetic::multiply(left, right),
        F::Divide => arithmetic::divide(left, right),
        F::Modulo => arithmetic::modulo(left, right),
        F::BitAnd | F::BitOr | F::BitXor | F::ShiftLeft | F::ShiftRight => {
            arithmetic::bits(function, left, right)
        }
        F::Power
        | F::Round
        | F::Truncate
        | F::Logarithm
        | F::IntegerQuotient
        | F::GreatestCommonDivisor
        | F::LeastCommonMultiple
        | F::ArcTangent2 => mathematics::binary(function, left, right),
        F::RegexMatches
        | F::RegexMatchesInsensitive
        | F::RegexNotMatches
        | F::RegexNotMatchesInsensitive
        | F::SubstringRegex => pattern::binary(function, left, right),
        F::DateTrunc => datetime_fields::truncate(left, right),
        F::DatePart => datetime_fields::date_part(left, right),
        F::Extract => datetime_fields::extract(left, right),
        F::Age => datetime_functions::age(left, right),
        F::TimeZone => datetime_functions::time_zone(left, right),
        F::MakeInterval => datetime_functions::make_interval(&[left.clone(), right.clone()]),
        F::ToChar => format::to_char(left, right),
        F::ToDate => parse_format::to_date(left, right),
        F::ToTimestamp => parse_format::to_timestamp(left, right),
        _ => text::binary(function, left, right),
    }
}

/// Functions of three arguments and more.
pub(crate) fn many(function: F, arguments: &[Datum], sql_type: &SqlType) -> Result<Datum> {
    match function {
        F::MakeDate => datetime_functions::make_date(arguments),
        F::MakeTime => datetime_functions::make_time(arguments),
        F::MakeTimestamp => datetime_functions::make_timestamp(arguments, sql_type),
        F::MakeInterval => datetime_functions::make_interval(arguments),
        F::DateBin => datetime_functions::date_bin(arguments),
        F::RegexReplace => pattern::replace(arguments),
        _ => text::many(function, arguments),
    }
}
