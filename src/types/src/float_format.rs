//! Floating point as PostgreSQL prints it: the shortest digits that read back the same, in C's `%g` layout.

use bytes::BytesMut;

/// Appends a `double precision`.
pub fn write_double(value: f64, output: &mut BytesMut) {
    if !value.is_finite() {
        return write_special(value, output);
    }
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(value);
    let bits = value.to_bits();
    if bits & 1 == 0 && value.abs() >= 1e15 {
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1_075;
        if is_boundary(shortest, mantissa, exponent) {
            let exact = inner_digits(
                shortest,
                17,
                |digits| format!("{value:.digits$e}"),
                |text| text.parse() == Ok(value) && !is_boundary(text, mantissa, exponent),
            );
            return write_shortest(&exact, 15, output);
        }
    }
    write_shortest(shortest, 15, output);
}

/// Appends a `real`.
pub fn write_real(value: f32, output: &mut BytesMut) {
    if !value.is_finite() {
        return write_special(f64::from(value), output);
    }
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(value);
    let bits = value.to_bits();
    if bits & 1 == 0 && value.abs() >= 1e6 {
        let mantissa = u64::from((bits & ((1 << 23) - 1)) | (1 << 23));
        let exponent = ((bits >> 23) & 0xff) as i32 - 150;
        if is_boundary(shortest, mantissa, exponent) {
            let exact = inner_digits(
                shortest,
                9,
                |digits| format!("{value:.digits$e}"),
                |text| text.parse() == Ok(value) && !is_boundary(text, mantissa, exponent),
            );
            return write_shortest(&exact, 6, output);
        }
    }
    write_shortest(shortest, 6, output);
}

/// Whether a decimal lies exactly half way between `mantissa * 2^exponent` and a neighbour. It reads back as the
/// value only by round-half-even, and PostgreSQL does not rely on the reader for that, where ryu does.
/// Only large values have such decimals among their shortest.
fn is_boundary(decimal: &str, mantissa: u64, exponent: i32) -> bool {
    let (digits, power) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let digits = digits.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let power = power.parse::<i32>().unwrap_or(0) - fraction.len() as i32;
    let Ok(integer) = format!("{whole}{fraction}").parse::<u128>() else {
        return false;
    };
    if !(0..=27).contains(&power) || integer == 0 || integer >= 1 << 60 {
        return false;
    }
    let scaled = integer * 5_u128.pow(power as u32);
    let twos = scaled.trailing_zeros();
    let odd = scaled >> twos;
    twos as i32 + power == exponent - 1
        && (odd == u128::from(2 * mantissa + 1) || odd == u128::from(2 * mantissa - 1))
}

/// The shortest rendering longer than `shortest` that `accept` takes.
fn inner_digits(
    shortest: &str,
    most: usize,
    render: impl Fn(usize) -> String,
    accept: impl Fn(&str) -> bool,
) -> String {
    let mantissa = shortest.split('e').next().unwrap_or(shortest);
    let length = mantissa
        .trim_end_matches(".0")
        .trim_end_matches('0')
        .bytes()
        .filter(u8::is_ascii_digit)
        .count();
    (length..most)
        .map(&render)
        .find(|text| accept(text))
        .unwrap_or_else(|| render(most - 1))
}

fn write_special(value: f64, output: &mut BytesMut) {
    output.extend_from_slice(if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    });
}

/// `shortest` is ryu's rendering: digits with an optional point and an optional exponent.
fn write_shortest(shortest: &str, significant_limit: i32, output: &mut BytesMut) {
    let mut digits = [0_u8; 32];
    let mut count = 0_usize;
    let mut point: Option<i32> = None;
    let mut exponent = 0_i32;
    let bytes = shortest.as_bytes();
    let mut index = 0;
    if bytes.first() == Some(&b'-') {
        output.extend_from_slice(b"-");
        index = 1;
    }
    while index < bytes.len() {
        match bytes[index] {
            b'.' => point = Some(count as i32),
            b'e' => {
                exponent = shortest[index + 1..].parse().unwrap_or(0);
                break;
            }
            digit => {
                digits[count] = digit;
                count += 1;
            }
        }
        index += 1;
    }
    // The value is 0.DIGITS * 10^magnitude.
    let mut magnitude = point.unwrap_or(count as i32) + exponent;
    let leading_zeros = digits[..count].iter().take_while(|&&digit| digit == b'0').count();
    let mut digits = &digits[leading_zeros..count];
    magnitude -= leading_zeros as i32;
    while let [rest @ .., b'0'] = digits {
        digits = rest;
    }
    if digits.is_empty() {
        output.extend_from_slice(b"0");
        return;
    }
    let scientific = magnitude - 1;
    if scientific < -4 || scientific >= significant_limit {
        output.extend_from_slice(&digits[..1]);
        if digits.len() > 1 {
            output.extend_from_slice(b".");
            output.extend_from_slice(&digits[1..]);
        }
        output.extend_from_slice(if scientific < 0 { b"e-" } else { b"e+" });
        let power = scientific.unsigned_abs();
        if power < 10 {
            output.extend_from_slice(b"0");
        }
        output.extend_from_slice(itoa::Buffer::new().format(power).as_bytes());
    } else if magnitude <= 0 {
        output.extend_from_slice(b"0.");
        for _ in 0..-magnitude {
            output.extend_from_slice(b"0");
        }
        output.extend_from_slice(digits);
    } else {
        let whole = magnitude as usize;
        if digits.len() <= whole {
            output.extend_from_slice(digits);
            for _ in digits.len()..whole {
                output.extend_from_slice(b"0");
            }
        } else {
            output.extend_from_slice(&digits[..whole]);
            output.extend_from_slice(b".");
            output.extend_from_slice(&digits[whole..]);
        }
    }
}
