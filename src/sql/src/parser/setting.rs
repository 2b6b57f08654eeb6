//! SET, SHOW, RESET, DISCARD.

use neorunbase_types::Result;
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::unsupported;
use crate::plan::SettingCommand;

/// SHOW, RESET, DISCARD.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<SettingCommand> {
    let verb = cursor.identifier()?;
    if verb == "discard" {
        let known = ["all", "plans", "sequences", "temp", "temporary"];
        if !cursor.peek_word().is_some_and(|word| known.contains(&word)) {
            return Err(cursor.syntax_error());
        }
        cursor.advance();
        cursor.expect_end()?;
        return Ok(SettingCommand::Discard);
    }
    let name = if cursor.take_words(&["time", "zone"]) {
        "timezone".to_owned()
    } else if cursor.take_words(&["transaction", "isolation", "level"]) {
        "transaction_isolation".to_owned()
    } else if cursor.take_words(&["session", "authorization"]) {
        "session_authorization".to_owned()
    } else {
        name(cursor)?
    };
    cursor.expect_end()?;
    Ok(if verb == "show" {
        SettingCommand::Show(name)
    } else {
        SettingCommand::Reset(name)
    })
}

/// SET, other than of transactions.
pub(super) fn parse_set(cursor: &mut Cursor<'_>) -> Result<SettingCommand> {
    cursor.expect_word("set")?;
    let local = cursor.take_word("local");
    // `SET session = …` would name a setting; no setting is called so.
    if !local {
        cursor.take_word("session");
    }
    if cursor.take_words(&["time", "zone"]) {
        let value = if cursor.take_word("default") || cursor.take_word("local") {
            None
        } else if cursor.peek_word() == Some("interval") {
            return Err(unsupported("SET TIME ZONE INTERVAL"));
        } else {
            Some(cursor.setting_value()?)
        };
        cursor.expect_end()?;
        return Ok(SettingCommand::Set {
            name: "timezone".to_owned(),
            value,
            local,
        });
    }
    if cursor.take_word("names") {
        let value = if cursor.take_word("default") || cursor.is_end() {
            None
        } else {
            Some(cursor.setting_value()?)
        };
        cursor.expect_end()?;
        return Ok(SettingCommand::Set {
            name: "client_encoding".to_owned(),
            value,
            local,
        });
    }
    if let Some(word @ ("role" | "constraints" | "authorization" | "xml")) = cursor.peek_word() {
        return Err(unsupported(format!("SET {}", word.to_ascii_uppercase())));
    }
    let name = name(cursor)?;
    if !cursor.take(&Token::Eq) && !cursor.take_word("to") {
        return Err(cursor.syntax_error());
    }
    if cursor.take_word("default") {
        cursor.expect_end()?;
        return Ok(SettingCommand::Set {
            name,
            value: None,
            local,
        });
    }
    let first = cursor.setting_value()?;
    let mut values = vec![first];
    while cursor.take(&Token::Comma) {
        values.push(cursor.setting_value()?);
    }
    cursor.expect_end()?;
    let value = if values.len() == 1 && name != "search_path" {
        values.remove(0)
    } else {
        values
            .iter()
            .map(|value| quote(value))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Ok(SettingCommand::Set {
        name,
        value: Some(value),
        local,
    })
}

/// A setting's name, possibly with a prefix (`app.user`).
fn name(cursor: &mut Cursor<'_>) -> Result<String> {
    let mut name = cursor.identifier()?.to_ascii_lowercase();
    while cursor.take(&Token::Period) {
        name.push('.');
        name.push_str(&cursor.identifier()?.to_ascii_lowercase());
    }
    Ok(name)
}

/// Items of a list keep their quotes where they need them.
fn quote(value: &str) -> String {
    let plain = value
        .chars()
        .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        && value.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_');
    if plain {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('"', "\"\""))
    }
}
