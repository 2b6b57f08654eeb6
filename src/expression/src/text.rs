//! Functions of text and bytea.

use bytes::Bytes;
use neorunbase_types::{Datum, Result, SqlError, SqlState};

use crate::call::mismatch;
use crate::encoding::{decode, encode};
use crate::function::Function as F;
use crate::quoting::{quote_identifier, quote_literal};

/// The largest value PostgreSQL allocates.
const MAXIMUM_LENGTH: usize = 0x3fff_ffff;

pub(crate) fn text(value: impl Into<Box<str>>) -> Datum {
    Datum::Text(value.into())
}

pub(crate) fn invalid(message: impl Into<String>) -> Box<SqlError> {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn too_large() -> Box<SqlError> {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

/// One character to one character, as `towlower` maps them.
pub(crate) fn lower_character(character: char) -> char {
    let mut mapped = character.to_lowercase();
    match (mapped.next(), mapped.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

fn upper_character(character: char) -> char {
    let mut mapped = character.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

/// `lower`
pub(crate) fn lower(value: &str) -> String {
    if value.is_ascii() {
        value.to_ascii_lowercase()
    } else {
        value.chars().map(lower_character).collect()
    }
}

fn upper(value: &str) -> String {
    if value.is_ascii() {
        value.to_ascii_uppercase()
    } else {
        value.chars().map(upper_character).collect()
    }
}

fn initcap(value: &str) -> String {
    let mut inside_word = false;
    value
        .chars()
        .map(|character| {
            let mapped = if inside_word {
                lower_character(character)
            } else {
                upper_character(character)
            };
            inside_word = character.is_alphanumeric();
            mapped
        })
        .collect()
}

pub(crate) fn unary(function: F, argument: &Datum) -> Result<Datum> {
    match argument {
        Datum::Text(value) => unary_text(function, value),
        Datum::Bytea(value) => match function {
            F::CharacterLength | F::OctetLength => Ok(Datum::Integer(value.len() as i32)),
            F::BitLength => Ok(Datum::Integer(value.len() as i32 * 8)),
            F::Md5 => Ok(text(format!("{:x}", md5::compute(value)))),
            _ => Err(mismatch(function)),
        },
        Datum::Integer(value) if function == F::Chr => chr(*value),
        Datum::Integer(value) if function == F::ToHex => Ok(text(format!("{value:x}"))),
        Datum::BigInt(value) if function == F::ToHex => Ok(text(format!("{value:x}"))),
        _ => Err(mismatch(function)),
    }
}

fn unary_text(function: F, value: &str) -> Result<Datum> {
    Ok(match function {
        F::Lower => text(lower(value)),
        F::Upper => text(upper(value)),
        F::Initcap => text(initcap(value)),
        F::CharacterLength => Datum::Integer(value.chars().count() as i32),
        F::OctetLength => Datum::Integer(value.len() as i32),
        F::BitLength => Datum::Integer((value.len() * 8) as i32),
        F::TrimBoth => text(value.trim_matches(' ')),
        F::TrimLeft => text(value.trim_start_matches(' ')),
        F::TrimRight => text(value.trim_end_matches(' ')),
        F::Reverse => text(value.chars().rev().collect::<String>()),
        F::Ascii => Datum::Integer(value.chars().next().map_or(0, |first| first as i32)),
        F::Md5 => text(format!("{:x}", md5::compute(value))),
        F::QuoteLiteral => text(quote_literal(value)),
        F::QuoteIdentifier => text(quote_identifier(value)),
        _ => return Err(mismatch(function)),
    })
}

fn chr(code: i32) -> Result<Datum> {
    let limit = |message: String| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
    if code < 0 {
        return Err(invalid("character number must be positive"));
    }
    if code == 0 {
        return Err(limit("null character not permitted".to_owned()));
    }
    if code > 0x0010_FFFF {
        return Err(limit(format!(
            "requested character too large for encoding: {code}"
        )));
    }
    char::from_u32(code as u32)
        .map(|character| text(character.to_string()))
        .ok_or_else(|| limit(format!("requested character not valid for encoding: {code}")))
}

/// `count` characters from the 1-based `start`, which may lie before the text.
fn substring(value: &str, start: i32, count: Option<i32>) -> Result<&str> {
    let start = i64::from(start);
    let end = match count {
        Some(count) if count < 0 => {
            return Err(SqlError::new(
                SqlState::SUBSTRING_ERROR,
                "negative substring length not allowed",
            ));
        }
        Some(count) => start + i64::from(count),
        None => i64::MAX,
    };
    let (from, to) = ((start - 1).max(0) as usize, (end - 1).max(0) as usize);
    if from >= to {
        return Ok("");
    }
    if value.is_ascii() {
        return Ok(&value[from.min(value.len())..to.min(value.len())]);
    }
    let offset = |position: usize| {
        value
            .char_indices()
            .nth(position)
            .map_or(value.len(), |(offset, _)| offset)
    };
    Ok(&value[offset(from)..if to >= value.len() {
        value.len()
    } else {
        offset(to)
    }])
}

fn substring_bytes(value: &Bytes, start: i32, count: Option<i32>) -> Result<Bytes> {
    let start = i64::from(start);
    let end = match count {
        Some(count) if count < 0 => {
            return Err(SqlError::new(
                SqlState::SUBSTRING_ERROR,
                "negative substring length not allowed",
            ));
        }
        Some(count) => start + i64::from(count),
        None => i64::MAX,
    };
    let limit = value.len() as i64;
    let (from, to) = ((start - 1).clamp(0, limit), (end - 1).clamp(0, limit));
    Ok(if from >= to {
        Bytes::new()
    } else {
        value.slice(from as usize..to as usize)
    })
}

/// The first `count` characters, or all but the last `-count`.
fn left(value: &str, count: i32) -> &str {
    let keep = if count >= 0 {
        count as usize
    } else {
        value
            .chars()
            .count()
            .saturating_sub(count.unsigned_abs() as usize)
    };
    value
        .char_indices()
        .nth(keep)
        .map_or(value, |(offset, _)| &value[..offset])
}

/// The last `count` characters, or all but the first `-count`.
fn right(value: &str, count: i32) -> &str {
    let skip = if count >= 0 {
        value.chars().count().saturating_sub(count as usize)
    } else {
        count.unsigned_abs() as usize
    };
    value
        .char_indices()
        .nth(skip)
        .map_or("", |(offset, _)| &value[offset..])
}

fn pad(value: &str, length: i32, fill: &str, at_left: bool) -> Result<Datum> {
    let wanted = usize::try_from(length).unwrap_or(0);
    let present = value.chars().count();
    if wanted <= present || fill.is_empty() {
        return Ok(text(left(value, length.max(0))));
    }
    if wanted > MAXIMUM_LENGTH / 4 {
        return Err(too_large());
    }
    let filling: String = fill.chars().cycle().take(wanted - present).collect();
    Ok(text(if at_left {
        format!("{filling}{value}")
    } else {
        format!("{value}{filling}")
    }))
}

fn position(value: &str, wanted: &str) -> i32 {
    value
        .find(wanted)
        .map_or(0, |offset| value[..offset].chars().count() as i32 + 1)
}

fn repeat(value: &str, count: i32) -> Result<Datum> {
    let count = usize::try_from(count).unwrap_or(0);
    match value.len().checked_mul(count) {
        Some(length) if length <= MAXIMUM_LENGTH => Ok(text(value.repeat(count))),
        _ => Err(too_large()),
    }
}

pub(crate) fn binary(function: F, first: &Datum, second: &Datum) -> Result<Datum> {
    match (first, second) {
        (Datum::Text(first), Datum::Text(second)) => binary_text(function, first, second),
        (Datum::Text(value), Datum::Integer(count)) => Ok(match function {
            F::Substring => text(substring(value, *count, None)?),
            F::Left => text(left(value, *count)),
            F::Right => text(right(value, *count)),
            F::Repeat => return repeat(value, *count),
            F::PadLeft => return pad(value, *count, " ", true),
            F::PadRight => return pad(value, *count, " ", false),
            _ => return Err(mismatch(function)),
        }),
        (Datum::Bytea(value), Datum::Integer(start)) if function == F::Substring => {
            substring_bytes(value, *start, None).map(Datum::Bytea)
        }
        (Datum::Bytea(first), Datum::Bytea(second)) => binary_bytes(function, first, second),
        (Datum::Bytea(value), Datum::Text(format)) if function == F::Encode => encode(value, format),
        _ => Err(mismatch(function)),
    }
}

fn binary_text(function: F, first: &str, second: &str) -> Result<Datum> {
    let in_set = |character: char| second.contains(character);
    Ok(match function {
        F::Concatenate => {
            let mut joined = String::with_capacity(first.len() + second.len());
            joined.push_str(first);
            joined.push_str(second);
            text(joined)
        }
        F::TrimBoth => text(first.trim_matches(in_set)),
        F::TrimLeft => text(first.trim_start_matches(in_set)),
        F::TrimRight => text(first.trim_end_matches(in_set)),
        F::Position => Datum::Integer(position(first, second)),
        F::StartsWith => Datum::Boolean(first.starts_with(second)),
        F::Decode => return decode(first, second),
        _ => return Err(mismatch(function)),
    })
}

fn binary_bytes(function: F, first: &Bytes, second: &Bytes) -> Result<Datum> {
    let in_set = |byte: &u8| second.contains(byte);
    let start = || first.iter().take_while(|byte| in_set(byte)).count();
    let end = |from: usize| first.len() - first[from..].iter().rev().take_while(|byte| in_set(byte)).count();
    Ok(match function {
        F::Concatenate => Datum::Bytea(Bytes::from([first.as_ref(), second.as_ref()].concat())),
        F::TrimBoth => {
            let start = start();
            Datum::Bytea(first.slice(start..end(start)))
        }
        F::TrimLeft => Datum::Bytea(first.slice(start()..)),
        F::TrimRight => Datum::Bytea(first.slice(..end(0))),
        F::Position if second.is_empty() => Datum::Integer(1),
        F::Position => Datum::Integer(
            first
                .windows(second.len())
                .position(|window| window == second.as_ref())
                .map_or(0, |offset| offset as i32 + 1),
        ),
        _ => return Err(mismatch(function)),
    })
}

pub(crate) fn many(function: F, arguments: &[Datum]) -> Result<Datum> {
    match (function, arguments) {
        (F::Substring, [Datum::Text(value), Datum::Integer(start), Datum::Integer(count)]) => {
            substring(value, *start, Some(*count)).map(text)
        }
        (F::Substring, [Datum::Bytea(value), Datum::Integer(start), Datum::Integer(count)]) => {
            substring_bytes(value, *start, Some(*count)).map(Datum::Bytea)
        }
        (F::PadLeft, [Datum::Text(value), Datum::Integer(length), Datum::Text(fill)]) => {
            pad(value, *length, fill, true)
        }
        (F::PadRight, [Datum::Text(value), Datum::Integer(length), Datum::Text(fill)]) => {
            pad(value, *length, fill, false)
        }
        (F::Replace, [Datum::Text(value), Datum::Text(from), Datum::Text(to)]) => {
            if from.is_empty() {
                return Ok(text(value.clone()));
            }
            Ok(text(value.replace(from.as_ref(), to)))
        }
        (F::SplitPart, [Datum::Text(value), Datum::Text(separator), Datum::Integer(field)]) => {
            split_part(value, separator, *field).map(text)
        }
        (F::Translate, [Datum::Text(value), Datum::Text(from), Datum::Text(to)]) => {
            let targets: Vec<char> = to.chars().collect();
            let translated: String = value
                .chars()
                .filter_map(
                    |character| match from.chars().position(|candidate| candidate == character) {
                        Some(index) => targets.get(index).copied(),
                        None => Some(character),
                    },
                )
                .collect();
            Ok(text(translated))
        }
        (
            F::Overlay,
            [
                Datum::Text(value),
                Datum::Text(replacement),
                Datum::Integer(start),
                rest @ ..,
            ],
        ) => {
            let count = match rest {
                [Datum::Integer(count)] => *count,
                _ => replacement.chars().count() as i32,
            };
            overlay(value, replacement, *start, count)
        }
        _ => Err(mismatch(function)),
    }
}

fn overlay(value: &str, replacement: &str, start: i32, count: i32) -> Result<Datum> {
    if start <= 0 {
        return Err(SqlError::new(
            SqlState::SUBSTRING_ERROR,
            "negative substring length not allowed",
        ));
    }
    let after = start
        .checked_add(count)
        .ok_or_else(|| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range"))?;
    let head = substring(value, 1, Some(start - 1))?;
    let tail = substring(value, after, None)?;
    Ok(text(format!("{head}{replacement}{tail}")))
}

fn split_part<'value>(value: &'value str, separator: &str, field: i32) -> Result<&'value str> {
    if field == 0 {
        return Err(invalid("field position must not be zero"));
    }
    if value.is_empty() {
        return Ok("");
    }
    if separator.is_empty() {
        return Ok(if field.abs() == 1 { value } else { "" });
    }
    let wanted = field.unsigned_abs() as usize - 1;
    let found = if field > 0 {
        value.split(separator).nth(wanted)
    } else {
        value.rsplit(separator).nth(wanted)
    };
    Ok(found.unwrap_or(""))
}
