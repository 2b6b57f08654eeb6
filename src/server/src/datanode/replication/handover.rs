//! A primary hands a shard over because it is asked to: no transaction is lost with its term.
//!
//! New transactions are sent away (they come again, to the next primary), those that have something in the shard end;
//! then the primary stops to be one, and proposes the next.

use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::message::{RequestBody, ShardId, ShardRef, TransactionId};
use neorunbase_replication::Configuration;
use neorunbase_world::MonotonicTime;

use super::super::DataNode;
use super::super::failure::Failure;
use super::super::shard::Entered;
use super::replica::{Closing, Replica, Role};
use crate::cluster::shard_map::{announce_change, change_shard};

/// Transactions mostly end within this. Where they do not, they may wait for such as are sent away, and hold locks meanwhile.
const CLOSED_AT_FIRST: Duration = Duration::from_millis(250);
/// Transactions that are sent away try for longer than this.
const CLOSED_FOR_AT_MOST: Duration = Duration::from_secs(4);

/// What a request may leave behind in a shard, and for which transaction.
fn leaves_something(body: &RequestBody) -> Option<(ShardRef, TransactionId)> {
    match body {
        RequestBody::ReadRows(request) => Some((request.shard, request.context.transaction)),
        RequestBody::ScanRows(request) => Some((request.shard, request.context.transaction)),
        RequestBody::WriteRows(request) => Some((request.shard, request.context.transaction)),
        RequestBody::ModifyRows(request) => Some((request.shard, request.context.transaction)),
        RequestBody::BulkWrite(request) => Some((request.shard, TransactionId::MAX)),
        RequestBody::ChangeStorage(request) => Some((request.shard, TransactionId::MAX)),
        RequestBody::FenceTable(request) => Some((request.shard, TransactionId::MAX)),
        _ => None,
    }
    .filter(|(_, transaction)| *transaction != 0)
}

impl DataNode {
    /// Lets a request into its shard, which is not handed over before the guard is gone.
    ///
    /// # Errors
    /// [`Failure::StaleEpoch`] if the shard is about to be handed over and the transaction has nothing in it.
    pub(in crate::datanode) fn enter(&self, body: &RequestBody) -> Result<Option<Entered>, Failure> {
        let Some((reference, transaction)) = leaves_something(body) else {
            return Ok(None);
        };
        let shard = self.open_shard(reference.shard)?;
        let entered = shard.enter();
        let has_something = || {
            let participant = self.participant(transaction);
            participant.is_some_and(|participant| participant.touches(reference.shard))
        };
        if shard.is_closed() && !has_something() {
            neorunbase_world::sometimes!("transaction-sent-away-before-a-handover");
            return Err(Failure::StaleEpoch {
                shard: reference.shard,
                serving: None,
            });
        }
        Ok(Some(entered))
    }

    /// One round of what the Controller asks for.
    pub(in crate::datanode) async fn hand_over_shards(&self) {
        let handed_over = self.let_go_of_shards();
        if handed_over.is_empty() {
            return;
        }
        let coordination = &*self.world.coordination;
        let changes = handed_over.into_iter().map(|(shard, next)| async move {
            match change_shard(coordination, shard, &next).await {
                Ok(current) => Some((shard, current)),
                Err(error) => {
                    // This node asks for a new term, or another one has been given it, when the map comes.
                    tracing::debug!(shard, %error, "whether the shard was handed over is not known yet");
                    None
                }
            }
        });
        let changed = join_all(changes).await;
        {
            let mut replicas = self.replicas.lock();
            for (shard, current) in changed.into_iter().flatten() {
                neorunbase_world::sometimes!("shard-handed-over");
                tracing::info!(shard, ?current, "has handed the shard over");
                self.configure_shard(&mut replicas, shard, current);
            }
        }
        self.terms_due.notify_one();
        if let Err(error) = announce_change(coordination).await {
            tracing::debug!(%error, "a handover will be noticed late");
        }
    }

    /// Ends this node's terms of shards that are to be handed over and in which nothing is left.
    fn let_go_of_shards(&self) -> Vec<(ShardId, Configuration)> {
        let now = self.world.clock.monotonic();
        let mut replicas = self.replicas.lock();
        let mut left = Vec::new();
        for (shard, replica) in &mut replicas.shards {
            let wanted = wanted_successor(replica);
            replica.close_for_handover(wanted.is_some(), now);
            if let Some(next) = wanted
                && replica.shard.is_closed()
                && self.is_left(replica)
            {
                left.push((*shard, next));
            }
        }
        for (shard, _) in &left {
            self.depose(&mut replicas, *shard);
        }
        left
    }

    /// Whether nothing of any transaction is in the shard, and nobody about to change that.
    fn is_left(&self, replica: &Replica) -> bool {
        let log = replica.role.log();
        replica.shard.is_quiet()
            && replica.waiting.is_empty()
            && replica.applied.sequence == log.end().sequence
            && !self.has_remains(&replica.shard)
    }
}

/// The configuration that hands the shard over as is wished, if that is possible now.
fn wanted_successor(replica: &Replica) -> Option<Configuration> {
    let Role::Primary(primary) = &replica.role else {
        return None;
    };
    let configuration = primary.configuration();
    configuration.handed_over(configuration.handover.as_ref()?)
}

impl Replica {
    /// Closes the shard for new transactions for a while if it is to be handed over, and opens it otherwise.
    fn close_for_handover(&mut self, is_wanted: bool, now: MonotonicTime) {
        if !is_wanted {
            self.closing = None;
            self.shard.close(false);
            return;
        }
        let closing = self.closing.get_or_insert(Closing { since: now, times: 0 });
        // Longer each time that it was in vain, and open for twice as long in between.
        let closed_for = (CLOSED_AT_FIRST * (1 << closing.times.min(8))).min(CLOSED_FOR_AT_MOST);
        let elapsed = now.since(closing.since);
        let is_closed = elapsed <= closed_for;
        if elapsed > closed_for * 3 {
            closing.since = now;
            closing.times += 1;
        }
        self.shard.close(is_closed);
    }
}
