//! A transaction as its Coordinator drives it: which shards it touched, and how it ends.
//!
//! Commit takes one durable round if one shard, or one node without other copies, holds everything that was touched,
//! else two: PREPARE on all nodes,
//! then the decision on the anchor shard, which is the commit point. The second phase on the other shards
//! happens behind the client's back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use neorunbase_catalog::Table;
use neorunbase_protocol::message::{
    CommitLocal, Decide, Decision, Finish, Prepare, QueryDecision, ReadSetMessage, RequestBody, ResponseBody,
    RollbackTo, ShardId, ShardReads, ShardRef, StatementContext, TableReads, Timestamp, TransactionId,
    Validate,
};
use neorunbase_sql::plan::{AsOf, IsolationLevel};
use neorunbase_txn::ReadSet;
use neorunbase_txn::outcomes::ABORT_BELIEVED_FOR;
use neorunbase_txn::timestamp::{TimestampError, TimestampSource};
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::fault::{buggify, dawdle, planted};
use neorunbase_world::{MonotonicTime, World};
use parking_lot::Mutex;

use super::as_of;
use super::heartbeat::{Heartbeats, OpenTransaction};
use super::router::{RouteError, Router, TouchedShards, Unanswered};
use super::settings::{isolation_name, on_or_off};

/// How long a Coordinator tries to learn an outcome before it reports 08007.
const RESOLUTION_LIMIT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// What a serializable transaction has read is remembered in about so many bytes; beyond, less exactly.
const READ_SET_BYTES: usize = 1 << 20;

/// What transactions need from their Coordinator.
pub struct TransactionServices {
    /// Time and tasks.
    pub world: World,
    /// Reaches shards.
    pub router: Router,
    /// Draws timestamps.
    pub timestamps: Arc<dyn TimestampSource>,
    /// Keeps open transactions alive on the nodes.
    pub heartbeats: Arc<Heartbeats>,
}

/// An open transaction.
pub struct Transaction {
    services: Arc<TransactionServices>,
    /// The isolation level.
    pub isolation: IsolationLevel,
    /// Refuses writes.
    pub read_only: bool,
    /// Asked not to be cancelled. No snapshot that only reads ever is, so it changes nothing.
    pub deferrable: bool,
    /// `now()`.
    pub time_unix_micros: i64,
    /// Longest wait for one row lock; 0: no limit.
    pub lock_timeout_ms: u32,
    /// Its only statement was sent to a shard that commits it at once.
    pub may_have_committed: bool,
    /// Drawn at the first write or lock; 0 before.
    id: TransactionId,
    open: Option<OpenTransaction>,
    /// REPEATABLE READ and above: drawn at the first statement; 0 before.
    snapshot: Timestamp,
    /// AS OF SYSTEM TIME: the snapshot was chosen by the user.
    reads_the_past: bool,
    /// SERIALIZABLE: what was read, to be validated at the commit. Shared with running queries.
    reads: Arc<Mutex<ReadSet>>,
    sequence: u32,
    touched: TouchedShards,
    /// SERIALIZABLE: where reads were made first. They are valid in the same terms or not at all.
    read_at: TouchedShards,
    /// Shards with writes or locks of this transaction, and the node and epoch they were sent to.
    participants: BTreeMap<ShardId, Participant>,
    /// Shards where queries may have locked rows that are not among the participants yet. Shared with those queries, which
    /// can end anywhere.
    locked: Arc<Mutex<BTreeSet<ShardId>>>,
    /// Oldest first. A name may be there several times: the newest counts.
    savepoints: Vec<Savepoint>,
}

struct Savepoint {
    name: String,
    /// The last statement before it.
    sequence: u32,
}

#[derive(Clone)]
struct Participant {
    reference: ShardRef,
    node: String,
    /// The statements that were sent there while there was a savepoint.
    revocable: Vec<u32>,
    /// The last one before there was any; 0: none.
    irrevocable: u32,
    /// It holds rows there that it has only locked.
    locks_rows: bool,
}

impl Participant {
    fn sent(&mut self, sequence: u32, revocable: bool) {
        if !revocable {
            self.irrevocable = sequence;
        } else if self.revocable.last() != Some(&sequence) {
            self.revocable.push(sequence);
        }
    }

    /// The last statement that was sent there.
    fn last_sequence(&self) -> u32 {
        self.last_up_to(u32::MAX)
    }

    /// The last statement up to `sequence` that was sent there; 0: none.
    fn last_up_to(&self, sequence: u32) -> u32 {
        let revocable = self.revocable.iter().rev().find(|sent| **sent <= sequence);
        revocable.copied().unwrap_or(0).max(self.irrevocable)
    }
}

/// `3B001`
pub fn no_savepoint(name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_SAVEPOINT,
        format!("savepoint \"{name}\" does not exist"),
    )
}

/// As SQL sees a missing oracle.
pub fn timestamp_error(error: TimestampError) -> Box<SqlError> {
    SqlError::new(SqlState::CONNECTION_FAILURE, error.to_string())
}

impl Transaction {
    /// Begins; nothing is sent anywhere before the first statement.
    pub fn begin(services: Arc<TransactionServices>, isolation: IsolationLevel, read_only: bool) -> Self {
        let time_unix_micros = services.world.clock.wall_clock_unix_micros();
        Self {
            services,
            isolation,
            read_only,
            deferrable: false,
            time_unix_micros,
            lock_timeout_ms: 0,
            may_have_committed: false,
            id: 0,
            open: None,
            snapshot: 0,
            reads_the_past: false,
            reads: Arc::new(Mutex::new(ReadSet::new(READ_SET_BYTES))),
            sequence: 0,
            touched: TouchedShards::default(),
            read_at: TouchedShards::default(),
            participants: BTreeMap::new(),
            locked: Arc::default(),
            savepoints: Vec::new(),
        }
    }

    /// The settings that belong to a transaction, as SHOW prints them.
    pub fn settings(&self) -> [(String, String); 3] {
        [
            ("transaction_isolation", isolation_name(self.isolation)),
            ("transaction_read_only", on_or_off(self.read_only)),
            ("transaction_deferrable", on_or_off(self.deferrable)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// Whether there is a savepoint to go back to.
    pub fn has_savepoints(&self) -> bool {
        !self.savepoints.is_empty()
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str) {
        self.savepoints.push(Savepoint {
            name: name.to_owned(),
            sequence: self.sequence,
        });
    }

    fn find_savepoint(&self, name: &str) -> Result<usize> {
        let found = self
            .savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name);
        found.ok_or_else(|| no_savepoint(name))
    }

    /// RELEASE SAVEPOINT: forgets it and later ones.
    ///
    /// # Errors
    /// `3B001`
    pub fn release_savepoint(&mut self, name: &str) -> Result<()> {
        let position = self.find_savepoint(name)?;
        self.savepoints.truncate(position);
        Ok(())
    }

    /// ROLLBACK TO SAVEPOINT: nothing that was done since is there any more, locks included. It stays, later ones do
    /// not.
    ///
    /// # Errors
    /// `3B001`; or a node cannot be reached or has lost the transaction: then it cannot go on.
    pub async fn rollback_to_savepoint(&mut self, name: &str) -> Result<()> {
        let position = self.find_savepoint(name)?;
        let kept_sequence = self.savepoints[position].sequence;
        self.learn_places();
        self.sequence += 1;
        let sequence = self.sequence;
        // Only where something was sent since.
        let mut nodes: BTreeMap<String, RollbackTo> = BTreeMap::new();
        for participant in self.participants.values() {
            if participant.last_sequence() <= kept_sequence {
                continue;
            }
            let request = nodes
                .entry(participant.node.clone())
                .or_insert_with(|| RollbackTo {
                    transaction: self.id,
                    shards: Vec::new(),
                    kept_sequence,
                    sequence,
                    last_sequence: 0,
                });
            request.shards.push(participant.reference);
        }
        for (node, request) in &mut nodes {
            let on_node = self
                .participants
                .values()
                .filter(|participant| participant.node == *node);
            let kept = on_node.map(|participant| participant.last_up_to(kept_sequence));
            request.last_sequence = kept.max().unwrap_or(0);
        }
        let router = &self.services.router;
        let calls = nodes.into_values().map(|request| async move {
            let first = request.shards[0].shard;
            router
                .call_repeatable(first, |_| RequestBody::RollbackTo(request.clone()))
                .await
        });
        for answer in join_all(calls).await {
            answer.map_err(RouteError::into_statement_error)?;
        }
        for participant in self.participants.values_mut() {
            if participant.last_sequence() > kept_sequence {
                participant.irrevocable = participant.last_up_to(kept_sequence);
                participant.revocable.retain(|sent| *sent <= kept_sequence);
                participant.sent(sequence, true);
            }
        }
        self.savepoints.truncate(position + 1);
        // What was read since is known to the client all the same: it stays in the read set.
        if planted("savepoint-forgets-reads") {
            self.reads.lock().clear();
        }
        Ok(())
    }

    /// Where to record what is read; none where no commit will depend on it: below SERIALIZABLE, and of what has not
    /// written and cannot, since a snapshot is a serial point by itself. Once that has begun it stays so.
    pub fn recorded_reads(&self) -> Option<Arc<Mutex<ReadSet>>> {
        let may_have_writes = !self.read_only || self.has_participants();
        (self.isolation == IsolationLevel::Serializable && may_have_writes).then(|| self.reads.clone())
    }

    /// Whether a shard may commit it at once: not if the Coordinator has reads of it to be validated.
    pub fn needs_no_validation(&self) -> bool {
        self.reads.lock().is_empty()
    }

    /// Whether any shard holds writes or locks of it.
    pub fn has_participants(&self) -> bool {
        !self.participants.is_empty()
    }

    /// Shards that hold writes or locks of it.
    pub fn participants(&self) -> BTreeSet<ShardId> {
        self.participants.keys().copied().collect()
    }

    /// Whether the node of `shard` takes part already.
    pub fn takes_part_at(&self, shard: ShardId) -> bool {
        self.participants.contains_key(&shard)
            || self.services.router.locate(shard).is_some_and(|(_, node)| {
                self.participants
                    .values()
                    .any(|participant| participant.node == node)
            })
    }

    /// Its only statement was committed by the shard itself.
    pub fn committed_by_shard(mut self) {
        self.participants.clear();
        self.open = None;
    }

    /// Whether its snapshot (REPEATABLE READ) or a write has fixed what it is.
    pub fn has_begun_work(&self) -> bool {
        self.sequence > 0
    }

    /// AS OF SYSTEM TIME: nothing but reads, of what was there then. Returns the timestamp.
    ///
    /// # Errors
    /// `22023` if that is not past, or if no timestamp can be had.
    pub async fn read_as_of(&mut self, as_of: AsOf) -> Result<Timestamp> {
        let now = self.services.timestamps.next().await.map_err(timestamp_error)?;
        let timestamp = as_of::resolve(as_of, now)?;
        self.read_at(timestamp);
        Ok(timestamp)
    }

    /// As [`read_as_of`](Self::read_as_of), of what that returned.
    pub fn read_at(&mut self, timestamp: Timestamp) {
        self.snapshot = timestamp;
        self.reads_the_past = true;
        self.read_only = true;
        if self.isolation == IsolationLevel::ReadCommitted {
            self.isolation = IsolationLevel::RepeatableRead;
        }
    }

    /// The timestamp that the user has chosen to read at, if any.
    pub fn past(&self) -> Option<Timestamp> {
        self.reads_the_past.then_some(self.snapshot)
    }

    /// `cluster_logical_timestamp()`: the transaction's snapshot, or under READ COMMITTED a new one. Whatever was
    /// acknowledged before is no later.
    ///
    /// # Errors
    /// If no timestamp can be had.
    pub async fn logical_timestamp(&mut self) -> Result<Timestamp> {
        let is_fixed = self.isolation != IsolationLevel::ReadCommitted;
        if is_fixed && self.snapshot != 0 {
            return Ok(self.snapshot);
        }
        let timestamp = self.services.timestamps.next().await.map_err(timestamp_error)?;
        if is_fixed {
            self.snapshot = timestamp;
        }
        Ok(timestamp)
    }

    /// Whether the rows that it may see of `table` are there.
    ///
    /// # Errors
    /// `72000`
    pub fn check_rows_of(&self, table: &Table) -> Result<()> {
        self.past()
            .map_or(Ok(()), |timestamp| as_of::check_rows_of(table, timestamp))
    }

    /// Starts a statement: under READ COMMITTED a new view of the data, under REPEATABLE READ the first one's.
    ///
    /// # Errors
    /// If no timestamp can be had.
    pub async fn start_statement(&mut self) -> Result<()> {
        self.take_in_locked();
        self.sequence += 1;
        if self.isolation != IsolationLevel::ReadCommitted && self.snapshot == 0 {
            self.snapshot = self.services.timestamps.next().await.map_err(timestamp_error)?;
        }
        Ok(())
    }

    /// The snapshot for a statement. A READ COMMITTED statement that looks at one row, or at none, needs none: it sees what
    /// is committed there now.
    ///
    /// # Errors
    /// If no timestamp can be had.
    pub async fn statement_snapshot(&self, is_one_row: bool) -> Result<Timestamp> {
        match self.isolation {
            IsolationLevel::ReadCommitted if is_one_row => Ok(0),
            IsolationLevel::ReadCommitted => self.services.timestamps.next().await.map_err(timestamp_error),
            _ => Ok(self.snapshot),
        }
    }

    /// The router for statements in `context`.
    pub fn router(&self, context: &StatementContext) -> Router {
        let router = self.reading_router();
        if context.transaction == 0 {
            router
        } else {
            router.within(&self.touched)
        }
    }

    /// The router for reads where it keeps nothing.
    pub fn reading_router(&self) -> Router {
        match self.recorded_reads() {
            Some(_) => self.services.router.noting(&self.read_at),
            None => self.services.router.clone(),
        }
    }

    /// Where queries note a shard before they ask it to lock rows: it is a participant then, whatever becomes of them.
    pub fn locked_by_queries(&self) -> Arc<Mutex<BTreeSet<ShardId>>> {
        self.locked.clone()
    }

    /// Makes participants of the shards where queries of the last statement may have locked rows.
    pub fn take_in_locked(&mut self) {
        let locked = std::mem::take(&mut *self.locked.lock());
        for shard in locked {
            let touched = self.touched.get(shard);
            let place = touched.map(|(epoch, node)| (ShardRef { shard, epoch }, node));
            // A shard that is nowhere was sent nothing.
            if let Some(place) = place.or_else(|| self.services.router.locate(shard)) {
                self.sent_to(shard, place);
                self.locks_rows_on(shard);
            }
        }
    }

    /// Remembers that the statement under way is sent to `shard`.
    fn sent_to(&mut self, shard: ShardId, (reference, node): (ShardRef, String)) {
        let (sequence, revocable) = (self.sequence, self.has_savepoints());
        let participant = self.participants.entry(shard).or_insert_with(|| Participant {
            reference,
            node,
            revocable: Vec::new(),
            irrevocable: 0,
            locks_rows: false,
        });
        participant.sent(sequence, revocable);
    }

    /// All participants, and where statements found them, which may not be where they were looked up before.
    fn learn_places(&mut self) {
        self.take_in_locked();
        for (shard, participant) in &mut self.participants {
            if let Some((epoch, node)) = self.touched.get(*shard) {
                participant.reference.epoch = epoch;
                participant.node = node;
            }
        }
    }

    /// The context of a read on `shard`: with the transaction's id only where it has something to see.
    pub fn read_context(&self, shard: ShardId, snapshot: Timestamp) -> StatementContext {
        let transaction = if self.participants.contains_key(&shard) {
            self.id
        } else {
            0
        };
        self.context(transaction, snapshot)
    }

    fn context(&self, transaction: TransactionId, snapshot: Timestamp) -> StatementContext {
        StatementContext {
            transaction,
            snapshot,
            fail_on_newer: self.isolation != IsolationLevel::ReadCommitted,
            sequence: self.sequence,
            transaction_time_unix_micros: self.time_unix_micros,
            lock_timeout_ms: self.lock_timeout_ms,
            autocommit: false,
            revocable: self.has_savepoints(),
            table_version: 0,
            repeated: false,
        }
    }

    /// The context of a write or lock on `shards`, which become participants.
    ///
    /// # Errors
    /// `25006` in a read-only transaction, or if no timestamp can be had.
    pub async fn write_context(
        &mut self,
        shards: &[ShardId],
        snapshot: Timestamp,
    ) -> Result<StatementContext> {
        if self.id == 0 {
            self.id = self.services.timestamps.next().await.map_err(timestamp_error)?;
            self.open = Some(self.services.heartbeats.open(self.id));
        }
        let (sequence, revocable) = (self.sequence, self.has_savepoints());
        for shard in shards {
            if let Some(participant) = self.participants.get_mut(shard) {
                participant.sent(sequence, revocable);
            } else {
                let place = self.locate(*shard).await?;
                self.sent_to(*shard, place);
            }
        }
        Ok(self.context(self.id, snapshot))
    }

    /// As [`write_context`](Self::write_context), for a statement that locks rows and may write none.
    ///
    /// # Errors
    /// The same.
    pub async fn locking_context(
        &mut self,
        shards: &[ShardId],
        snapshot: Timestamp,
    ) -> Result<StatementContext> {
        let context = self.write_context(shards, snapshot).await?;
        for shard in shards {
            self.locks_rows_on(*shard);
        }
        Ok(context)
    }

    fn locks_rows_on(&mut self, shard: ShardId) {
        if let Some(participant) = self.participants.get_mut(&shard) {
            participant.locks_rows = true;
        }
    }

    async fn locate(&self, shard: ShardId) -> Result<(ShardRef, String)> {
        let deadline = self
            .services
            .world
            .clock
            .monotonic()
            .after(Duration::from_secs(10));
        loop {
            if let Some(found) = self.services.router.locate(shard) {
                return Ok(found);
            }
            if self.services.world.clock.monotonic() >= deadline {
                return Err(SqlError::new(
                    SqlState::CONNECTION_FAILURE,
                    "a shard of the table has no data node to serve it",
                )
                .with_hint("start a data node"));
            }
            self.services
                .router
                .directory()
                .shard_map_changed(RETRY_PAUSE)
                .await;
        }
    }

    fn shards_by_node(&self) -> BTreeMap<String, Vec<ShardRef>> {
        let mut nodes: BTreeMap<String, Vec<ShardRef>> = BTreeMap::new();
        for participant in self.participants.values() {
            nodes
                .entry(participant.node.clone())
                .or_default()
                .push(participant.reference);
        }
        nodes
    }

    /// The last statement that was sent to `node`: a node that knows of fewer has lost some.
    fn last_sequence_on(&self, node: &str) -> u32 {
        let on_node = self
            .participants
            .values()
            .filter(|participant| participant.node == node);
        on_node.map(Participant::last_sequence).max().unwrap_or(0)
    }

    /// Commits. On success every write is durable and visible to whoever starts later.
    ///
    /// # Errors
    /// `40001` if a participant lost the transaction (nothing was committed); `08007` if the outcome cannot be
    /// learned.
    pub async fn commit(mut self) -> Result<()> {
        self.learn_places();
        if self.participants.is_empty() {
            return Ok(()); // a snapshot is a serial point: nothing needs validation
        }
        let nodes = self.shards_by_node();
        let (reads, reading_nodes) = self.read_set().await?;
        // Taken out so that the end of this function, however reached, ends the heartbeats.
        let open = self.open.take();
        let reads_elsewhere = reading_nodes.iter().any(|node| !nodes.contains_key(node));
        if nodes.len() == 1 && !reads_elsewhere {
            self.commit_local(nodes, reads, open).await
        } else {
            self.commit_two_phase(nodes, &reads).await
        }
    }

    /// Whether one frame of a node's log does not commit all shards: it is atomic only on that node, other copies get it
    /// shard by shard.
    fn is_staged(&self) -> bool {
        let directory = self.services.router.directory();
        let is_replicated = |shard: &ShardId| directory.is_replicated(*shard);
        self.participants.len() > 1 && self.participants.keys().any(is_replicated)
    }

    /// What was read, and the nodes where it was.
    async fn read_set(&self) -> Result<(ReadSetMessage, BTreeSet<String>)> {
        let mut message = ReadSetMessage {
            snapshot: self.snapshot,
            shards: Vec::new(),
        };
        let mut nodes = BTreeSet::new();
        let shards = self.reads.lock().shards();
        for shard in shards {
            let (reference, node) = match self.read_at.get(shard) {
                Some((epoch, node)) => (ShardRef { shard, epoch }, node),
                // Recorded, and then not read.
                None => self.locate(shard).await?,
            };
            nodes.insert(node);
            message.shards.push(ShardReads {
                shard: reference,
                tables: self.reads.lock().of_shard(shard),
            });
        }
        Ok((message, nodes))
    }

    /// Whether nothing that was read changes up to `commit_timestamp`, which was drawn before. It is the primaries of the
    /// terms in which it was read who are asked.
    ///
    /// # Errors
    /// `40001`, or a shard cannot be asked.
    async fn validate(&self, reads: &ReadSetMessage, commit_timestamp: Timestamp) -> Result<()> {
        let parts = reads
            .shards
            .iter()
            .map(|part| (part.shard.shard, &part.tables[..]));
        self.ask_primaries(&self.read_at, parts, reads.snapshot, commit_timestamp)
            .await
    }

    /// Whether rows that were only locked are still held, now that `commit_timestamp` has been drawn: whoever locks them next
    /// then sees this commit. Nothing is logged of such locks, so they end with the term in which they were obtained.
    async fn check_row_locks(&self, commit_timestamp: Timestamp) -> Result<()> {
        if planted("row-locks-not-checked") {
            return Ok(());
        }
        let participants = self.participants.iter();
        let parts = participants
            .filter(|(_, participant)| participant.locks_rows)
            .map(|(shard, _)| {
                neorunbase_world::sometimes!("row-locks-checked-at-commit");
                (*shard, &[][..])
            });
        // Of an instant nothing has to be the same but the primary.
        self.ask_primaries(&self.touched, parts, commit_timestamp, commit_timestamp)
            .await
    }

    /// Asks the primaries of the terms in `terms`, if they still are, to [`Validate`] what was read of their shards.
    async fn ask_primaries<'a>(
        &self,
        terms: &TouchedShards,
        parts: impl Iterator<Item = (ShardId, &'a [TableReads])>,
        snapshot: Timestamp,
        commit_timestamp: Timestamp,
    ) -> Result<()> {
        let router = &self.services.router.within(terms);
        let calls = parts.map(|(shard, tables)| {
            let build = move |shard| {
                RequestBody::Validate(Validate {
                    transaction: self.id,
                    commit_timestamp,
                    reads: ReadSetMessage {
                        snapshot,
                        shards: vec![ShardReads {
                            shard,
                            tables: tables.to_vec(),
                        }],
                    },
                })
            };
            router.call_repeatable(shard, build)
        });
        try_join_all(calls)
            .await
            .map(|_| ())
            .map_err(RouteError::into_statement_error)
    }

    /// Commits in one round. If the answer is lost the node is asked again: it commits once, and answers as it did before.
    /// In another term it can only be asked what became of it.
    async fn commit_local(
        &self,
        nodes: BTreeMap<String, Vec<ShardRef>>,
        reads: ReadSetMessage,
        open: Option<OpenTransaction>,
    ) -> Result<()> {
        let Some((node, shards)) = nodes.into_iter().next() else {
            return Ok(());
        };
        let anchor = shards[0];
        let is_staged = self.is_staged();
        let request = RequestBody::CommitLocal(CommitLocal {
            transaction: self.id,
            shards: shards.clone(),
            last_sequence: self.last_sequence_on(&node),
            reads: (!reads.shards.is_empty()).then_some(reads),
            anchor: is_staged.then_some(anchor.shard),
        });
        let asked = self.services.world.clock.monotonic();
        let router = self.services.router.within(&self.touched);
        let sent = router.call_again(anchor.shard, |_, repeated| {
            if repeated {
                neorunbase_world::sometimes!("commit-asked-for-again");
            }
            request.clone()
        });
        let error = match sent.await {
            // As if this process had died: the anchor keeps the decision for long enough.
            Ok(_) if is_staged && buggify("second phase left out") => return Ok(()),
            Ok(ResponseBody::Written(written)) if is_staged && written.commit_timestamp != 0 => {
                // Nobody will ask for it.
                let nodes = BTreeMap::from([(node, shards)]);
                self.finish_in_background(nodes, anchor, written.commit_timestamp, false);
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(Unanswered {
                error,
                was_repeated: true,
            }) => error,
            Err(Unanswered {
                error: error @ RouteError::OutcomeUnknown,
                ..
            }) => error,
            Err(Unanswered { error, .. }) => {
                // Whatever is still there is not to be kept locked until it is missed.
                self.roll_back_in_background(BTreeMap::from([(node, shards)]));
                return Err(error.into_statement_error());
            }
        };
        // If no request has arrived there will be no outcome while the node is told that the transaction is alive.
        drop(open);
        let outcome = self.outcome_after(anchor, !is_staged, error).await;
        if is_staged {
            outcome.map_err(|error| self.unless_forgotten(asked, error))
        } else {
            outcome
        }
    }

    /// What to say of a commit that was asked for since `asked` and failed with `error`: its decision may be forgotten by now.
    fn unless_forgotten(&self, asked: MonotonicTime, error: Box<SqlError>) -> Box<SqlError> {
        if self.services.world.clock.monotonic().since(asked) > ABORT_BELIEVED_FOR {
            outcome_unknown()
        } else {
            error
        }
    }

    async fn commit_two_phase(
        &self,
        nodes: BTreeMap<String, Vec<ShardRef>>,
        reads: &ReadSetMessage,
    ) -> Result<()> {
        let participants: Vec<ShardId> = self.participants.keys().copied().collect();
        let Some(anchor) = self
            .participants
            .values()
            .next()
            .map(|participant| participant.reference)
        else {
            return Ok(());
        };
        let validates_early = planted("read-set-released-before-decision");
        if validates_early && let Err(error) = self.validate(reads, Timestamp::MAX).await {
            self.finish_in_background(nodes, anchor, 0, true);
            return Err(error);
        }
        let prepares = nodes.iter().map(|(node, shards)| {
            let request = RequestBody::Prepare(Prepare {
                transaction: self.id,
                shards: shards.clone(),
                anchor: anchor.shard,
                participants: participants.clone(),
                last_sequence: self.last_sequence_on(node),
            });
            let first = shards[0].shard;
            async move { self.services.router.call(first, |_| request.clone()).await }
        });
        for outcome in join_all(prepares).await {
            if let Err(error) = outcome {
                // Nobody has been told to commit, so abort is safe whatever happened to that PREPARE.
                self.finish_in_background(nodes, anchor, 0, true);
                return Err(error.into_statement_error());
            }
        }
        let clock = &*self.services.world.clock;
        dawdle(clock, "decided late", Duration::from_millis(500)).await;
        let commit_timestamp = match self.services.timestamps.next().await {
            Ok(timestamp) => timestamp,
            Err(error) => {
                self.finish_in_background(nodes, anchor, 0, true);
                return Err(timestamp_error(error));
            }
        };
        // Every write is marked and the timestamp is drawn: from here on nobody's write can come in between.
        let checks = async {
            if !validates_early {
                self.validate(reads, commit_timestamp).await?;
            }
            self.check_row_locks(commit_timestamp).await
        };
        if let Err(error) = checks.await {
            self.finish_in_background(nodes, anchor, 0, true);
            return Err(error);
        }
        let decide = RequestBody::Decide(Decide {
            transaction: self.id,
            anchor,
            commit_timestamp,
        });
        let asked = clock.monotonic();
        // Deciding again gives the first answer, so a lost one is simply asked for again.
        let committed = match self
            .services
            .router
            .call_repeatable(anchor.shard, |_| decide.clone())
            .await
        {
            Ok(ResponseBody::Decision(reply)) => match reply.decision() {
                Decision::Committed => Ok(()),
                _ => Err(aborted()),
            },
            Ok(_) => Ok(()),
            Err(error @ RouteError::UnknownTransaction) => Err(error.into_statement_error()),
            Err(RouteError::Sql(error)) if planted("refused-decision-believed") => Err(error),
            // A node that has failed, or whose copy is damaged, says nothing of what it did when it was asked before.
            Err(error) => self.outcome_after(anchor, false, error).await,
        };
        let committed = committed.map_err(|error| self.unless_forgotten(asked, error));
        match &committed {
            // As if this process had died: participants ask the anchor.
            Ok(()) if buggify("second phase left out") => {}
            Ok(()) => self.finish_in_background(nodes, anchor, commit_timestamp, false),
            // In doubt: participants ask the anchor themselves.
            Err(error) if error.state == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {}
            // The anchor has refused: it decided to abort, or never will commit this transaction.
            Err(_) => self.finish_in_background(nodes, anchor, 0, true),
        }
        committed
    }

    /// Second phase. The anchor goes last and may then forget the decision.
    fn finish_in_background(
        &self,
        nodes: BTreeMap<String, Vec<ShardRef>>,
        anchor: ShardRef,
        commit_timestamp: Timestamp,
        decide_first: bool,
    ) {
        let (services, transaction) = (self.services.clone(), self.id);
        let task = async move {
            if decide_first {
                let abort = RequestBody::Decide(Decide {
                    transaction,
                    anchor,
                    commit_timestamp: 0,
                });
                if services
                    .router
                    .call(anchor.shard, |_| abort.clone())
                    .await
                    .is_err()
                {
                    return; // Participants ask the anchor when they are tired of waiting.
                }
            }
            let finishes = nodes
                .values()
                .filter(|shards| !shards.contains(&anchor))
                .map(|shards| {
                    let request = finish(transaction, shards, commit_timestamp, false);
                    let services = &services;
                    async move {
                        services
                            .router
                            .call_repeatable(shards[0].shard, |_| request.clone())
                            .await
                            .is_ok()
                    }
                });
            let mut all_finished = join_all(finishes).await.into_iter().all(|finished| finished);
            all_finished |= planted("decision-forgotten-early");
            if let Some(shards) = nodes.values().find(|shards| shards.contains(&anchor)) {
                let request = finish(transaction, shards, commit_timestamp, all_finished);
                if let Err(error) = services
                    .router
                    .call_repeatable(anchor.shard, |_| request.clone())
                    .await
                {
                    tracing::debug!(transaction, ?error, "anchor keeps a decision for recovery");
                }
            }
        };
        self.services.world.spawner.spawn("second phase", Box::pin(task));
    }

    /// What to say of a statement that was to commit at once on `shard`, was sent more than once, and met `error` at last: not
    /// all that can be wrong with it is looked at after whether it was carried out before.
    pub async fn outcome_of_lost_statement(&self, shard: ShardId, error: RouteError) -> Box<SqlError> {
        let Some(participant) = self.participants.get(&shard) else {
            return SqlError::internal("a statement has no participant");
        };
        match self.outcome_after(participant.reference, true, error).await {
            Ok(()) => SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "the statement has committed, but its result was lost",
            ),
            Err(error) => error,
        }
    }

    /// What became of a commit that met `error` at last, which tells why if it was aborted.
    async fn outcome_after(&self, anchor: ShardRef, one_round: bool, error: RouteError) -> Result<()> {
        match (self.learn_outcome(anchor, one_round).await, error) {
            (Ok(()), _) => Ok(()),
            (Err(unknown), _) if unknown.state == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => Err(unknown),
            (Err(aborted), RouteError::OutcomeUnknown) => Err(aborted),
            (Err(_), error) => Err(error.into_statement_error()),
        }
    }

    /// Rolls back what was sent to be committed at once and met `error`, a cancellation. What to say of it: that it was
    /// cancelled only if it was.
    pub async fn cancel_commit(mut self, error: Box<SqlError>) -> Box<SqlError> {
        self.learn_places();
        let Some(anchor) = self.participants.values().next() else {
            return error;
        };
        let anchor = anchor.reference;
        let _open = self.open.take();
        let request = finish(self.id, &[anchor], 0, true);
        let router = &self.services.router;
        if let Err(error) = router.call(anchor.shard, |_| request.clone()).await {
            tracing::debug!(?error, "too late to cancel a statement, or nobody to tell");
        }
        match self.learn_outcome(anchor, true).await {
            Ok(()) => SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "the statement had committed before it was canceled, and its result is lost",
            ),
            Err(unknown) if unknown.state == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => unknown,
            Err(_) => error,
        }
    }

    /// Asks the anchor until it knows.
    async fn learn_outcome(&self, anchor: ShardRef, one_round: bool) -> Result<()> {
        neorunbase_world::sometimes!("outcome-of-a-commit-asked-for");
        let clock = &*self.services.world.clock;
        let deadline = clock.monotonic().after(RESOLUTION_LIMIT);
        while clock.monotonic() < deadline {
            let request = RequestBody::QueryDecision(QueryDecision {
                transaction: self.id,
                anchor,
                abort_if_abandoned: true,
                one_round,
            });
            if let Ok(ResponseBody::Decision(reply)) = self
                .services
                .router
                .call_repeatable(anchor.shard, |_| request.clone())
                .await
            {
                match reply.decision() {
                    Decision::Committed => return Ok(()),
                    Decision::Aborted => return Err(aborted()),
                    Decision::Unknown => break,
                    Decision::Pending => {}
                }
            }
            clock.sleep(RETRY_PAUSE).await;
        }
        Err(outcome_unknown())
    }

    fn discard(&mut self) {
        self.learn_places();
        if self.participants.is_empty() {
            return;
        }
        let nodes = self.shards_by_node();
        self.participants.clear();
        self.open = None;
        self.roll_back_in_background(nodes);
    }

    fn roll_back_in_background(&self, nodes: BTreeMap<String, Vec<ShardRef>>) {
        let (services, transaction) = (self.services.clone(), self.id);
        let task = async move {
            let finishes = nodes.values().map(|shards| {
                let request = finish(transaction, shards, 0, true);
                let services = &services;
                async move {
                    if let Err(error) = services
                        .router
                        .call_repeatable(shards[0].shard, |_| request.clone())
                        .await
                    {
                        tracing::debug!(transaction, ?error, "a node will notice the rollback by itself");
                    }
                }
            });
            join_all(finishes).await;
        };
        self.services.world.spawner.spawn("rollback", Box::pin(task));
    }

    /// Rolls back and returns when the nodes have released its locks (or cannot be reached; they would find out by
    /// themselves).
    pub async fn rollback_and_wait(mut self) {
        self.learn_places();
        let nodes = self.shards_by_node();
        self.participants.clear();
        let _open = self.open.take();
        let finishes = nodes.values().map(|shards| {
            let request = finish(self.id, shards, 0, true);
            let router = &self.services.router;
            async move {
                if let Err(error) = router.call(shards[0].shard, |_| request.clone()).await {
                    tracing::debug!(?error, "a node will notice the rollback by itself");
                }
            }
        });
        join_all(finishes).await;
    }
}

impl Drop for Transaction {
    /// A session that vanishes in mid-statement (its task was dropped) must not leave locks behind.
    fn drop(&mut self) {
        // After `commit` the nodes must not be told anything: `open` was taken there.
        if self.open.is_some() {
            self.discard();
        }
    }
}

fn finish(
    transaction: TransactionId,
    shards: &[ShardRef],
    commit_timestamp: Timestamp,
    forget: bool,
) -> RequestBody {
    RequestBody::Finish(Finish {
        transaction,
        shards: shards.to_vec(),
        commit_timestamp,
        forget_decision: forget,
    })
}

fn outcome_unknown() -> Box<SqlError> {
    SqlError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the outcome of the transaction cannot be learned: it may or may not have been committed",
    )
}

fn aborted() -> Box<SqlError> {
    SqlError::new(
        SqlState::SERIALIZATION_FAILURE,
        "transaction was aborted while it was being committed",
    )
    .with_hint("the transaction might succeed if retried")
}
