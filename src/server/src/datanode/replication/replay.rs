//! What a log record does when no request knows it: on followers, after a restart, and at the beginning of a term.

use std::sync::Arc;

use neorunbase_protocol::message::{Timestamp, WrittenReply};
use neorunbase_replication::LogPosition;
use neorunbase_storage::shard::RowChange;
use neorunbase_storage::wal::Lsn;
use neorunbase_world::fault::planted;
use prost::Message;

use super::super::DataNode;
use super::super::commit::outcome_at;
use super::super::fence::Fences;
use super::super::log_record::{DecisionValue, LogEntry, LogRecord, OutcomeRecord, TableWritesRecord};
use super::super::shard::{Shard, decision_key, prepared_key};
use super::super::start::StartError;
use super::super::table::StoredTable;
use super::replica::{KeptPrepare, Payload, Replica};

/// Writes of one table, as a log record holds them.
pub(super) struct TablePart {
    pub table: Arc<StoredTable>,
    pub is_new: bool,
    pub changes: Vec<RowChange>,
}

/// The writes of a record, with the tables that it or the shard knows. `None`: it knows too little.
pub(super) fn tables_of(shard: &Shard, records: &[TableWritesRecord]) -> Option<Vec<TablePart>> {
    let mut tables = Vec::with_capacity(records.len());
    for record in records {
        let (table, is_new) = match &record.table_definition {
            Some(encoded) => {
                let table = StoredTable::decode(record.table_digest, encoded.clone()).ok()?;
                (Arc::new(table), true)
            }
            None => (shard.stored_table(record.table_digest)?, false),
        };
        let changes = record.rows.iter().map(|row| RowChange {
            table: table.descriptor.clone(),
            key: row.key.clone(),
            row: row.row.clone(),
        });
        tables.push(TablePart {
            changes: changes.collect(),
            table,
            is_new,
        });
    }
    Some(tables)
}

fn apply(
    shard: &Shard,
    tables: &[TablePart],
    commit_timestamp: Timestamp,
    position: LogPosition,
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
    Ok(shard.apply(changes, commit_timestamp, position, &new, system)?)
}

/// What remains for ever of an outcome that was decided in this shard.
fn decision_of(record: &OutcomeRecord) -> Option<(bytes::Bytes, Option<bytes::Bytes>)> {
    let value = DecisionValue {
        commit_timestamp: record.commit_timestamp,
        participants: record.participants.clone(),
    };
    let key = decision_key(record.transaction);
    record.decision.then(|| (key, Some(value.encode_to_vec().into())))
}

impl DataNode {
    /// Lets the entry at `position` (and `lsn` of the node's log) have its effect.
    pub(super) fn replay(
        &self,
        replica: &mut Replica,
        position: LogPosition,
        lsn: Lsn,
        payload: Option<&Payload>,
    ) -> Result<(), StartError> {
        let Some(payload) = payload else { return Ok(()) };
        let shard = replica.shard.clone();
        let malformed = || StartError::MalformedRecord { shard: shard.id, lsn };
        let entry = LogRecord::decode(payload.0.clone()).ok();
        let entry = entry.and_then(|record| record.entry).ok_or_else(malformed)?;
        match &entry {
            LogEntry::Commit(commit) => {
                let tables = tables_of(&shard, &commit.tables).ok_or_else(malformed)?;
                apply(&shard, &tables, commit.commit_timestamp, position, &[])?;
            }
            LogEntry::Prepare(prepare) => {
                for table in tables_of(&shard, &prepare.tables).ok_or_else(malformed)? {
                    shard.see_table(&table.table.descriptor);
                }
            }
            LogEntry::Outcome(outcome) => {
                let tables = match replica.prepared.get(&outcome.transaction) {
                    Some(prepare) => tables_of(&shard, &prepare.record.tables).ok_or_else(malformed)?,
                    // An abort presumed for a transaction that was never prepared here.
                    None if outcome.commit_timestamp == 0 => Vec::new(),
                    None => return Err(malformed()),
                };
                let tables = if planted("outcome-not-replayed") {
                    Vec::new()
                } else {
                    tables
                };
                let mut system: Vec<_> = decision_of(outcome).into_iter().collect();
                let prepare = replica.prepared.get(&outcome.transaction);
                if prepare.is_some_and(|prepare| prepare.lsn.is_none()) {
                    system.push((prepared_key(outcome.transaction), None));
                }
                apply(&shard, &tables, outcome.commit_timestamp, position, &system)?;
            }
            LogEntry::Forget(forget) => {
                let keys = forget.transactions.iter();
                let system: Vec<_> = keys
                    .map(|transaction| (decision_key(*transaction), None))
                    .collect();
                shard.apply(&[], 0, position, &[], &system)?;
            }
            LogEntry::TermBegan(_) => {}
            LogEntry::ChangeStorage(change) => {
                shard.change_storage(&change.create, &change.drop)?;
            }
            LogEntry::Fence(fence) => {
                shard.fences.put_up(fence.storage, fence.fence());
                shard.apply(&[], 0, position, &[], &[Fences::entry(fence)])?;
            }
            LogEntry::BuildIndex(build) => {
                let table = shard.stored_table(build.table_digest).ok_or_else(malformed)?;
                shard.build_index(&table.descriptor, build.index)?;
            }
        }
        self.remember(replica, lsn, entry);
        Ok(())
    }

    /// What follows from a record for this node's memory, after its effect on the engine.
    pub(in crate::datanode) fn remember(&self, replica: &mut Replica, lsn: Lsn, entry: LogEntry) {
        match entry {
            LogEntry::Commit(commit) => {
                let reply = WrittenReply {
                    affected: commit.affected,
                    commit_timestamp: commit.commit_timestamp,
                    ..WrittenReply::default()
                };
                let outcome = outcome_at(commit.commit_timestamp);
                let mut outcomes = self.outcomes.lock();
                outcomes.record_logged(commit.transaction, outcome, Some(reply));
            }
            LogEntry::Prepare(record) => {
                let lsn = Some(lsn);
                replica
                    .prepared
                    .insert(record.transaction, KeptPrepare { lsn, record });
            }
            LogEntry::Outcome(record) => {
                replica.prepared.remove(&record.transaction);
                let outcome = outcome_at(record.commit_timestamp);
                let mut outcomes = self.outcomes.lock();
                outcomes.record_logged(record.transaction, outcome, None);
            }
            LogEntry::Forget(_)
            | LogEntry::TermBegan(_)
            | LogEntry::ChangeStorage(_)
            | LogEntry::BuildIndex(_)
            | LogEntry::Fence(_) => {}
        }
    }
}
