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

use neorunbase_protocol::message::{
    RequestBody, ResponseBody, ShardId, ShardRef, StatementContext, WrittenReply,
};
use neorunbase_types::{Datum, Result, SqlError};

use super::router::{RouteError, Router, Unanswered};
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

impl Transaction {
    /// Sends a statement that writes to one shard. One that commits at once is sent again if its answer is lost: the shard's
    /// primary knows it by its transaction, and answers as it did before. In another term it can only be asked what became
    /// of it.
    async fn send_write(
        &self,
        router: &Router,
        shard: ShardId,
        context: StatementContext,
        build: impl Fn(ShardRef, StatementContext) -> RequestBody,
    ) -> Result<WrittenReply> {
        let sent = if context.autocommit {
            let build = |reference, repeated| build(reference, StatementContext { repeated, ..context });
            router.call_again(shard, build).await
        } else {
            let sent = router.call(shard, |reference| build(reference, context)).await;
            sent.map_err(|error| Unanswered {
                error,
                was_repeated: false,
            })
        };
        match sent {
            Ok(ResponseBody::Written(reply)) => Ok(reply),
            Ok(_) => Err(unexpected_answer()),
            Err(Unanswered {
                error,
                was_repeated: true,
            }) => Err(self.outcome_of_lost_statement(shard, error).await),
            Err(Unanswered { error, .. }) => Err(error.into_statement_error()),
        }
    }
}
