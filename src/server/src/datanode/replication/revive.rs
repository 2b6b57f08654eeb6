//! The beginning of service in a term: what is undecided in the shard's log comes back with its locks.

use std::sync::Arc;

use neorunbase_protocol::message::{Timestamp, TransactionId};
use neorunbase_storage::shard::RowChange;
use neorunbase_txn::transaction::Participation;
use neorunbase_txn::{LockKey, LockStrength};
use neorunbase_world::fault::planted;
use prost::Message;

use super::super::commit::outcome_at;
use super::super::decisions::KeptDecision;
use super::super::log_record::{DecisionValue, PrepareRecord};
use super::super::shard::{DECISION_PREFIX, Shard};
use super::super::start::StartError;
use super::super::table::{index_entries, unique_values};
use super::super::{DataNode, Participant};
use super::replay::tables_of;
use super::replica::Replica;

impl DataNode {
    /// Serves the shard: everything of earlier terms had its effect.
    pub(super) fn begin_serving(&self, replica: &mut Replica) {
        let shard = replica.shard.clone();
        if let Err(error) = self.prepare_serving(replica) {
            tracing::error!(shard = shard.id, %error, "shard is damaged and will not be served");
            shard.damage.lock().get_or_insert_with(|| error.to_string());
            return;
        }
        shard.serve();
        replica.refresh_lease();
    }

    fn prepare_serving(&self, replica: &Replica) -> Result<(), StartError> {
        self.load_decisions(&replica.shard)?;
        if planted("lost-prepared") {
            return Ok(());
        }
        for (transaction, prepare) in &replica.prepared {
            self.revive(&replica.shard, *transaction, &prepare.record)?;
        }
        Ok(())
    }

    fn load_decisions(&self, shard: &Shard) -> Result<(), StartError> {
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
            let commit_timestamp: Timestamp = value.commit_timestamp;
            let mut outcomes = self.outcomes.lock();
            outcomes.record_logged(transaction, outcome_at(commit_timestamp), None);
            drop(outcomes);
            let decision = KeptDecision::new(shard.id, value.participants, commit_timestamp, self);
            self.keep_decision(transaction, decision);
        }
        Ok(())
    }

    /// A prepared transaction's part in the shard comes back: its writes, its locks, and the mark on what it wrote.
    fn revive(
        &self,
        shard: &Arc<Shard>,
        id: TransactionId,
        prepare: &PrepareRecord,
    ) -> Result<(), StartError> {
        tracing::info!(
            transaction = id,
            shard = shard.id,
            "found a prepared transaction in the log"
        );
        neorunbase_world::sometimes!("prepared-transaction-found-in-the-log");
        let participation = Participation {
            anchor: prepare.anchor,
            participants: prepare.participants.clone(),
            decides: prepare.anchor == shard.id,
            is_staged: prepare.commit_timestamp != 0,
        };
        let now = self.world.clock.monotonic();
        let participant = Arc::new(Participant::recovered(id, now, participation));
        participant.set_commit_timestamp(prepare.commit_timestamp);
        let tables = tables_of(shard, &prepare.tables).ok_or(StartError::MalformedRecord {
            shard: shard.id,
            lsn: 0,
        })?;
        for part in tables {
            for change in part.changes {
                self.relock(&participant, shard, &change)?;
                let entries = match &change.row {
                    Some(row) => index_entries(&change.table, &change.key, row)?,
                    None => Vec::new(),
                };
                let storage = change.table.storage;
                let mut writes = participant.writes.lock();
                writes.put(shard.id, storage, &part.table, change.key, change.row, entries);
            }
        }
        if planted("revived-without-locks") {
            self.locks.release(id, &participant.take_locks());
        } else {
            self.mark_in_doubt(&participant);
        }
        self.revived.lock().insert((id, shard.id), participant.clone());
        self.unresolved.lock().push(participant);
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
