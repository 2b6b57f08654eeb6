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
use std::time::Duration;

use neorunbase_protocol::message::{
    RequestBody, ResponseBody, ShardId, ShardRef, StatementContext, WrittenReply,
};
use neorunbase_types::{Datum, Result, SqlError};

use super::router::{RouteError, Router};
use super::session_core::SessionCore;
use super::transaction::Transaction;

/// A statement whose answer was lost is sent again for so long.
const REPEAT_LIMIT: Duration = Duration::from_secs(10);
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

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
        mut context: StatementContext,
        build: impl Fn(ShardRef, StatementContext) -> RequestBody,
    ) -> Result<WrittenReply> {
        let clock = router.clock();
        let deadline = clock.monotonic().after(REPEAT_LIMIT);
        loop {
            let outcome = router.call(shard, |reference| build(reference, context)).await;
            match outcome {
                Ok(ResponseBody::Written(reply)) => return Ok(reply),
                Ok(_) => return Err(unexpected_answer()),
                Err(RouteError::OutcomeUnknown) if context.autocommit && clock.monotonic() < deadline => {
                    context.repeated = true;
                    clock.sleep(REPEAT_PAUSE).await;
                }
                Err(error) if context.repeated => {
                    return Err(self.outcome_of_lost_statement(shard, error).await);
                }
                Err(error) => return Err(error.into_statement_error()),
            }
        }
    }
}
