//! Walks the tokens of one statement.

use std::sync::Arc;

use neorunbase_types::{Result, SqlError};
use sqlparser::ast::{Ident, ObjectName};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::source::Source;

/// A position in a statement's tokens.
pub(super) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    source: &'a Arc<Source>,
    index: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan], source: &'a Arc<Source>) -> Self {
        Self {
            tokens,
            source,
            index: 0,
        }
    }

    pub(super) fn source(&self) -> &'a Arc<Source> {
        self.source
    }

    pub(super) fn rest(&self) -> &'a [TokenWithSpan] {
        &self.tokens[self.index..]
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.index).map(|token| &token.token)
    }

    /// The unquoted word `ahead` tokens from here.
    pub(super) fn peek_word_at(&self, ahead: usize) -> Option<&'a str> {
        match &self.tokens.get(self.index + ahead)?.token {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    pub(super) fn peek_word(&self) -> Option<&'a str> {
        self.peek_word_at(0)
    }

    /// Whether these words follow, starting `ahead` tokens from here.
    pub(super) fn is_words(&self, ahead: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.peek_word_at(ahead + offset) == Some(word))
    }

    pub(super) fn advance(&mut self) {
        self.index = (self.index + 1).min(self.tokens.len());
    }

    pub(super) fn is_end(&self) -> bool {
        self.index >= self.tokens.len()
    }

    pub(super) fn take(&mut self, token: &Token) -> bool {
        let matches = self.peek() == Some(token);
        if matches {
            self.advance();
        }
        matches
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let matches = self.peek_word() == Some(word);
        if matches {
            self.advance();
        }
        matches
    }

    /// Takes all of the words, or none.
    pub(super) fn take_words(&mut self, words: &[&str]) -> bool {
        let matches = self.is_words(0, words);
        if matches {
            self.index += words.len();
        }
        matches
    }

    pub(super) fn expect(&mut self, token: &Token) -> Result<()> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    pub(super) fn expect_end(&self) -> Result<()> {
        if self.is_end() {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    /// `syntax error at or near` the next token.
    pub(super) fn syntax_error(&self) -> Box<SqlError> {
        match self.tokens.get(self.index) {
            Some(token) => self.source.syntax_error_at(token),
            None => self.source.syntax_error_at_end(),
        }
    }

    pub(super) fn ident(&mut self) -> Result<Ident> {
        match self.tokens.get(self.index) {
            Some(TokenWithSpan {
                token: Token::Word(word),
                span,
            }) => {
                let ident = Ident {
                    value: word.value.clone(),
                    quote_style: word.quote_style,
                    span: *span,
                };
                self.advance();
                Ok(ident)
            }
            _ => Err(self.syntax_error()),
        }
    }

    pub(super) fn identifier(&mut self) -> Result<String> {
        self.ident().map(|ident| ident.value)
    }

    pub(super) fn object_name(&mut self) -> Result<ObjectName> {
        let mut parts = vec![self.ident()?];
        while self.take(&Token::Period) {
            parts.push(self.ident()?);
        }
        Ok(ObjectName::from(parts))
    }

    /// `( a, b, … )`
    pub(super) fn column_list(&mut self) -> Result<Vec<Ident>> {
        self.expect(&Token::LParen)?;
        let mut columns = vec![self.ident()?];
        while self.take(&Token::Comma) {
            columns.push(self.ident()?);
        }
        self.expect(&Token::RParen)?;
        Ok(columns)
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let value = match self.peek() {
            Some(
                Token::SingleQuotedString(value)
                | Token::EscapedStringLiteral(value)
                | Token::UnicodeStringLiteral(value)
                | Token::NationalStringLiteral(value),
            ) => value.clone(),
            Some(Token::DollarQuotedString(quoted)) => quoted.value.clone(),
            _ => return Err(self.syntax_error()),
        };
        self.advance();
        Ok(value)
    }

    /// A positive whole number.
    pub(super) fn count(&mut self) -> Result<u32> {
        let number = match self.peek() {
            Some(Token::Number(digits, false)) => digits.parse::<u32>().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.syntax_error())?;
        self.advance();
        Ok(number)
    }

    /// A word, string or signed number, as SET and option lists take it.
    pub(super) fn setting_value(&mut self) -> Result<String> {
        let negative = self.take(&Token::Minus);
        if !negative {
            self.take(&Token::Plus);
        }
        let value = match self.peek() {
            Some(Token::Number(digits, _)) => format!("{}{digits}", if negative { "-" } else { "" }),
            _ if negative => return Err(self.syntax_error()),
            Some(Token::Word(word)) => word.value.clone(),
            _ => return self.string(),
        };
        self.advance();
        Ok(value)
    }
}
