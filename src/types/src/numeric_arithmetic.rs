//! Arithmetic on `numeric`, with PostgreSQL's choice of result scales.

use std::borrow::Cow;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use bigdecimal::num_traits::{One, Signed, ToPrimitive, Zero};

use crate::numeric::{MAXIMUM_SCALE, digit_count, finish, overflow, power_of_ten, round};
use crate::{Result, SqlError, SqlState};

/// Significant digits that a division or a function yields at least.
const MINIMUM_SIGNIFICANT_DIGITS: i64 = 16;
/// The largest scale that a division or a function chooses by itself.
const MAXIMUM_CHOSEN_SCALE: i64 = 1_000;
/// Beyond this many digits before the point there is no result.
const MAXIMUM_RESULT_SCALE: f64 = 2_000.0;

fn parts(value: &BigDecimal) -> (Cow<'_, BigInt>, i64) {
    value.as_bigint_and_scale()
}

/// Brings two values to one scale.
fn aligned(left: &BigDecimal, right: &BigDecimal) -> (BigInt, BigInt, i64) {
    let ((left, left_scale), (right, right_scale)) = (parts(left), parts(right));
    let scale = left_scale.max(right_scale);
    let lift = |value: Cow<'_, BigInt>, own: i64| {
        if own == scale {
            value.into_owned()
        } else {
            value.as_ref() * power_of_ten((scale - own) as u64)
        }
    };
    (lift(left, left_scale), lift(right, right_scale), scale)
}

/// `left + right`
pub fn add(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left, right, scale) = aligned(left, right);
    finish(left + right, scale)
}

/// `left - right`
pub fn subtract(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left, right, scale) = aligned(left, right);
    finish(left - right, scale)
}

/// `left * right`
pub fn multiply(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let ((left, left_scale), (right, right_scale)) = (parts(left), parts(right));
    let scale = left_scale + right_scale;
    let product = left.as_ref() * right.as_ref();
    if scale > MAXIMUM_SCALE {
        return finish_value(round(&BigDecimal::new(product, scale), MAXIMUM_SCALE));
    }
    finish(product, scale)
}

fn finish_value(value: BigDecimal) -> Result<BigDecimal> {
    let (unscaled, scale) = value.into_bigint_and_scale();
    finish(unscaled, scale)
}

/// `22012`
pub fn division_by_zero() -> Box<SqlError> {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

/// Weight of the first base-10000 digit, and that digit, as PostgreSQL stores the value. Zeros for zero.
fn leading_group(value: &BigDecimal) -> (i64, i64) {
    let (unscaled, scale) = parts(value);
    if unscaled.is_zero() {
        return (0, 0);
    }
    let digits = digit_count(&unscaled);
    let top_exponent = digits - 1 - scale;
    let weight = top_exponent.div_euclid(4);
    let wanted = top_exponent - 4 * weight + 1;
    let group = if digits >= wanted {
        unscaled.magnitude() / power_of_ten((digits - wanted) as u64).magnitude()
    } else {
        unscaled.magnitude() * power_of_ten((wanted - digits) as u64).magnitude()
    };
    (weight, group.to_i64().unwrap_or(0))
}

fn clamp_scale(scale: i64, inputs: &[&BigDecimal]) -> i64 {
    inputs
        .iter()
        .fold(scale, |scale, input| scale.max(parts(input).1))
        .clamp(0, MAXIMUM_CHOSEN_SCALE)
}

/// PostgreSQL's `select_div_scale`.
fn division_scale(left: &BigDecimal, right: &BigDecimal) -> i64 {
    let ((left_weight, left_digit), (right_weight, right_digit)) =
        (leading_group(left), leading_group(right));
    let mut quotient_weight = left_weight - right_weight;
    if left_digit <= right_digit {
        quotient_weight -= 1;
    }
    clamp_scale(MINIMUM_SIGNIFICANT_DIGITS - quotient_weight * 4, &[left, right])
}

/// `numerator / denominator` rounded half away from zero.
fn divide_rounded(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let doubled = numerator.magnitude() * 2_u32 + denominator.magnitude();
    let quotient = doubled / (denominator.magnitude() * 2_u32);
    let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
    BigInt::from_biguint(if negative { Sign::Minus } else { Sign::Plus }, quotient)
}

fn divide_at_scale(left: &BigDecimal, right: &BigDecimal, scale: i64) -> Result<BigDecimal> {
    let ((left, left_scale), (right, right_scale)) = (parts(left), parts(right));
    if right.is_zero() {
        return Err(division_by_zero());
    }
    let shift = scale + right_scale - left_scale;
    let quotient = if shift >= 0 {
        divide_rounded(&(left.as_ref() * power_of_ten(shift as u64)), &right)
    } else {
        divide_rounded(&left, &(right.as_ref() * power_of_ten(shift.unsigned_abs())))
    };
    finish(quotient, scale)
}

/// `left / right`
pub fn divide(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    divide_at_scale(left, right, division_scale(left, right))
}

/// `left % right`; the sign is the dividend's.
pub fn remainder(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left, right, scale) = aligned(left, right);
    if right.is_zero() {
        return Err(division_by_zero());
    }
    finish(left % right, scale)
}

/// `div(left, right)`: the quotient cut to an integer.
pub fn integer_quotient(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left, right, _) = aligned(left, right);
    if right.is_zero() {
        return Err(division_by_zero());
    }
    finish(left / right, 0)
}

/// `- value`
pub fn negate(value: &BigDecimal) -> BigDecimal {
    let (unscaled, scale) = parts(value);
    BigDecimal::new(-unscaled.into_owned(), scale)
}

/// `abs(value)`
pub fn absolute(value: &BigDecimal) -> BigDecimal {
    let (unscaled, scale) = parts(value);
    BigDecimal::new(unscaled.abs(), scale)
}

/// `sign(value)`
pub fn sign(value: &BigDecimal) -> BigDecimal {
    BigDecimal::new(parts(value).0.signum(), 0)
}

/// `floor(value)`
pub fn floor(value: &BigDecimal) -> BigDecimal {
    let (unscaled, scale) = parts(value);
    let divisor = power_of_ten(scale.max(0) as u64);
    let quotient = unscaled.as_ref() / &divisor;
    let exact = &quotient * &divisor == *unscaled;
    BigDecimal::new(
        if !exact && unscaled.is_negative() {
            quotient - 1
        } else {
            quotient
        },
        0,
    )
}

/// `ceil(value)`
pub fn ceil(value: &BigDecimal) -> BigDecimal {
    negate(&floor(&negate(value)))
}

/// `gcd(left, right)`
pub fn greatest_common_divisor(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left, right, scale) = aligned(left, right);
    let (mut left, mut right) = (left.abs(), right.abs());
    while !right.is_zero() {
        (left, right) = (right.clone(), left % right);
    }
    finish(left, scale)
}

/// `lcm(left, right)`
pub fn least_common_multiple(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let (left_aligned, right_aligned, scale) = aligned(left, right);
    if left_aligned.is_zero() || right_aligned.is_zero() {
        return finish(BigInt::zero(), scale);
    }
    let divisor = parts(&greatest_common_divisor(left, right)?).0.into_owned();
    finish((left_aligned / divisor * right_aligned).abs(), scale)
}

/// The nearest double, which may be infinite.
pub fn to_double(value: &BigDecimal) -> f64 {
    let (unscaled, scale) = parts(value);
    // Both exact: the quotient is the correctly rounded value.
    if let (Some(small), true) = (unscaled.to_i64(), (0..=22).contains(&scale))
        && small.unsigned_abs() <= 1 << 53
    {
        return small as f64 / 10_f64.powi(scale as i32);
    }
    format!("{unscaled}e{}", -scale).parse().unwrap_or(f64::INFINITY)
}

/// An integer if the value is one in range after rounding half away from zero.
pub fn to_rounded_integer(value: &BigDecimal) -> Option<i64> {
    let (unscaled, scale) = parts(value);
    if scale == 0 {
        return unscaled.to_i64();
    }
    parts(&round(value, 0)).0.to_i64()
}

/// `sqrt(value)`
pub fn square_root(value: &BigDecimal) -> Result<BigDecimal> {
    let (unscaled, own_scale) = parts(value);
    if unscaled.is_negative() {
        return Err(SqlError::new(
            SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
            "cannot take square root of a negative number",
        ));
    }
    let (weight, _) = leading_group(value);
    let root_weight = if weight >= 0 {
        (weight + 1) * 2 - 1
    } else {
        1 - (1 - weight * 4) / 2
    };
    let scale = clamp_scale(MINIMUM_SIGNIFICANT_DIGITS - root_weight, &[value]);
    // Two more digits decide the rounding: the root of what was cut is below the last place.
    let working = scale + 2;
    let shift = 2 * working - own_scale;
    let root = if shift >= 0 {
        (unscaled.as_ref() * power_of_ten(shift as u64)).sqrt()
    } else {
        (unscaled.as_ref() / power_of_ten(shift.unsigned_abs())).sqrt()
    };
    finish_value(round(&BigDecimal::new(root, working), scale))
}

/// Fixed-point numbers: integers counting units of `10^-precision`.
struct FixedPoint {
    unit: BigInt,
    precision: i64,
}

impl FixedPoint {
    fn new(precision: i64) -> Self {
        Self {
            unit: power_of_ten(precision.max(0) as u64),
            precision: precision.max(0),
        }
    }

    fn import(&self, value: &BigDecimal) -> BigInt {
        let (unscaled, scale) = parts(value);
        let shift = self.precision - scale;
        if shift >= 0 {
            unscaled.as_ref() * power_of_ten(shift as u64)
        } else {
            unscaled.as_ref() / power_of_ten(shift.unsigned_abs())
        }
    }

    fn export(&self, value: BigInt, scale: i64) -> Result<BigDecimal> {
        finish_value(round(&BigDecimal::new(value, self.precision), scale))
    }

    fn multiply(&self, left: &BigInt, right: &BigInt) -> BigInt {
        left * right / &self.unit
    }

    fn divide(&self, left: &BigInt, right: &BigInt) -> BigInt {
        left * &self.unit / right
    }

    fn square_root(&self, value: &BigInt) -> BigInt {
        (value * &self.unit).sqrt()
    }

    /// `ln` of a value between about 0.1 and 10.
    fn logarithm_near_one(&self, value: &BigInt) -> BigInt {
        let mut value = value.clone();
        let mut doublings = 0_u32;
        let tolerance = &self.unit / 50;
        while (&value - &self.unit).abs() > tolerance {
            value = self.square_root(&value);
            doublings += 1;
        }
        // ln v = 2 atanh((v - 1) / (v + 1))
        let ratio = self.divide(&(&value - &self.unit), &(&value + &self.unit));
        let square = self.multiply(&ratio, &ratio);
        let mut term = ratio.clone();
        let mut sum = ratio;
        let mut odd = 3_u32;
        loop {
            term = self.multiply(&term, &square);
            let part = &term / odd;
            if part.is_zero() {
                break;
            }
            sum += part;
            odd += 2;
        }
        (sum * 2) << doublings
    }

    /// `ln` of any positive value.
    fn logarithm(&self, value: &BigDecimal) -> BigInt {
        let (unscaled, scale) = parts(value);
        let exponent = digit_count(&unscaled) - 1 - scale;
        // `value = mantissa * 10^exponent` with a mantissa in [1, 10); values near one keep their digits.
        if (-1..=0).contains(&exponent) {
            return self.logarithm_near_one(&self.import(value));
        }
        let mantissa = BigDecimal::new(unscaled.into_owned(), scale + exponent);
        let ln_ten = self.logarithm_near_one(&(&self.unit * 10));
        self.logarithm_near_one(&self.import(&mantissa)) + ln_ten * exponent
    }

    fn exponential(&self, value: &BigInt) -> BigInt {
        if value.is_negative() {
            return self.divide(&self.unit, &self.exponential(&-value));
        }
        // Halve until small, sum the series, square back.
        let mut halvings = 0_u32;
        let mut reduced = value.clone();
        let tolerance = &self.unit / 256;
        while reduced > tolerance {
            reduced >>= 1;
            halvings += 1;
        }
        let mut term = self.unit.clone();
        let mut sum = self.unit.clone();
        let mut index = 1_u32;
        loop {
            term = self.multiply(&term, &reduced) / index;
            if term.is_zero() {
                break;
            }
            sum += &term;
            index += 1;
        }
        for _ in 0..halvings {
            sum = self.multiply(&sum, &sum);
        }
        sum
    }
}

/// Digits of `exp(natural)` before the point, as a cut estimate.
fn result_weight(natural: f64) -> i64 {
    (natural * std::f64::consts::LOG10_E).clamp(-MAXIMUM_RESULT_SCALE, MAXIMUM_RESULT_SCALE) as i64
}

/// `exp(value)`
pub fn exponential(value: &BigDecimal) -> Result<BigDecimal> {
    let natural = to_double(value);
    let weight = result_weight(natural);
    let scale = clamp_scale(MINIMUM_SIGNIFICANT_DIGITS - weight, &[value]);
    exponential_at_scale(value, natural, scale)
}

fn exponential_at_scale(value: &BigDecimal, natural: f64, scale: i64) -> Result<BigDecimal> {
    if natural >= MAXIMUM_RESULT_SCALE * 3.0 {
        return Err(overflow());
    }
    if natural <= -MAXIMUM_RESULT_SCALE * 3.0 {
        return Ok(BigDecimal::new(BigInt::zero(), scale));
    }
    // Squaring back multiplies the error by the result's size and by two a step.
    let magnitude = (natural.abs() * std::f64::consts::LOG10_E) as i64;
    let fixed = FixedPoint::new(scale + 2 * magnitude + 24);
    fixed.export(fixed.exponential(&fixed.import(value)), scale)
}

/// PostgreSQL's estimate of the decimal weight of `ln(value)`.
fn logarithm_weight(value: &BigDecimal) -> i64 {
    let (unscaled, _) = parts(value);
    if !unscaled.is_positive() {
        return 0;
    }
    let near = |text: &str| text.parse::<BigDecimal>().unwrap_or_default();
    if *value >= near("0.9") && *value <= near("1.1") {
        let difference = value - BigDecimal::one();
        if difference.is_zero() {
            return 0;
        }
        let (weight, digit) = leading_group(&difference);
        return weight * 4 + (digit as f64).log10() as i64;
    }
    let (weight, _) = leading_group(value);
    let digits = {
        // The first two base-10000 digits.
        let scaled = BigDecimal::new(unscaled.into_owned(), parts(value).1 + 4 * (weight - 1));
        to_double(&scaled).trunc()
    };
    let natural = digits.ln() + ((weight - 1) * 4) as f64 * std::f64::consts::LN_10;
    natural.abs().log10() as i64
}

fn logarithm_argument(value: &BigDecimal) -> Result<()> {
    let (unscaled, _) = parts(value);
    let message = if unscaled.is_zero() {
        "cannot take logarithm of zero"
    } else if unscaled.is_negative() {
        "cannot take logarithm of a negative number"
    } else {
        return Ok(());
    };
    Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_LOGARITHM, message))
}

/// `ln(value)`
pub fn natural_logarithm(value: &BigDecimal) -> Result<BigDecimal> {
    logarithm_argument(value)?;
    let scale = clamp_scale(MINIMUM_SIGNIFICANT_DIGITS - logarithm_weight(value), &[value]);
    let fixed = FixedPoint::new(scale + 24);
    fixed.export(fixed.logarithm(value), scale)
}

/// `log(base, value)`
pub fn logarithm(base: &BigDecimal, value: &BigDecimal) -> Result<BigDecimal> {
    logarithm_argument(base)?;
    logarithm_argument(value)?;
    let weight = logarithm_weight(value) - logarithm_weight(base);
    let scale = clamp_scale(MINIMUM_SIGNIFICANT_DIGITS - weight, &[base, value]);
    let base_weight = logarithm_weight(base).min(0).unsigned_abs() as i64;
    let fixed = FixedPoint::new(scale + 2 * base_weight + 30);
    let divisor = fixed.logarithm(base);
    if divisor.is_zero() {
        return Err(division_by_zero());
    }
    fixed.export(fixed.divide(&fixed.logarithm(value), &divisor), scale)
}

/// `power(base, exponent)`
pub fn power(base: &BigDecimal, exponent: &BigDecimal) -> Result<BigDecimal> {
    let undefined = |message| {
        Err(SqlError::new(
            SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
            message,
        ))
    };
    let (base_unscaled, _) = parts(base);
    let whole = exponent.is_integer();
    if base_unscaled.is_zero() && exponent.is_negative() {
        return undefined("zero raised to a negative power is undefined");
    }
    if base_unscaled.is_negative() && !whole {
        return undefined("a negative number raised to a non-integer power yields a complex result");
    }
    if whole && let Some(power) = to_rounded_integer(exponent).and_then(|power| i32::try_from(power).ok()) {
        let scale = clamp_scale(MINIMUM_SIGNIFICANT_DIGITS, &[base]);
        return integer_power(base, i64::from(power), scale);
    }
    if base_unscaled.is_zero() {
        return Ok(BigDecimal::new(BigInt::zero(), MINIMUM_SIGNIFICANT_DIGITS));
    }
    let magnitude = absolute(base);
    let odd = whole && (parts(&round(exponent, 0)).0.as_ref() % 2_u32) != BigInt::zero();
    let rough = FixedPoint::new(40);
    let natural = to_double(&BigDecimal::new(rough.logarithm(&magnitude), 40)) * to_double(exponent);
    if natural.abs() > MAXIMUM_RESULT_SCALE * 3.01 {
        if natural > 0.0 {
            return Err(overflow());
        }
        return Ok(BigDecimal::new(BigInt::zero(), MAXIMUM_CHOSEN_SCALE));
    }
    let scale = clamp_scale(
        MINIMUM_SIGNIFICANT_DIGITS - result_weight(natural),
        &[base, exponent],
    );
    let exponent_digits = digit_count(&parts(&round(exponent, 0)).0);
    let fixed = FixedPoint::new(
        scale + 2 * (natural.abs() * std::f64::consts::LOG10_E) as i64 + exponent_digits + 30,
    );
    let product = fixed.multiply(&fixed.logarithm(&magnitude), &fixed.import(exponent));
    let result = fixed.exponential(&product);
    fixed.export(
        if base_unscaled.is_negative() && odd {
            -result
        } else {
            result
        },
        scale,
    )
}

fn integer_power(base: &BigDecimal, power: i64, scale: i64) -> Result<BigDecimal> {
    let (unscaled, own_scale) = parts(base);
    match power {
        0 => return finish(power_of_ten(scale as u64), scale),
        1 => return finish_value(round(base, scale)),
        -1 => return divide_at_scale(&BigDecimal::one(), base, scale),
        _ if unscaled.is_zero() => return Ok(BigDecimal::new(BigInt::zero(), scale)),
        _ => {}
    }
    // log10 of the base from its first digits, to see how large the result is.
    let digits = digit_count(&unscaled);
    let leading = to_double(&BigDecimal::new(unscaled.magnitude().clone().into(), digits - 1));
    let result_exponent = (leading.log10() + (digits - 1 - own_scale) as f64) * power as f64;
    if result_exponent > 131_072.0 {
        return Err(overflow());
    }
    if result_exponent + 1.0 < -(scale as f64) {
        return Ok(BigDecimal::new(BigInt::zero(), scale));
    }
    // Square and multiply with as many digits as the result shows, and some for the errors.
    let significant = (result_exponent.max(0.0) as i64) + scale + 24;
    let shorten = |value: BigInt, exponent: i64| {
        let excess = digit_count(&value) - significant;
        if excess > 0 {
            (value / power_of_ten(excess as u64), exponent + excess)
        } else {
            (value, exponent)
        }
    };
    let mut square = (unscaled.into_owned(), -own_scale);
    let mut result = (BigInt::one(), 0_i64);
    let mut rest = power.unsigned_abs();
    loop {
        if rest & 1 == 1 {
            result = shorten(result.0 * &square.0, result.1 + square.1);
        }
        rest >>= 1;
        if rest == 0 {
            break;
        }
        square = shorten(&square.0 * &square.0, square.1 * 2);
    }
    if power > 0 {
        return finish_value(round(&BigDecimal::new(result.0, -result.1), scale));
    }
    divide_at_scale(&BigDecimal::one(), &BigDecimal::new(result.0, -result.1), scale)
}
