//! `numeric`: exact decimals with a display scale, in PostgreSQL's syntax, rounding and limits.
//!
//! A value is a [`BigDecimal`] whose scale is its display scale, always between 0 and 16383.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use bigdecimal::num_traits::{Pow, ToPrimitive, Zero};
use bytes::{BufMut, BytesMut};

use crate::{Result, SqlError, SqlState};

/// The largest display scale that a value may have.
pub const MAXIMUM_SCALE: i64 = 16_383;
/// The largest number of digits before the point.
pub const MAXIMUM_WHOLE_DIGITS: i64 = 131_072;

/// `22003` with PostgreSQL's words for a value that no numeric can hold.
pub fn overflow() -> Box<SqlError> {
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "value overflows numeric format",
    )
}

/// `10^exponent`.
pub fn power_of_ten(exponent: u64) -> BigInt {
    if exponent <= 18 {
        BigInt::from(10_i64.pow(exponent as u32))
    } else {
        Pow::pow(BigInt::from(10_u32), exponent)
    }
}

/// Decimal digits of the magnitude; 1 for zero.
pub fn digit_count(value: &BigInt) -> i64 {
    if let Some(small) = value.magnitude().to_u64() {
        return small.checked_ilog10().map_or(1, |log| i64::from(log) + 1);
    }
    // Off by at most one below, which the comparison settles.
    let estimate = ((value.bits() - 1) as f64 * std::f64::consts::LOG10_2) as u64;
    let estimate = estimate.saturating_sub(1);
    let mut count = estimate;
    let mut bound = power_of_ten(estimate);
    while bound.magnitude() <= value.magnitude() {
        count += 1;
        bound *= 10;
    }
    count as i64
}

/// Checks the limits of the format and gives negative scales their zeros.
pub fn finish(unscaled: BigInt, scale: i64) -> Result<BigDecimal> {
    if unscaled.is_zero() {
        return if scale > MAXIMUM_SCALE {
            Err(overflow())
        } else {
            Ok(BigDecimal::new(unscaled, scale.max(0)))
        };
    }
    if scale > MAXIMUM_SCALE || digit_count(&unscaled).saturating_sub(scale) > MAXIMUM_WHOLE_DIGITS {
        return Err(overflow());
    }
    if scale < 0 {
        return Ok(BigDecimal::new(unscaled * power_of_ten(scale.unsigned_abs()), 0));
    }
    Ok(BigDecimal::new(unscaled, scale))
}

/// `numeric_in` without modifier.
///
/// # Errors
/// `22P02` for what is not a number, `22003` beyond the format, `0A000` for NaN and infinities.
pub fn parse(text: &str) -> Result<BigDecimal> {
    let invalid = || {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type numeric: \"{text}\""),
        )
    };
    let trimmed = text.trim_matches(|character: char| character.is_ascii_whitespace() || character == '\x0b');
    let bytes = trimmed.as_bytes();
    let (negative, rest) = match bytes.first() {
        Some(b'-') => (true, &bytes[1..]),
        Some(b'+') => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    if ["nan", "infinity", "inf"]
        .iter()
        .any(|word| rest.eq_ignore_ascii_case(word.as_bytes()))
    {
        return Err(SqlError::unsupported(format_args!("numeric value \"{trimmed}\"")));
    }
    let mut digits: Vec<u8> = Vec::with_capacity(rest.len());
    let mut scale: i64 = 0;
    let mut small: u64 = 0;
    let mut point_seen = false;
    let mut index = 0;
    while index < rest.len() {
        match rest[index] {
            digit @ b'0'..=b'9' => {
                small = small.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                digits.push(digit);
                scale += i64::from(point_seen);
            }
            b'.' if !point_seen => point_seen = true,
            _ => break,
        }
        index += 1;
    }
    if digits.is_empty() {
        return Err(invalid());
    }
    if index < rest.len() {
        if !matches!(rest[index], b'e' | b'E') {
            return Err(invalid());
        }
        let exponent = &trimmed[trimmed.len() - rest.len() + index + 1..];
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        // Anything that does not fit is far beyond the format too.
        let exponent: i32 = exponent.parse().map_err(|_| overflow())?;
        scale -= i64::from(exponent);
    }
    let unscaled = if digits.len() <= 19 {
        BigInt::from(small)
    } else {
        BigInt::parse_bytes(&digits, 10).ok_or_else(invalid)?
    };
    finish(if negative { -unscaled } else { unscaled }, scale)
}

/// Appends the value with all the digits of its scale.
pub fn write(value: &BigDecimal, output: &mut BytesMut) {
    let (unscaled, scale) = value.as_bigint_and_scale();
    let negative = unscaled.sign() == Sign::Minus;
    let mut buffer = itoa::Buffer::new();
    let large;
    let digits = match unscaled.magnitude().to_u64() {
        Some(small) => buffer.format(small),
        None => {
            large = unscaled.magnitude().to_string();
            &large
        }
    };
    if negative {
        output.put_u8(b'-');
    }
    if scale <= 0 {
        output.put_slice(digits.as_bytes());
        if !unscaled.is_zero() {
            output.put_bytes(b'0', scale.unsigned_abs() as usize);
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        output.put_slice(whole.as_bytes());
        output.put_u8(b'.');
        output.put_slice(fraction.as_bytes());
    } else {
        output.put_slice(b"0.");
        output.put_bytes(b'0', scale - digits.len());
        output.put_slice(digits.as_bytes());
    }
}

/// Rounds half away from zero to `scale` digits after the point, or before it if negative; then the display
/// scale is 0. A larger scale adds zeros.
pub fn round(value: &BigDecimal, scale: i64) -> BigDecimal {
    rescale(value, scale, true)
}

/// As [`round`], towards zero.
pub fn truncate(value: &BigDecimal, scale: i64) -> BigDecimal {
    rescale(value, scale, false)
}

fn rescale(value: &BigDecimal, scale: i64, round_half_up: bool) -> BigDecimal {
    let (unscaled, current) = value.as_bigint_and_scale();
    if scale == current {
        return value.clone();
    }
    if scale > current {
        return BigDecimal::new(unscaled.as_ref() * power_of_ten((scale - current) as u64), scale);
    }
    let dropped = (current - scale) as u64;
    let quotient = divide_by_power_of_ten(&unscaled, dropped, round_half_up);
    if scale < 0 {
        return BigDecimal::new(quotient * power_of_ten(scale.unsigned_abs()), 0);
    }
    BigDecimal::new(quotient, scale)
}

fn divide_by_power_of_ten(unscaled: &BigInt, exponent: u64, round_half_up: bool) -> BigInt {
    // Dropping all digits and one more leaves nothing to round.
    if exponent > digit_count(unscaled) as u64 {
        return BigInt::zero();
    }
    let divisor = power_of_ten(exponent);
    if !round_half_up {
        return unscaled / divisor;
    }
    let half = &divisor / 2_u32;
    if unscaled.sign() == Sign::Minus {
        (unscaled - half) / divisor
    } else {
        (unscaled + half) / divisor
    }
}

/// Fits a value into `numeric(precision, scale)`.
///
/// # Errors
/// `22003` `numeric field overflow` if it has too many digits.
pub fn apply_modifier(value: BigDecimal, modifier: Option<(u16, i16)>) -> Result<BigDecimal> {
    let Some((precision, scale)) = modifier else {
        return Ok(value);
    };
    let (precision, scale) = (i64::from(precision), i64::from(scale));
    let rounded = round(&value, scale);
    let (unscaled, display_scale) = rounded.as_bigint_and_scale();
    // Digits before the point, negative for values below a tenth.
    if !unscaled.is_zero() && digit_count(&unscaled) - display_scale > precision - scale {
        let limit = precision - scale;
        let detail = format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than {}{}.",
            if limit == 0 { "" } else { "10^" },
            if limit == 0 { 1 } else { limit },
        );
        return Err(
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(detail),
        );
    }
    drop(unscaled);
    Ok(rounded)
}

/// Appends `numeric_send`'s form: base-10000 digits.
pub fn write_binary(value: &BigDecimal, output: &mut BytesMut) {
    let (unscaled, scale) = value.as_bigint_and_scale();
    let scale = scale.max(0);
    // Align the point to a group of four digits.
    let padding = (4 - scale % 4) % 4;
    let padded = unscaled.as_ref() * power_of_ten(padding as u64);
    let fraction_groups = (scale + padding) / 4;
    let mut groups: Vec<i16> = Vec::new();
    if let Some(mut small) = padded.magnitude().to_u64() {
        while small > 0 {
            groups.push((small % 10_000) as i16);
            small /= 10_000;
        }
    } else {
        let text = padded.magnitude().to_string();
        let mut end = text.len();
        while end > 0 {
            let start = end.saturating_sub(4);
            groups.push(text[start..end].parse().unwrap_or(0));
            end = start;
        }
    }
    let weight = groups.len() as i64 - fraction_groups - 1;
    let trailing_zeros = groups.iter().take_while(|&&group| group == 0).count();
    let significant = &groups[trailing_zeros..];
    output.put_i16(significant.len() as i16);
    output.put_i16(if significant.is_empty() { 0 } else { weight as i16 });
    output.put_u16(if unscaled.sign() == Sign::Minus { 0x4000 } else { 0 });
    output.put_i16(scale as i16);
    for group in significant.iter().rev() {
        output.put_i16(*group);
    }
}

/// Reads `numeric_recv`'s form.
///
/// # Errors
/// `22P03` if it is malformed, `0A000` for NaN and infinities, `22003` beyond the format.
pub fn parse_binary(bytes: &[u8]) -> Result<BigDecimal> {
    let invalid = |what: &str| {
        SqlError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            format!("invalid {what} in external \"numeric\" value"),
        )
    };
    let (header, digits) = bytes.split_at_checked(8).ok_or_else(|| invalid("length"))?;
    let field = |index: usize| u16::from_be_bytes([header[index * 2], header[index * 2 + 1]]);
    let count = usize::from(field(0));
    let weight = i64::from(field(1) as i16);
    let sign = field(2);
    let scale = i64::from(field(3));
    match sign {
        0 | 0x4000 => {}
        0xC000 => return Err(SqlError::unsupported("numeric value \"NaN\"")),
        0xD000 | 0xF000 => return Err(SqlError::unsupported("numeric value \"Infinity\"")),
        _ => return Err(invalid("sign")),
    }
    if scale > MAXIMUM_SCALE {
        return Err(invalid("scale"));
    }
    if digits.len() != count * 2 {
        return Err(invalid("length"));
    }
    let mut text = Vec::with_capacity(count * 4 + 1);
    text.push(b'0');
    for digit in digits.chunks_exact(2) {
        let digit = u16::from_be_bytes([digit[0], digit[1]]);
        if digit > 9_999 {
            return Err(invalid("digit"));
        }
        text.extend(
            [digit / 1_000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|one| b'0' + one as u8),
        );
    }
    let unscaled = BigInt::parse_bytes(&text, 10).ok_or_else(|| invalid("digit"))?;
    let unscaled = if sign == 0x4000 { -unscaled } else { unscaled };
    // The last group counts units of 10000^(weight - count + 1).
    let own_scale = (count as i64 - 1 - weight) * 4;
    if unscaled.is_zero() {
        return Ok(BigDecimal::new(unscaled, scale));
    }
    if own_scale < 0 {
        let whole = finish(unscaled, own_scale)?;
        return Ok(round(&whole, scale));
    }
    // Digits beyond the display scale are cut, as PostgreSQL does.
    finish_scaled(truncate(&BigDecimal::new(unscaled, own_scale), scale))
}

fn finish_scaled(value: BigDecimal) -> Result<BigDecimal> {
    let (unscaled, scale) = value.into_bigint_and_scale();
    finish(unscaled, scale)
}
