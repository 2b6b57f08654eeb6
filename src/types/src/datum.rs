//! Values.

use bigdecimal::BigDecimal;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// PostgreSQL's interval: three fields that do not convert into each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Whole months.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}

/// One value. The variant follows from the column's [`SqlType`](crate::SqlType); `varchar`, `char`, `name` and
/// `text` all hold `Text`.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// SQL NULL of any type.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `smallint`
    SmallInt(i16),
    /// `integer`
    Integer(i32),
    /// `bigint`
    BigInt(i64),
    /// `real`
    Real(f32),
    /// `double precision`
    DoublePrecision(f64),
    /// `numeric`; the scale is what is displayed. NaN and infinities are not supported.
    Numeric(BigDecimal),
    /// Any character type; UTF-8, without NUL bytes.
    Text(Box<str>),
    /// `bytea`
    Bytea(Bytes),
    /// `date`: days since 2000-01-01
    Date(i32),
    /// `time`: microseconds since midnight
    Time(i64),
    /// `timestamp`: microseconds since 2000-01-01 00:00:00
    Timestamp(i64),
    /// `timestamptz`: microseconds since 2000-01-01 00:00:00 UTC
    TimestampTz(i64),
    /// `interval`
    Interval(Interval),
    /// `uuid`
    Uuid([u8; 16]),
    /// `oid`
    Oid(u32),
}

impl Datum {
    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
