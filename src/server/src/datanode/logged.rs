//! Where a frame stands in the node's log, and its records in the logs of their shards.

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::LogPosition;
use neorunbase_storage::wal::{self, Lsn, WalRecord};

/// A durable frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Logged {
    /// In the node's log.
    pub lsn: Lsn,
    /// Of each record, in its shard's log.
    positions: Vec<(ShardId, LogPosition)>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogMark {
    /// In the node's log.
    pub lsn: Lsn,
    /// In its shard's log.
    pub position: LogPosition,
}

/// What runs when a frame is durable.
pub(super) type Apply = Box<dyn FnOnce(&Logged) + Send>;

impl Logged {
    /// `apply` as the log calls it for a frame of `records`.
    pub fn adapt(records: &[WalRecord], apply: Apply) -> wal::Apply {
        let terms: Vec<_> = records.iter().map(|record| (record.shard, record.term)).collect();
        Box::new(move |frame| {
            let positions = terms
                .into_iter()
                .zip(&frame.sequences)
                .map(|((shard, term), sequence)| {
                    let position = LogPosition {
                        term,
                        sequence: *sequence,
                    };
                    (shard, position)
                })
                .collect();
            apply(&Self {
                lsn: frame.lsn,
                positions,
            });
        })
    }

    /// The place of the frame's record of `shard`, without which nothing may change there.
    pub fn mark(&self, shard: ShardId) -> LogMark {
        let position = self.positions.iter().find(|(known, _)| *known == shard);
        LogMark {
            lsn: self.lsn,
            position: position.map_or_else(LogPosition::default, |(_, position)| *position),
        }
    }
}

impl LogMark {
    /// Of a record that was found in the log.
    pub fn found(lsn: Lsn, record: &WalRecord) -> Self {
        Self {
            lsn,
            position: LogPosition {
                term: record.term,
                sequence: record.sequence,
            },
        }
    }
}
