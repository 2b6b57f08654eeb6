//! A script's text, and errors that point into it.

use std::sync::Arc;

use neorunbase_types::{SqlError, SqlState};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, TokenizerError};

/// A script.
#[derive(Debug)]
pub(crate) struct Source {
    text: Box<str>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Byte offset of a location (lines and columns count from 1, columns in characters).
    fn offset(&self, location: Location) -> usize {
        let mut line_start = 0;
        for _ in 1..location.line {
            match self.text[line_start..].find('\n') {
                Some(length) => line_start += length + 1,
                None => return self.text.len(),
            }
        }
        let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(0);
        self.text[line_start..]
            .char_indices()
            .nth(column)
            .map_or(self.text.len(), |(offset, _)| line_start + offset)
    }

    /// The 1-based character position where `span` starts.
    pub(crate) fn position(&self, span: Span) -> u32 {
        self.position_of(self.offset(span.start))
    }

    fn position_of(&self, offset: usize) -> u32 {
        u32::try_from(self.text[..offset].chars().count()).unwrap_or(u32::MAX - 1) + 1
    }

    /// The source of a run of tokens.
    pub(crate) fn text_of(&self, tokens: &[TokenWithSpan]) -> Arc<str> {
        match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) => {
                let (start, end) = (self.offset(first.span.start), self.offset(last.span.end));
                Arc::from(self.text.get(start..end).unwrap_or_default())
            }
            _ => Arc::from(""),
        }
    }

    /// `syntax error at or near "…"`.
    pub(crate) fn syntax_error_at(&self, token: &TokenWithSpan) -> Box<SqlError> {
        if token.token == Token::EOF {
            return self.syntax_error_at_end();
        }
        let start = self.offset(token.span.start);
        let end = self.offset(token.span.end);
        let near = self.text.get(start..end).unwrap_or_default();
        SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("syntax error at or near \"{near}\""),
        )
        .with_position(self.position_of(start))
    }

    /// `syntax error at end of input`.
    pub(crate) fn syntax_error_at_end(&self) -> Box<SqlError> {
        SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input")
            .with_position(self.position_of(self.text.len()))
    }

    pub(crate) fn tokenizer_error(&self, error: &TokenizerError) -> Box<SqlError> {
        let offset = self.offset(error.location);
        let rest = &self.text[offset..];
        let lower = error.message.to_ascii_lowercase();
        let message = if lower.contains("unterminated dollar") {
            format!("unterminated dollar-quoted string at or near \"{rest}\"")
        } else if lower.contains("close delimiter") {
            format!("unterminated quoted identifier at or near \"{rest}\"")
        } else if lower.contains("unterminated") {
            format!("unterminated quoted string at or near \"{rest}\"")
        } else if lower.contains("comment") {
            "unterminated /* comment".to_owned()
        } else {
            let near: String = rest.chars().take(1).collect();
            format!("syntax error at or near \"{near}\"")
        };
        SqlError::new(SqlState::SYNTAX_ERROR, message).with_position(self.position_of(offset))
    }

    /// What `sqlparser` said, in PostgreSQL's words. It names the place in its message only.
    pub(crate) fn parser_error(&self, error: &ParserError, tokens: &[TokenWithSpan]) -> Box<SqlError> {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return SqlError::new(SqlState("54001"), "stack depth limit exceeded")
                    .with_hint("Write the statement with fewer levels of nesting.");
            }
        };
        let location = parse_location(message);
        let token = location.and_then(|location| tokens.iter().find(|token| token.span.start == location));
        match token {
            Some(token) => self.syntax_error_at(token),
            None if location.is_none() && !message.contains("EOF") && !message.contains("found") => {
                // A rule of the grammar rather than a token: its own words say more.
                let words = message.trim_start_matches("sql parser error: ");
                SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {words}"))
            }
            None => self.syntax_error_at_end(),
        }
    }
}

/// Finds ` at Line: 1, Column: 8`.
fn parse_location(message: &str) -> Option<Location> {
    let (_, rest) = message.rsplit_once(" at Line: ")?;
    let (line, column) = rest.split_once(", Column: ")?;
    Some(Location {
        line: line.trim().parse().ok()?,
        column: column.trim().parse().ok()?,
    })
}
