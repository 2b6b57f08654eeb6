//! The binary forms of the wire protocol and of `COPY BINARY` (`*_send` and `*_recv`).

use bytes::{BufMut, Bytes, BytesMut};

use crate::calendar::{
    DATE_INFINITY, DATE_MINUS_INFINITY, MICROS_PER_DAY, TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY,
    date_in_range, timestamp_in_range,
};
use crate::{Datum, Interval, Result, SqlError, SqlState, SqlType, numeric, text_input};

fn array<const LENGTH: usize>(bytes: &[u8]) -> Result<[u8; LENGTH]> {
    bytes.try_into().map_err(|_| {
        if bytes.len() < LENGTH {
            SqlError::new(SqlState::PROTOCOL_VIOLATION, "insufficient data left in message")
        } else {
            SqlError::new(
                SqlState::INVALID_BINARY_REPRESENTATION,
                "incorrect binary data format",
            )
        }
    })
}

fn checked_timestamp(micros: i64) -> Result<i64> {
    if matches!(micros, TIMESTAMP_INFINITY | TIMESTAMP_MINUS_INFINITY) || timestamp_in_range(micros) {
        Ok(micros)
    } else {
        Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "timestamp out of range",
        ))
    }
}

impl Datum {
    /// Reads the binary form of a value that is not NULL.
    ///
    /// # Errors
    /// `22P03` or `08P01` for the wrong length, the type's own errors for values that it cannot hold.
    pub fn from_binary(sql_type: &SqlType, bytes: &[u8]) -> Result<Self> {
        Ok(match sql_type {
            SqlType::Boolean => Self::Boolean(array::<1>(bytes)?[0] != 0),
            SqlType::SmallInt => Self::SmallInt(i16::from_be_bytes(array(bytes)?)),
            SqlType::Integer => Self::Integer(i32::from_be_bytes(array(bytes)?)),
            SqlType::BigInt => Self::BigInt(i64::from_be_bytes(array(bytes)?)),
            SqlType::Real => Self::Real(f32::from_be_bytes(array(bytes)?)),
            SqlType::DoublePrecision => Self::DoublePrecision(f64::from_be_bytes(array(bytes)?)),
            SqlType::Numeric(modifier) => {
                Self::Numeric(numeric::apply_modifier(numeric::parse_binary(bytes)?, *modifier)?)
            }
            SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown => {
                text_input::character_data(sql_type, validated_text(bytes)?)?
            }
            SqlType::Bytea => Self::Bytea(Bytes::copy_from_slice(bytes)),
            SqlType::Date => {
                let days = i32::from_be_bytes(array(bytes)?);
                if !matches!(days, DATE_INFINITY | DATE_MINUS_INFINITY) && !date_in_range(i64::from(days)) {
                    return Err(SqlError::new(
                        SqlState::DATETIME_FIELD_OVERFLOW,
                        "date out of range",
                    ));
                }
                Self::Date(days)
            }
            SqlType::Time => {
                let micros = i64::from_be_bytes(array(bytes)?);
                if !(0..=MICROS_PER_DAY).contains(&micros) {
                    return Err(SqlError::new(
                        SqlState::DATETIME_FIELD_OVERFLOW,
                        "time out of range",
                    ));
                }
                Self::Time(micros)
            }
            SqlType::Timestamp => Self::Timestamp(checked_timestamp(i64::from_be_bytes(array(bytes)?))?),
            SqlType::TimestampTz => Self::TimestampTz(checked_timestamp(i64::from_be_bytes(array(bytes)?))?),
            SqlType::Interval => {
                let all = array::<16>(bytes)?;
                Self::Interval(Interval {
                    micros: i64::from_be_bytes(array(&all[..8])?),
                    days: i32::from_be_bytes(array(&all[8..12])?),
                    months: i32::from_be_bytes(array(&all[12..])?),
                })
            }
            SqlType::Uuid => Self::Uuid(array(bytes)?),
            SqlType::Oid => Self::Oid(u32::from_be_bytes(array(bytes)?)),
        })
    }

    /// Appends the binary form. NULL appends nothing: its absence is told outside the value.
    pub fn write_binary(&self, sql_type: &SqlType, output: &mut BytesMut) {
        match self {
            Self::Null => {}
            Self::Boolean(value) => output.put_u8(u8::from(*value)),
            Self::SmallInt(value) => output.put_i16(*value),
            Self::Integer(value) | Self::Date(value) => output.put_i32(*value),
            Self::BigInt(value) | Self::Time(value) | Self::Timestamp(value) | Self::TimestampTz(value) => {
                output.put_i64(*value);
            }
            Self::Real(value) => output.put_f32(*value),
            Self::DoublePrecision(value) => output.put_f64(*value),
            Self::Numeric(value) => numeric::write_binary(value, output),
            Self::Text(value) => {
                output.put_slice(value.as_bytes());
                crate::text_output::pad(value, sql_type, output);
            }
            Self::Bytea(value) => output.put_slice(value),
            Self::Interval(value) => {
                output.put_i64(value.micros);
                output.put_i32(value.days);
                output.put_i32(value.months);
            }
            Self::Uuid(value) => output.put_slice(value),
            Self::Oid(value) => output.put_u32(*value),
        }
    }
}

/// Checks the encoding of text that came as bytes.
///
/// # Errors
/// `22021` naming the first bytes that are not UTF-8.
pub fn validated_text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        // PostgreSQL shows as many bytes as the first one announces.
        let announced = match bytes.get(start) {
            Some(0xC0..=0xDF) => 2,
            Some(0xE0..=0xEF) => 3,
            Some(0xF0..=0xF7) => 4,
            _ => 1,
        };
        let end = (start + announced).min(bytes.len());
        let shown: Vec<String> = bytes[start..end]
            .iter()
            .map(|byte| format!("0x{byte:02x}"))
            .collect();
        SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
        )
    })
}
