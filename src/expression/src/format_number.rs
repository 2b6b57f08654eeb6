//! `to_char` of numbers. The layout follows PostgreSQL's own procedure step by step, as its corner cases are not
//! described anywhere else.

use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType, numeric};

use crate::call::mismatch;
use crate::format::ordinal_suffix;
use crate::function::Function;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Nine,
    Zero,
    Point,
    Comma,
    Currency,
    Minus,
    Plus,
    SignAnywhere,
    /// Parsed only for what it says about the whole.
    Nothing,
    Ordinal {
        upper: bool,
    },
    Literal(char),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocaleSign {
    None,
    Before,
    After,
}

struct Picture {
    nodes: Vec<Node>,
    whole: usize,
    fraction: usize,
    shift: usize,
    /// 1-based position of the first `0`; 0 for none.
    zero_start: usize,
    zero_end: usize,
    zero: bool,
    decimal: bool,
    fill_mode: bool,
    sign: LocaleSign,
    digits_before_sign: usize,
    minus: bool,
    plus: bool,
    brackets: bool,
    scientific: bool,
    roman: Option<bool>,
}

fn syntax(message: &str) -> Box<SqlError> {
    SqlError::new(SqlState::SYNTAX_ERROR, message)
}

fn picture(pattern: &str) -> Result<Picture> {
    let mut picture = Picture {
        nodes: Vec::new(),
        whole: 0,
        fraction: 0,
        shift: 0,
        zero_start: 0,
        zero_end: 0,
        zero: false,
        decimal: false,
        fill_mode: false,
        sign: LocaleSign::None,
        digits_before_sign: 0,
        minus: false,
        plus: false,
        brackets: false,
        scientific: false,
        roman: None,
    };
    let mut multiplied = false;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            picture.nodes.extend(quoted[..end].chars().map(Node::Literal));
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        let starts_with = |word: &str| {
            rest.get(..word.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(word))
        };
        let (length, node) = if starts_with("FM") {
            picture.fill_mode = true;
            (2, Node::Nothing)
        } else if starts_with("MI") {
            picture.minus = true;
            (2, Node::Minus)
        } else if starts_with("PL") {
            picture.plus = true;
            (2, Node::Plus)
        } else if starts_with("SG") {
            picture.minus = true;
            picture.plus = true;
            (2, Node::SignAnywhere)
        } else if starts_with("PR") {
            picture.brackets = true;
            (2, Node::Nothing)
        } else if starts_with("RN") {
            picture.roman = Some(rest.starts_with(|first: char| first.is_ascii_uppercase()));
            (2, Node::Nothing)
        } else if starts_with("TH") {
            (
                2,
                Node::Ordinal {
                    upper: rest.starts_with('T'),
                },
            )
        } else if starts_with("EEEE") {
            picture.scientific = true;
            (4, Node::Nothing)
        } else {
            let node = match first.to_ascii_uppercase() {
                '9' | '0' if picture.brackets => return Err(syntax("\"9\" must be ahead of \"PR\"")),
                '9' => {
                    if multiplied {
                        picture.shift += 1;
                    } else if picture.decimal {
                        picture.fraction += 1;
                    } else {
                        picture.whole += 1;
                    }
                    Node::Nine
                }
                '0' => {
                    if !picture.zero && !picture.decimal {
                        picture.zero = true;
                        picture.zero_start = picture.whole + 1;
                    }
                    if picture.decimal {
                        picture.fraction += 1;
                    } else {
                        picture.whole += 1;
                    }
                    picture.zero_end = picture.whole + picture.fraction;
                    Node::Zero
                }
                '.' | 'D' => {
                    if picture.decimal {
                        return Err(syntax("multiple decimal points"));
                    }
                    picture.decimal = true;
                    Node::Point
                }
                ',' | 'G' => Node::Comma,
                'L' => Node::Currency,
                'S' => {
                    if !picture.decimal {
                        picture.sign = LocaleSign::Before;
                        picture.digits_before_sign = picture.whole;
                    } else if picture.sign == LocaleSign::None {
                        picture.sign = LocaleSign::After;
                    }
                    Node::Nothing
                }
                'V' => {
                    multiplied = true;
                    Node::Nothing
                }
                'B' => Node::Nothing,
                _ => Node::Literal(first),
            };
            (first.len_utf8(), node)
        };
        picture.nodes.push(node);
        rest = &rest[length..];
    }
    Ok(picture)
}

/// `to_char(number, pattern)`
pub(crate) fn to_char(value: &Datum, pattern: &str) -> Result<String> {
    let mut picture = picture(pattern)?;
    if let Some(upper) = picture.roman {
        return roman(value, upper, picture.fill_mode);
    }
    if picture.scientific {
        return scientific(value, picture.fraction);
    }
    // A decimal text with as many places as the picture shows.
    let decimal = match value {
        Datum::SmallInt(_) | Datum::Integer(_) | Datum::BigInt(_) => {
            let whole = value.to_text(&SqlType::BigInt);
            numeric::round(&numeric::parse(&whole)?, 0)
        }
        Datum::Numeric(value) => value.clone(),
        Datum::Real(value) => limited_float(f64::from(*value), 6, &mut picture)?,
        Datum::DoublePrecision(value) => limited_float(*value, 15, &mut picture)?,
        _ => return Err(mismatch(Function::ToChar)),
    };
    let shifted = if picture.shift > 0 {
        picture.whole += picture.shift;
        let factor = bigdecimal::BigDecimal::new(numeric::power_of_ten(picture.shift as u64), 0);
        neorunbase_types::numeric_arithmetic::multiply(&decimal, &factor)?
    } else {
        decimal
    };
    let text =
        Datum::Numeric(numeric::round(&shifted, picture.fraction as i64)).to_text(&SqlType::Numeric(None));
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ('-', digits.to_owned()),
        None => ('+', text),
    };
    let whole_length = digits.find('.').unwrap_or(digits.len());
    let mut spaces = 0;
    let number = if whole_length < picture.whole {
        spaces = picture.whole - whole_length;
        digits
    } else if whole_length > picture.whole {
        // Too large for the picture.
        format!("{}.{}", "#".repeat(picture.whole), "#".repeat(picture.fraction))
    } else {
        digits
    };
    Ok(Writer::new(&picture, &number, sign, spaces).run())
}

/// Floats show no more digits than they can vouch for.
fn limited_float(value: f64, significant: usize, picture: &mut Picture) -> Result<bigdecimal::BigDecimal> {
    if !value.is_finite() {
        return Err(SqlError::unsupported("to_char of an infinite number or NaN"));
    }
    let whole_digits = format!("{:.0}", value.abs()).len();
    if whole_digits >= significant {
        picture.fraction = 0;
    } else if whole_digits + picture.fraction > significant {
        picture.fraction = significant - whole_digits;
    }
    numeric::parse(&format!("{value:.*}", picture.fraction))
}

fn scientific(value: &Datum, fraction: usize) -> Result<String> {
    let decimal = match value {
        Datum::Numeric(_) | Datum::SmallInt(_) | Datum::Integer(_) | Datum::BigInt(_) => {
            let text = value.to_text(&SqlType::Numeric(None));
            numeric::parse(&text)?
        }
        Datum::Real(value) => numeric::parse(&format!("{value}"))?,
        Datum::DoublePrecision(value) if value.is_finite() => numeric::parse(&format!("{value:e}"))?,
        _ => return Err(SqlError::unsupported("to_char of an infinite number or NaN")),
    };
    let (unscaled, scale) = decimal.as_bigint_and_scale();
    let mut exponent = numeric::digit_count(&unscaled) - 1 - scale;
    let zero = decimal == bigdecimal::BigDecimal::default();
    if zero {
        exponent = 0;
    }
    let mut rounded = numeric::round(
        &bigdecimal::BigDecimal::new(unscaled.clone().into_owned(), scale + exponent),
        fraction as i64,
    );
    // Rounding up may make one digit more.
    let (rounded_unscaled, rounded_scale) = rounded.as_bigint_and_scale();
    if !zero && numeric::digit_count(&rounded_unscaled) - rounded_scale > 1 {
        exponent += 1;
        rounded = numeric::round(
            &bigdecimal::BigDecimal::new(unscaled.into_owned(), scale + exponent),
            fraction as i64,
        );
    }
    let text = Datum::Numeric(rounded).to_text(&SqlType::Numeric(None));
    let lead = if text.starts_with('-') { "" } else { " " };
    let sign = if exponent < 0 { '-' } else { '+' };
    Ok(format!("{lead}{text}e{sign}{:02}", exponent.abs()))
}

fn roman(value: &Datum, upper: bool, fill_mode: bool) -> Result<String> {
    let number = match neorunbase_types::cast(
        value,
        &match value {
            Datum::Numeric(_) => SqlType::Numeric(None),
            Datum::DoublePrecision(_) => SqlType::DoublePrecision,
            Datum::Real(_) => SqlType::Real,
            Datum::BigInt(_) => SqlType::BigInt,
            _ => SqlType::Integer,
        },
        &SqlType::BigInt,
        neorunbase_types::CastContext::Explicit,
    )? {
        Datum::BigInt(number) => number,
        _ => return Err(mismatch(Function::ToChar)),
    };
    if !(1..=3_999).contains(&number) {
        return Ok("#".repeat(15));
    }
    const SYMBOLS: [(i64, &str); 13] = [
        (1_000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut rest = number;
    let mut text = String::new();
    for (amount, symbol) in SYMBOLS {
        while rest >= amount {
            text.push_str(symbol);
            rest -= amount;
        }
    }
    if !upper {
        text = text.to_lowercase();
    }
    Ok(if fill_mode { text } else { format!("{text:>15}") })
}

struct Writer<'picture> {
    picture: &'picture Picture,
    number: &'picture [u8],
    /// Where in `number`.
    at: usize,
    last_relevant: Option<usize>,
    sign: char,
    sign_mode: LocaleSign,
    brackets: bool,
    sign_written: bool,
    digit_written: bool,
    current: usize,
    count: usize,
    spaces: usize,
    zero_start: usize,
    output: String,
}

impl<'picture> Writer<'picture> {
    fn new(picture: &'picture Picture, number: &'picture str, sign: char, spaces: usize) -> Self {
        let mut brackets = picture.brackets;
        let mut sign_mode = picture.sign;
        let sign_written = if picture.plus || picture.minus {
            !picture.plus || picture.minus
        } else {
            if sign != '-' && picture.fill_mode {
                brackets = false;
            }
            if sign_mode == LocaleSign::Before && picture.whole == picture.digits_before_sign {
                sign_mode = LocaleSign::After;
            }
            sign == '+' && picture.fill_mode && picture.sign == LocaleSign::None
        };
        let bytes = number.as_bytes();
        let mut last_relevant = None;
        if picture.fill_mode
            && picture.decimal
            && let Some(point) = number.find('.')
        {
            let mut last = (point..bytes.len())
                .rev()
                .find(|&index| index == point || bytes[index] != b'0')
                .unwrap_or(point);
            if picture.zero_end > spaces {
                last = last.max((picture.zero_end - spaces).min(bytes.len() - 1));
            }
            last_relevant = Some(last);
        }
        let mut count = (picture.fraction + picture.whole).saturating_sub(1);
        if !sign_written && spaces == 0 {
            count += 1;
        }
        Self {
            picture,
            number: bytes,
            at: 0,
            last_relevant,
            sign,
            sign_mode,
            brackets,
            sign_written,
            digit_written: false,
            current: 0,
            count,
            spaces,
            zero_start: picture.zero_start.saturating_sub(1),
            output: String::new(),
        }
    }

    /// The zero before the point that `9.9` leaves out.
    fn at_blank_zero(&self) -> bool {
        !self.picture.zero && self.at == 0 && self.number.first() == Some(&b'0') && self.picture.fraction != 0
    }

    fn ends_at_point(&self) -> bool {
        self.last_relevant.is_some_and(|last| self.number[last] == b'.')
    }

    fn run(mut self) -> String {
        let fill_mode = self.picture.fill_mode;
        for node in &self.picture.nodes {
            match *node {
                Node::Nine | Node::Zero | Node::Point => self.digit(*node),
                Node::Comma => {
                    if self.digit_written {
                        self.output.push(',');
                    } else if !fill_mode {
                        self.output.push(' ');
                    }
                }
                Node::Currency => self.output.push(' '),
                Node::Minus | Node::Plus => {
                    let own = if *node == Node::Minus { '-' } else { '+' };
                    if self.sign == own {
                        self.output.push(own);
                    } else if !fill_mode {
                        self.output.push(' ');
                    }
                }
                Node::SignAnywhere => self.output.push(self.sign),
                Node::Nothing => {}
                Node::Ordinal { upper } => {
                    if self.sign != '-' && !self.picture.decimal && self.number.first() != Some(&b'#') {
                        let digits = String::from_utf8_lossy(self.number).into_owned();
                        let suffix = ordinal_suffix(&digits);
                        self.output.push_str(&if upper {
                            suffix.to_uppercase()
                        } else {
                            suffix.to_owned()
                        });
                    }
                }
                Node::Literal(character) => self.output.push(character),
            }
        }
        self.output
    }

    fn digit(&mut self, node: Node) {
        let fill_mode = self.picture.fill_mode;
        let zero = self.picture.zero;
        if !self.sign_written
            && (self.current >= self.spaces || (zero && self.zero_start == self.current))
            && (!self.at_blank_zero() || self.ends_at_point())
        {
            if self.sign_mode != LocaleSign::None {
                if self.sign_mode == LocaleSign::Before {
                    self.output.push(self.sign);
                    self.sign_written = true;
                }
            } else if self.brackets {
                self.output.push(if self.sign == '+' { ' ' } else { '<' });
                self.sign_written = true;
            } else {
                match self.sign {
                    '+' if fill_mode => {}
                    '+' => self.output.push(' '),
                    _ => self.output.push('-'),
                }
                self.sign_written = true;
            }
        }
        if self.current < self.spaces && (self.zero_start > self.current || !zero) {
            if !fill_mode {
                self.output.push(' ');
            }
        } else if zero && self.current < self.spaces && self.zero_start <= self.current {
            self.output.push('0');
            self.digit_written = true;
        } else {
            self.number_character(node, fill_mode);
        }
        let mut end = self.count + usize::from(self.spaces > 0) + usize::from(self.picture.decimal);
        if self.last_relevant.is_some_and(|last| last == self.at) {
            end = self.current;
        }
        if self.current + 1 == end {
            if self.sign_written && self.brackets {
                self.output.push(if self.sign == '+' { ' ' } else { '>' });
            } else if self.sign_mode == LocaleSign::After {
                self.output.push(self.sign);
            }
        }
        self.current += 1;
    }

    fn number_character(&mut self, node: Node, fill_mode: bool) {
        match self.number.get(self.at) {
            Some(b'.') => {
                if !self.ends_at_point() || fill_mode {
                    self.output.push('.');
                }
            }
            character => {
                let beyond = self.last_relevant.is_some_and(|last| self.at > last) && node != Node::Zero;
                if beyond {
                    // Trailing zeros that FM drops.
                } else if self.at_blank_zero() {
                    if !fill_mode {
                        self.output.push(' ');
                    } else if self.ends_at_point() {
                        self.output.push('0');
                    }
                } else if let Some(character) = character {
                    self.output.push(char::from(*character));
                    self.digit_written = true;
                }
            }
        }
        if self.at < self.number.len() {
            self.at += 1;
        }
    }
}
