//! Deadlocks across nodes.
//!
//! Each node that has somebody wait for long asks all nodes who waits for whom, twice, and ends the waits that it has of
//! those who have to give way. All nodes of a cycle look for themselves and come to the same answer, so that one transaction
//! of the cycle dies. A wait that belongs to no cycle goes on, however long it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::message::{
    LockWaitEdge, LockWaitsReply, LockWaitsRequest, Request, RequestBody, ResponseBody, TransactionId,
};
use neorunbase_txn::deadlock::{WaitEdge, victims};
use neorunbase_world::MonotonicTime;
use neorunbase_world::clock::timeout;

use super::DataNode;

/// How long a node may take to say who waits there.
const CALL_DEADLINE: Duration = Duration::from_secs(1);

impl DataNode {
    /// The moment `age` ago.
    fn ago(&self, age: Duration) -> MonotonicTime {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        MonotonicTime(self.world.clock.monotonic().0.saturating_sub(age))
    }

    /// See [`LockWaitsRequest`].
    pub(super) fn lock_waits(&self, request: LockWaitsRequest) -> LockWaitsReply {
        let edges = self
            .locks
            .edges(self.ago(Duration::from_micros(request.min_wait_micros)));
        let wait = |edge: WaitEdge| LockWaitEdge {
            waiter: edge.waiter,
            wait: edge.wait,
            blocker: edge.blocker,
        };
        LockWaitsReply {
            waits: edges.into_iter().map(wait).collect(),
        }
    }

    /// One look at whether those who wait here do so in vain.
    pub(super) async fn break_deadlocks(&self) {
        if !self
            .locks
            .is_waiting_since(self.ago(self.config.deadlock_timeout))
        {
            return;
        }
        let first = self.all_lock_waits().await;
        let here: BTreeSet<TransactionId> = self
            .locks
            .edges(self.ago(Duration::ZERO))
            .into_iter()
            .map(|edge| edge.waiter)
            .collect();
        if !victims(&first).iter().any(|victim| here.contains(victim)) {
            return;
        }
        // Edges of one look need not have existed together: see the module of `victims`.
        let again = self.all_lock_waits().await;
        for victim in victims(&first.intersection(&again).copied().collect()) {
            if self.locks.break_deadlock(victim) {
                tracing::info!(transaction = victim, "deadlock across data nodes");
            }
        }
    }

    /// Who waits for whom, on all nodes that can be reached.
    async fn all_lock_waits(&self) -> BTreeSet<WaitEdge> {
        // Whoever began to wait last has to be among them; a cycle that is younger is found by the next look.
        let min_wait = self.config.deadlock_timeout / 2;
        let request = LockWaitsRequest {
            min_wait_micros: u64::try_from(min_wait.as_micros()).unwrap_or(u64::MAX),
        };
        let names = self.peers.data_nodes().into_iter();
        let calls = names
            .filter(|name| *name != self.config.name)
            .map(|name| async move {
                let channel = self.peers.channel_to(&name).await?;
                let call = channel.call(Request {
                    body: Some(RequestBody::LockWaits(request)),
                });
                match timeout(&*self.world.clock, CALL_DEADLINE, call).await {
                    Ok(Ok(response)) => match response.body {
                        Some(ResponseBody::LockWaits(reply)) => Some(reply),
                        _ => None,
                    },
                    _ => None,
                }
            });
        let others = join_all(calls).await.into_iter().flatten();
        let own = std::iter::once(self.lock_waits(request));
        let edges = own.chain(others).flat_map(|reply| reply.waits);
        edges
            .map(|edge| WaitEdge {
                waiter: edge.waiter,
                wait: edge.wait,
                blocker: edge.blocker,
            })
            .collect()
    }
}
