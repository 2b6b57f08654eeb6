//! Keys as bytes that sort as their values do.
//!
//! Each value is a type tag and a payload of a length that the bytes themselves tell, so encoded keys are
//! prefix-free and can be cut without their types. Descending columns are the same bytes inverted (their tags
//! then have the high bit set). Values that compare equal encode alike: a key does not tell `1.0` from `1.00`,
//! `-0` from `0`, or 30 days from a month; rows do. All integer types encode alike, so that a comparison
//! of a `bigint` with an `integer` key finds it.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use bigdecimal::num_traits::Zero;
use bytes::Bytes;
use neorunbase_types::{Datum, Interval, SqlType};

use crate::StorageError;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const FLOAT: u8 = 0x03;
const NUMERIC: u8 = 0x04;
const TEXT: u8 = 0x05;
const BYTEA: u8 = 0x06;
const DATE: u8 = 0x07;
const TIME: u8 = 0x08;
const INTERVAL: u8 = 0x09;
const UUID: u8 = 0x0a;
const OID: u8 = 0x0b;
/// Above all others: NULLs sort last.
const NULL: u8 = 0x7f;
const NULL_DESCENDING: u8 = !NULL;
/// Set in the tag of a descending value, as a result of the inversion.
const DESCENDING: u8 = 0x80;

const NUMERIC_NEGATIVE: u8 = 0;
const NUMERIC_ZERO: u8 = 1;
const NUMERIC_POSITIVE: u8 = 2;

const MALFORMED: StorageError = StorageError::Malformed { what: "key" };

/// A key of ascending columns: primary and shard keys.
pub fn encode_key(values: &[Datum]) -> Bytes {
    let mut output = Vec::with_capacity(values.len() * 12);
    for value in values {
        put_key_value(&mut output, value, false);
    }
    Bytes::from(output)
}

/// A key of columns that may be descending: index entries, up to the primary key that follows them.
pub fn encode_index_key<'a>(values: impl Iterator<Item = (&'a Datum, bool)>) -> Bytes {
    let mut output = Vec::with_capacity(24);
    for (value, descending) in values {
        put_key_value(&mut output, value, descending);
    }
    Bytes::from(output)
}

/// Appends one value of a key.
pub fn put_key_value(output: &mut Vec<u8>, value: &Datum, descending: bool) {
    let start = output.len();
    match value {
        Datum::Null => output.push(NULL),
        Datum::Boolean(value) => output.extend_from_slice(&[BOOLEAN, u8::from(*value)]),
        Datum::SmallInt(value) => put_i64(output, INTEGER, i64::from(*value)),
        Datum::Integer(value) => put_i64(output, INTEGER, i64::from(*value)),
        Datum::BigInt(value) => put_i64(output, INTEGER, *value),
        Datum::Real(value) => put_float(output, f64::from(*value)),
        Datum::DoublePrecision(value) => put_float(output, *value),
        Datum::Numeric(value) => put_numeric(output, value),
        Datum::Text(value) => put_escaped(output, TEXT, value.as_bytes()),
        Datum::Bytea(value) => put_escaped(output, BYTEA, value),
        Datum::Date(value) => {
            output.push(DATE);
            output.extend_from_slice(&(*value as u32 ^ 1 << 31).to_be_bytes());
        }
        Datum::Time(value) | Datum::Timestamp(value) | Datum::TimestampTz(value) => {
            put_i64(output, TIME, *value);
        }
        Datum::Interval(value) => {
            output.push(INTERVAL);
            let ordered = value.comparable_micros() as u128 ^ 1 << 127;
            output.extend_from_slice(&ordered.to_be_bytes());
        }
        Datum::Uuid(value) => {
            output.push(UUID);
            output.extend_from_slice(value);
        }
        Datum::Oid(value) => {
            output.push(OID);
            output.extend_from_slice(&value.to_be_bytes());
        }
    }
    if descending {
        invert(&mut output[start..]);
    }
}

fn invert(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = !*byte;
    }
}

fn put_i64(output: &mut Vec<u8>, tag: u8, value: i64) {
    output.push(tag);
    output.extend_from_slice(&(value as u64 ^ 1 << 63).to_be_bytes());
}

fn put_float(output: &mut Vec<u8>, value: f64) {
    let canonical = if value.is_nan() {
        f64::NAN.abs()
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    let bits = canonical.to_bits();
    let ordered = if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits };
    output.push(FLOAT);
    output.extend_from_slice(&ordered.to_be_bytes());
}

/// 0x00 becomes 0x00 0xFF and 0x00 0x01 ends the value, so that a prefix sorts before its extensions.
fn put_escaped(output: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    output.push(tag);
    let mut parts = bytes.split(|byte| *byte == 0);
    output.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        output.extend_from_slice(&[0, 0xff]);
        output.extend_from_slice(part);
    }
    output.extend_from_slice(&[0, 1]);
}

/// The value as `0.d₁d₂d₃… × 10^exponent`: sign, biased exponent, pairs of digits plus one, 0. All after the sign
/// is inverted for negative values.
fn put_numeric(output: &mut Vec<u8>, value: &BigDecimal) {
    output.push(NUMERIC);
    let (unscaled, scale) = value.as_bigint_and_scale();
    if unscaled.is_zero() {
        output.push(NUMERIC_ZERO);
        return;
    }
    let text = unscaled.magnitude().to_string();
    // The format's limits keep both far inside 32 bits.
    let exponent = (text.len() as i64 - scale) as i32;
    let digits = text.trim_end_matches('0').as_bytes();
    let negative = unscaled.sign() == Sign::Minus;
    output.push(if negative {
        NUMERIC_NEGATIVE
    } else {
        NUMERIC_POSITIVE
    });
    let start = output.len();
    output.extend_from_slice(&(exponent as u32 ^ 1 << 31).to_be_bytes());
    for pair in digits.chunks(2) {
        let high = pair[0] - b'0';
        let low = pair.get(1).map_or(0, |digit| digit - b'0');
        output.push(high * 10 + low + 1);
    }
    output.push(0);
    if negative {
        invert(&mut output[start..]);
    }
}

/// Reads the bytes of a key, undoing the inversion of a descending value.
struct KeyReader<'a> {
    rest: &'a [u8],
    inversion: u8,
}

impl KeyReader<'_> {
    fn byte(&mut self) -> Result<u8, StorageError> {
        let (&byte, rest) = self.rest.split_first().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(byte ^ self.inversion)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], StorageError> {
        let (bytes, rest) = self.rest.split_first_chunk::<LENGTH>().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(bytes.map(|byte| byte ^ self.inversion))
    }

    /// The next value's tag; its other bytes are then read as if it were ascending.
    fn tag(&mut self) -> Result<u8, StorageError> {
        let first = *self.rest.first().ok_or(MALFORMED)?;
        self.inversion = if first & DESCENDING == 0 { 0 } else { 0xff };
        self.byte()
    }

    fn i64(&mut self) -> Result<i64, StorageError> {
        Ok((u64::from_be_bytes(self.array()?) ^ 1 << 63) as i64)
    }

    fn float(&mut self) -> Result<f64, StorageError> {
        let ordered = u64::from_be_bytes(self.array()?);
        Ok(f64::from_bits(if ordered >> 63 == 1 {
            ordered ^ 1 << 63
        } else {
            !ordered
        }))
    }

    fn escaped(&mut self) -> Result<Vec<u8>, StorageError> {
        let mut output = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0xff => output.push(0),
                    1 => return Ok(output),
                    _ => return Err(MALFORMED),
                },
                byte => output.push(byte),
            }
        }
    }

    fn numeric(&mut self) -> Result<BigDecimal, StorageError> {
        let sign = match self.byte()? {
            NUMERIC_ZERO => return Ok(BigDecimal::zero()),
            NUMERIC_NEGATIVE => {
                self.inversion = !self.inversion;
                Sign::Minus
            }
            NUMERIC_POSITIVE => Sign::Plus,
            _ => return Err(MALFORMED),
        };
        let exponent = (u32::from_be_bytes(self.array()?) ^ 1 << 31) as i32;
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                0 => break,
                pair @ 1..=100 => digits.extend_from_slice(&[(pair - 1) / 10, (pair - 1) % 10]),
                _ => return Err(MALFORMED),
            }
        }
        if digits.last() == Some(&0) {
            digits.pop();
        }
        let unscaled = BigInt::from_radix_be(sign, &digits, 10).ok_or(MALFORMED)?;
        let scale = digits.len() as i64 - i64::from(exponent);
        // A display scale is never negative: give whole numbers back their zeros.
        Ok(if scale < 0 {
            BigDecimal::new(unscaled, scale).with_scale(0)
        } else {
            BigDecimal::new(unscaled, scale)
        })
    }

    fn skip_value(&mut self) -> Result<(), StorageError> {
        match self.tag()? {
            NULL => {}
            BOOLEAN => drop(self.byte()?),
            INTEGER | FLOAT | TIME => drop(self.array::<8>()?),
            DATE | OID => drop(self.array::<4>()?),
            INTERVAL | UUID => drop(self.array::<16>()?),
            TEXT | BYTEA => loop {
                if self.byte()? == 0 && self.byte()? != 0xff {
                    break;
                }
            },
            NUMERIC => match self.byte()? {
                NUMERIC_ZERO => {}
                sign @ (NUMERIC_NEGATIVE | NUMERIC_POSITIVE) => {
                    if sign == NUMERIC_NEGATIVE {
                        self.inversion = !self.inversion;
                    }
                    self.array::<4>()?;
                    while self.byte()? != 0 {}
                }
                _ => return Err(MALFORMED),
            },
            _ => return Err(MALFORMED),
        }
        Ok(())
    }
}

/// The values of a key, or of as many of its first columns as there are types; each equals (but may print
/// differently from) the one encoded.
///
/// # Errors
/// [`StorageError::Malformed`] if the bytes do not hold these types.
pub fn decode_key(key: &[u8], types: &[SqlType]) -> Result<Vec<Datum>, StorageError> {
    let mut reader = KeyReader {
        rest: key,
        inversion: 0,
    };
    types
        .iter()
        .map(|sql_type| decode_value(&mut reader, sql_type))
        .collect()
}

fn decode_value(reader: &mut KeyReader<'_>, sql_type: &SqlType) -> Result<Datum, StorageError> {
    let tag = reader.tag()?;
    Ok(match (tag, sql_type) {
        (NULL, _) => Datum::Null,
        (BOOLEAN, SqlType::Boolean) => Datum::Boolean(reader.byte()? != 0),
        (INTEGER, SqlType::SmallInt) => Datum::SmallInt(reader.i64()?.try_into().map_err(|_| MALFORMED)?),
        (INTEGER, SqlType::Integer) => Datum::Integer(reader.i64()?.try_into().map_err(|_| MALFORMED)?),
        (INTEGER, SqlType::BigInt) => Datum::BigInt(reader.i64()?),
        (FLOAT, SqlType::Real) => Datum::Real(reader.float()? as f32),
        (FLOAT, SqlType::DoublePrecision) => Datum::DoublePrecision(reader.float()?),
        (NUMERIC, SqlType::Numeric(_)) => Datum::Numeric(reader.numeric()?),
        (TEXT, SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown) => {
            let text = String::from_utf8(reader.escaped()?).map_err(|_| MALFORMED)?;
            Datum::Text(text.into_boxed_str())
        }
        (BYTEA, SqlType::Bytea) => Datum::Bytea(Bytes::from(reader.escaped()?)),
        (DATE, SqlType::Date) => Datum::Date((u32::from_be_bytes(reader.array()?) ^ 1 << 31) as i32),
        (TIME, SqlType::Time) => Datum::Time(reader.i64()?),
        (TIME, SqlType::Timestamp) => Datum::Timestamp(reader.i64()?),
        (TIME, SqlType::TimestampTz) => Datum::TimestampTz(reader.i64()?),
        (INTERVAL, SqlType::Interval) => {
            let ordered = (u128::from_be_bytes(reader.array()?) ^ 1 << 127) as i128;
            Datum::Interval(interval_of(ordered)?)
        }
        (UUID, SqlType::Uuid) => Datum::Uuid(reader.array()?),
        (OID, SqlType::Oid) => Datum::Oid(u32::from_be_bytes(reader.array()?)),
        _ => return Err(MALFORMED),
    })
}

/// An interval of this comparable length.
fn interval_of(comparable_micros: i128) -> Result<Interval, StorageError> {
    let one_day = Interval {
        months: 0,
        days: 1,
        micros: 0,
    }
    .comparable_micros();
    let days = comparable_micros / one_day;
    let micros = (comparable_micros % one_day) as i64;
    // Only lengths beyond what days alone can hold need the months.
    let months = if i32::try_from(days).is_ok() { 0 } else { days / 30 };
    let (months_held, days_left) = match i32::try_from(months) {
        Ok(months) => (months, days - i128::from(months) * 30),
        Err(_) => {
            let months = if months < 0 { i32::MIN } else { i32::MAX };
            (months, days - i128::from(months) * 30)
        }
    };
    let (days, micros) = match i32::try_from(days_left) {
        Ok(days) => (days, i128::from(micros)),
        Err(_) => {
            let days = if days_left < 0 { i32::MIN } else { i32::MAX };
            (
                days,
                (days_left - i128::from(days)) * one_day + i128::from(micros),
            )
        }
    };
    let micros = i64::try_from(micros).map_err(|_| MALFORMED)?;
    Ok(Interval {
        months: months_held,
        days,
        micros,
    })
}

/// How many bytes the first `columns` values of `key` take. An index entry's key is cut here from the primary
/// key behind it.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn key_length(key: &[u8], columns: usize) -> Result<usize, StorageError> {
    let mut reader = KeyReader {
        rest: key,
        inversion: 0,
    };
    for _ in 0..columns {
        reader.skip_value()?;
    }
    Ok(key.len() - reader.rest.len())
}

/// Whether any of the first `columns` values of `key` is NULL: such keys are never duplicates.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn key_contains_null(key: &[u8], columns: usize) -> Result<bool, StorageError> {
    let mut reader = KeyReader {
        rest: key,
        inversion: 0,
    };
    for _ in 0..columns {
        if reader
            .rest
            .first()
            .is_some_and(|first| matches!(*first, NULL | NULL_DESCENDING))
        {
            return Ok(true);
        }
        reader.skip_value()?;
    }
    Ok(false)
}

/// Cuts an index entry into its index key, of `columns` columns, and the row's primary key.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn split_index_entry(entry: &[u8], columns: usize) -> Result<(&[u8], &[u8]), StorageError> {
    Ok(entry.split_at(key_length(entry, columns)?))
}

/// The smallest key above all that begin with `prefix`; empty (no bound) if there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::sample_datum::{any_datum, type_of};

    fn pair_of_one_type() -> impl Strategy<Value = (Datum, Datum)> {
        (any_datum(), prop::collection::vec(any_datum(), 60)).prop_map(|(first, others)| {
            let second = others
                .into_iter()
                .find(|other| std::mem::discriminant(other) == std::mem::discriminant(&first))
                .unwrap_or(Datum::Null);
            (first, second)
        })
    }

    #[test]
    fn special_values_sort_as_postgresql_does() {
        let floats = [
            f64::NEG_INFINITY,
            -1.5,
            -0.0,
            1e-300,
            2.0,
            f64::INFINITY,
            f64::NAN,
        ];
        let keys: Vec<Bytes> = floats
            .iter()
            .map(|value| encode_key(&[Datum::DoublePrecision(*value)]))
            .collect();
        assert!(keys.is_sorted());
        assert_eq!(
            encode_key(&[Datum::DoublePrecision(-0.0)]),
            encode_key(&[Datum::DoublePrecision(0.0)])
        );
        assert_eq!(encode_key(&[Datum::DoublePrecision(-f64::NAN)]), keys[6]);
        assert_eq!(encode_key(&[Datum::SmallInt(7)]), encode_key(&[Datum::BigInt(7)]));
        assert!(encode_key(&[Datum::Null]) > encode_key(&[Datum::text("\u{10ffff}")]));
        let month = Datum::Interval(Interval {
            months: 1,
            days: 0,
            micros: 0,
        });
        let days = Datum::Interval(Interval {
            months: 0,
            days: 30,
            micros: 0,
        });
        assert_eq!(encode_key(&[month]), encode_key(&[days]));
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(&prefix_end(b"ab")[..], b"ac");
        assert_eq!(&prefix_end(&[1, 0xff, 0xff])[..], [2]);
        assert!(prefix_end(&[0xff]).is_empty());
        assert!(prefix_end(b"").is_empty());
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_values((left, right) in pair_of_one_type(), next in any_datum(), other in any_datum()) {
            let expected = left.compare(&right);
            let (left_key, right_key) = (encode_key(&[left.clone(), next.clone()]), encode_key(&[right.clone(), other.clone()]));
            if expected != Ordering::Equal {
                prop_assert_eq!(left_key.cmp(&right_key), expected);
                let (left_key, right_key) = (
                    encode_index_key([(&left, true), (&next, false)].into_iter()),
                    encode_index_key([(&right, true), (&other, false)].into_iter()),
                );
                prop_assert_eq!(left_key.cmp(&right_key), expected.reverse());
            } else {
                prop_assert_eq!(encode_key(&[left]), encode_key(&[right]));
            }
        }

        #[test]
        fn keys_come_back_and_can_be_cut(values in prop::collection::vec((any_datum(), any::<bool>()), 1..5)) {
            let key = encode_index_key(values.iter().map(|(value, descending)| (value, *descending)));
            let types: Vec<SqlType> = values.iter().map(|(value, _)| type_of(value)).collect();
            for (decoded, (value, _)) in decode_key(&key, &types).unwrap().iter().zip(&values) {
                prop_assert_eq!(decoded.compare(value), Ordering::Equal, "{:?} {:?}", decoded, value);
            }
            let first = encode_index_key(values[..1].iter().map(|(value, descending)| (value, *descending)));
            prop_assert_eq!(split_index_entry(&key, 1).unwrap().0, &first[..]);
            prop_assert_eq!(key_length(&key, values.len()).unwrap(), key.len());
            prop_assert!(key_length(&key[..key.len() - 1], values.len()).is_err());
        }
    }
}
