//! `encode` and `decode`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use neorunbase_types::{Datum, Result, SqlError, SqlType};

use crate::text::{invalid, text};

fn unrecognized_encoding(name: &str) -> Box<SqlError> {
    invalid(format!("unrecognized encoding: \"{name}\""))
}

/// `encode(bytea, format)`
pub(crate) fn encode(value: &Bytes, format: &str) -> Result<Datum> {
    let lower = format.to_ascii_lowercase();
    Ok(text(match lower.as_str() {
        "hex" => {
            let full = Datum::Bytea(value.clone()).to_text(&SqlType::Bytea);
            full[2..].to_owned()
        }
        "base64" => {
            // Lines of 76 characters, as MIME has it.
            let encoded = BASE64.encode(value);
            let lines: Vec<Cow<'_, str>> = encoded
                .as_bytes()
                .chunks(76)
                .map(String::from_utf8_lossy)
                .collect();
            lines.join("\n")
        }
        "escape" => {
            let mut output = String::with_capacity(value.len());
            for &byte in value {
                match byte {
                    b'\\' => output.push_str("\\\\"),
                    0 | 0x80.. => output.push_str(&format!("\\{byte:03o}")),
                    _ => output.push(char::from(byte)),
                }
            }
            output
        }
        _ => return Err(unrecognized_encoding(format)),
    }))
}

/// `decode(text, format)`
pub(crate) fn decode(value: &str, format: &str) -> Result<Datum> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => Datum::from_text(&SqlType::Bytea, &format!("\\x{value}")),
        "escape" => Datum::from_text(&SqlType::Bytea, value.strip_prefix("\\x").unwrap_or(value)),
        "base64" => {
            let compact: String = value
                .chars()
                .filter(|character| !matches!(character, ' ' | '\t' | '\n' | '\r'))
                .collect();
            let unknown = |character: &char| {
                !(character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '='))
            };
            if let Some(character) = compact.chars().find(unknown) {
                return Err(invalid(format!(
                    "invalid symbol \"{character}\" found while decoding base64 sequence"
                )));
            }
            BASE64
                .decode(&compact)
                .map(|bytes| Datum::Bytea(Bytes::from(bytes)))
                .map_err(|_| {
                    invalid("invalid base64 end sequence")
                        .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted.")
                })
        }
        _ => Err(unrecognized_encoding(format)),
    }
}
