//! Ends of transactions: one-round commit, the two phases, and rollback.
//!
//! Each durable step is one log frame. What follows from it (applying writes, releasing locks, waking readers)
//! happens in the log's callback, in log order, so that no request needs to survive for its effects to be complete.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::message::{
    CommitLocal, Decide, Finish, Prepare, ReadSetMessage, RollbackTo, ShardId, ShardRef, Timestamp,
    TransactionId, WrittenReply,
};
use neorunbase_replication::LogPosition;
use neorunbase_storage::StorageError;
use neorunbase_storage::shard::RowChange;
use neorunbase_storage::wal::WalRecord;
use neorunbase_txn::transaction::Participation;
use neorunbase_txn::{Lost, Outcome, Phase};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::fault::{dawdle, planted};
use prost::Message;

use super::commit_step::{CommitStep, PrepareStep};
use super::failure::Failure;
use super::log_record::{CommitRecord, LogEntry, LogRecord, PrepareRecord, RowRecord, TableWritesRecord};
use super::replication::{Committed, Room};
use super::shard::Shard;
use super::table::StoredTable;
use super::{DataNode, Participant};

/// Bytes of frame overhead allowed for when a transaction is checked against the largest frame.
const FRAME_SLACK_BYTES: usize = 64 << 10;
/// RETURNING rows of an autocommit statement that are kept for a repeated request.
const KEPT_REPLY_BYTES: usize = 4 << 10;

/// A transaction's writes in one shard, ready to be logged and applied.
pub(super) struct Part {
    pub shard: Arc<Shard>,
    /// Of this node as its primary.
    pub term: u64,
    pub changes: Vec<RowChange>,
    pub new_tables: Vec<Arc<StoredTable>>,
}

impl Part {
    /// Without writes.
    pub(super) fn empty(shard: Arc<Shard>) -> Self {
        Self {
            term: shard.term(),
            shard,
            changes: Vec::new(),
            new_tables: Vec::new(),
        }
    }

    pub(super) fn record(
        &self,
        tables: Vec<TableWritesRecord>,
        entry: impl FnOnce(Vec<TableWritesRecord>) -> LogEntry,
    ) -> WalRecord {
        wal_record(&self.shard, entry(tables))
    }
}

/// The prepare records of a transaction's parts; `commit_timestamp`: of a staged commit, else 0.
pub(super) fn prepare_records(
    parts: Vec<(Part, Vec<TableWritesRecord>)>,
    participant: &Participant,
    commit_timestamp: Timestamp,
) -> Vec<WalRecord> {
    let participation = participant.participation();
    let record_of = |(part, tables): (Part, _)| {
        part.record(tables, |tables| {
            LogEntry::Prepare(PrepareRecord {
                transaction: participant.id(),
                anchor: participation.anchor,
                participants: participation.participants.clone(),
                tables,
                commit_timestamp,
            })
        })
    };
    parts.into_iter().map(record_of).collect()
}

/// A log record of a shard.
pub(super) fn wal_record(shard: &Shard, entry: LogEntry) -> WalRecord {
    WalRecord {
        shard: shard.id,
        term: shard.term(),
        sequence: 0,
        payload: LogRecord { entry: Some(entry) }.encode_to_vec().into(),
    }
}

/// Rolls a transaction back if the request that is ending it goes away before the log has it.
pub(super) struct Unsettled {
    node: Arc<DataNode>,
    participant: Arc<Participant>,
    armed: bool,
}

impl Unsettled {
    pub(super) fn new(node: &DataNode, participant: &Arc<Participant>) -> Result<Self, Failure> {
        Ok(Self {
            node: node.shared()?,
            participant: participant.clone(),
            armed: true,
        })
    }

    pub(super) fn disarm(mut self) -> (Arc<DataNode>, Arc<Participant>) {
        self.armed = false;
        (self.node.clone(), self.participant.clone())
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.armed {
            self.node.settle(&self.participant, Outcome::Aborted, None);
        }
    }
}

impl DataNode {
    /// The transaction's writes as parts, and as table records of the log, by shard.
    pub(super) fn parts(
        &self,
        participant: &Participant,
    ) -> Result<Vec<(Part, Vec<TableWritesRecord>)>, Failure> {
        let writes = participant.writes.lock();
        let mut parts = Vec::new();
        for (shard_id, shard_writes) in writes.shards() {
            let shard = self.open_shard(shard_id)?;
            let mut part = Part::empty(shard);
            let mut tables = Vec::new();
            for (_, table_writes) in shard_writes.tables() {
                let table = &table_writes.table;
                let known = part.shard.knows_table(table.digest);
                if !known {
                    part.new_tables.push(table.clone());
                }
                tables.push(TableWritesRecord {
                    table_digest: table.digest,
                    table_definition: (!known).then(|| table.encoded.clone()),
                    rows: table_writes
                        .rows
                        .iter()
                        .map(|(key, row)| RowRecord {
                            key: key.clone(),
                            row: row.clone(),
                        })
                        .collect(),
                });
                part.changes
                    .extend(table_writes.rows.iter().map(|(key, row)| RowChange {
                        table: table.descriptor.clone(),
                        key: key.clone(),
                        row: row.clone(),
                    }));
            }
            parts.push((part, tables));
        }
        Ok(parts)
    }

    /// As [`parts`](Self::parts), with the anchor's part in any case, though there may be nothing in it.
    pub(super) fn parts_with(
        &self,
        participant: &Participant,
        anchor: Option<ShardId>,
    ) -> Result<Vec<(Part, Vec<TableWritesRecord>)>, Failure> {
        let mut parts = self.parts(participant)?;
        if let Some(anchor) = anchor
            && !parts.iter().any(|(part, _)| part.shard.id == anchor)
        {
            parts.push((Part::empty(self.open_shard(anchor)?), Vec::new()));
        }
        Ok(parts)
    }

    /// Refuses a commit of a shard that was given up while its statements ran.
    fn check_still_served(&self, participant: &Participant) -> Result<(), Failure> {
        for (shard, _) in participant.writes.lock().shards() {
            if self.open_shard(shard)?.serving().is_none() {
                return Err(Failure::StaleEpoch { shard, serving: None });
            }
        }
        Ok(())
    }

    pub(super) fn check_frame_size(&self, records: &[WalRecord]) -> Result<(), Failure> {
        let bytes: usize = records
            .iter()
            .map(|record| record.payload.len() + FRAME_SLACK_BYTES / 64)
            .sum();
        if bytes + FRAME_SLACK_BYTES > self.config.wal_max_frame_bytes as usize {
            return Err(Failure::Sql(
                SqlError::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "transaction is too large to commit",
                )
                .with_detail(format!(
                    "it writes {bytes} bytes; a data node logs at most {} at once",
                    self.config.wal_max_frame_bytes
                )),
            ));
        }
        Ok(())
    }

    /// Marks the transaction's writes: from here on readers that may have to see them wait.
    pub(super) fn mark_in_doubt(&self, participant: &Arc<Participant>) {
        let writes = participant.writes.lock();
        for (shard, shard_writes) in writes.shards() {
            if let Ok(shard) = self.open_shard(shard) {
                shard.mark_in_doubt(participant, shard_writes);
            }
        }
    }

    /// Undoes [`mark_in_doubt`](Self::mark_in_doubt).
    pub(super) fn clear_in_doubt(&self, participant: &Arc<Participant>) {
        let writes = participant.writes.lock();
        for (shard, shard_writes) in writes.shards() {
            if let Ok(shard) = self.open_shard(shard) {
                shard.clear_in_doubt(participant, shard_writes);
            }
        }
    }

    /// Ends a transaction in memory: its outcome stands (durably, if it wrote anything).
    pub(super) fn settle(
        &self,
        participant: &Arc<Participant>,
        outcome: Outcome,
        reply: Option<WrittenReply>,
    ) {
        self.clear_in_doubt(participant);
        let id = participant.id();
        // The outcome is known before the transaction is unknown: no request may take it for a new one.
        self.outcomes.lock().record(id, outcome, reply);
        self.forget_participant(participant);
        participant.end(outcome);
        self.locks.release(id, &participant.take_locks());
    }

    pub(super) fn forget_participant(&self, participant: &Arc<Participant>) {
        let id = participant.id();
        let is_it = |known: &Arc<Participant>| Arc::ptr_eq(known, participant);
        {
            let mut transactions = self.transactions.lock();
            if transactions.get(&id).is_some_and(is_it) {
                transactions.remove(&id);
                return;
            }
        }
        let parts_of_it = (id, 0)..=(id, ShardId::MAX);
        let mut revived = self.revived.lock();
        let found = revived.range(parts_of_it).find(|(_, known)| is_it(known));
        if let Some(key) = found.map(|(key, _)| *key) {
            revived.remove(&key);
        }
    }

    /// Applies parts of a committed frame. A failure leaves the engine behind the log: the node stops, and the next
    /// start replays.
    pub(super) fn apply_parts(
        &self,
        parts: &[Part],
        commit_timestamp: Timestamp,
        committed: &Committed<'_>,
        system_of: impl Fn(ShardId) -> Vec<(bytes::Bytes, Option<bytes::Bytes>)>,
    ) -> bool {
        parts.iter().all(|part| {
            let Some(position) = committed.position(part.shard.id) else {
                return true; // another primary's to apply
            };
            let system = system_of(part.shard.id);
            let changes: &[RowChange] = if commit_timestamp == 0 { &[] } else { &part.changes };
            let applied = part
                .shard
                .apply(changes, commit_timestamp, position, &part.new_tables, &system);
            self.check_applied(&part.shard, position, applied)
        })
    }

    /// Whether a committed entry could be applied. If not, the node stops.
    pub(super) fn check_applied(
        &self,
        shard: &Shard,
        position: LogPosition,
        applied: Result<(), StorageError>,
    ) -> bool {
        if let Err(error) = &applied {
            self.fail(format!(
                "shard {:#x} could not apply entry {} of its log: {error}",
                shard.id, position.sequence
            ));
        }
        applied.is_ok()
    }

    /// Draws the commit timestamp of a transaction that has left `Active`, and makes sure that it may commit there: what it
    /// has read, and locked, is the same.
    pub(super) async fn draw_commit_timestamp(
        &self,
        participant: &Arc<Participant>,
        references: &[ShardRef],
        reads: Option<&ReadSetMessage>,
    ) -> Result<Timestamp, Failure> {
        self.check_still_served(participant)?;
        // Marked first, timestamp second: whoever holds a snapshot already will not have to see this commit.
        self.mark_in_doubt(participant);
        self.check_fences(participant)?;
        let clock = &*self.world.clock;
        dawdle(clock, "commit timestamp drawn late", Duration::from_millis(300)).await;
        let commit_timestamp = self.timestamps.next().await?;
        dawdle(clock, "commit logged late", Duration::from_millis(300)).await;
        participant.set_commit_timestamp(commit_timestamp);
        participant.wake();
        if let Some(reads) = reads {
            let validated = self.validate_reads(participant.id(), commit_timestamp, reads);
            validated.await.map_err(|failure| match failure {
                // The term in which it has read there is over.
                Failure::StaleEpoch { .. } => Failure::UnknownTransaction(participant.id()),
                failure => failure,
            })?;
        }
        // Up to here its locks, and what was found valid, were those of the only primaries.
        self.check_all_current(references, participant.id())?;
        Ok(commit_timestamp)
    }

    /// One-round commit of an active transaction. `reply` is what its statement answers (autocommit), or empty. In
    /// `references` it may have read or locked. Of a serializable one that has written, `reads` must be valid.
    pub(super) async fn commit(
        &self,
        participant: &Arc<Participant>,
        reply: WrittenReply,
        references: &[ShardRef],
        reads: Option<&ReadSetMessage>,
    ) -> Result<WrittenReply, Failure> {
        if !participant.begin_commit().await {
            return self.joined_commit(participant).await;
        }
        let unsettled = Unsettled::new(self, participant)?;
        if participant.writes.lock().is_empty() {
            self.check_all_current(references, participant.id())?;
            let (node, participant) = unsettled.disarm();
            node.settle(&participant, Outcome::Committed(0), kept(&reply));
            return Ok(reply);
        }
        let commit_timestamp = self.draw_commit_timestamp(participant, references, reads).await?;
        let (parts, records): (Vec<_>, Vec<_>) = self
            .parts(participant)?
            .into_iter()
            .map(|(part, tables)| {
                let record = part.record(tables, |tables| {
                    LogEntry::Commit(CommitRecord {
                        transaction: participant.id(),
                        commit_timestamp,
                        tables,
                        affected: reply.affected,
                    })
                });
                (part, record)
            })
            .unzip();
        self.check_frame_size(&records)?;
        let reply = WrittenReply {
            commit_timestamp,
            ..reply
        };
        let together = self.count_on_being_alone(&records);
        if records.len() > 1 && together.is_none() {
            return Err(Failure::Sql(
                SqlError::new(
                    SqlState::SERIALIZATION_FAILURE,
                    "could not commit in one round: a shard of the transaction has just been replicated",
                )
                .with_hint("The transaction might succeed if retried."),
            ));
        }
        let (node, participant) = unsettled.disarm();
        let step = CommitStep {
            participant,
            parts,
            commit_timestamp,
            reply: kept(&reply),
            _together: together,
        };
        node.log(records, Box::new(step), Room::OrRefuse).await?;
        Ok(reply)
    }

    /// The answer of a commit that another request is carrying out, or has.
    async fn joined_commit(&self, participant: &Participant) -> Result<WrittenReply, Failure> {
        if participant.phase() == Phase::Prepared {
            return Err(Failure::Sql(SqlError::internal(
                "a prepared transaction cannot commit in one round",
            )));
        }
        self.reply_once_ended(participant).await
    }

    /// The answer of a commit that is being carried out, once it has ended.
    pub(super) async fn reply_once_ended(&self, participant: &Participant) -> Result<WrittenReply, Failure> {
        self.or_failed(participant.ended()).await?.map_err(lost)?;
        self.finished_reply(participant.id())
            .unwrap_or(Err(Failure::UnknownTransaction(participant.id())))
    }

    /// The answer to a repeated commit (or autocommit statement) of a transaction that has ended, if remembered.
    pub(super) fn finished_reply(&self, transaction: TransactionId) -> Option<Result<WrittenReply, Failure>> {
        let outcomes = self.outcomes.lock();
        match outcomes.get(transaction)? {
            Outcome::Aborted => Some(Err(Failure::UnknownTransaction(transaction))),
            Outcome::Committed(commit_timestamp) => {
                let reply = outcomes.detail(transaction).unwrap_or(WrittenReply {
                    commit_timestamp,
                    ..WrittenReply::default()
                });
                Some(Ok(reply))
            }
        }
    }

    /// Rolls an active transaction back. `false`: it is not active any more.
    pub(super) async fn roll_back(&self, participant: &Arc<Participant>) -> bool {
        if !participant.begin_abort().await {
            return false;
        }
        self.settle(participant, Outcome::Aborted, None);
        true
    }

    /// See [`RollbackTo`].
    pub(super) async fn rollback_to(&self, request: RollbackTo) -> Result<(), Failure> {
        for shard in &request.shards {
            self.served_in_same_term(shard, request.transaction)?;
        }
        let unknown = || Failure::UnknownTransaction(request.transaction);
        let participant = if request.last_sequence == 0 {
            // Whatever was sent here is taken back, so nothing is lost if the node knows nothing of it.
            self.find_or_begin(request.transaction)?.0
        } else {
            self.participant(request.transaction).ok_or_else(unknown)?
        };
        if participant.last_sequence() < request.last_sequence {
            self.roll_back(&participant).await;
            return Err(unknown());
        }
        participant.heard(self.world.clock.monotonic());
        let keys = participant
            .revoke(request.kept_sequence, request.sequence)
            .await
            .map_err(|_| unknown())?;
        self.locks.release(request.transaction, &keys);
        Ok(())
    }

    /// See [`CommitLocal`].
    pub(super) async fn commit_local(&self, request: CommitLocal) -> Result<WrittenReply, Failure> {
        let Some(participant) = self.participant(request.transaction) else {
            if let Some(finished) = self.finished_reply(request.transaction) {
                return finished;
            }
            for shard in &request.shards {
                self.served_in_same_term(shard, request.transaction)?;
            }
            return Err(Failure::UnknownTransaction(request.transaction));
        };
        self.check_complete(&participant, &request.shards, request.last_sequence)
            .await?;
        // Where it has something, and where it has only read.
        let mut references = request.shards;
        if let Some(reads) = &request.reads {
            references.extend(reads.shards.iter().map(|reads| reads.shard));
        }
        let reads = request.reads.as_ref();
        match request.anchor {
            Some(anchor) => self.commit_staged(&participant, anchor, &references, reads).await,
            None => {
                self.commit(&participant, WrittenReply::default(), &references, reads)
                    .await
            }
        }
    }

    /// Refuses to commit what is not all here: a shard that moved, or statements lost in a restart.
    async fn check_complete(
        &self,
        participant: &Arc<Participant>,
        shards: &[ShardRef],
        last_sequence: u32,
    ) -> Result<(), Failure> {
        for shard in shards {
            if let Err(failure) = self.served_in_same_term(shard, participant.id()) {
                if let Failure::UnknownTransaction(_) = failure {
                    self.roll_back(participant).await;
                }
                return Err(failure);
            }
        }
        if participant.phase() == Phase::Active && participant.last_sequence() < last_sequence {
            self.roll_back(participant).await;
            return Err(Failure::UnknownTransaction(participant.id()));
        }
        Ok(())
    }

    /// See [`Prepare`].
    pub(super) async fn prepare(&self, request: Prepare) -> Result<(), Failure> {
        let unknown = Failure::UnknownTransaction(request.transaction);
        let Some(participant) = self.participant(request.transaction) else {
            if let Some(Outcome::Committed(_)) = self.outcomes.lock().get(request.transaction) {
                return Ok(());
            }
            for shard in &request.shards {
                self.served_in_same_term(shard, request.transaction)?;
            }
            return Err(unknown);
        };
        self.check_complete(&participant, &request.shards, request.last_sequence)
            .await?;
        let is_anchor = request.shards.iter().any(|shard| shard.shard == request.anchor);
        let participation = Participation {
            anchor: request.anchor,
            participants: request.participants.clone(),
            decides: is_anchor,
            is_staged: false,
        };
        if !participant.begin_prepare(participation).await {
            return match self.or_failed(participant.prepare_written()).await? {
                Phase::Prepared | Phase::Deciding | Phase::Ended(Outcome::Committed(_)) => Ok(()),
                _ => Err(unknown),
            };
        }
        let unsettled = Unsettled::new(self, &participant)?;
        if participant.writes.lock().is_empty() && !is_anchor {
            self.check_all_current(&request.shards, request.transaction)?;
            let (node, participant) = unsettled.disarm();
            // Nothing to log: it read and locked only. But whoever gets its locks next must see its commit, so they are held
            // until the second phase, too.
            if planted("lock-only-parts-end-at-prepare") {
                node.settle(&participant, Outcome::Committed(0), None);
            } else {
                participant.prepared();
            }
            return Ok(());
        }
        self.check_still_served(&participant)?;
        self.mark_in_doubt(&participant);
        self.check_fences(&participant)?;
        let parts = self.parts_with(&participant, is_anchor.then_some(request.anchor))?;
        let records = prepare_records(parts, &participant, 0);
        self.check_frame_size(&records)?;
        let (node, participant) = unsettled.disarm();
        let step = PrepareStep { participant };
        node.log(records, Box::new(step), Room::OrRefuse).await?;
        self.check_all_current(&request.shards, request.transaction)?;
        Ok(())
    }

    /// See [`Decide`].
    pub(super) async fn decide(&self, request: Decide) -> Result<(), Failure> {
        self.served_since(&request.anchor)?;
        let unknown = Failure::UnknownTransaction(request.transaction);
        let wanted = outcome_at(request.commit_timestamp);
        let Some(participant) = self.decider(request.transaction, request.anchor.shard) else {
            return match (self.known_decision(request.transaction), wanted) {
                (Some(known), _) if known == wanted => Ok(()),
                (Some(_), Outcome::Committed(timestamp)) if planted("double-decision") => {
                    self.overwrite_decision(request.transaction, timestamp);
                    Ok(())
                }
                (None, Outcome::Aborted) => {
                    // It was never prepared here; nothing that is still under way may prepare it.
                    self.outcomes.lock().record_abandoned(request.transaction);
                    Ok(())
                }
                _ => Err(unknown),
            };
        };
        loop {
            match participant.phase() {
                // Whether all of it is prepared decides, and nobody else.
                Phase::Prepared if participant.participation().is_staged => return Err(unknown),
                Phase::Prepared => {
                    if let Some(participation) = participant.begin_decide_as_anchor() {
                        return self.write_outcome(&participant, participation, wanted).await;
                    }
                    if participant.is_decided_elsewhere() {
                        return Err(Failure::OutcomeUnknown); // the anchor has just become another node's
                    }
                }
                Phase::Preparing | Phase::Staging => {
                    self.or_failed(participant.prepare_written()).await?;
                }
                Phase::Active if wanted == Outcome::Aborted => {
                    self.roll_back(&participant).await;
                }
                Phase::Active => return Err(unknown),
                Phase::Committing | Phase::Deciding | Phase::Ended(_) => {
                    let ended = self.or_failed(participant.ended()).await?.map_err(lost)?;
                    return if ended == wanted { Ok(()) } else { Err(unknown) };
                }
                Phase::Lost => return Err(Failure::OutcomeUnknown),
            }
        }
    }

    /// See [`Finish`].
    pub(super) async fn finish(&self, request: Finish) -> Result<(), Failure> {
        let outcome = outcome_at(request.commit_timestamp);
        let is_served = |shard: &&ShardRef| self.served_since(shard).is_ok();
        for shard in request.shards.iter().filter(is_served) {
            if let Some(participant) = self.holder(request.transaction, shard.shard) {
                if self.awaits_decision(&participant, &request) {
                    return Err(Failure::OutcomeUnknown);
                }
                self.finish_participant(&participant, outcome).await?;
            }
        }
        for shard in &request.shards {
            self.served_since(shard)?;
        }
        if request.forget_decision {
            // What another primary has taken over meanwhile has not heard of the outcome.
            let is_held = |shard: &ShardRef| self.holder(request.transaction, shard.shard).is_some();
            let is_commit = outcome != Outcome::Aborted;
            if is_commit && request.shards.iter().any(is_held) {
                return Err(Failure::OutcomeUnknown);
            }
            if is_commit || self.known_decision(request.transaction) == Some(outcome) {
                self.forget_later(request.transaction);
            }
        }
        Ok(())
    }

    /// Carries out an outcome that was decided elsewhere (or, for what is not prepared yet, rolls back).
    pub(super) async fn finish_participant(
        &self,
        participant: &Arc<Participant>,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        loop {
            match participant.phase() {
                Phase::Prepared
                    if decides_by_itself(participant)
                        && self.known_decision(participant.id()) != Some(outcome) =>
                {
                    return Err(Failure::OutcomeUnknown);
                }
                Phase::Prepared => {
                    if let Some(participation) = participant.begin_decide() {
                        return self.write_outcome(participant, participation, outcome).await;
                    }
                }
                Phase::Preparing | Phase::Staging => {
                    self.or_failed(participant.prepare_written()).await?;
                }
                Phase::Active if outcome == Outcome::Aborted => {
                    self.roll_back(participant).await;
                }
                Phase::Active => {
                    return Err(Failure::Sql(SqlError::internal(format!(
                        "transaction {} was to finish a commit that it never prepared",
                        participant.id()
                    ))));
                }
                Phase::Committing | Phase::Deciding | Phase::Ended(_) => {
                    let ended = self.or_failed(participant.ended()).await?.map_err(lost)?;
                    if ended != outcome {
                        tracing::error!(
                            transaction = participant.id(),
                            ?ended,
                            ?outcome,
                            "a transaction was to finish otherwise than it had ended",
                        );
                        return Err(Failure::Sql(SqlError::internal(format!(
                            "transaction {} has ended otherwise",
                            participant.id()
                        ))));
                    }
                    return Ok(());
                }
                // Its shards' next primaries finish it.
                Phase::Lost => return Ok(()),
            }
        }
    }
}

/// A staged commit, on its anchor: nobody tells it how it ends.
fn decides_by_itself(participant: &Participant) -> bool {
    let participation = participant.participation();
    participation.is_staged && participation.decides
}

fn lost(_: Lost) -> Failure {
    Failure::OutcomeUnknown
}

/// The outcome that a message's commit timestamp stands for.
pub(super) fn outcome_at(commit_timestamp: Timestamp) -> Outcome {
    if commit_timestamp == 0 {
        Outcome::Aborted
    } else {
        Outcome::Committed(commit_timestamp)
    }
}

/// The reverse of [`outcome_at`].
pub(super) fn timestamp_of(outcome: Outcome) -> Timestamp {
    match outcome {
        Outcome::Committed(commit_timestamp) => commit_timestamp,
        Outcome::Aborted => 0,
    }
}

/// What to remember for a repeated request: all of the reply if it is small.
fn kept(reply: &WrittenReply) -> Option<WrittenReply> {
    let bytes: usize = reply.returned.iter().map(bytes::Bytes::len).sum();
    (bytes <= KEPT_REPLY_BYTES && reply.skipped.len() * 4 <= KEPT_REPLY_BYTES).then(|| reply.clone())
}
