//! The node's log is read at start: what the engines lack goes into the logs of the shards, where it waits until it is
//! known to be committed.

use std::collections::BTreeMap;

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::{Entry, Follower, LogPosition, ShardLog};
use neorunbase_storage::wal::{CorruptRecord, Frame, Lsn, Recovered, WalRecord};
use neorunbase_world::fault::planted;
use prost::Message;

use super::DataNode;
use super::log_record::{LogEntry, LogRecord};
use super::replication::{KeptPrepare, Payload, Replica, prepared_in};
use super::shard::Shard;
use super::start::StartError;

/// A record that was found, and where.
struct Found {
    lsn: Lsn,
    record: WalRecord,
}

impl DataNode {
    /// Makes the copies of all shards as they were.
    ///
    /// `log_from`: what the log has of a shard before that counts no more.
    pub(super) fn recover(
        &self,
        recovered: Recovered,
        log_from: &BTreeMap<ShardId, Lsn>,
    ) -> Result<(), StartError> {
        for corrupt in &recovered.corrupt {
            let lost_below = first_after(&recovered.frames, corrupt);
            let damage = format!(
                "log segment {} at byte {}: the record of position {} cannot be read",
                corrupt.segment, corrupt.offset, corrupt.lsn
            );
            for shard in self.shards.read().values() {
                // A copy of the whole shard that came later holds what was lost.
                let is_overtaken = log_from.get(&shard.id).is_some_and(|from| lost_below <= *from);
                if corrupt.shard.is_none_or(|damaged| damaged == shard.id) && !is_overtaken {
                    tracing::error!(shard = shard.id, %damage, "shard is damaged and will not be served");
                    shard.damage.lock().get_or_insert_with(|| damage.clone());
                }
            }
        }
        let mut found: BTreeMap<ShardId, Vec<Found>> = BTreeMap::new();
        for Frame { lsn, records } in recovered.frames {
            for record in records {
                if log_from.get(&record.shard).is_some_and(|from| lsn < *from) {
                    continue;
                }
                if self.open_shard(record.shard).is_err() {
                    let shard = record.shard;
                    return Err(StartError::UnknownShard { shard, lsn });
                }
                overwrite(found.entry(record.shard).or_default(), Found { lsn, record });
            }
        }
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        for shard in shards {
            let records = found.remove(&shard.id).unwrap_or_default();
            let is_damaged = shard.is_damaged();
            let replica = self.recover_shard(&shard, if is_damaged { Vec::new() } else { records })?;
            self.replicas.lock().shards.insert(shard.id, replica);
        }
        Ok(())
    }

    fn recover_shard(
        &self,
        shard: &std::sync::Arc<Shard>,
        records: Vec<Found>,
    ) -> Result<Replica, StartError> {
        let base = shard.applied();
        let (applied, beyond): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|found| found.record.sequence <= base.sequence);
        let mut lsns = BTreeMap::new();
        let mut entries = Vec::with_capacity(beyond.len());
        for Found { lsn, record } in beyond {
            lsns.insert(record.sequence, lsn);
            entries.push(entry_of(lsn, record)?);
        }
        let log = ShardLog::recovered(base, entries).map_err(|position| StartError::Gap {
            shard: shard.id,
            sequence: position.sequence,
        })?;
        let timing = self.config.replication.timing;
        let now = self.world.clock.monotonic();
        let follower = Follower::restarted(&self.config.name, timing, log, shard.term(), now);
        let mut replica = Replica::new(shard.clone(), follower, self.config.replication.kept_log_bytes);
        replica.lsns = lsns;
        for record in prepared_in(shard)? {
            let transaction = record.transaction;
            replica
                .prepared
                .insert(transaction, KeptPrepare { lsn: None, record });
        }
        for Found { lsn, record } in applied {
            if let Some(entry) = decode(lsn, &record)? {
                self.remember(&mut replica, lsn, entry);
            }
        }
        Ok(replica)
    }
}

/// All that may be lost with `corrupt` is below this position.
fn first_after(frames: &[Frame], corrupt: &CorruptRecord) -> Lsn {
    if corrupt.shard.is_some() {
        return corrupt.lsn + 1; // of its frame the rest was read
    }
    let after = frames
        .iter()
        .map(|frame| frame.lsn)
        .find(|lsn| *lsn >= corrupt.lsn);
    after.unwrap_or(Lsn::MAX)
}

/// Adds a record to those of its shard. One that stands where others did voids them and what followed them, be its term the
/// lower one: a primary whose own first entry did not reach anybody gets those of the primary before from the next.
fn overwrite(records: &mut Vec<Found>, found: Found) {
    let is_lower = |last: &Found| last.record.term > found.record.term;
    if planted("lower-terms-not-replayed") && records.last().is_some_and(is_lower) {
        return;
    }
    while records
        .last()
        .is_some_and(|last| last.record.sequence >= found.record.sequence)
    {
        records.pop();
    }
    records.push(found);
}

fn decode(lsn: Lsn, record: &WalRecord) -> Result<Option<LogEntry>, StartError> {
    let malformed = || StartError::MalformedRecord {
        shard: record.shard,
        lsn,
    };
    let entry = LogRecord::decode(record.payload.clone())
        .map_err(|_| malformed())?
        .entry;
    match entry.ok_or_else(malformed)? {
        LogEntry::TermBegan(_) => Ok(None),
        entry => Ok(Some(entry)),
    }
}

fn entry_of(lsn: Lsn, record: WalRecord) -> Result<Entry<Payload>, StartError> {
    let began = decode(lsn, &record)?.is_none();
    let position = LogPosition {
        term: record.term,
        sequence: record.sequence,
    };
    let record = (!began).then_some(Payload(record.payload));
    Ok(Entry { position, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lsn: Lsn, term: u64, sequence: u64) -> Found {
        let record = WalRecord {
            shard: 1,
            term,
            sequence,
            payload: bytes::Bytes::new(),
        };
        Found { lsn, record }
    }

    #[test]
    fn what_was_written_last_at_a_position_stands_there() {
        let mut records = Vec::new();
        // Its own first entry of term 5 reached nobody; the primary of term 6 never had it.
        let in_log_order = [(1, 1, 111), (2, 1, 112), (3, 5, 113), (4, 1, 113), (5, 6, 114)];
        for (lsn, term, sequence) in in_log_order {
            overwrite(&mut records, found(lsn, term, sequence));
        }
        let kept: Vec<_> = records.iter().map(|kept| kept.lsn).collect();
        assert_eq!(kept, [1, 2, 4, 5]);
        overwrite(&mut records, found(6, 7, 112));
        let kept: Vec<_> = records.iter().map(|kept| kept.lsn).collect();
        assert_eq!(kept, [1, 6]);
    }
}
