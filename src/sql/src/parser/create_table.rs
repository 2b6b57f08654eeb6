//! CREATE TABLE with the clauses that say how it is sharded. They are cut out of the token stream; the rest is
//! plain PostgreSQL.

use std::sync::Arc;

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::Cursor;
use super::source::Source;
use super::with_parser;

/// `SHARD KEY (…) SHARDS n REPLICAS r`
#[derive(Clone, Debug, Default)]
pub struct ShardClauses {
    /// Columns of the shard key.
    pub key: Option<Vec<ast::Ident>>,
    /// Number of shards.
    pub shards: Option<u32>,
    /// Copies of each.
    pub replicas: Option<u32>,
}

pub(super) fn parse(
    tokens: &[TokenWithSpan],
    source: &Arc<Source>,
) -> Result<(ast::Statement, ShardClauses)> {
    let mut clauses = ShardClauses::default();
    let definition_end = end_of_definition(tokens);
    let mut kept = tokens[..definition_end].to_vec();
    let mut cursor = Cursor::new(&tokens[definition_end..], source);
    let mut depth = 0_u32;
    while let Some(token) = cursor.peek() {
        let start = cursor.rest();
        if depth == 0 && cursor.is_words(0, &["shard", "key"]) {
            if clauses.key.is_some() {
                return Err(cursor.syntax_error());
            }
            cursor.take_words(&["shard", "key"]);
            clauses.key = Some(cursor.column_list()?);
        } else if depth == 0 && cursor.is_words(0, &["shards"]) {
            count_clause(&mut cursor, &mut clauses.shards, "SHARDS", 65_536)?;
        } else if depth == 0 && cursor.is_words(0, &["replicas"]) {
            count_clause(&mut cursor, &mut clauses.replicas, "REPLICAS", 16)?;
        } else {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            kept.push(start[0].clone());
            cursor.advance();
        }
    }
    let statement = with_parser(&kept, source, |parser| parser.parse_statement())?;
    Ok((statement, clauses))
}

/// One past the parenthesis that closes the list of columns (or past the table's name, if there is none).
fn end_of_definition(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0_u32;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

fn count_clause(cursor: &mut Cursor<'_>, target: &mut Option<u32>, name: &str, maximum: u32) -> Result<()> {
    if target.is_some() {
        return Err(cursor.syntax_error());
    }
    cursor.advance();
    let count = cursor.count()?;
    if count == 0 || count > maximum {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("{name} must be between 1 and {maximum}"),
        ));
    }
    *target = Some(count);
    Ok(())
}
