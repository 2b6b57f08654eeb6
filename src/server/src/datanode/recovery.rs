//! Replay of the log at start: engines catch up, and prepared transactions come back with their locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use neorunbase_protocol::message::{ShardId, TransactionId, WrittenReply};
use neorunbase_storage::shard::RowChange;
use neorunbase_storage::wal::{Frame, Lsn, Recovered, WalRecord};
use neorunbase_txn::transaction::Participation;
use neorunbase_txn::{LockKey, LockStrength};
use neorunbase_world::fault::planted;
use prost::Message;

use super::commit::outcome_at;
use super::decisions::KeptDecision;
use super::log_record::{DecisionValue, LogEntry, LogRecord, OutcomeRecord, TableWritesRecord};
use super::logged::LogMark;
use super::shard::{DECISION_PREFIX, Shard, decision_key};
use super::start::StartError;
use super::table::{StoredTable, index_entries, unique_values};
use super::{DataNode, Participant};

/// Writes of one table, as a log record holds them.
struct ReplayedTable {
    table: Arc<StoredTable>,
    is_new: bool,
    changes: Vec<RowChange>,
}

/// A transaction whose prepare record was read and whose outcome was not (yet).
struct ReplayedPrepare {
    participation: Participation,
    lsn: Lsn,
    shards: BTreeMap<ShardId, Vec<ReplayedTable>>,
}

impl DataNode {
    /// Brings everything to where the log ends.
    pub(super) fn replay(&self, recovered: Recovered) -> Result<(), StartError> {
        for corrupt in &recovered.corrupt {
            let damage = format!(
                "log segment {} at byte {}: the record of position {} cannot be read",
                corrupt.segment, corrupt.offset, corrupt.lsn
            );
            for shard in self.shards.read().values() {
                if corrupt.shard.is_none_or(|damaged| damaged == shard.id) {
                    tracing::error!(shard = shard.id, %damage, "shard is damaged and will not be served");
                    shard.damage.lock().get_or_insert_with(|| damage.clone());
                }
            }
        }
        let mut prepared = BTreeMap::new();
        for Frame { lsn, records } in recovered.frames {
            for record in records {
                self.replay_record(lsn, record, &mut prepared)?;
            }
        }
        self.load_decisions()?;
        if planted("lost-prepared") {
            return Ok(());
        }
        for (transaction, prepare) in prepared {
            self.revive(transaction, prepare)?;
        }
        Ok(())
    }

    fn replay_record(
        &self,
        lsn: Lsn,
        record: WalRecord,
        prepared: &mut BTreeMap<TransactionId, ReplayedPrepare>,
    ) -> Result<(), StartError> {
        let mark = LogMark::found(lsn, &record);
        let Ok(shard) = self.open_shard(record.shard) else {
            return Err(StartError::UnknownShard {
                shard: record.shard,
                lsn,
            });
        };
        if shard.damage.lock().is_some() {
            return Ok(());
        }
        let malformed = || StartError::MalformedRecord {
            shard: record.shard,
            lsn,
        };
        let entry = LogRecord::decode(record.payload.clone())
            .ok()
            .and_then(|record| record.entry);
        let is_ahead = lsn > shard.store.engine().applied_lsn();
        match entry.ok_or_else(malformed)? {
            LogEntry::Commit(commit) => {
                if is_ahead {
                    let tables = resolve(&shard, commit.tables).ok_or_else(malformed)?;
                    apply(&shard, &tables, commit.commit_timestamp, mark, &[])?;
                }
                let reply = WrittenReply {
                    affected: commit.affected,
                    commit_timestamp: commit.commit_timestamp,
                    ..WrittenReply::default()
                };
                let outcome = outcome_at(commit.commit_timestamp);
                self.outcomes
                    .lock()
                    .record(commit.transaction, outcome, Some(reply));
            }
            LogEntry::Prepare(prepare) => {
                let tables = resolve(&shard, prepare.tables).ok_or_else(malformed)?;
                let participation = Participation {
                    anchor: prepare.anchor,
                    participants: prepare.participants,
                };
                prepared
                    .entry(prepare.transaction)
                    .or_insert_with(|| ReplayedPrepare {
                        participation,
                        lsn,
                        shards: BTreeMap::new(),
                    })
                    .shards
                    .insert(shard.id, tables);
            }
            LogEntry::Outcome(outcome) => {
                let tables = take_part(prepared, outcome.transaction, shard.id);
                if is_ahead {
                    let tables = match tables {
                        Some(tables) => tables,
                        // An abort presumed for a transaction that was never prepared here.
                        None if outcome.commit_timestamp == 0 => Vec::new(),
                        None => return Err(malformed()),
                    };
                    replay_outcome(&shard, &tables, &outcome, mark)?;
                }
                self.outcomes
                    .lock()
                    .record(outcome.transaction, outcome_at(outcome.commit_timestamp), None);
            }
            LogEntry::Forget(forget) => {
                if is_ahead {
                    let system: Vec<_> = forget
                        .transactions
                        .iter()
                        .map(|transaction| (decision_key(*transaction), None))
                        .collect();
                    shard.apply(&[], 0, mark, &[], &system)?;
                }
            }
        }
        Ok(())
    }

    fn load_decisions(&self) -> Result<(), StartError> {
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        for shard in shards {
            for (key, value) in shard.store.system_scan(DECISION_PREFIX)? {
                let transaction = key
                    .get(DECISION_PREFIX.len()..)
                    .and_then(|transaction| transaction.try_into().ok())
                    .map(TransactionId::from_be_bytes);
                let (Some(transaction), Ok(value)) = (transaction, DecisionValue::decode(value)) else {
                    return Err(StartError::MalformedRecord {
                        shard: shard.id,
                        lsn: 0,
                    });
                };
                self.outcomes
                    .lock()
                    .record(transaction, outcome_at(value.commit_timestamp), None);
                let participation = Participation {
                    anchor: shard.id,
                    participants: value.participants,
                };
                let decision = KeptDecision::new(&participation, value.commit_timestamp, self);
                self.keep_decision(transaction, decision);
            }
        }
        Ok(())
    }

    /// A prepared transaction comes back: its writes, its locks, and the mark on what it wrote.
    fn revive(&self, id: TransactionId, prepare: ReplayedPrepare) -> Result<(), StartError> {
        tracing::info!(transaction = id, "found a prepared transaction in the log");
        let now = self.world.clock.monotonic();
        let participant = Arc::new(Participant::recovered(id, now, prepare.participation));
        for (shard_id, tables) in prepare.shards {
            let Ok(shard) = self.open_shard(shard_id) else {
                continue;
            };
            for ReplayedTable { table, changes, .. } in tables {
                for change in changes {
                    self.relock(&participant, &shard, &change)?;
                    let entries = match &change.row {
                        Some(row) => index_entries(&change.table, &change.key, row)?,
                        None => Vec::new(),
                    };
                    let storage = change.table.storage;
                    let mut writes = participant.writes.lock();
                    writes.put(shard_id, storage, &table, change.key, change.row, entries);
                }
            }
        }
        self.mark_in_doubt(&participant);
        self.prepared.lock().insert(id, prepare.lsn);
        self.transactions.lock().insert(id, participant);
        Ok(())
    }

    fn relock(&self, participant: &Participant, shard: &Shard, change: &RowChange) -> Result<(), StartError> {
        let table = &change.table;
        let mut keys = vec![(table.storage, change.key.clone())];
        let old = match shard.store.newest(table.storage, &change.key) {
            Err(neorunbase_storage::StorageError::UnknownStorage(_)) => None,
            newest => newest?.and_then(|version| version.row),
        };
        for row in old.iter().chain(&change.row) {
            let values = unique_values(table, row)?;
            keys.extend(
                values
                    .into_iter()
                    .map(|value| (table.indexes[value.index].storage, value.key)),
            );
        }
        for (storage, key) in keys {
            let key = LockKey {
                shard: shard.id,
                storage,
                key,
            };
            participant.remember_lock(0, key.clone());
            if self
                .locks
                .try_lock(participant.id(), &key, LockStrength::Exclusive)
                .is_none()
            {
                // Two prepared transactions with one lock: the log lies. Serving on would lose an update.
                return Err(StartError::ConflictingPrepares {
                    transaction: participant.id(),
                });
            }
        }
        Ok(())
    }
}

fn take_part(
    prepared: &mut BTreeMap<TransactionId, ReplayedPrepare>,
    transaction: TransactionId,
    shard: ShardId,
) -> Option<Vec<ReplayedTable>> {
    let prepare = prepared.get_mut(&transaction)?;
    let tables = prepare.shards.remove(&shard);
    if prepare.shards.is_empty() {
        prepared.remove(&transaction);
    }
    tables
}

fn resolve(shard: &Shard, records: Vec<TableWritesRecord>) -> Option<Vec<ReplayedTable>> {
    let mut tables = Vec::with_capacity(records.len());
    for record in records {
        let (table, is_new) = match record.table_definition {
            Some(encoded) => (
                Arc::new(StoredTable::decode(record.table_digest, encoded).ok()?),
                true,
            ),
            None => (shard.stored_table(record.table_digest)?, false),
        };
        let changes = record
            .rows
            .into_iter()
            .map(|row| RowChange {
                table: table.descriptor.clone(),
                key: row.key,
                row: row.row,
            })
            .collect();
        tables.push(ReplayedTable {
            table,
            is_new,
            changes,
        });
    }
    Some(tables)
}

fn apply(
    shard: &Shard,
    tables: &[ReplayedTable],
    commit_timestamp: u64,
    mark: LogMark,
    system: &[(bytes::Bytes, Option<bytes::Bytes>)],
) -> Result<(), StartError> {
    let changes: Vec<_> = tables
        .iter()
        .flat_map(|table| table.changes.iter().cloned())
        .collect();
    let new: Vec<_> = tables
        .iter()
        .filter(|table| table.is_new)
        .map(|table| table.table.clone())
        .collect();
    let changes: &[RowChange] = if commit_timestamp == 0 { &[] } else { &changes };
    Ok(shard.apply(changes, commit_timestamp, mark, &new, system)?)
}

fn replay_outcome(
    shard: &Shard,
    tables: &[ReplayedTable],
    record: &OutcomeRecord,
    mark: LogMark,
) -> Result<(), StartError> {
    let value = DecisionValue {
        commit_timestamp: record.commit_timestamp,
        participants: record.participants.clone(),
    };
    let system = [(
        decision_key(record.transaction),
        Some(value.encode_to_vec().into()),
    )];
    let system: &[_] = if record.decision { &system } else { &[] };
    apply(shard, tables, record.commit_timestamp, mark, system)
}
