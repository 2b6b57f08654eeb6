//! Frames of several shards that are atomic because nobody else holds these shards.

use std::sync::Arc;

use neorunbase_storage::wal::WalRecord;

use super::DataNode;
use super::replication::Role;
use super::shard::Shard;

/// While it lives, none of the shards gets another member of its in-sync set. To be dropped once the frame is in the log.
pub(super) struct Together(Vec<Arc<Shard>>);

impl Drop for Together {
    fn drop(&mut self) {
        for shard in &self.0 {
            shard.stays_alone(false);
        }
    }
}

impl DataNode {
    /// Whether what is durable here is committed in the shards of all `records`, so that one frame of them is atomic.
    pub(super) fn count_on_being_alone(&self, records: &[WalRecord]) -> Option<Together> {
        if records.len() < 2 {
            return None;
        }
        // Members are proposed under the same lock.
        let replicas = self.replicas.lock();
        let mut alone = Together(Vec::with_capacity(records.len()));
        for record in records {
            let replica = replicas.shards.get(&record.shard)?;
            match &replica.role {
                Role::Primary(primary) if primary.term() == record.term && primary.is_alone() => {
                    replica.shard.stays_alone(true);
                    alone.0.push(replica.shard.clone());
                }
                _ => return None,
            }
        }
        neorunbase_world::sometimes!("several-shards-commit-in-one-frame");
        Some(alone)
    }
}
