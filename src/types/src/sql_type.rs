//! Column and expression types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A PostgreSQL type with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// `boolean`
    Boolean,
    /// `smallint`
    SmallInt,
    /// `integer`
    Integer,
    /// `bigint`
    BigInt,
    /// `real`
    Real,
    /// `double precision`
    DoublePrecision,
    /// `numeric` or `numeric(precision, scale)`
    Numeric(Option<(u16, i16)>),
    /// `text`
    Text,
    /// `character varying` or `character varying(n)`; `n` counts characters
    VarChar(Option<u32>),
    /// `character(n)`, blank-padded when it is printed; 0 is `bpchar` without a length. A [`Datum`](crate::Datum)
    /// of this type is held *without* its trailing blanks, which are not significant in comparisons.
    Char(u32),
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    TimestampTz,
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// `oid`
    Oid,
    /// `name`, the catalogs' 63-byte text
    Name,
    /// The type of an untyped literal or parameter until its context decides (PostgreSQL's `unknown`).
    Unknown,
}

/// PostgreSQL's `pg_type.typcategory`, which operator and function resolution is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeCategory {
    /// `B`
    Boolean,
    /// `N`
    Numeric,
    /// `S`
    String,
    /// `D`
    DateTime,
    /// `T`
    Timespan,
    /// `U`
    UserDefined,
    /// `X`
    Unknown,
}

impl SqlType {
    /// The type's row in `pg_type`.
    pub fn oid(&self) -> u32 {
        match self {
            Self::Boolean => 16,
            Self::Bytea => 17,
            Self::Name => 19,
            Self::BigInt => 20,
            Self::SmallInt => 21,
            Self::Integer => 23,
            Self::Text => 25,
            Self::Oid => 26,
            Self::Real => 700,
            Self::DoublePrecision => 701,
            Self::Unknown => 705,
            Self::Char(_) => 1042,
            Self::VarChar(_) => 1043,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::TimestampTz => 1184,
            Self::Interval => 1186,
            Self::Numeric(_) => 1700,
            Self::Uuid => 2950,
        }
    }

    /// The type without modifiers that has this oid.
    pub fn from_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Boolean,
            17 => Self::Bytea,
            19 => Self::Name,
            20 => Self::BigInt,
            21 => Self::SmallInt,
            23 => Self::Integer,
            25 => Self::Text,
            26 => Self::Oid,
            700 => Self::Real,
            701 => Self::DoublePrecision,
            705 => Self::Unknown,
            1042 => Self::Char(0),
            1043 => Self::VarChar(None),
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1186 => Self::Interval,
            1700 => Self::Numeric(None),
            2950 => Self::Uuid,
            _ => return None,
        })
    }

    /// The type with this oid and `atttypmod`; a modifier below 4 means none.
    pub fn from_oid_and_modifier(oid: u32, modifier: i32) -> Option<Self> {
        let base = Self::from_oid(oid)?;
        let Some(modifier) = modifier
            .checked_sub(4)
            .and_then(|modifier| u32::try_from(modifier).ok())
        else {
            return Some(base);
        };
        Some(match base {
            Self::Char(_) => Self::Char(modifier),
            Self::VarChar(_) => Self::VarChar(Some(modifier)),
            Self::Numeric(_) => {
                let scale = ((modifier & 0x7ff) ^ 0x400) as i16 - 0x400;
                Self::Numeric(Some(((modifier >> 16) as u16, scale)))
            }
            other => other,
        })
    }

    /// `pg_type.typlen`: bytes, -1 for variable, -2 for a C string.
    pub fn type_length(&self) -> i16 {
        match self {
            Self::Boolean => 1,
            Self::SmallInt => 2,
            Self::Integer | Self::Real | Self::Date | Self::Oid => 4,
            Self::BigInt | Self::DoublePrecision | Self::Time | Self::Timestamp | Self::TimestampTz => 8,
            Self::Interval | Self::Uuid => 16,
            Self::Name => 64,
            Self::Unknown => -2,
            Self::Numeric(_) | Self::Text | Self::VarChar(_) | Self::Char(_) | Self::Bytea => -1,
        }
    }

    /// `pg_attribute.atttypmod`: -1 without a modifier.
    pub fn type_modifier(&self) -> i32 {
        match self {
            Self::VarChar(Some(length)) => i32::try_from(*length).unwrap_or(i32::MAX - 4) + 4,
            Self::Char(length) if *length > 0 => i32::try_from(*length).unwrap_or(i32::MAX - 4) + 4,
            Self::Numeric(Some((precision, scale))) => {
                ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
            }
            _ => -1,
        }
    }

    /// The same type without its modifiers.
    pub fn without_modifier(&self) -> Self {
        match self {
            Self::VarChar(_) => Self::VarChar(None),
            Self::Char(_) => Self::Char(0),
            Self::Numeric(_) => Self::Numeric(None),
            other => other.clone(),
        }
    }

    /// Whether the two differ in modifiers at most.
    pub fn same_base(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// `pg_type.typname`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Boolean => "bool",
            Self::SmallInt => "int2",
            Self::Integer => "int4",
            Self::BigInt => "int8",
            Self::Real => "float4",
            Self::DoublePrecision => "float8",
            Self::Numeric(_) => "numeric",
            Self::Text => "text",
            Self::VarChar(_) => "varchar",
            Self::Char(_) => "bpchar",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Interval => "interval",
            Self::Uuid => "uuid",
            Self::Oid => "oid",
            Self::Name => "name",
            Self::Unknown => "unknown",
        }
    }

    /// The name that error messages use: as [`Display`](fmt::Display), without modifiers.
    pub fn base_name(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::DoublePrecision => "double precision",
            Self::VarChar(_) => "character varying",
            Self::Char(_) => "character",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::TimestampTz => "timestamp with time zone",
            other => other.type_name(),
        }
    }

    /// `pg_type.typcategory`.
    pub fn category(&self) -> TypeCategory {
        match self {
            Self::Boolean => TypeCategory::Boolean,
            Self::SmallInt
            | Self::Integer
            | Self::BigInt
            | Self::Real
            | Self::DoublePrecision
            | Self::Numeric(_)
            | Self::Oid => TypeCategory::Numeric,
            Self::Text | Self::VarChar(_) | Self::Char(_) | Self::Name => TypeCategory::String,
            Self::Date | Self::Time | Self::Timestamp | Self::TimestampTz => TypeCategory::DateTime,
            Self::Interval => TypeCategory::Timespan,
            Self::Bytea | Self::Uuid => TypeCategory::UserDefined,
            Self::Unknown => TypeCategory::Unknown,
        }
    }

    /// `pg_type.typispreferred`: the type of its category that ambiguous calls choose.
    pub fn is_preferred(&self) -> bool {
        matches!(
            self,
            Self::Boolean
                | Self::DoublePrecision
                | Self::Oid
                | Self::Text
                | Self::TimestampTz
                | Self::Interval
        )
    }

    /// Whether arithmetic works on it (`oid` does not count).
    pub fn is_numeric(&self) -> bool {
        matches!(
            self,
            Self::SmallInt
                | Self::Integer
                | Self::BigInt
                | Self::Real
                | Self::DoublePrecision
                | Self::Numeric(_)
        )
    }

    /// Whether values are [`Datum::Text`](crate::Datum::Text).
    pub fn is_string(&self) -> bool {
        self.category() == TypeCategory::String
    }
}

/// As `format_type(oid, modifier)` prints it.
impl fmt::Display for SqlType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VarChar(Some(length)) => write!(formatter, "character varying({length})"),
            Self::Char(0) => formatter.write_str("bpchar"),
            Self::Char(length) => write!(formatter, "character({length})"),
            Self::Numeric(Some((precision, scale))) => write!(formatter, "numeric({precision},{scale})"),
            other => formatter.write_str(other.base_name()),
        }
    }
}
