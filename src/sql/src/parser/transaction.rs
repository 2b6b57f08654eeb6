//! BEGIN, COMMIT, ROLLBACK, SAVEPOINT, SET TRANSACTION.

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::tokenizer::Token;

use super::as_of;
use super::cursor::Cursor;
use super::unsupported;
use crate::plan::{IsolationLevel, TransactionCommand, TransactionModes};

/// Statements that begin with BEGIN, START, COMMIT, END, ROLLBACK, ABORT, SAVEPOINT or RELEASE.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<TransactionCommand> {
    let verb = cursor.identifier()?;
    match verb.as_str() {
        "begin" => {
            take_noise(cursor);
            Ok(TransactionCommand::Begin(modes(cursor)?))
        }
        "start" => {
            cursor.expect_word("transaction")?;
            Ok(TransactionCommand::Begin(modes(cursor)?))
        }
        "commit" | "end" => {
            if cursor.peek_word() == Some("prepared") {
                return Err(unsupported("COMMIT PREPARED"));
            }
            take_noise(cursor);
            chain(cursor)?;
            cursor.expect_end()?;
            Ok(TransactionCommand::Commit)
        }
        "savepoint" => savepoint_name(cursor).map(TransactionCommand::Savepoint),
        "release" => {
            cursor.take_word("savepoint");
            savepoint_name(cursor).map(TransactionCommand::Release)
        }
        _ => {
            if cursor.peek_word() == Some("prepared") {
                return Err(unsupported("ROLLBACK PREPARED"));
            }
            take_noise(cursor);
            if cursor.take_word("to") {
                cursor.take_word("savepoint");
                return savepoint_name(cursor).map(TransactionCommand::RollbackTo);
            }
            chain(cursor)?;
            cursor.expect_end()?;
            Ok(TransactionCommand::Rollback)
        }
    }
}

/// `SET TRANSACTION …` and `SET SESSION CHARACTERISTICS AS TRANSACTION …`; `None` leaves the cursor alone.
pub(super) fn parse_set(cursor: &mut Cursor<'_>) -> Result<Option<TransactionCommand>> {
    if cursor.take_words(&["set", "session", "characteristics", "as", "transaction"]) {
        let modes = some_modes(cursor)?;
        if modes.as_of.is_some() {
            return Err(unsupported("AS OF SYSTEM TIME for all transactions of a session"));
        }
        return Ok(Some(TransactionCommand::SetSessionModes(modes)));
    }
    // `SET transaction = …` is no transaction command but an unknown setting.
    if cursor.take_words(&["set", "transaction"]) || cursor.take_words(&["set", "local", "transaction"]) {
        if cursor.peek_word() == Some("snapshot") {
            return Err(unsupported("SET TRANSACTION SNAPSHOT"));
        }
        return Ok(Some(TransactionCommand::SetModes(some_modes(cursor)?)));
    }
    Ok(None)
}

fn savepoint_name(cursor: &mut Cursor<'_>) -> Result<String> {
    let name = cursor.identifier()?;
    cursor.expect_end()?;
    Ok(name)
}

fn take_noise(cursor: &mut Cursor<'_>) {
    if !cursor.take_word("work") {
        cursor.take_word("transaction");
    }
}

fn chain(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.take_words(&["and", "no", "chain"]) {
        return Ok(());
    }
    if cursor.is_words(0, &["and", "chain"]) {
        return Err(unsupported("AND CHAIN").with_hint("Begin the next transaction with BEGIN."));
    }
    Ok(())
}

fn some_modes(cursor: &mut Cursor<'_>) -> Result<TransactionModes> {
    if cursor.is_end() {
        return Err(cursor.syntax_error());
    }
    modes(cursor)
}

fn modes(cursor: &mut Cursor<'_>) -> Result<TransactionModes> {
    let mut modes = TransactionModes::default();
    while !cursor.is_end() {
        if cursor.take_words(&["isolation", "level"]) {
            modes.isolation = Some(
                if cursor.take_words(&["read", "committed"]) || cursor.take_words(&["read", "uncommitted"]) {
                    IsolationLevel::ReadCommitted
                } else if cursor.take_words(&["repeatable", "read"]) {
                    IsolationLevel::RepeatableRead
                } else if cursor.take_word("serializable") {
                    IsolationLevel::Serializable
                } else {
                    return Err(cursor.syntax_error());
                },
            );
        } else if cursor.take_words(&["read", "only"]) {
            modes.read_only = Some(true);
        } else if cursor.take_words(&["read", "write"]) {
            modes.read_only = Some(false);
        } else if cursor.take_word("deferrable") {
            modes.deferrable = Some(true);
        } else if cursor.take_words(&["not", "deferrable"]) {
            modes.deferrable = Some(false);
        } else if cursor.take_words(as_of::WORDS) {
            modes.as_of = Some(as_of::value(cursor)?);
        } else {
            return Err(cursor.syntax_error());
        }
        if cursor.take(&Token::Comma) && cursor.is_end() {
            return Err(cursor.syntax_error());
        }
    }
    if modes.as_of.is_some() && modes.read_only == Some(false) {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "AS OF SYSTEM TIME specified with READ WRITE mode",
        ));
    }
    Ok(modes)
}
