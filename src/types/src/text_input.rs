//! The input functions: text into values, with PostgreSQL's syntax and error texts.

use bytes::Bytes;

use crate::{Datum, Result, SqlError, SqlState, SqlType, datetime_input, interval_input, numeric};

/// Bytes of the longest `name`.
const NAME_LENGTH: usize = 63;

fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\x0b'
}

/// `22P02` for a text that is not of the type at all.
pub fn invalid_syntax(type_name: &str, text: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

impl Datum {
    /// Reads the text form of a value that is not NULL. `now`, `today`, `tomorrow` and `yesterday` need a clock,
    /// which [`from_text_at`](Datum::from_text_at) takes; here they are refused.
    ///
    /// # Errors
    /// `22P02`, `22003`, `22007`, `22008`, ... with PostgreSQL's texts.
    pub fn from_text(sql_type: &SqlType, text: &str) -> Result<Self> {
        Self::from_text_at(sql_type, text, None)
    }

    /// As [`from_text`](Datum::from_text), at a moment in microseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// As [`from_text`](Datum::from_text).
    pub fn from_text_at(sql_type: &SqlType, text: &str, now_unix_micros: Option<i64>) -> Result<Self> {
        Ok(match sql_type {
            SqlType::Integer => Self::Integer(parse_integer(text, "integer")?),
            SqlType::BigInt => Self::BigInt(parse_integer(text, "bigint")?),
            SqlType::SmallInt => Self::SmallInt(parse_integer(text, "smallint")?),
            SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown => {
                character_data(sql_type, text)?
            }
            SqlType::Boolean => Self::Boolean(parse_boolean(text)?),
            SqlType::Real => Self::Real(parse_real(text)?),
            SqlType::DoublePrecision => Self::DoublePrecision(parse_double(text)?),
            SqlType::Numeric(modifier) => {
                Self::Numeric(numeric::apply_modifier(numeric::parse(text)?, *modifier)?)
            }
            SqlType::Bytea => Self::Bytea(parse_bytea(text)?),
            SqlType::Date => Self::Date(datetime_input::parse_date(text, now_unix_micros)?),
            SqlType::Time => Self::Time(datetime_input::parse_time(text, now_unix_micros)?),
            SqlType::Timestamp => Self::Timestamp(datetime_input::parse_timestamp(text, now_unix_micros)?),
            SqlType::TimestampTz => {
                Self::TimestampTz(datetime_input::parse_timestamp_tz(text, now_unix_micros)?)
            }
            SqlType::Interval => Self::Interval(interval_input::parse_interval(text)?),
            SqlType::Uuid => Self::Uuid(parse_uuid(text)?),
            SqlType::Oid => Self::Oid(parse_oid(text)?),
        })
    }
}

/// A value of a character type from its text: checks NUL bytes and the length.
pub(crate) fn character_data(sql_type: &SqlType, text: &str) -> Result<Datum> {
    if text.as_bytes().contains(&0) {
        return Err(SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    fit_character_data(sql_type, text, false)
}

/// Fits text into a character type. Too much text is cut if the cast is explicit or the excess is blank.
pub(crate) fn fit_character_data(sql_type: &SqlType, text: &str, explicit: bool) -> Result<Datum> {
    let fitted = match sql_type {
        SqlType::VarChar(Some(length)) => limit(text, *length, explicit, sql_type)?,
        SqlType::Char(0) => text.trim_end_matches(' '),
        SqlType::Char(length) => limit(text, *length, explicit, sql_type)?.trim_end_matches(' '),
        SqlType::Name if text.len() > NAME_LENGTH => {
            let mut end = NAME_LENGTH;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            &text[..end]
        }
        _ => text,
    };
    Ok(Datum::Text(fitted.into()))
}

fn limit<'text>(text: &'text str, length: u32, explicit: bool, sql_type: &SqlType) -> Result<&'text str> {
    let length = length as usize;
    // Characters are never more than bytes.
    if text.len() <= length {
        return Ok(text);
    }
    let Some((end, _)) = text.char_indices().nth(length) else {
        return Ok(text);
    };
    let (kept, excess) = text.split_at(end);
    if explicit || excess.bytes().all(|byte| byte == b' ') {
        return Ok(kept);
    }
    Err(SqlError::new(
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
        format!("value too long for type {sql_type}"),
    ))
}

fn parse_integer<T: TryFrom<i64>>(text: &str, type_name: &str) -> Result<T> {
    let trimmed = text.trim_matches(is_space);
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid_syntax(type_name, text));
    }
    trimmed
        .parse::<i64>()
        .ok()
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| {
            SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("value \"{text}\" is out of range for type {type_name}"),
            )
        })
}

fn parse_oid(text: &str) -> Result<u32> {
    let value: i64 = parse_integer(text, "oid").map_err(|mut error| {
        if error.state == SqlState::INVALID_TEXT_REPRESENTATION {
            error.message = format!("invalid input syntax for type oid: \"{text}\"");
        }
        error
    })?;
    // Negative numbers count from the end, as strtoul has it.
    if let Ok(value) = u32::try_from(value) {
        return Ok(value);
    }
    i32::try_from(value).map(|value| value as u32).map_err(|_| {
        SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type oid"),
        )
    })
}

fn parse_boolean(text: &str) -> Result<bool> {
    let lower = text.trim_matches(is_space).to_ascii_lowercase();
    match lower.as_str() {
        "1" | "on" => return Ok(true),
        "0" | "of" | "off" => return Ok(false),
        "" => {}
        prefix if "true".starts_with(prefix) || "yes".starts_with(prefix) => return Ok(true),
        prefix if "false".starts_with(prefix) || "no".starts_with(prefix) => return Ok(false),
        _ => {}
    }
    Err(invalid_syntax("boolean", text))
}

/// What a float text says, before it is narrowed to a width.
enum FloatText<'text> {
    Special(f64),
    /// The trimmed number, and whether any digit of its mantissa is not zero.
    Number(&'text str, bool),
}

fn classify_float<'text>(text: &'text str, type_name: &str) -> Result<FloatText<'text>> {
    let trimmed = text.trim_matches(is_space);
    let (negative, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    if unsigned.eq_ignore_ascii_case("nan") {
        return Ok(FloatText::Special(f64::NAN));
    }
    if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
        return Ok(FloatText::Special(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    let numeric_bytes = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !unsigned.bytes().all(numeric_bytes) || unsigned.starts_with(['+', '-']) {
        return Err(invalid_syntax(type_name, text));
    }
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or("");
    Ok(FloatText::Number(
        trimmed,
        mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')),
    ))
}

fn float_out_of_range(text: &str, type_name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!(
            "\"{}\" is out of range for type {type_name}",
            text.trim_matches(is_space)
        ),
    )
}

fn parse_double(text: &str) -> Result<f64> {
    const NAME: &str = "double precision";
    match classify_float(text, NAME)? {
        FloatText::Special(value) => Ok(value),
        FloatText::Number(number, nonzero) => {
            let value: f64 = number.parse().map_err(|_| invalid_syntax(NAME, text))?;
            if value.is_infinite() || (value == 0.0 && nonzero) {
                return Err(float_out_of_range(text, NAME));
            }
            Ok(value)
        }
    }
}

fn parse_real(text: &str) -> Result<f32> {
    const NAME: &str = "real";
    match classify_float(text, NAME)? {
        FloatText::Special(value) => Ok(value as f32),
        FloatText::Number(number, nonzero) => {
            let value: f32 = number.parse().map_err(|_| invalid_syntax(NAME, text))?;
            if value.is_infinite() || (value == 0.0 && nonzero) {
                return Err(float_out_of_range(text, NAME));
            }
            Ok(value)
        }
    }
}

fn parse_bytea(text: &str) -> Result<Bytes> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return parse_hex(hex);
    }
    let bytes = text.as_bytes();
    let mut output = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] != b'\\' {
            output.push(bytes[index]);
            index += 1;
            continue;
        }
        match &bytes[index + 1..] {
            [b'\\', ..] => {
                output.push(b'\\');
                index += 2;
            }
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] => {
                output.push(((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'));
                index += 4;
            }
            _ => {
                return Err(SqlError::new(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    "invalid input syntax for type bytea",
                ));
            }
        }
    }
    Ok(Bytes::from(output))
}

fn parse_hex(hex: &str) -> Result<Bytes> {
    let mut output = Vec::with_capacity(hex.len() / 2);
    let mut characters = hex.chars();
    let digit = |character: char| {
        character.to_digit(16).map(|digit| digit as u8).ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid hexadecimal digit: \"{character}\""),
            )
        })
    };
    while let Some(character) = characters.next() {
        if matches!(character, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let high = digit(character)?;
        let Some(second) = characters.next() else {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "invalid hexadecimal data: odd number of digits",
            ));
        };
        output.push((high << 4) | digit(second)?);
    }
    Ok(Bytes::from(output))
}

fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let invalid = || invalid_syntax("uuid", text);
    let bytes = text.as_bytes();
    let bare = match bytes {
        [b'{', inner @ .., b'}'] => inner,
        [b'{', ..] => return Err(invalid()),
        _ => bytes,
    };
    let mut value = [0_u8; 16];
    let mut rest = bare;
    for (index, byte) in value.iter_mut().enumerate() {
        let [high, low, tail @ ..] = rest else {
            return Err(invalid());
        };
        let digit = |character: u8| char::from(character).to_digit(16).ok_or_else(invalid);
        *byte = ((digit(*high)? << 4) | digit(*low)?) as u8;
        rest = tail;
        // A hyphen may follow any group of four digits but the last.
        if index % 2 == 1 && index < 15 && rest.first() == Some(&b'-') {
            rest = &rest[1..];
        }
    }
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(invalid())
    }
}
