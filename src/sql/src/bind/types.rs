//! Type names.

use neorunbase_types::{Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{CharacterLength, DataType, ExactNumberInfo, ObjectName, TimezoneInfo};

use super::names::{name_of_type, split_name};

/// Longest `varchar(n)` and `char(n)`.
const MAXIMUM_LENGTH: u64 = 10_485_760;
/// Largest precision of a numeric.
const MAXIMUM_PRECISION: u64 = 1_000;

/// The type that a type name stands for.
pub(crate) fn bind_type(data_type: &DataType) -> Result<SqlType> {
    Ok(match data_type {
        DataType::Boolean | DataType::Bool => SqlType::Boolean,
        DataType::SmallInt(None) | DataType::Int2(None) => SqlType::SmallInt,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => SqlType::Integer,
        DataType::BigInt(None) | DataType::Int8(None) => SqlType::BigInt,
        DataType::Real | DataType::Float4 => SqlType::Real,
        DataType::DoublePrecision | DataType::Float8 => SqlType::DoublePrecision,
        DataType::Float(ExactNumberInfo::None) => SqlType::DoublePrecision,
        DataType::Float(ExactNumberInfo::Precision(bits)) => match bits {
            0 => return Err(invalid("precision for type float must be at least 1 bit")),
            1..=24 => SqlType::Real,
            25..=53 => SqlType::DoublePrecision,
            _ => return Err(invalid("precision for type float must be less than 54 bits")),
        },
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,
        DataType::Text => SqlType::Text,
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            SqlType::VarChar(character_length(length.as_ref(), "varchar")?)
        }
        DataType::Char(length) | DataType::Character(length) => {
            SqlType::Char(character_length(length.as_ref(), "char")?.unwrap_or(1))
        }
        DataType::Bytea => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
        DataType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => SqlType::TimestampTz,
        DataType::Interval { .. } => SqlType::Interval,
        DataType::Uuid => SqlType::Uuid,
        DataType::Custom(name, modifiers) => custom(name, modifiers)?,
        DataType::Time(..)
        | DataType::JSON
        | DataType::JSONB
        | DataType::Array(_)
        | DataType::Regclass
        | DataType::Bit(_)
        | DataType::BitVarying(_)
        | DataType::VarBit(_)
        | DataType::GeometricType(_)
        | DataType::TsVector
        | DataType::TsQuery => {
            return Err(SqlError::unsupported(format_args!(
                "type {}",
                data_type.to_string().to_lowercase()
            )));
        }
        other => return Err(undefined(&name_of_type(other))),
    })
}

fn invalid(message: &str) -> Box<SqlError> {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn undefined(name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("type \"{name}\" does not exist"),
    )
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric(None)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if precision == 0 || precision > MAXIMUM_PRECISION {
        return Err(invalid(&format!(
            "NUMERIC precision {precision} must be between 1 and {MAXIMUM_PRECISION}"
        )));
    }
    match i16::try_from(scale) {
        Ok(narrow @ -1_000..=1_000) => Ok(SqlType::Numeric(Some((precision as u16, narrow)))),
        _ => Err(invalid(&format!(
            "NUMERIC scale {scale} must be between -1000 and 1000"
        ))),
    }
}

fn character_length(length: Option<&CharacterLength>, name: &str) -> Result<Option<u32>> {
    match length {
        None => Ok(None),
        Some(CharacterLength::IntegerLength { length, .. }) => checked_length(*length, name).map(Some),
        Some(CharacterLength::Max) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "syntax error at or near \"max\"",
        )),
    }
}

fn checked_length(length: u64, name: &str) -> Result<u32> {
    match length {
        0 => Err(invalid(&format!("length for type {name} must be at least 1"))),
        1..=MAXIMUM_LENGTH => Ok(length as u32),
        _ => Err(invalid(&format!(
            "length for type {name} cannot exceed {MAXIMUM_LENGTH}"
        ))),
    }
}

/// Names that the parser has no keyword for, such as `timestamptz`, `pg_catalog.int4` or `bpchar(3)`.
fn custom(name: &ObjectName, modifiers: &[String]) -> Result<SqlType> {
    let (schema, plain) = split_name(name)?;
    if schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
        return Err(undefined(&name.to_string()));
    }
    let modifier = |index: usize| {
        modifiers
            .get(index)
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    Ok(match plain.as_str() {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::SmallInt,
        "int4" => SqlType::Integer,
        "int8" => SqlType::BigInt,
        "float4" => SqlType::Real,
        "float8" => SqlType::DoublePrecision,
        "numeric" => match (modifier(0), modifier(1)) {
            (None, _) => SqlType::Numeric(None),
            (Some(precision), scale) => numeric(&ExactNumberInfo::PrecisionAndScale(
                precision,
                scale.unwrap_or(0) as i64,
            ))?,
        },
        "text" => SqlType::Text,
        "varchar" => SqlType::VarChar(
            modifier(0)
                .map(|length| checked_length(length, "varchar"))
                .transpose()?,
        ),
        "bpchar" => SqlType::Char(modifier(0).map_or(Ok(0), |length| checked_length(length, "char"))?),
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "oid" => SqlType::Oid,
        "name" => SqlType::Name,
        "serial" | "serial4" | "bigserial" | "serial8" | "smallserial" | "serial2" => {
            return Err(SqlError::unsupported(format_args!("type {plain}")).with_hint(
                "Sequences are not available; use bigint, integer or uuid and supply the values.",
            ));
        }
        "json" | "jsonb" | "xml" | "money" | "inet" | "cidr" | "macaddr" | "regclass" | "regproc"
        | "regtype" | "regrole" | "regnamespace" | "timetz" | "int4range" | "int8range" | "numrange"
        | "tsrange" | "tstzrange" | "daterange" | "vector" | "geometry" | "hstore" | "citext" => {
            return Err(SqlError::unsupported(format_args!("type {plain}")));
        }
        _ => return Err(undefined(&plain)),
    })
}
