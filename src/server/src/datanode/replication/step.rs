//! What follows from a frame of the log.

use std::collections::BTreeMap;

use neorunbase_protocol::message::{ShardId, TransactionId};
use neorunbase_replication::LogPosition;
use neorunbase_storage::wal::Lsn;
use prost::Message;

use super::super::DataNode;
use super::super::log_record::{LogEntry, LogRecord};
use super::replica::{KeptPrepare, Replica};

/// What the request that logs a frame wants to happen. Exactly one of [`committed`](Self::committed) and
/// [`refused`](Self::refused) is called, unless every shard was [`voided`](Self::voided), or the node fails.
///
/// All of it runs under the lock of the node's replicas: it must be quick.
pub(in crate::datanode) trait LoggedStep: Send {
    /// All records that were not voided are committed.
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>);

    /// Nothing of the frame is in the log, and never will be.
    fn refused(self: Box<Self>, node: &DataNode);

    /// This node is not the primary of `shard` any more. The record is in its log, and the next primary decides whether it
    /// stays there.
    fn voided(&mut self, node: &DataNode, shard: ShardId);
}

/// A committed frame.
pub(in crate::datanode) struct Committed<'a> {
    pub(super) lsn: Lsn,
    pub(super) positions: &'a [(ShardId, LogPosition)],
    pub(super) shards: &'a mut BTreeMap<ShardId, Replica>,
}

impl Committed<'_> {
    /// The place of the frame's record of `shard`; none if it was voided.
    pub fn position(&self, shard: ShardId) -> Option<LogPosition> {
        let mut positions = self.positions.iter();
        positions
            .find(|(known, _)| *known == shard)
            .map(|(_, position)| *position)
    }

    /// The shards of the records that were not voided.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.positions.iter().map(|(shard, _)| *shard)
    }

    /// The frame's records are prepare records: they are kept until the transaction's outcome.
    pub fn keep_prepares(&mut self) {
        for (shard, position) in self.positions {
            let Some(replica) = self.shards.get_mut(shard) else {
                continue;
            };
            let record = replica.role.log().get(position.sequence);
            let record = record.and_then(|entry| LogRecord::decode(entry.record.as_ref()?.0.clone()).ok());
            if let Some(LogEntry::Prepare(record)) = record.and_then(|record| record.entry) {
                let lsn = Some(self.lsn);
                replica
                    .prepared
                    .insert(record.transaction, KeptPrepare { lsn, record });
            }
        }
    }

    /// The frame's records are outcomes of `transaction`. Returns the shards whose engine keeps the prepare record.
    pub fn forget_prepares(&mut self, transaction: TransactionId) -> Vec<ShardId> {
        let mut kept = Vec::new();
        for (shard, _) in self.positions {
            let replica = self.shards.get_mut(shard);
            let prepare = replica.and_then(|replica| replica.prepared.remove(&transaction));
            if prepare.is_some_and(|prepare| prepare.lsn.is_none()) {
                kept.push(*shard);
            }
        }
        kept
    }
}
