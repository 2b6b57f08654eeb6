//! Random values for tests.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use bytes::Bytes;
use neorunbase_types::{Datum, Interval, SqlType};
use proptest::prelude::*;

/// Any value that equals itself (so no NaN).
pub(crate) fn any_datum() -> impl Strategy<Value = Datum> {
    prop_oneof![
        Just(Datum::Null),
        any::<bool>().prop_map(Datum::Boolean),
        any::<i16>().prop_map(Datum::SmallInt),
        any::<i32>().prop_map(Datum::Integer),
        any::<i64>().prop_map(Datum::BigInt),
        any::<f32>()
            .prop_filter("NaN", |value| !value.is_nan())
            .prop_map(Datum::Real),
        any::<f64>()
            .prop_filter("NaN", |value| !value.is_nan())
            .prop_map(Datum::DoublePrecision),
        numeric().prop_map(Datum::Numeric),
        "[a-c]{0,5}".prop_map(|text| Datum::text(text.as_str())),
        any::<String>().prop_map(|text| Datum::text(text.replace('\0', ""))),
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(255), any::<u8>()], 0..6)
            .prop_map(|bytes| Datum::Bytea(Bytes::from(bytes))),
        any::<i32>().prop_map(Datum::Date),
        any::<i64>().prop_map(Datum::Time),
        any::<i64>().prop_map(Datum::Timestamp),
        any::<i64>().prop_map(Datum::TimestampTz),
        (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, micros)| Datum::Interval(Interval { months, days, micros })),
        any::<[u8; 16]>().prop_map(Datum::Uuid),
        any::<u32>().prop_map(Datum::Oid),
    ]
}

fn numeric() -> impl Strategy<Value = BigDecimal> {
    prop_oneof![
        (-1000_i64..1000, 0_i64..4).prop_map(|(digits, scale)| BigDecimal::new(BigInt::from(digits), scale)),
        (any::<i128>(), 0_i64..30).prop_map(|(digits, scale)| BigDecimal::new(BigInt::from(digits), scale)),
    ]
}

/// The type that holds `datum`; any for NULL.
pub(crate) fn type_of(datum: &Datum) -> SqlType {
    match datum {
        Datum::Null | Datum::Integer(_) => SqlType::Integer,
        Datum::Boolean(_) => SqlType::Boolean,
        Datum::SmallInt(_) => SqlType::SmallInt,
        Datum::BigInt(_) => SqlType::BigInt,
        Datum::Real(_) => SqlType::Real,
        Datum::DoublePrecision(_) => SqlType::DoublePrecision,
        Datum::Numeric(_) => SqlType::Numeric(None),
        Datum::Text(_) => SqlType::Text,
        Datum::Bytea(_) => SqlType::Bytea,
        Datum::Date(_) => SqlType::Date,
        Datum::Time(_) => SqlType::Time,
        Datum::Timestamp(_) => SqlType::Timestamp,
        Datum::TimestampTz(_) => SqlType::TimestampTz,
        Datum::Interval(_) => SqlType::Interval,
        Datum::Uuid(_) => SqlType::Uuid,
        Datum::Oid(_) => SqlType::Oid,
    }
}
