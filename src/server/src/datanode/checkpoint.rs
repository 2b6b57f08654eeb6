//! Flushing engines so that the log can be cut.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use neorunbase_storage::wal::{Logged, Lsn};
use neorunbase_world::fault::{buggify, planted};
use tokio::sync::oneshot;

use super::DataNode;
use super::shard::Shard;

impl DataNode {
    /// Takes a checkpoint if the log has grown enough, or it was long ago and something was written since.
    pub(super) async fn checkpoint_if_due(&self) {
        let now = self.world.clock.monotonic();
        let elapsed = now.0.saturating_sub(self.last_checkpoint.load(Ordering::SeqCst));
        let is_old = u128::from(elapsed) > self.config.checkpoint_interval.as_nanos();
        let has_news = self.wal.next_lsn() > self.checkpointed_below.load(Ordering::SeqCst);
        let is_long = self.wal.bytes() > self.config.checkpoint_wal_bytes;
        if has_news && (is_old || is_long || buggify("checkpoint now")) {
            self.checkpoint().await;
        }
    }

    /// Flushes every shard and cuts the log below what is still needed. Nothing is lost if it fails: the log stays.
    pub async fn checkpoint(&self) {
        self.last_checkpoint
            .store(self.world.clock.monotonic().0, Ordering::SeqCst);
        let Ok(node) = self.shared() else { return };
        let (sender, barrier) = oneshot::channel();
        // Callbacks run in log order: when this one runs, every frame before it is in the logs of its shards, and what of
        // it is still needed is known to their replicas.
        let apply = move |logged: &Logged| {
            // Nobody waits any more if the node goes away.
            let _ = sender.send((logged.lsn, node.needed_from(logged.lsn), node.settled_shards()));
        };
        if self.wal.barrier(Box::new(apply)).await.is_err() {
            return;
        }
        // Just the shards that were there then: the log of others begins behind the barrier.
        let Ok((lsn, needed_from, shards)) = barrier.await else {
            return;
        };
        for shard in &shards {
            if shard.damage.lock().is_some() {
                return; // the log is evidence
            }
            let engine = shard.store.engine();
            if engine.applied_lsn() > engine.durable_lsn()
                && let Err(error) = engine.flush().await
            {
                tracing::error!(shard = shard.id, %error, "shard cannot be flushed; the log is kept");
                return;
            }
        }
        match self.wal.truncate_below(needed_from).await {
            Ok(()) => self.checkpointed_below.store(lsn, Ordering::SeqCst),
            Err(error) => tracing::warn!(%error, "the log cannot be cut now"),
        }
    }

    /// The first position up to `lsn` that some copy still needs. The engines hold what the others have had, once flushed.
    fn needed_from(&self, lsn: Lsn) -> Lsn {
        let replicas = self.replicas.lock();
        let mut needed_from = lsn;
        for replica in replicas.shards.values().filter(|replica| !replica.is_installing) {
            if !planted("log-cut-too-early") {
                needed_from = needed_from.min(replica.needed_from().unwrap_or(lsn));
            }
            if let Err(error) = replica.shard.advance_to(replica.applied) {
                self.fail(format!(
                    "shard {:#x} could not be written: {error}",
                    replica.shard.id
                ));
            }
        }
        needed_from
    }

    /// The shards that no copy is about to replace.
    pub(super) fn settled_shards(&self) -> Vec<Arc<Shard>> {
        let replicas = self.replicas.lock();
        let settled = replicas.shards.values().filter(|replica| !replica.is_installing);
        settled.map(|replica| replica.shard.clone()).collect()
    }
}
