//! `AS OF SYSTEM TIME …`, as CockroachDB has it: of a query it may stand anywhere, and holds for all of the query.

use std::sync::Arc;

use neorunbase_types::calendar::timestamp_from_unix_micros;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType, numeric};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::Cursor;
use super::source::Source;
use crate::plan::AsOf;

pub(super) const WORDS: &[&str] = &["as", "of", "system", "time"];

/// Finds the clause in a statement's tokens: what it says, and the other tokens, if it is there. Of commands about
/// transactions it is a mode like others and left alone.
pub(super) fn take_from(
    tokens: &[TokenWithSpan],
    source: &Arc<Source>,
) -> Result<(Option<AsOf>, Option<Vec<TokenWithSpan>>)> {
    let mut cursor = Cursor::new(tokens, source);
    let first = cursor.peek_word().unwrap_or_default();
    if matches!(first, "begin" | "start" | "set") {
        return Ok((None, None));
    }
    let may_read_the_past = matches!(
        first,
        "select" | "with" | "values" | "table" | "copy" | "explain" | ""
    );
    let mut found = None;
    let mut rest = Vec::new();
    let mut kept_from = 0;
    while !cursor.is_end() {
        let at = tokens.len() - cursor.rest().len();
        if !cursor.is_words(0, WORDS) {
            cursor.advance();
            continue;
        }
        let refuse = |message: &str| {
            let position = source.position(tokens[at].span);
            Err(SqlError::new(SqlState::SYNTAX_ERROR, message).with_position(position))
        };
        if !may_read_the_past {
            return refuse("AS OF SYSTEM TIME can only be used with queries");
        }
        if found.is_some() {
            return refuse("AS OF SYSTEM TIME can be given only once in a statement");
        }
        cursor.take_words(WORDS);
        found = Some(value(&mut cursor)?);
        rest.extend_from_slice(&tokens[kept_from..at]);
        kept_from = tokens.len() - cursor.rest().len();
    }
    if found.is_none() {
        return Ok((None, None));
    }
    rest.extend_from_slice(&tokens[kept_from..]);
    Ok((found, Some(rest)))
}

/// What follows the words.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<AsOf> {
    if cursor.take(&Token::LParen) {
        let inner = value(cursor)?;
        cursor.expect(&Token::RParen)?;
        return Ok(inner);
    }
    if cursor.peek() == Some(&Token::Minus) || matches!(cursor.peek(), Some(Token::Number(..))) {
        return logical(&cursor.setting_value()?);
    }
    if cursor.take_word("interval") {
        return ago(&cursor.string()?);
    }
    if cursor.take_word("timestamptz") || cursor.take_word("timestamp") {
        return instant(&cursor.string()?);
    }
    let text = cursor.string()?;
    if !cursor.take(&Token::DoubleColon) {
        return of_text(&text);
    }
    if cursor.take_word("interval") {
        ago(&text)
    } else if cursor.take_word("timestamptz") || cursor.take_word("timestamp") {
        instant(&text)
    } else if cursor.take_word("numeric") || cursor.take_word("decimal") || cursor.take_word("bigint") {
        logical(&text)
    } else {
        Err(cursor.syntax_error())
    }
}

/// `22023`
fn invalid(message: impl std::fmt::Display) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("AS OF SYSTEM TIME: {message}"),
    )
}

fn of_text(text: &str) -> Result<AsOf> {
    if numeric::parse(text).is_ok() {
        return logical(text);
    }
    // Before intervals: `2026-01-01` would be one, too.
    if let Ok(found) = instant(text) {
        return Ok(found);
    }
    if Datum::from_text(&SqlType::Interval, text).is_ok() {
        return ago(text);
    }
    Err(invalid("value is neither timestamp, decimal, nor interval"))
}

fn logical(text: &str) -> Result<AsOf> {
    // CockroachDB's have decimals; ours may be written with some.
    let whole = text
        .trim()
        .split_once('.')
        .map_or(text.trim(), |(whole, _)| whole);
    match whole.parse::<u64>() {
        Ok(timestamp) if timestamp > 0 => Ok(AsOf::Logical(timestamp)),
        _ => Err(invalid(format_args!("{text} is not a timestamp of the database"))
            .with_hint("cluster_logical_timestamp() shows one.")),
    }
}

fn instant(text: &str) -> Result<AsOf> {
    match Datum::from_text(&SqlType::TimestampTz, text)? {
        Datum::TimestampTz(micros) => Ok(AsOf::Instant(
            micros.saturating_sub(timestamp_from_unix_micros(0)),
        )),
        _ => Err(SqlError::internal("a timestamp of another type")),
    }
}

fn ago(text: &str) -> Result<AsOf> {
    let Datum::Interval(interval) = Datum::from_text(&SqlType::Interval, text)? else {
        return Err(SqlError::internal("an interval of another type"));
    };
    let is_past = interval.months <= 0
        && interval.days <= 0
        && interval.micros <= 0
        && (interval.months, interval.days, interval.micros) != (0, 0, 0);
    if !is_past {
        return Err(invalid(format_args!(
            "interval value '{text}' too large, AS OF interval must be <= -1µs"
        )));
    }
    Ok(AsOf::Ago(interval))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use neorunbase_types::Interval;

    use super::*;
    use crate::parser::{ParsedKind, parse};
    use crate::plan::{TransactionCommand, TransactionModes};

    fn as_of(sql: &str) -> Option<AsOf> {
        parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))[0].as_of
    }

    fn seconds(seconds: i64) -> Option<AsOf> {
        Some(AsOf::Ago(Interval {
            micros: seconds * 1_000_000,
            ..Interval::default()
        }))
    }

    #[test]
    fn the_clause_is_taken_out_of_queries() {
        let sql = "select a, b from t as x, u as of system time '-10s' where a = 1";
        assert_eq!(as_of(sql), seconds(-10));
        let ParsedKind::Sql(statement) = &parse(sql).unwrap()[0].kind else {
            panic!("not a query");
        };
        let rest = "SELECT a, b FROM t AS x, u WHERE a = 1";
        assert_eq!(statement.to_string(), rest);
        assert_eq!(
            as_of("(select 1 as of system time interval '-1 min')"),
            seconds(-60)
        );
        assert_eq!(
            as_of("explain select 1 as of system time '-1s'::interval"),
            seconds(-1)
        );
        assert_eq!(as_of("select 1"), None);
        assert_eq!(
            as_of("select 1 as \"of\", 2 as system"),
            None,
            "no clause, but names"
        );
    }

    #[test]
    fn times_come_in_three_kinds() {
        assert_eq!(
            as_of("select 1 as of system time 1840700269035520001"),
            Some(AsOf::Logical(1_840_700_269_035_520_001))
        );
        assert_eq!(
            as_of("select 1 as of system time '17.0'"),
            Some(AsOf::Logical(17))
        );
        let instant = Some(AsOf::Instant(1_767_261_600_000_000));
        assert_eq!(
            as_of("select 1 as of system time '2026-01-01 10:00:00+00'"),
            instant
        );
        assert_eq!(
            as_of("select 1 as of system time (timestamptz '2026-01-01 11:00:00+01')"),
            instant
        );
    }

    #[test]
    fn what_is_no_past_is_refused() {
        let failure = |sql: &str| {
            let error = parse(sql).err().unwrap_or_else(|| panic!("{sql} parses"));
            (error.state.0, error.message)
        };
        for (sql, state) in [
            ("select 1 as of system time '10s'", "22023"),
            ("select 1 as of system time 'nonsense'", "22023"),
            ("select 1 as of system time -5", "22023"),
            ("select 1 as of system time 0", "22023"),
            ("select 1 as of system time", "42601"),
            (
                "select 1 as of system time '-1s' as of system time '-1s'",
                "42601",
            ),
            ("update t set a = 1 as of system time '-1s'", "42601"),
            ("insert into t select 1 from u as of system time '-1s'", "42601"),
            ("begin read write, as of system time '-1s'", "42601"),
        ] {
            assert_eq!(failure(sql).0, state, "{sql}");
        }
    }

    #[test]
    fn transactions_have_it_for_a_mode() {
        let modes = TransactionModes {
            as_of: seconds(-5),
            ..TransactionModes::default()
        };
        let kind = |sql: &str| parse(sql).unwrap().remove(0).kind;
        assert!(matches!(
            kind("begin transaction as of system time '-5s'"),
            ParsedKind::Transaction(TransactionCommand::Begin(found)) if found == modes
        ));
        assert!(matches!(
            kind("set transaction as of system time '-5s'"),
            ParsedKind::Transaction(TransactionCommand::SetModes(found)) if found == modes
        ));
    }
}
