//! The output functions: values as PostgreSQL prints them with `DateStyle ISO`, `IntervalStyle postgres`,
//! `bytea_output hex`, `extra_float_digits 1` and `TimeZone UTC`.

use bytes::{BufMut, BytesMut};

use crate::calendar::{
    DATE_INFINITY, DATE_MINUS_INFINITY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND,
    TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, civil_from_days, split_timestamp,
};
use crate::{Datum, Interval, SqlType, float_format, numeric};

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Datum {
    /// Appends the text form. NULL appends nothing: its absence is told outside the value.
    pub fn write_text(&self, sql_type: &SqlType, output: &mut BytesMut) {
        let mut buffer = itoa::Buffer::new();
        match self {
            Self::Null => {}
            Self::Boolean(value) => output.put_u8(if *value { b't' } else { b'f' }),
            Self::SmallInt(value) => output.put_slice(buffer.format(*value).as_bytes()),
            Self::Integer(value) => output.put_slice(buffer.format(*value).as_bytes()),
            Self::BigInt(value) => output.put_slice(buffer.format(*value).as_bytes()),
            Self::Oid(value) => output.put_slice(buffer.format(*value).as_bytes()),
            Self::Real(value) => float_format::write_real(*value, output),
            Self::DoublePrecision(value) => float_format::write_double(*value, output),
            Self::Numeric(value) => numeric::write(value, output),
            Self::Text(value) => {
                output.put_slice(value.as_bytes());
                pad(value, sql_type, output);
            }
            Self::Bytea(value) => {
                output.reserve(2 + value.len() * 2);
                output.put_slice(b"\\x");
                for byte in value {
                    output.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
            Self::Date(value) => write_date(*value, output),
            Self::Time(value) => write_time(*value, output),
            Self::Timestamp(value) => write_timestamp(*value, b"", output),
            Self::TimestampTz(value) => write_timestamp(*value, b"+00", output),
            Self::Interval(value) => write_interval(value, output),
            Self::Uuid(value) => {
                for (index, byte) in value.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        output.put_u8(b'-');
                    }
                    output.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
        }
    }

    /// The text form as a string; empty for NULL.
    pub fn to_text(&self, sql_type: &SqlType) -> String {
        let mut output = BytesMut::new();
        self.write_text(sql_type, &mut output);
        String::from_utf8_lossy(&output).into_owned()
    }
}

/// Restores the trailing blanks of `character(n)`.
pub(crate) fn pad(value: &str, sql_type: &SqlType, output: &mut BytesMut) {
    if let SqlType::Char(length @ 1..) = sql_type {
        let missing = (*length as usize).saturating_sub(value.chars().count());
        output.put_bytes(b' ', missing);
    }
}

fn put_two(value: u64, output: &mut BytesMut) {
    output.put_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// Writes year, month and day, and says whether the year is before Christ.
fn put_date(days: i64, output: &mut BytesMut) -> bool {
    let (year, month, day) = civil_from_days(days);
    let before_christ = year <= 0;
    let year = if before_christ { 1 - year } else { year } as u64;
    if year < 1_000 {
        output.put_bytes(
            b'0',
            if year < 10 {
                3
            } else {
                2 - usize::from(year >= 100)
            },
        );
    }
    output.put_slice(itoa::Buffer::new().format(year).as_bytes());
    output.put_u8(b'-');
    put_two(u64::from(month), output);
    output.put_u8(b'-');
    put_two(u64::from(day), output);
    before_christ
}

/// A fraction of a second with its point, without trailing zeros; nothing if it is zero.
fn put_fraction(micros: u64, output: &mut BytesMut) {
    if micros == 0 {
        return;
    }
    let mut digits = [b'0'; 7];
    digits[0] = b'.';
    let mut rest = micros;
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let length = digits
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(0, |last| last + 1);
    output.put_slice(&digits[..length]);
}

fn write_date(days: i32, output: &mut BytesMut) {
    match days {
        DATE_INFINITY => output.put_slice(b"infinity"),
        DATE_MINUS_INFINITY => output.put_slice(b"-infinity"),
        _ => {
            if put_date(i64::from(days), output) {
                output.put_slice(b" BC");
            }
        }
    }
}

fn write_time(micros: i64, output: &mut BytesMut) {
    let micros = micros.unsigned_abs();
    put_two(micros / MICROS_PER_HOUR as u64, output);
    output.put_u8(b':');
    put_two(micros / MICROS_PER_MINUTE as u64 % 60, output);
    output.put_u8(b':');
    put_two(micros / MICROS_PER_SECOND as u64 % 60, output);
    put_fraction(micros % MICROS_PER_SECOND as u64, output);
}

fn write_timestamp(micros: i64, zone: &[u8], output: &mut BytesMut) {
    match micros {
        TIMESTAMP_INFINITY => output.put_slice(b"infinity"),
        TIMESTAMP_MINUS_INFINITY => output.put_slice(b"-infinity"),
        _ => {
            let (days, time) = split_timestamp(micros);
            let before_christ = put_date(days, output);
            output.put_u8(b' ');
            write_time(time, output);
            output.put_slice(zone);
            if before_christ {
                output.put_slice(b" BC");
            }
        }
    }
}

fn write_interval(value: &Interval, output: &mut BytesMut) {
    let start = output.len();
    let mut previous_negative = false;
    let years = value.months / 12;
    let months = value.months % 12;
    for (amount, unit) in [(years, "year"), (months, "mon"), (value.days, "day")] {
        if amount == 0 {
            continue;
        }
        if output.len() > start {
            output.put_u8(b' ');
        }
        // A positive field after a negative one needs its sign.
        if previous_negative && amount > 0 {
            output.put_u8(b'+');
        }
        output.put_slice(itoa::Buffer::new().format(amount).as_bytes());
        output.put_u8(b' ');
        output.put_slice(unit.as_bytes());
        if amount != 1 {
            output.put_u8(b's');
        }
        previous_negative = amount < 0;
    }
    if value.micros == 0 && output.len() > start {
        return;
    }
    if output.len() > start {
        output.put_u8(b' ');
    }
    if value.micros < 0 {
        output.put_u8(b'-');
    } else if previous_negative {
        output.put_u8(b'+');
    }
    let micros = value.micros.unsigned_abs();
    let hours = micros / MICROS_PER_HOUR as u64;
    if hours < 10 {
        output.put_u8(b'0');
    }
    output.put_slice(itoa::Buffer::new().format(hours).as_bytes());
    output.put_u8(b':');
    put_two(micros / MICROS_PER_MINUTE as u64 % 60, output);
    output.put_u8(b':');
    put_two(micros / MICROS_PER_SECOND as u64 % 60, output);
    put_fraction(micros % MICROS_PER_SECOND as u64, output);
}
