//! COPY, in the present syntax and in the one from before PostgreSQL 9.0.

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::{unsupported, with_parser};

/// COPY
#[derive(Clone, Debug)]
pub struct CopyStatement {
    /// What is copied.
    pub source: CopySource,
    /// TO STDOUT rather than FROM STDIN.
    pub to_client: bool,
    /// The format.
    pub options: CopyOptions,
}

/// What is copied.
#[derive(Clone, Debug)]
pub enum CopySource {
    /// A table, and its columns if they are named.
    Table(ast::ObjectName, Vec<ast::Ident>),
    /// A query.
    Query(Box<ast::Query>),
}

/// Options of COPY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT csv
    pub csv: bool,
    /// HEADER
    pub header: bool,
    /// DELIMITER
    pub delimiter: Option<u8>,
    /// NULL
    pub null: Option<String>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<CopyStatement> {
    cursor.expect_word("copy")?;
    let source = source(cursor)?;
    let to_client = if cursor.take_word("to") {
        true
    } else {
        cursor.expect_word("from")?;
        if let CopySource::Query(_) = source {
            return Err(cursor.syntax_error());
        }
        false
    };
    if cursor.take_word("program") || matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        let what = if to_client {
            "COPY TO a file or program on the server"
        } else {
            "COPY FROM a file or program on the server"
        };
        return Err(
            unsupported(what).with_hint("Use STDIN or STDOUT, or psql's \\copy: the client's own files.")
        );
    }
    if !(cursor.take_word("stdin") || cursor.take_word("stdout")) {
        return Err(cursor.syntax_error());
    }
    let mut options = CopyOptions::default();
    cursor.take_word("with");
    if cursor.peek() == Some(&Token::LParen) {
        option_list(cursor, &mut options)?;
    } else {
        old_options(cursor, &mut options)?;
    }
    if cursor.peek_word() == Some("where") {
        return Err(unsupported("COPY FROM … WHERE")
            .with_hint("Copy into another table and INSERT … SELECT from there."));
    }
    cursor.expect_end()?;
    Ok(CopyStatement {
        source,
        to_client,
        options,
    })
}

fn source(cursor: &mut Cursor<'_>) -> Result<CopySource> {
    if cursor.peek() != Some(&Token::LParen) {
        let name = cursor.object_name()?;
        let columns = if cursor.peek() == Some(&Token::LParen) {
            cursor.column_list()?
        } else {
            Vec::new()
        };
        return Ok(CopySource::Table(name, columns));
    }
    cursor.advance();
    let inner = cursor.rest();
    let mut depth = 1_u32;
    let mut length = 0;
    for token in inner {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        length += 1;
    }
    let query = with_parser(&inner[..length], cursor.source(), |parser| parser.parse_query())?;
    for _ in 0..length {
        cursor.advance();
    }
    cursor.expect(&Token::RParen)?;
    Ok(CopySource::Query(query))
}

fn option_list(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Result<()> {
    cursor.expect(&Token::LParen)?;
    loop {
        let name = cursor.identifier()?;
        match name.as_str() {
            "format" => set_format(&cursor.setting_value()?, options)?,
            "freeze" => {
                // Rows are visible when they commit in any case.
                boolean(cursor, "freeze")?;
            }
            "header" => {
                if cursor.peek_word() == Some("match") {
                    return Err(unsupported("COPY option HEADER MATCH"));
                }
                options.header = boolean(cursor, "header")?;
            }
            "delimiter" => options.delimiter = Some(delimiter(&cursor.string()?)?),
            "null" => options.null = Some(cursor.string()?),
            "quote" | "escape" => quote(&cursor.string()?, &name)?,
            "encoding" => encoding(&cursor.string()?)?,
            "force_quote" | "force_not_null" | "force_null" => {
                return Err(unsupported(format!("COPY option {}", name.to_ascii_uppercase())));
            }
            _ => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("option \"{name}\" not recognized"),
                ));
            }
        }
        if cursor.take(&Token::RParen) {
            return Ok(());
        }
        cursor.expect(&Token::Comma)?;
    }
}

fn old_options(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Result<()> {
    loop {
        match cursor.peek_word() {
            Some("binary") => set_format("binary", options)?,
            Some("csv") => {
                options.csv = true;
                cursor.advance();
            }
            Some("header") => {
                options.header = true;
                cursor.advance();
            }
            Some("freeze") => cursor.advance(),
            Some(word @ ("delimiter" | "delimiters" | "null" | "quote" | "escape")) => {
                cursor.advance();
                cursor.take_word("as");
                let value = cursor.string()?;
                match word {
                    "null" => options.null = Some(value),
                    "quote" | "escape" => quote(&value, word)?,
                    _ => options.delimiter = Some(delimiter(&value)?),
                }
            }
            Some("encoding") => {
                cursor.advance();
                encoding(&cursor.string()?)?;
            }
            Some("force") => return Err(unsupported("COPY option FORCE")),
            _ => return Ok(()),
        }
    }
}

fn set_format(format: &str, options: &mut CopyOptions) -> Result<()> {
    match format {
        "text" => options.csv = false,
        "csv" => options.csv = true,
        "binary" => return Err(unsupported("COPY in binary format").with_hint("Use the text or csv format.")),
        other => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("COPY format \"{other}\" not recognized"),
            ));
        }
    }
    Ok(())
}

fn boolean(cursor: &mut Cursor<'_>, name: &str) -> Result<bool> {
    if matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
        return Ok(true);
    }
    match cursor.setting_value()?.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" | "yes" | "t" => Ok(true),
        "false" | "off" | "0" | "no" | "f" => Ok(false),
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("{name} requires a Boolean value"),
        )),
    }
}

fn delimiter(text: &str) -> Result<u8> {
    match text.as_bytes() {
        [b'\n' | b'\r'] => Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "COPY delimiter cannot be newline or carriage return",
        )),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "COPY delimiter must be a single one-byte character",
        )),
    }
}

fn quote(text: &str, name: &str) -> Result<()> {
    if text == "\"" {
        Ok(())
    } else {
        Err(unsupported(format!(
            "COPY option {} other than '\"'",
            name.to_ascii_uppercase()
        )))
    }
}

fn encoding(name: &str) -> Result<()> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if matches!(plain.to_ascii_lowercase().as_str(), "utf8" | "unicode") {
        Ok(())
    } else {
        Err(unsupported(format!("COPY ENCODING '{name}'")).with_hint("Convert the data to UTF-8."))
    }
}
