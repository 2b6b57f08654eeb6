//! Values.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    Numeric(#[serde(with = "crate::datum_serde::numeric")] BigDecimal),
    /// Any character type; UTF-8, without NUL bytes. `character(n)` is held without its trailing blanks.
    Text(Box<str>),
    /// `bytea`
    Bytea(#[serde(with = "crate::datum_serde::bytes")] Bytes),
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

impl Interval {
    /// The length that comparisons use: months of 30 days, days of 24 hours, in microseconds.
    pub fn comparable_micros(&self) -> i128 {
        let days = i64::from(self.months) * 30 + i64::from(self.days);
        i128::from(days) * i128::from(crate::calendar::MICROS_PER_DAY) + i128::from(self.micros)
    }
}

impl Datum {
    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A text value.
    pub fn text(value: impl Into<Box<str>>) -> Self {
        Self::Text(value.into())
    }

    /// The total order of a btree over values of one type: NaN is the greatest number, text goes by bytes,
    /// NULL is last (`NULLS LAST`). Values of different types have an arbitrary but fixed order.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left.cmp(right),
            (Self::BigInt(left), Self::BigInt(right)) => left.cmp(right),
            (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Self::SmallInt(left), Self::SmallInt(right)) => left.cmp(right),
            (Self::Boolean(left), Self::Boolean(right)) => left.cmp(right),
            (Self::Numeric(left), Self::Numeric(right)) => left.cmp(right),
            (Self::DoublePrecision(left), Self::DoublePrecision(right)) => compare_floats(*left, *right),
            (Self::Real(left), Self::Real(right)) => compare_floats(f64::from(*left), f64::from(*right)),
            (Self::Timestamp(left), Self::Timestamp(right))
            | (Self::TimestampTz(left), Self::TimestampTz(right))
            | (Self::Time(left), Self::Time(right)) => left.cmp(right),
            (Self::Date(left), Self::Date(right)) => left.cmp(right),
            (Self::Bytea(left), Self::Bytea(right)) => left.cmp(right),
            (Self::Uuid(left), Self::Uuid(right)) => left.cmp(right),
            (Self::Oid(left), Self::Oid(right)) => left.cmp(right),
            (Self::Interval(left), Self::Interval(right)) => {
                left.comparable_micros().cmp(&right.comparable_micros())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// Feeds the hasher so that values that [`compare`](Datum::compare) equal hash alike.
    pub fn hash_value<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u8(self.rank());
        match self {
            Self::Null => {}
            Self::Boolean(value) => value.hash(hasher),
            Self::SmallInt(value) => value.hash(hasher),
            Self::Integer(value) => value.hash(hasher),
            Self::BigInt(value) => value.hash(hasher),
            Self::Real(value) => hash_float(f64::from(*value), hasher),
            Self::DoublePrecision(value) => hash_float(*value, hasher),
            Self::Numeric(value) => value.normalized().hash(hasher),
            Self::Text(value) => value.hash(hasher),
            Self::Bytea(value) => value.hash(hasher),
            Self::Date(value) => value.hash(hasher),
            Self::Time(value) | Self::Timestamp(value) | Self::TimestampTz(value) => value.hash(hasher),
            Self::Interval(value) => value.comparable_micros().hash(hasher),
            Self::Uuid(value) => value.hash(hasher),
            Self::Oid(value) => value.hash(hasher),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Boolean(_) => 0,
            Self::SmallInt(_) => 1,
            Self::Integer(_) => 2,
            Self::BigInt(_) => 3,
            Self::Real(_) => 4,
            Self::DoublePrecision(_) => 5,
            Self::Numeric(_) => 6,
            Self::Text(_) => 7,
            Self::Bytea(_) => 8,
            Self::Date(_) => 9,
            Self::Time(_) => 10,
            Self::Timestamp(_) => 11,
            Self::TimestampTz(_) => 12,
            Self::Interval(_) => 13,
            Self::Uuid(_) => 14,
            Self::Oid(_) => 15,
            Self::Null => 255,
        }
    }
}

/// PostgreSQL's order of floats: NaN equals NaN and is greater than all else, the two zeros are equal.
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

fn hash_float<H: Hasher>(value: f64, hasher: &mut H) {
    let canonical = if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    canonical.to_bits().hash(hasher);
}

/// A value as a key of maps and sets: equality and order are [`Datum::compare`]'s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatumKey(pub Datum);

impl PartialEq for DatumKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.compare(&other.0) == Ordering::Equal
    }
}

impl Eq for DatumKey {}

impl PartialOrd for DatumKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DatumKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&other.0)
    }
}

impl Hash for DatumKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash_value(hasher);
    }
}
