//! From SQL text to syntax trees: scripts are split into statements, what `sqlparser` does not know is parsed
//! here from the same tokens, and errors read as PostgreSQL's do.

mod as_of;
mod copy;
mod create_table;
mod cursor;
mod role;
mod setting;
mod source;
mod transaction;

use std::sync::Arc;

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub use copy::{CopyOptions, CopySource, CopyStatement};
pub use create_table::ShardClauses;
use cursor::Cursor;
pub(crate) use source::Source;

use crate::plan::{AsOf, Definition, SettingCommand, TransactionCommand};

/// Longest identifier in bytes; longer ones are cut, as PostgreSQL does.
const MAXIMUM_IDENTIFIER_BYTES: usize = 63;
/// How deep expressions and queries may nest.
const MAXIMUM_NESTING: usize = 100;
/// How many operators one level of an expression may chain.
const MAXIMUM_CHAIN: usize = 1_000;

/// One statement of a script.
#[derive(Clone, Debug)]
pub struct ParsedStatement {
    /// Its own text, without the semicolon.
    pub text: Arc<str>,
    /// What it says.
    pub kind: ParsedKind,
    /// AS OF SYSTEM TIME: holds for all of it.
    pub as_of: Option<AsOf>,
    /// The script, for positions in errors.
    pub(crate) source: Arc<Source>,
}

/// The syntax trees.
#[derive(Clone, Debug)]
pub enum ParsedKind {
    /// Nothing but blanks and comments.
    Empty,
    /// What `sqlparser` understands by itself.
    Sql(Box<ast::Statement>),
    /// CREATE TABLE and its sharding.
    CreateTable(Box<ast::Statement>, ShardClauses),
    /// COPY
    Copy(CopyStatement),
    /// BEGIN, COMMIT, …
    Transaction(TransactionCommand),
    /// SET, SHOW, …
    Setting(SettingCommand),
    /// VACUUM, ANALYZE
    Maintenance {
        /// The command tag.
        tag: &'static str,
        /// The tables named.
        tables: Vec<ast::ObjectName>,
    },
    /// CREATE/ALTER/DROP USER
    Role(Definition),
    /// EXPLAIN
    Explain {
        /// ANALYZE was asked for.
        analyze: bool,
        /// Of this.
        statement: Box<ParsedKind>,
    },
}

/// Parses a script. Without any statement the result is one [`ParsedKind::Empty`].
///
/// # Errors
/// `42601` with the position of the offending token; `0A000` for statements that are not supported.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>> {
    if sql.contains('\0') {
        return Err(SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    let source = Arc::new(Source::new(sql));
    let tokens = tokenize(&source)?;
    let mut statements = Vec::new();
    let mut start = 0;
    while start <= tokens.len() {
        let end = tokens[start..]
            .iter()
            .position(|token| token.token == Token::SemiColon)
            .map_or(tokens.len(), |length| start + length);
        let own = &tokens[start..end];
        if !own.is_empty() {
            let (as_of, rest) = as_of::take_from(own, &source)?;
            let kind = parse_statement(rest.as_deref().unwrap_or(own), &source)?;
            statements.push(ParsedStatement {
                text: source.text_of(own),
                kind,
                as_of,
                source: source.clone(),
            });
        }
        start = end + 1;
    }
    if statements.is_empty() {
        statements.push(ParsedStatement {
            text: Arc::from(""),
            kind: ParsedKind::Empty,
            as_of: None,
            source,
        });
    }
    Ok(statements)
}

/// Parses one scalar expression, such as a stored default.
///
/// # Errors
/// `42601`.
pub fn parse_expression(sql: &str) -> Result<ast::Expr> {
    let source = Arc::new(Source::new(sql));
    let tokens = tokenize(&source)?;
    with_parser(&tokens, &source, |parser| parser.parse_expr())
}

/// Tokens without blanks and comments; identifiers folded to lower case and cut to 63 bytes.
fn tokenize(source: &Source) -> Result<Vec<TokenWithSpan>> {
    let dialect = PostgreSqlDialect {};
    let mut tokens = Tokenizer::new(&dialect, source.text())
        .tokenize_with_location()
        .map_err(|error| source.tokenizer_error(&error))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    check_chains(&tokens)?;
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token {
            if word.quote_style.is_none() {
                word.value.make_ascii_lowercase();
            } else if word.value.is_empty() {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "zero-length delimited identifier at or near \"\"\"\"",
                )
                .with_position(source.position(token.span)));
            }
            if word.value.len() > MAXIMUM_IDENTIFIER_BYTES {
                let mut end = MAXIMUM_IDENTIFIER_BYTES;
                while !word.value.is_char_boundary(end) {
                    end -= 1;
                }
                word.value.truncate(end);
            }
        }
    }
    Ok(tokens)
}

/// Refuses `1 + 1 + 1 + …` beyond what the tree of it could be walked, or even dropped, on a thread's stack.
fn check_chains(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut operators_by_level = vec![0_usize];
    for token in tokens {
        match &token.token {
            Token::LParen => operators_by_level.push(0),
            Token::RParen if operators_by_level.len() > 1 => drop(operators_by_level.pop()),
            Token::Comma | Token::SemiColon => {
                if let Some(operators) = operators_by_level.last_mut() {
                    *operators = 0;
                }
            }
            Token::Word(word)
                if !matches!(
                    word.value.to_ascii_lowercase().as_str(),
                    "and" | "or" | "union" | "not"
                ) => {}
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::Period => {}
            _ => {
                if let Some(operators) = operators_by_level.last_mut() {
                    *operators += 1;
                    if *operators > MAXIMUM_CHAIN {
                        return Err(SqlError::new(SqlState("54001"), "stack depth limit exceeded")
                            .with_hint("the statement chains too many operators"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn parse_statement(tokens: &[TokenWithSpan], source: &Arc<Source>) -> Result<ParsedKind> {
    let mut cursor = Cursor::new(tokens, source);
    let first = cursor.peek_word().unwrap_or_default().to_owned();
    match first.as_str() {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            transaction::parse(&mut cursor).map(ParsedKind::Transaction)
        }
        "set" => {
            if let Some(command) = transaction::parse_set(&mut cursor)? {
                return Ok(ParsedKind::Transaction(command));
            }
            setting::parse_set(&mut cursor).map(ParsedKind::Setting)
        }
        "show" | "reset" | "discard" => setting::parse(&mut cursor).map(ParsedKind::Setting),
        "vacuum" | "analyze" | "analyse" => parse_maintenance(&mut cursor),
        "copy" => copy::parse(&mut cursor).map(ParsedKind::Copy),
        "explain" => parse_explain(&mut cursor),
        "prepare" | "execute" | "deallocate" => Err(unsupported(first.to_ascii_uppercase())
            .with_hint("Use the prepared statements of the client's driver (the extended query protocol).")),
        "declare" | "fetch" | "move" | "close" => Err(unsupported(format!(
            "cursor command {}",
            first.to_ascii_uppercase()
        ))
        .with_hint("Let the client's driver fetch the result in portions (the extended query protocol).")),
        "do" | "call" | "listen" | "unlisten" | "notify" | "lock" | "cluster" | "reindex" | "refresh"
        | "import" | "security" | "comment" | "grant" | "revoke" | "merge" | "checkpoint" | "reassign"
        | "load" => Err(unsupported(first.to_ascii_uppercase())),
        "create" if cursor.is_words(1, &["unlogged"]) => {
            Err(unsupported("CREATE UNLOGGED TABLE").with_hint("Every table is durable; leave out UNLOGGED."))
        }
        "create" if cursor.is_words(1, &["table"]) => {
            let (statement, shards) = create_table::parse(tokens, source)?;
            Ok(ParsedKind::CreateTable(Box::new(statement), shards))
        }
        "create" | "alter" | "drop" if cursor.is_words(1, &["user"]) || cursor.is_words(1, &["role"]) => {
            role::parse(&mut cursor).map(ParsedKind::Role)
        }
        "create" | "alter" | "drop" => {
            const KNOWN: &[&str] = &["table", "index", "unique"];
            let second = cursor.peek_word_at(1).unwrap_or_default();
            if cursor.peek_word_at(1).is_some() && !KNOWN.contains(&second) {
                return Err(unsupported(format!(
                    "{} {}",
                    first.to_ascii_uppercase(),
                    second.to_ascii_uppercase()
                )));
            }
            parse_sql(tokens, source)
        }
        "select" | "insert" | "update" | "delete" | "with" | "values" | "table" | "truncate" => {
            parse_sql(tokens, source)
        }
        // An open parenthesis may start a query; all else is no statement.
        "" if tokens[0].token == Token::LParen => parse_sql(tokens, source),
        _ => Err(cursor.syntax_error()),
    }
}

fn parse_sql(tokens: &[TokenWithSpan], source: &Arc<Source>) -> Result<ParsedKind> {
    let tokens = without_key_locks(tokens);
    let statement = with_parser(&tokens, source, |parser| parser.parse_statement())?;
    Ok(ParsedKind::Sql(Box::new(statement)))
}

/// `FOR NO KEY UPDATE` and `FOR KEY SHARE` count as their stronger neighbours, which the parser knows.
fn without_key_locks(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let is = |index: usize, wanted: &str| match tokens.get(index).map(|token| &token.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && word.value == wanted,
        _ => false,
    };
    let mut kept = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while index < tokens.len() {
        kept.push(tokens[index].clone());
        if is(index, "for") && is(index + 1, "no") && is(index + 2, "key") && is(index + 3, "update") {
            index += 2;
        } else if is(index, "for") && is(index + 1, "key") && is(index + 2, "share") {
            index += 1;
        }
        index += 1;
    }
    kept
}

/// Runs `sqlparser` over all of `tokens`; anything left over is a syntax error.
fn with_parser<T>(
    tokens: &[TokenWithSpan],
    source: &Source,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T> {
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(MAXIMUM_NESTING)
        .with_tokens_with_locations(tokens.to_vec());
    let parsed = parse(&mut parser).map_err(|error| source.parser_error(&error, tokens))?;
    let next = parser.next_token();
    if next.token != Token::EOF {
        return Err(source.syntax_error_at(&next));
    }
    Ok(parsed)
}

/// `0A000`.
fn unsupported(what: impl std::fmt::Display) -> Box<SqlError> {
    SqlError::unsupported(what)
}

fn parse_maintenance(cursor: &mut Cursor<'_>) -> Result<ParsedKind> {
    let tag = if cursor.take_word("vacuum") {
        "VACUUM"
    } else {
        "ANALYZE"
    };
    if tag == "ANALYZE" {
        cursor.advance();
    }
    if cursor.peek() == Some(&Token::LParen) {
        skip_parenthesised(cursor)?;
    }
    while cursor.take_word("full")
        || cursor.take_word("freeze")
        || cursor.take_word("verbose")
        || cursor.take_word("analyze")
        || cursor.take_word("analyse")
    {}
    let mut tables = Vec::new();
    while !cursor.is_end() {
        tables.push(cursor.object_name()?);
        if cursor.peek() == Some(&Token::LParen) {
            skip_parenthesised(cursor)?;
        }
        if !cursor.take(&Token::Comma) {
            break;
        }
    }
    cursor.expect_end()?;
    Ok(ParsedKind::Maintenance { tag, tables })
}

/// Skips `( … )` without nesting.
fn skip_parenthesised(cursor: &mut Cursor<'_>) -> Result<()> {
    cursor.expect(&Token::LParen)?;
    while !cursor.take(&Token::RParen) {
        if cursor.is_end() || cursor.peek() == Some(&Token::LParen) {
            return Err(cursor.syntax_error());
        }
        cursor.advance();
    }
    Ok(())
}

fn parse_explain(cursor: &mut Cursor<'_>) -> Result<ParsedKind> {
    cursor.advance();
    let mut analyze = false;
    // `EXPLAIN (SELECT 1)` explains a query in parentheses.
    let query_follows =
        cursor.is_words(1, &["select"]) || cursor.is_words(1, &["with"]) || cursor.is_words(1, &["values"]);
    if cursor.peek() == Some(&Token::LParen) && !query_follows {
        cursor.advance();
        loop {
            let name = cursor.identifier()?;
            let mut value = String::from("true");
            if !matches!(cursor.peek(), Some(Token::Comma | Token::RParen)) {
                value = cursor.setting_value()?;
            }
            let enabled = !matches!(value.to_ascii_lowercase().as_str(), "false" | "off" | "0");
            match name.as_str() {
                "analyze" => analyze = enabled,
                "format" if !value.eq_ignore_ascii_case("text") => {
                    return Err(
                        unsupported(format!("EXPLAIN (FORMAT {})", value.to_ascii_uppercase()))
                            .with_hint("Use the text format."),
                    );
                }
                "format" | "verbose" | "costs" | "settings" | "buffers" | "wal" | "timing" | "summary" => {}
                other => {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        format!("unrecognized EXPLAIN option \"{other}\""),
                    ));
                }
            }
            if cursor.take(&Token::RParen) {
                break;
            }
            cursor.expect(&Token::Comma)?;
        }
    } else {
        analyze = cursor.take_word("analyze") || cursor.take_word("analyse");
        cursor.take_word("verbose");
    }
    let rest = cursor.rest();
    if rest.is_empty() || cursor.peek_word() == Some("explain") {
        return Err(cursor.syntax_error());
    }
    let statement = parse_statement(rest, cursor.source())?;
    Ok(ParsedKind::Explain {
        analyze,
        statement: Box::new(statement),
    })
}

#[cfg(test)]
mod tests;
