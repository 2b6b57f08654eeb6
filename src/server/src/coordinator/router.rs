//! Sends requests to the primaries of shards, and again where the shard map was old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::CallError;
use neorunbase_protocol::message::{
    ErrorKind, RequestBody, ResponseBody, ShardId, ShardRef, StaleTableReply,
};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::World;
use neorunbase_world::fault::{dawdle, planted};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cluster::NodeDirectory;
use crate::error_reply::sql_error;

/// How long a statement waits for a shard to have a reachable primary.
const ROUTING_LIMIT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// What a shard knows again is sent again for so long if its answer was lost.
const REPEAT_LIMIT: Duration = Duration::from_secs(10);
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

/// Why a routed request failed.
#[derive(Debug)]
pub enum RouteError {
    /// Reported by the node, or no node could be found in time. Nothing is in doubt.
    Sql(Box<SqlError>),
    /// The node does not know the transaction (any more).
    UnknownTransaction,
    /// The answer was lost: the request may have been carried out.
    OutcomeUnknown,
}

/// Why [`call_again`](Router::call_again) has failed.
#[derive(Debug)]
pub struct Unanswered {
    /// What it met at last.
    pub error: RouteError,
    /// It was sent more than once: the error says nothing of what was done when it was sent before.
    pub was_repeated: bool,
}

impl RouteError {
    /// As an SQL error for a statement whose transaction is rolled back in consequence.
    pub fn into_statement_error(self) -> Box<SqlError> {
        match self {
            Self::Sql(error) => error,
            Self::UnknownTransaction => SqlError::new(
                SqlState::SERIALIZATION_FAILURE,
                "transaction was aborted: a data node has restarted or taken it for abandoned",
            )
            .with_hint("the transaction might succeed if retried"),
            Self::OutcomeUnknown => SqlError::new(
                SqlState::CONNECTION_FAILURE,
                "lost contact with a data node during the statement",
            )
            .with_hint("the transaction might succeed if retried"),
        }
    }
}

/// Finds primaries and retries what certainly did not happen. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    parts: Arc<Parts>,
    /// Of the transaction that calls.
    touched: Option<TouchedShards>,
    /// Of a transaction that will be validated.
    read: Option<TouchedShards>,
}

/// Where a transaction has run statements that keep something there, or will be validated: the node, and the epoch under
/// which it served.
///
/// What is kept is lost when the shard gets another primary (or its primary restarts), which its epoch tells.
#[derive(Clone, Default)]
pub struct TouchedShards(Arc<Mutex<BTreeMap<ShardId, (u64, String)>>>);

impl TouchedShards {
    /// The epoch and the node of `shard`, if it was touched.
    pub fn get(&self, shard: ShardId) -> Option<(u64, String)> {
        self.0.lock().get(&shard).cloned()
    }

    fn has_lost(&self, reference: &ShardRef) -> bool {
        let touched = self.0.lock();
        let epoch = touched.get(&reference.shard).map(|(epoch, _)| *epoch);
        epoch.is_some_and(|epoch| epoch != reference.epoch) && !planted("transactions-outlive-terms")
    }

    fn touch(&self, reference: &ShardRef, node: &str) {
        let place = (reference.epoch, node.to_owned());
        self.0.lock().insert(reference.shard, place);
    }

    fn touch_unless_known(&self, reference: &ShardRef, node: &str) {
        let mut touched = self.0.lock();
        let place = || (reference.epoch, node.to_owned());
        touched.entry(reference.shard).or_insert_with(place);
    }
}

struct Parts {
    world: World,
    directory: Arc<NodeDirectory>,
    /// Where data nodes demanded a later version of a table.
    stale_tables: mpsc::UnboundedSender<StaleTableReply>,
}

impl Router {
    /// A router over `directory`. It tells what it hears of tables that are old here.
    pub fn new(
        world: World,
        directory: Arc<NodeDirectory>,
        stale_tables: mpsc::UnboundedSender<StaleTableReply>,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                world,
                directory,
                stale_tables,
            }),
            touched: None,
            read: None,
        }
    }

    /// This router for statements of one transaction that keep something on the nodes. A call to a shard that has lost what
    /// was kept there is an [`UnknownTransaction`](RouteError::UnknownTransaction).
    pub fn within(&self, touched: &TouchedShards) -> Self {
        Self {
            parts: self.parts.clone(),
            touched: Some(touched.clone()),
            read: self.read.clone(),
        }
    }

    /// This router for statements whose reads will be validated: it notes where and when each shard was first read. It
    /// refuses nothing, since a snapshot can be read in any term.
    pub fn noting(&self, read: &TouchedShards) -> Self {
        Self {
            read: Some(read.clone()),
            ..self.clone()
        }
    }

    /// The time.
    pub fn clock(&self) -> &dyn neorunbase_world::Clock {
        &*self.parts.world.clock
    }

    /// The nodes and shards.
    pub fn directory(&self) -> &Arc<NodeDirectory> {
        &self.parts.directory
    }

    /// The node that serves `shard` now, as far as is known.
    pub fn locate(&self, shard: ShardId) -> Option<(ShardRef, String)> {
        self.parts.directory.locate(shard)
    }

    /// Calls the primary of `shard`. `build` makes the request for the reference found; it is called again when
    /// the map turns out to be old. A request that may have been carried out is never sent again.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn call(
        &self,
        shard: ShardId,
        build: impl Fn(ShardRef) -> RequestBody,
    ) -> Result<ResponseBody, RouteError> {
        // The first try must not pay for a deadline.
        if let Some(result) = self.try_call(shard, &build).await {
            return result;
        }
        let deadline = self.parts.world.clock.monotonic().after(ROUTING_LIMIT);
        loop {
            self.parts.directory.shard_map_changed(RETRY_PAUSE).await;
            if let Some(result) = self.try_call(shard, &build).await {
                return result;
            }
            if self.parts.world.clock.monotonic() >= deadline {
                return Err(RouteError::Sql(
                    SqlError::new(
                        SqlState::CONNECTION_FAILURE,
                        format!("shard {} of group {} is not available", shard as u32, shard >> 32),
                    )
                    .with_hint(
                        "its data node is down or unreachable; the statement might succeed if retried",
                    ),
                ));
            }
        }
    }

    /// As [`call`](Router::call), for requests that change nothing: a lost answer is asked for again.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn call_repeatable(
        &self,
        shard: ShardId,
        build: impl Fn(ShardRef) -> RequestBody,
    ) -> Result<ResponseBody, RouteError> {
        let deadline = self.parts.world.clock.monotonic().after(ROUTING_LIMIT);
        loop {
            match self.call(shard, &build).await {
                Err(RouteError::OutcomeUnknown) if self.parts.world.clock.monotonic() < deadline => {
                    neorunbase_world::sometimes!("request-repeated-after-a-lost-answer");
                    self.clock().sleep(REPEAT_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// As [`call`](Router::call), for what the primary of one term knows again and carries out once: if the answer is lost it
    /// is sent again, which `build` is told.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn call_again(
        &self,
        shard: ShardId,
        build: impl Fn(ShardRef, bool) -> RequestBody,
    ) -> Result<ResponseBody, Unanswered> {
        let clock = self.clock();
        let deadline = clock.monotonic().after(REPEAT_LIMIT);
        let mut was_repeated = false;
        loop {
            match self.call(shard, |reference| build(reference, was_repeated)).await {
                Err(RouteError::OutcomeUnknown) if clock.monotonic() < deadline => {
                    was_repeated = true;
                    clock.sleep(REPEAT_PAUSE).await;
                }
                outcome => return outcome.map_err(|error| Unanswered { error, was_repeated }),
            }
        }
    }

    /// `None`: nothing happened and trying again may help.
    async fn try_call(
        &self,
        shard: ShardId,
        build: &impl Fn(ShardRef) -> RequestBody,
    ) -> Option<Result<ResponseBody, RouteError>> {
        let (reference, node) = self.parts.directory.locate(shard)?;
        let channel = self.parts.directory.channel(&node)?;
        dawdle(
            &*self.parts.world.clock,
            "route used late",
            Duration::from_millis(300),
        )
        .await;
        if let Some(touched) = &self.touched
            && touched.has_lost(&reference)
        {
            neorunbase_world::sometimes!("transaction-lost-with-its-term");
            return Some(Err(RouteError::UnknownTransaction));
        }
        let answer = channel.call(build(reference).into()).await;
        let is_done = match &answer {
            Ok(response) => !matches!(&response.body, Some(ResponseBody::Error(error))
                if matches!(error.kind(), ErrorKind::StaleEpoch | ErrorKind::NotLeader)),
            Err(CallError::Unreachable(_)) => false,
            Err(CallError::OutcomeUnknown(_)) => true,
        };
        if let Some(touched) = &self.touched
            && is_done
        {
            touched.touch(&reference, &node);
        }
        if let Some(read) = &self.read
            && is_done
        {
            read.touch_unless_known(&reference, &node);
        }
        match answer {
            Ok(response) => match response.body {
                Some(ResponseBody::Error(error)) => match error.kind() {
                    ErrorKind::StaleEpoch | ErrorKind::NotLeader => None,
                    ErrorKind::UnknownTransaction => Some(Err(RouteError::UnknownTransaction)),
                    ErrorKind::OutcomeUnknown => Some(Err(RouteError::OutcomeUnknown)),
                    ErrorKind::StaleTable => {
                        if let Some(stale) = &error.stale_table {
                            // Nobody listening any more: the process is ending.
                            let _ = self.parts.stale_tables.send(**stale);
                        }
                        Some(Err(RouteError::Sql(sql_error(error))))
                    }
                    ErrorKind::Sql => Some(Err(RouteError::Sql(sql_error(error)))),
                },
                Some(body) => Some(Ok(body)),
                None => Some(Err(RouteError::Sql(SqlError::internal(
                    "a data node sent an empty answer",
                )))),
            },
            Err(CallError::Unreachable(_)) => None,
            Err(CallError::OutcomeUnknown(_)) => Some(Err(RouteError::OutcomeUnknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_count_from_the_term_in_which_they_began() {
        let in_term = |epoch| ShardRef { shard: 7, epoch };
        let read = TouchedShards::default();
        assert!(!read.has_lost(&in_term(3)));
        read.touch_unless_known(&in_term(3), "first");
        read.touch_unless_known(&in_term(4), "second");
        assert_eq!(read.get(7), Some((3, "first".to_owned())));
        assert!(!read.has_lost(&in_term(3)));
        assert!(read.has_lost(&in_term(4)));
    }
}
