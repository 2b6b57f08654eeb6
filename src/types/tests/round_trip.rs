//! Values survive their text, binary and serde forms, whatever they are.
#![allow(clippy::unwrap_used)]

use std::cmp::Ordering;

use bytes::{Bytes, BytesMut};
use neorunbase_types::calendar::{
    DATE_END, FIRST_DATE, FIRST_TIMESTAMP, MICROS_PER_DAY, TIMESTAMP_END, civil_from_days, days_from_civil,
};
use neorunbase_types::{CastContext, Datum, DatumKey, Interval, SqlType, cast, numeric};
use proptest::prelude::*;

fn numeric_text() -> impl Strategy<Value = String> {
    ("-?[1-9][0-9]{0,40}", prop::option::of("[0-9]{1,40}")).prop_map(|(whole, fraction)| match fraction {
        Some(fraction) => format!("{whole}.{fraction}"),
        None => whole,
    })
}

fn typed_datum() -> impl Strategy<Value = (SqlType, Datum)> {
    let interval = (any::<i32>(), any::<i32>(), any::<i64>()).prop_map(|(months, days, micros)| Interval {
        months,
        days,
        micros,
    });
    prop_oneof![
        any::<bool>().prop_map(|value| (SqlType::Boolean, Datum::Boolean(value))),
        any::<i16>().prop_map(|value| (SqlType::SmallInt, Datum::SmallInt(value))),
        any::<i32>().prop_map(|value| (SqlType::Integer, Datum::Integer(value))),
        any::<i64>().prop_map(|value| (SqlType::BigInt, Datum::BigInt(value))),
        any::<f32>().prop_map(|value| (SqlType::Real, Datum::Real(value))),
        any::<f64>().prop_map(|value| (SqlType::DoublePrecision, Datum::DoublePrecision(value))),
        numeric_text().prop_map(|text| {
            (
                SqlType::Numeric(None),
                Datum::Numeric(numeric::parse(&text).unwrap()),
            )
        }),
        "[^\u{0}]{0,20}".prop_map(|text| (SqlType::Text, Datum::Text(text.into()))),
        "[a-zé]{0,9}".prop_map(|text| (SqlType::Char(10), Datum::Text(text.into()))),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| (SqlType::Bytea, Datum::Bytea(Bytes::from(bytes)))),
        (FIRST_DATE..DATE_END).prop_map(|days| (SqlType::Date, Datum::Date(days))),
        (0..=MICROS_PER_DAY).prop_map(|micros| (SqlType::Time, Datum::Time(micros))),
        (FIRST_TIMESTAMP..TIMESTAMP_END).prop_map(|micros| (SqlType::Timestamp, Datum::Timestamp(micros))),
        (FIRST_TIMESTAMP..TIMESTAMP_END)
            .prop_map(|micros| (SqlType::TimestampTz, Datum::TimestampTz(micros))),
        interval.prop_map(|span| (SqlType::Interval, Datum::Interval(span))),
        any::<[u8; 16]>().prop_map(|bytes| (SqlType::Uuid, Datum::Uuid(bytes))),
        any::<u32>().prop_map(|value| (SqlType::Oid, Datum::Oid(value))),
    ]
}

/// Intervals whose hours do not fit the text's integers are beyond what PostgreSQL reads back, too.
fn readable(datum: &Datum) -> bool {
    match datum {
        Datum::Interval(span) => {
            span.micros.unsigned_abs() / 3_600_000_000 < 2_147_483_647 && span.months > i32::MIN
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text((sql_type, datum) in typed_datum()) {
        prop_assume!(readable(&datum));
        let text = datum.to_text(&sql_type);
        let read = Datum::from_text(&sql_type, &text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(read.compare(&datum), Ordering::Equal, "{}", text);
        prop_assert_eq!(read.to_text(&sql_type), text);
    }

    #[test]
    fn binary((sql_type, datum) in typed_datum()) {
        let mut bytes = BytesMut::new();
        datum.write_binary(&sql_type, &mut bytes);
        let read = Datum::from_binary(&sql_type, &bytes).unwrap();
        prop_assert_eq!(read.to_text(&sql_type), datum.to_text(&sql_type));
    }

    #[test]
    fn postcard_form((sql_type, datum) in typed_datum()) {
        let bytes = postcard::to_stdvec(&datum).unwrap();
        let read: Datum = postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.to_text(&sql_type), datum.to_text(&sql_type));
    }

    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), (sql_type, _) in typed_datum()) {
        let _ = Datum::from_binary(&sql_type, &bytes);
        let _ = postcard::from_bytes::<Datum>(&bytes);
    }

    #[test]
    fn hostile_text_does_not_panic(text in "[-+0-9a-zA-Z:./ é{}\\\\]{0,30}", (sql_type, _) in typed_datum()) {
        let _ = Datum::from_text(&sql_type, &text);
    }

    #[test]
    fn order_is_total(mut values in prop::collection::vec(any::<f64>().prop_map(Datum::DoublePrecision), 3)) {
        values.sort_by(Datum::compare);
        prop_assert!(values[0].compare(&values[2]) != Ordering::Greater);
        let keys: std::collections::BTreeSet<DatumKey> = values.into_iter().map(DatumKey).collect();
        prop_assert!(!keys.is_empty());
    }

    #[test]
    fn calendar(days in -100_000_000_i64..100_000_000) {
        let (year, month, day) = civil_from_days(days);
        prop_assert_eq!(days_from_civil(year, i64::from(month), i64::from(day)), days);
    }
}

#[test]
fn oids_and_modifiers_round_trip() {
    for sql_type in [
        SqlType::VarChar(Some(100)),
        SqlType::Char(3),
        SqlType::Numeric(Some((10, 2))),
        SqlType::Numeric(Some((5, -3))),
        SqlType::Numeric(None),
        SqlType::Text,
        SqlType::TimestampTz,
    ] {
        let read = SqlType::from_oid_and_modifier(sql_type.oid(), sql_type.type_modifier());
        assert_eq!(read, Some(sql_type));
    }
}

#[test]
fn names_are_those_of_format_type() {
    assert_eq!(SqlType::VarChar(Some(100)).to_string(), "character varying(100)");
    assert_eq!(SqlType::Char(3).to_string(), "character(3)");
    assert_eq!(SqlType::Numeric(Some((10, 2))).to_string(), "numeric(10,2)");
    assert_eq!(SqlType::TimestampTz.to_string(), "timestamp with time zone");
}

#[test]
fn numeric_binary_is_postgresqls() {
    // What `select numeric_send(…)` shows.
    for (text, expected) in [
        ("0", "0000000000000000"),
        ("1.50", "000200000000000200011388"),
        ("-12345.678", "0003000140000003000109291a7c"),
        ("10000", "00010001000000000001"),
    ] {
        let mut bytes = BytesMut::new();
        numeric::write_binary(&numeric::parse(text).unwrap(), &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{text}");
    }
}

#[test]
fn assignment_refuses_what_explicit_casts_cut() {
    let value = Datum::text("abcdef");
    let to = SqlType::VarChar(Some(3));
    let error = cast(&value, &SqlType::Text, &to, CastContext::Assignment).unwrap_err();
    assert_eq!(
        (error.state.0, error.message.as_str()),
        ("22001", "value too long for type character varying(3)")
    );
    assert_eq!(
        cast(&value, &SqlType::Text, &to, CastContext::Explicit),
        Ok(Datum::text("abc"))
    );
    let blanks = Datum::text("abc   ");
    assert_eq!(
        cast(&blanks, &SqlType::Text, &to, CastContext::Assignment),
        Ok(Datum::text("abc"))
    );
}

#[test]
fn now_needs_a_clock() {
    assert_eq!(
        Datum::from_text(&SqlType::Date, "today").unwrap_err().state.0,
        "0A000"
    );
    let at = Some(1_700_000_000_000_000);
    let read = |sql_type: SqlType, text: &str| {
        Datum::from_text_at(&sql_type, text, at)
            .unwrap()
            .to_text(&sql_type)
    };
    assert_eq!(read(SqlType::Date, "today"), "2023-11-14");
    assert_eq!(read(SqlType::Date, "tomorrow"), "2023-11-15");
    assert_eq!(read(SqlType::Timestamp, "yesterday 10:00"), "2023-11-13 10:00:00");
    assert_eq!(read(SqlType::TimestampTz, "now"), "2023-11-14 22:13:20+00");
    assert_eq!(read(SqlType::Timestamp, "now"), "2023-11-14 22:13:20");
}

#[test]
fn the_fast_way_reads_as_the_general_one() {
    // A leading blank takes the general way.
    for text in [
        "2024-01-02 03:04:05",
        "2024-02-29T23:59:59.999999",
        "1999-12-31 23:59:59.5+02",
        "0001-01-01 00:00:00-15",
        "2024-01-02 03:04:05.123Z",
    ] {
        for sql_type in [SqlType::Timestamp, SqlType::TimestampTz] {
            let fast = Datum::from_text(&sql_type, text).unwrap();
            let general = Datum::from_text(&sql_type, &format!(" {text}")).unwrap();
            assert_eq!(fast, general, "{text}");
        }
    }
}
