//! Types by the names that can stand for a cast in a call: `int4(x)`, `date(x)`.

use neorunbase_types::SqlType;

/// The type of a function-style cast; SQL's multi-word names cannot be called.
pub(crate) fn from_function_name(name: &str) -> Option<SqlType> {
    Some(match name {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::SmallInt,
        "int4" => SqlType::Integer,
        "int8" => SqlType::BigInt,
        "float4" => SqlType::Real,
        "float8" => SqlType::DoublePrecision,
        "numeric" => SqlType::Numeric(None),
        "text" => SqlType::Text,
        "varchar" => SqlType::VarChar(None),
        "bpchar" => SqlType::Char(0),
        "name" => SqlType::Name,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "oid" => SqlType::Oid,
        _ => return None,
    })
}
