//! How values that Arrow has no type for travel through DataFusion: as bytes whose order is the values' order, so
//! that sorting, grouping and joining work on them natively. A suffix carries what does not count in comparisons
//! (the display scale of a numeric, the fields of an interval); [`key_length`] tells where it starts.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use neorunbase_types::{Interval, Result, SqlError, SqlType};

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;
/// Bytes of a numeric's display scale.
const SCALE_BYTES: usize = 2;
/// Bytes of an interval's three fields.
const INTERVAL_BYTES: usize = 16;

/// Whether values of this type are ordered bytes with a suffix.
pub(crate) fn has_suffix(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Numeric(_) | SqlType::Interval)
}

/// Length of the part that comparisons look at.
pub(crate) fn key_length(sql_type: &SqlType, bytes: &[u8]) -> usize {
    match sql_type {
        SqlType::Numeric(_) => bytes.len().saturating_sub(SCALE_BYTES),
        SqlType::Interval => bytes.len().saturating_sub(INTERVAL_BYTES),
        _ => bytes.len(),
    }
}

/// Sign, exponent, digits in pairs, terminator; then the display scale.
pub(crate) fn encode_numeric(value: &BigDecimal) -> Vec<u8> {
    let (unscaled, scale) = value.as_bigint_and_scale();
    let mut bytes = Vec::with_capacity(16);
    if unscaled.sign() == Sign::NoSign {
        bytes.push(ZERO);
    } else {
        let text = unscaled.magnitude().to_string();
        let exponent = i32::try_from(text.len() as i64 - scale).unwrap_or(i32::MAX);
        let digits = text.trim_end_matches('0').as_bytes();
        bytes.push(if unscaled.sign() == Sign::Minus {
            NEGATIVE
        } else {
            POSITIVE
        });
        bytes.extend_from_slice(&((exponent as u32) ^ 0x8000_0000).to_be_bytes());
        for pair in digits.chunks(2) {
            let tens = (pair[0] - b'0') * 10;
            bytes.push(tens + pair.get(1).map_or(0, |units| units - b'0') + 1);
        }
        bytes.push(0);
        if unscaled.sign() == Sign::Minus {
            bytes[1..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
    bytes.extend_from_slice(&u16::try_from(scale).unwrap_or(0).to_be_bytes());
    bytes
}

/// The reverse of [`encode_numeric`].
pub(crate) fn decode_numeric(bytes: &[u8]) -> Result<BigDecimal> {
    let malformed = || SqlError::internal("a numeric value in transit is malformed");
    let split = bytes.len().checked_sub(SCALE_BYTES).ok_or_else(malformed)?;
    let (key, scale) = bytes.split_at(split);
    let scale = i64::from(u16::from_be_bytes([scale[0], scale[1]]));
    let sign = *key.first().ok_or_else(malformed)?;
    if sign == ZERO {
        return Ok(BigDecimal::new(BigInt::from(0), scale));
    }
    if key.len() < 7 {
        return Err(malformed());
    }
    let flip = if sign == NEGATIVE { 0xff } else { 0 };
    let exponent = [key[1] ^ flip, key[2] ^ flip, key[3] ^ flip, key[4] ^ flip];
    let exponent = i64::from((u32::from_be_bytes(exponent) ^ 0x8000_0000) as i32);
    // As many digits as the display scale shows: those before the point and `scale` after it.
    let wanted = usize::try_from(exponent + scale).map_err(|_| malformed())?;
    let mut text = Vec::with_capacity(wanted + 1);
    for byte in &key[5..key.len() - 1] {
        let pair = (byte ^ flip)
            .checked_sub(1)
            .filter(|pair| *pair < 100)
            .ok_or_else(malformed)?;
        text.extend([b'0' + pair / 10, b'0' + pair % 10]);
    }
    text.resize(wanted, b'0');
    let magnitude = BigInt::parse_bytes(&text, 10).ok_or_else(malformed)?;
    Ok(BigDecimal::new(
        if sign == NEGATIVE { -magnitude } else { magnitude },
        scale,
    ))
}

/// The value, without superfluous zeros, whose key this is.
pub(crate) fn numeric_from_key(key: &[u8]) -> Option<BigDecimal> {
    let digits = i64::try_from(key.len().saturating_sub(6)).ok()? * 2;
    let flip = if key.first() == Some(&NEGATIVE) { 0xff } else { 0 };
    let exponent = match key {
        [_, a, b, c, d, ..] => {
            i64::from((u32::from_be_bytes([a ^ flip, b ^ flip, c ^ flip, d ^ flip]) ^ 0x8000_0000) as i32)
        }
        _ => 0,
    };
    let scale = u16::try_from((digits - exponent).max(0)).ok()?;
    let mut bytes = key.to_vec();
    bytes.extend_from_slice(&scale.to_be_bytes());
    decode_numeric(&bytes).ok()
}

/// Some interval whose key this is.
pub(crate) fn interval_from_key(key: &[u8]) -> Option<Interval> {
    let comparable = (u128::from_be_bytes(key.try_into().ok()?) ^ (1 << 127)) as i128;
    let day = i128::from(neorunbase_types::calendar::MICROS_PER_DAY);
    Some(Interval {
        months: 0,
        days: i32::try_from(comparable / day).ok()?,
        micros: i64::try_from(comparable % day).ok()?,
    })
}

/// The comparable length, then the fields.
pub(crate) fn encode_interval(value: &Interval) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    let comparable = (value.comparable_micros() as u128) ^ (1 << 127);
    bytes.extend_from_slice(&comparable.to_be_bytes());
    bytes.extend_from_slice(&value.months.to_be_bytes());
    bytes.extend_from_slice(&value.days.to_be_bytes());
    bytes.extend_from_slice(&value.micros.to_be_bytes());
    bytes
}

/// The reverse of [`encode_interval`].
pub(crate) fn decode_interval(bytes: &[u8]) -> Result<Interval> {
    let fields = bytes
        .last_chunk::<INTERVAL_BYTES>()
        .ok_or_else(|| SqlError::internal("an interval value in transit is malformed"))?;
    let [a, b, c, d, e, f, g, h, micros @ ..] = *fields;
    Ok(Interval {
        months: i32::from_be_bytes([a, b, c, d]),
        days: i32::from_be_bytes([e, f, g, h]),
        micros: i64::from_be_bytes(micros),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numeric(text: &str) -> BigDecimal {
        neorunbase_types::numeric::parse(text).unwrap()
    }

    #[test]
    fn numerics_keep_their_order_and_their_scale() {
        let ascending = [
            "-1000000000000000000000000",
            "-12.5",
            "-12.05",
            "-2",
            "-1.01",
            "-1",
            "-0.5",
            "-0.001",
            "0",
            "0.0001",
            "0.001",
            "0.01",
            "0.1",
            "0.11",
            "0.9",
            "1",
            "1.5",
            "2",
            "9.99",
            "10",
            "10.01",
            "99",
            "100",
            "101.5",
            "123456789012345678901234567890.5",
        ];
        let encoded: Vec<Vec<u8>> = ascending
            .iter()
            .map(|text| encode_numeric(&numeric(text)))
            .collect();
        assert!(encoded.is_sorted(), "order");
        for text in ascending.iter().chain(&["1.500", "0.000", "100.00", "-0.50"]) {
            let value = numeric(text);
            let decoded = decode_numeric(&encode_numeric(&value)).unwrap();
            assert_eq!(
                decoded.as_bigint_and_scale(),
                value.as_bigint_and_scale(),
                "{text}"
            );
        }
        let key = |text: &str| {
            let bytes = encode_numeric(&numeric(text));
            bytes[..key_length(&SqlType::Numeric(None), &bytes)].to_vec()
        };
        for text in ["1.5", "-1.50", "0.00", "100", "-0.001", "123456789.123456789"] {
            assert_eq!(numeric_from_key(&key(text)).unwrap(), numeric(text), "{text}");
        }
        assert_eq!(key("1.5"), key("1.500"));
        assert_eq!(key("0"), key("0.00"));
        assert_eq!(key("-100"), key("-100.0"));
    }

    #[test]
    fn intervals_keep_their_order_and_their_fields() {
        let intervals = [
            Interval {
                months: -1,
                days: 0,
                micros: 0,
            },
            Interval {
                months: 0,
                days: 0,
                micros: -1,
            },
            Interval {
                months: 0,
                days: 1,
                micros: 0,
            },
            Interval {
                months: 1,
                days: 0,
                micros: 0,
            },
            Interval {
                months: 1,
                days: -1,
                micros: i64::MAX,
            },
        ];
        let encoded: Vec<Vec<u8>> = intervals.iter().map(encode_interval).collect();
        assert!(encoded.is_sorted(), "order");
        for (interval, bytes) in intervals.iter().zip(&encoded) {
            assert_eq!(decode_interval(bytes).unwrap(), *interval);
        }
    }
}
