//! How far back this node remembers transactions that committed in one round.
//!
//! No record is kept of their decision: it is in the log with their writes, and what became of recent ones is remembered
//! from there. A node that was started, or got a copy of a shard, since a transaction began may have its writes and not
//! know it. It must not presume then that it was aborted.

use std::sync::atomic::Ordering;

use neorunbase_protocol::message::TransactionId;
use neorunbase_world::fault::planted;

use super::DataNode;

impl DataNode {
    /// What is in a shard came from elsewhere: whoever began before now may be unknown.
    pub(super) fn forget_outcomes_before_now(&self) {
        self.remembers_since.store(TransactionId::MAX, Ordering::SeqCst);
        self.memory_is_new.store(true, Ordering::SeqCst);
    }

    /// Finds out from when on this node remembers, once a timestamp can be had.
    pub(super) async fn date_memory(&self) {
        if !self.memory_is_new.swap(false, Ordering::SeqCst) {
            return;
        }
        match self.timestamps.next().await {
            // Another copy may have come in meanwhile; then it is dated again with the next round.
            Ok(now) if !self.memory_is_new.load(Ordering::SeqCst) => {
                self.remembers_since.store(now, Ordering::SeqCst);
            }
            Ok(_) => {}
            Err(_) => self.memory_is_new.store(true, Ordering::SeqCst),
        }
    }

    /// Whether `transaction`, of which there is no trace here, cannot have committed in one round.
    pub(super) fn would_remember(&self, transaction: TransactionId) -> bool {
        planted("forgotten-commit-presumed-aborted")
            || (transaction > self.remembers_since.load(Ordering::SeqCst)
                && transaction > self.outcomes.lock().forgotten())
    }
}
