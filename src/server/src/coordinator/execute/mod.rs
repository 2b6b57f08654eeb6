//! Runs analysed statements: one file a kind.

pub mod copy;
pub mod definition;
mod forward;
mod hold;
pub mod insert;
pub mod modify;
pub mod select;
pub mod table_access;
pub mod targets;

use std::sync::Arc;

use neorunbase_protocol::message::{ResponseBody, ShardId};
use neorunbase_types::{Datum, Result, SqlError};

use super::router::RouteError;
use super::session_core::SessionCore;
use super::transaction::Transaction;

/// One execution of a statement.
pub struct Execution<'a> {
    /// The Coordinator's services and the session's settings.
    pub core: &'a Arc<SessionCore>,
    /// Its transaction.
    pub transaction: &'a mut Transaction,
    /// Values of `$1`, …
    pub parameters: Arc<[Datum]>,
    /// The transaction holds nothing but this statement and ends with it: a single shard may commit at once.
    pub commits_at_once: bool,
}

impl Execution<'_> {
    /// Whether a write to `shards` is all there is to commit, and its shard can do so by itself.
    fn commits_on(&self, shards: &[ShardId]) -> bool {
        self.commits_at_once && shards.len() == 1 && self.transaction.needs_no_validation()
    }
}

/// Unwraps a routed answer of a statement.
fn answer(outcome: Result<ResponseBody, RouteError>) -> Result<ResponseBody> {
    outcome.map_err(RouteError::into_statement_error)
}

/// The node broke the protocol.
fn unexpected_answer() -> Box<SqlError> {
    SqlError::internal("a data node sent an answer of the wrong kind")
}

/// A failed write that was to commit at once. A lost answer leaves the outcome open.
fn autocommit_error(error: RouteError) -> Box<SqlError> {
    match error {
        RouteError::OutcomeUnknown => SqlError::new(
            neorunbase_types::SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "lost contact with a data node: the statement may or may not have been committed",
        ),
        other => other.into_statement_error(),
    }
}
