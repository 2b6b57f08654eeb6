//! One value as bytes: a type tag and a payload. Describes itself, so a Data Node decodes rows without their
//! schema. Tags are for ever.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use bytes::Bytes;
use neorunbase_types::{Datum, Interval};

use crate::StorageError;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const SMALL_INT: u8 = 3;
const INTEGER: u8 = 4;
const BIG_INT: u8 = 5;
const REAL: u8 = 6;
const DOUBLE_PRECISION: u8 = 7;
const NUMERIC: u8 = 8;
const TEXT: u8 = 9;
const BYTEA: u8 = 10;
const DATE: u8 = 11;
const TIME: u8 = 12;
const TIMESTAMP: u8 = 13;
const TIMESTAMP_TZ: u8 = 14;
const INTERVAL: u8 = 15;
const UUID: u8 = 16;
const OID: u8 = 17;

/// Payload bytes of each tag; [`VARIABLE`] for those that begin with a length.
const PAYLOAD_BYTES: [u8; 18] = [
    0, 0, 0, 2, 4, 8, 4, 8, VARIABLE, VARIABLE, VARIABLE, 4, 8, 8, 8, 16, 16, 4,
];
const VARIABLE: u8 = 255;

const MALFORMED: StorageError = StorageError::Malformed { what: "row" };

/// Appends an LEB128 number.
pub(crate) fn put_varint(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// Takes an LEB128 number off the front of `input`.
#[inline]
pub(crate) fn take_varint(input: &mut &[u8]) -> Result<u64, StorageError> {
    let (&first, rest) = input.split_first().ok_or(MALFORMED)?;
    if first < 0x80 {
        *input = rest;
        return Ok(u64::from(first));
    }
    take_long_varint(input)
}

fn take_long_varint(input: &mut &[u8]) -> Result<u64, StorageError> {
    let mut value = 0;
    for (index, &byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(MALFORMED)
}

#[inline]
fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], StorageError> {
    let (taken, rest) = input.split_at_checked(length).ok_or(MALFORMED)?;
    *input = rest;
    Ok(taken)
}

#[inline]
fn take_array<const LENGTH: usize>(input: &mut &[u8]) -> Result<[u8; LENGTH], StorageError> {
    let (taken, rest) = input.split_first_chunk().ok_or(MALFORMED)?;
    *input = rest;
    Ok(*taken)
}

#[inline]
fn take_variable<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], StorageError> {
    let length = take_varint(input)?;
    take(input, usize::try_from(length).map_err(|_| MALFORMED)?)
}

fn put_variable(output: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    output.push(tag);
    put_varint(output, payload.len() as u64);
    output.extend_from_slice(payload);
}

fn put_fixed<const LENGTH: usize>(output: &mut Vec<u8>, tag: u8, payload: [u8; LENGTH]) {
    output.push(tag);
    output.extend_from_slice(&payload);
}

/// Appends `datum`.
pub(crate) fn put_value(output: &mut Vec<u8>, datum: &Datum) {
    match datum {
        Datum::Null => output.push(NULL),
        Datum::Boolean(false) => output.push(FALSE),
        Datum::Boolean(true) => output.push(TRUE),
        Datum::SmallInt(value) => put_fixed(output, SMALL_INT, value.to_le_bytes()),
        Datum::Integer(value) => put_fixed(output, INTEGER, value.to_le_bytes()),
        Datum::BigInt(value) => put_fixed(output, BIG_INT, value.to_le_bytes()),
        Datum::Real(value) => put_fixed(output, REAL, value.to_bits().to_le_bytes()),
        Datum::DoublePrecision(value) => put_fixed(output, DOUBLE_PRECISION, value.to_bits().to_le_bytes()),
        Datum::Numeric(value) => {
            let (unscaled, scale) = value.as_bigint_and_scale();
            let digits = unscaled.to_signed_bytes_le();
            let mut payload = Vec::with_capacity(digits.len() + 3);
            // Zigzag: scales are small, and negative ones legal.
            put_varint(&mut payload, ((scale << 1) ^ (scale >> 63)) as u64);
            payload.extend_from_slice(&digits);
            put_variable(output, NUMERIC, &payload);
        }
        Datum::Text(value) => put_variable(output, TEXT, value.as_bytes()),
        Datum::Bytea(value) => put_variable(output, BYTEA, value),
        Datum::Date(value) => put_fixed(output, DATE, value.to_le_bytes()),
        Datum::Time(value) => put_fixed(output, TIME, value.to_le_bytes()),
        Datum::Timestamp(value) => put_fixed(output, TIMESTAMP, value.to_le_bytes()),
        Datum::TimestampTz(value) => put_fixed(output, TIMESTAMP_TZ, value.to_le_bytes()),
        Datum::Interval(value) => {
            output.push(INTERVAL);
            output.extend_from_slice(&value.months.to_le_bytes());
            output.extend_from_slice(&value.days.to_le_bytes());
            output.extend_from_slice(&value.micros.to_le_bytes());
        }
        Datum::Uuid(value) => put_fixed(output, UUID, *value),
        Datum::Oid(value) => put_fixed(output, OID, value.to_le_bytes()),
    }
}

/// Takes one value off the front of `input`.
#[inline]
pub(crate) fn take_value(input: &mut &[u8]) -> Result<Datum, StorageError> {
    let (&tag, rest) = input.split_first().ok_or(MALFORMED)?;
    *input = rest;
    Ok(match tag {
        NULL => Datum::Null,
        FALSE => Datum::Boolean(false),
        TRUE => Datum::Boolean(true),
        SMALL_INT => Datum::SmallInt(i16::from_le_bytes(take_array(input)?)),
        INTEGER => Datum::Integer(i32::from_le_bytes(take_array(input)?)),
        BIG_INT => Datum::BigInt(i64::from_le_bytes(take_array(input)?)),
        REAL => Datum::Real(f32::from_bits(u32::from_le_bytes(take_array(input)?))),
        DOUBLE_PRECISION => Datum::DoublePrecision(f64::from_bits(u64::from_le_bytes(take_array(input)?))),
        NUMERIC => {
            let mut payload = take_variable(input)?;
            let zigzag = take_varint(&mut payload)?;
            let scale = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            Datum::Numeric(BigDecimal::new(BigInt::from_signed_bytes_le(payload), scale))
        }
        TEXT => {
            let text = std::str::from_utf8(take_variable(input)?).map_err(|_| MALFORMED)?;
            Datum::Text(text.into())
        }
        BYTEA => Datum::Bytea(Bytes::copy_from_slice(take_variable(input)?)),
        DATE => Datum::Date(i32::from_le_bytes(take_array(input)?)),
        TIME => Datum::Time(i64::from_le_bytes(take_array(input)?)),
        TIMESTAMP => Datum::Timestamp(i64::from_le_bytes(take_array(input)?)),
        TIMESTAMP_TZ => Datum::TimestampTz(i64::from_le_bytes(take_array(input)?)),
        INTERVAL => Datum::Interval(Interval {
            months: i32::from_le_bytes(take_array(input)?),
            days: i32::from_le_bytes(take_array(input)?),
            micros: i64::from_le_bytes(take_array(input)?),
        }),
        UUID => Datum::Uuid(take_array(input)?),
        OID => Datum::Oid(u32::from_le_bytes(take_array(input)?)),
        _ => return Err(MALFORMED),
    })
}

/// Drops one value off the front of `input` without making it.
#[inline]
pub(crate) fn skip_value(input: &mut &[u8]) -> Result<(), StorageError> {
    let (&tag, rest) = input.split_first().ok_or(MALFORMED)?;
    *input = rest;
    let length = match PAYLOAD_BYTES.get(usize::from(tag)) {
        Some(&VARIABLE) => {
            take_variable(input)?;
            return Ok(());
        }
        Some(&length) => usize::from(length),
        None => return Err(MALFORMED),
    };
    *input = input.get(length..).ok_or(MALFORMED)?;
    Ok(())
}
