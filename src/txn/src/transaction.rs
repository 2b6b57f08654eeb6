//! One transaction on one node, from its first statement to its outcome.
//!
//! ```text
//! Active ──► Committing ──────────────────► Committed
//!   │  └───► Preparing ──► Prepared ──► Deciding ──► Committed | Aborted
//!   │  └───► Staging ─────┘ │ (a staged commit)
//!   └──────► (closing) ──► Aborted
//! ```
//! A transaction that was ending when its shards got another primary is *lost* here: that primary knows its outcome.
//!
//! Whoever moves a transaction out of a state does so under one lock, so each step is taken by exactly one of the
//! requests that race for it; the others wait for the outcome and report that.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neorunbase_protocol::message::{ShardId, Timestamp, TransactionId};
use neorunbase_world::MonotonicTime;
use neorunbase_world::fault::planted;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lock_table::LockKey;
use crate::outcomes::Outcome;
use crate::write_set::WriteSet;

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Statements run; nothing is durable.
    Active,
    /// One-round commit under way: its timestamp is being drawn or its log frame written.
    Committing,
    /// Its prepare record is being written.
    Preparing,
    /// Staged commit under way: its timestamp is being drawn or its prepare records written.
    Staging,
    /// Durable and undecided.
    Prepared,
    /// The outcome is known and being written.
    Deciding,
    /// Ended.
    Ended(Outcome),
    /// This node is no longer primary of its shards, and does not know how it ends.
    Lost,
}

/// The transaction is [lost](Phase::Lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The two-phase commit that a prepared transaction is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participation {
    /// The shard that holds the decision.
    pub anchor: ShardId,
    /// All shards that take part.
    pub participants: Vec<ShardId>,
    /// Whether the anchor's part is in this very transaction here, so that it decides.
    pub decides: bool,
    /// Whether it is a staged commit: it has its commit timestamp already, and is committed as soon as all participants
    /// are prepared.
    pub is_staged: bool,
}

struct State {
    phase: Phase,
    /// No further statement may begin; running ones are to give up.
    closing: bool,
    /// It can only be rolled back.
    doomed: bool,
    last_sequence: u32,
    /// Statements below this number were taken back: none of them may begin, running ones are to give up.
    revoked_below: u32,
    /// The last [`revoke`](Transaction::revoke) that was carried out.
    revoked: u32,
    /// Numbers of running statements, and how many requests of each run.
    running_sequences: BTreeMap<u32, usize>,
    participation: Arc<Participation>,
}

/// A transaction on this node.
pub struct Transaction<Table> {
    id: TransactionId,
    state: Mutex<State>,
    changed: Notify,
    commit_timestamp: AtomicU64,
    last_heard: AtomicU64,
    /// What it has written. Locked for moments only.
    pub writes: Mutex<WriteSet<Table>>,
    /// In the order in which they were first asked for, with the number of the statement.
    locks: Mutex<Vec<(u32, LockKey)>>,
}

impl<Table> Transaction<Table> {
    /// A new, active transaction, heard of at `now`.
    pub fn new(id: TransactionId, now: MonotonicTime) -> Self {
        Self::in_phase(id, now, Phase::Active, Participation::default())
    }

    /// A transaction found prepared in the log after a restart.
    pub fn recovered(id: TransactionId, now: MonotonicTime, participation: Participation) -> Self {
        Self::in_phase(id, now, Phase::Prepared, participation)
    }

    fn in_phase(id: TransactionId, now: MonotonicTime, phase: Phase, participation: Participation) -> Self {
        let state = State {
            phase,
            closing: false,
            doomed: false,
            last_sequence: 0,
            revoked_below: 0,
            revoked: 0,
            running_sequences: BTreeMap::new(),
            participation: Arc::new(participation),
        };
        Self {
            id,
            state: Mutex::new(state),
            changed: Notify::new(),
            commit_timestamp: AtomicU64::new(0),
            last_heard: AtomicU64::new(now.0),
            writes: Mutex::new(WriteSet::default()),
            locks: Mutex::new(Vec::new()),
        }
    }

    /// Its id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Where it stands now.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// The two-phase commit it is part of (empty before prepare).
    pub fn participation(&self) -> Arc<Participation> {
        self.state.lock().participation.clone()
    }

    /// The highest statement number that began here.
    pub fn last_sequence(&self) -> u32 {
        self.state.lock().last_sequence
    }

    /// The timestamp at which it commits or has committed; 0 while unknown.
    pub fn commit_timestamp(&self) -> Timestamp {
        self.commit_timestamp.load(Ordering::SeqCst)
    }

    /// Whether a statement runs now.
    pub fn is_running(&self) -> bool {
        !self.state.lock().running_sequences.is_empty()
    }

    /// It is staging, and these are the shards that it has written in.
    pub fn takes_part_in(&self, participants: Vec<ShardId>) {
        let mut state = self.state.lock();
        Arc::make_mut(&mut state.participation).participants = participants;
    }

    /// Makes the drawn timestamp known: readers of older snapshots need not wait any more.
    pub fn set_commit_timestamp(&self, timestamp: Timestamp) {
        self.commit_timestamp.store(timestamp, Ordering::SeqCst);
    }

    /// Its Coordinator was heard of.
    pub fn heard(&self, now: MonotonicTime) {
        self.last_heard.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When its Coordinator was last heard of.
    pub fn last_heard(&self) -> MonotonicTime {
        MonotonicTime(self.last_heard.load(Ordering::Relaxed))
    }

    /// Remembers a key before statement `sequence` asks for its lock.
    pub fn remember_lock(&self, sequence: u32, key: LockKey) {
        self.locks.lock().push((sequence, key));
    }

    /// Takes all remembered keys, to release them.
    pub fn take_locks(&self) -> Vec<LockKey> {
        let locks = std::mem::take(&mut *self.locks.lock());
        locks.into_iter().map(|(_, key)| key).collect()
    }

    /// Takes the remembered keys of one shard, to release them.
    pub fn take_locks_of(&self, shard: ShardId) -> Vec<LockKey> {
        let mut locks = self.locks.lock();
        let (taken, kept) = std::mem::take(&mut *locks)
            .into_iter()
            .partition(|(_, key)| key.shard == shard);
        *locks = kept;
        let taken: Vec<(u32, LockKey)> = taken;
        taken.into_iter().map(|(_, key)| key).collect()
    }

    /// Takes the keys that only statements above `sequence` asked for, to release them.
    fn take_locks_after(&self, sequence: u32) -> Vec<LockKey> {
        let mut locks = self.locks.lock();
        let (kept, taken): (Vec<_>, Vec<_>) = std::mem::take(&mut *locks)
            .into_iter()
            .partition(|(statement, _)| *statement <= sequence);
        let kept_keys: BTreeSet<&LockKey> = kept.iter().map(|(_, key)| key).collect();
        let taken = taken
            .into_iter()
            .map(|(_, key)| key)
            .filter(|key| !kept_keys.contains(key))
            .collect();
        *locks = kept;
        taken
    }

    /// Takes back what statements above `kept_sequence` and below `sequence` did, once none of them runs any more; none
    /// of them can begin from now on. Returns the keys whose locks are to be released.
    ///
    /// # Errors
    /// The phase, if the transaction is no longer active.
    pub async fn revoke(&self, kept_sequence: u32, sequence: u32) -> Result<Vec<LockKey>, Phase> {
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Active || state.closing {
                return Err(state.phase);
            }
            state.revoked_below = state.revoked_below.max(sequence);
            state.last_sequence = state.last_sequence.max(sequence);
        }
        self.changed.notify_waiters();
        let is_quiet = |state: &State| state.running_sequences.range(..sequence).next().is_none();
        self.wait_until(|state| is_quiet(state) || state.closing).await;
        let mut state = self.state.lock();
        if state.phase != Phase::Active || state.closing {
            return Err(state.phase);
        }
        // The same request once more, maybe a late one: what was done since stays.
        if sequence <= state.revoked {
            return Ok(Vec::new());
        }
        neorunbase_world::sometimes!("savepoint-rolled-back");
        state.revoked = sequence;
        if !planted("savepoint-keeps-writes") {
            self.writes.lock().revoke_after(kept_sequence);
        }
        if planted("savepoint-keeps-locks") {
            return Ok(Vec::new());
        }
        if planted("savepoint-frees-all-locks") {
            return Ok(self.take_locks());
        }
        Ok(self.take_locks_after(kept_sequence))
    }

    /// Whether it is prepared, and its outcome is decided by a part of it that is not in here.
    pub fn is_decided_elsewhere(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::Prepared && !state.participation.decides
    }

    /// The anchor is another node's now.
    pub fn decides_no_more(&self) {
        let mut state = self.state.lock();
        Arc::make_mut(&mut state.participation).decides = false;
    }

    /// Whether it has written or locked anything in `shard`.
    pub fn touches(&self, shard: ShardId) -> bool {
        self.writes.lock().shard(shard).is_some()
            || self.locks.lock().iter().any(|(_, key)| key.shard == shard)
    }

    /// Whether any lock was asked for.
    pub fn has_locks(&self) -> bool {
        !self.locks.lock().is_empty()
    }

    /// Begins a statement; the transaction cannot end while the guard lives.
    ///
    /// # Errors
    /// The phase, if no statement can begin any more.
    pub fn begin_statement(
        self: &Arc<Self>,
        sequence: u32,
        now: MonotonicTime,
    ) -> Result<StatementGuard<Table>, Phase> {
        self.heard(now);
        let mut state = self.state.lock();
        if state.phase != Phase::Active || state.closing || sequence < state.revoked_below {
            return Err(state.phase);
        }
        *state.running_sequences.entry(sequence).or_default() += 1;
        state.last_sequence = state.last_sequence.max(sequence);
        Ok(StatementGuard {
            transaction: self.clone(),
            sequence,
        })
    }

    /// Completes once statement `sequence` is to give up.
    pub async fn closing(&self, sequence: u32) {
        self.wait_until(|state| {
            (state.closing || sequence < state.revoked_below) && state.phase == Phase::Active
                || is_ended(state)
        })
        .await;
    }

    /// Something of it is lost, so that it can only be rolled back from now on. (No effect once it is ending.)
    pub fn doom(&self) {
        self.state.lock().doomed = true;
        self.close();
    }

    /// Tells running statements to give up, for good.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_waiters();
    }

    /// Active → `next`, once no statement runs. `Ok(false)`: another request was first, wait for the outcome.
    async fn leave_active(&self, next: Phase, participation: Option<Participation>) -> bool {
        // Statements that still run were given up by their sender; nobody reads their result.
        self.close();
        self.wait_until(|state| state.running_sequences.is_empty() || state.phase != Phase::Active)
            .await;
        let mut state = self.state.lock();
        let is_rolled_back = next == Phase::Deciding;
        if state.phase != Phase::Active || state.doomed && !is_rolled_back {
            return false;
        }
        state.phase = next;
        if let Some(participation) = participation {
            state.participation = Arc::new(participation);
        }
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Active → Committing. `false`: it has left Active already.
    pub async fn begin_commit(&self) -> bool {
        self.leave_active(Phase::Committing, None).await
    }

    /// Active → Preparing. `false`: it has left Active already.
    pub async fn begin_prepare(&self, participation: Participation) -> bool {
        self.leave_active(Phase::Preparing, Some(participation)).await
    }

    /// Active → Staging. `false`: it has left Active already.
    pub async fn begin_staging(&self, participation: Participation) -> bool {
        self.leave_active(Phase::Staging, Some(participation)).await
    }

    /// Active → Deciding, to be rolled back. `false`: it has left Active already.
    pub async fn begin_abort(&self) -> bool {
        self.leave_active(Phase::Deciding, None).await
    }

    /// Prepared → Deciding. Returns the two-phase commit that it is part of at that moment: whether its outcome is the anchor's
    /// decision, or was decided elsewhere. `None`: it is not prepared, or another request was first.
    pub fn begin_decide(&self) -> Option<Arc<Participation>> {
        self.begin_decide_if(|_| true)
    }

    /// As [`begin_decide`](Self::begin_decide), of what the anchor's part is in, and else nothing.
    pub fn begin_decide_as_anchor(&self) -> Option<Arc<Participation>> {
        self.begin_decide_if(|participation| participation.decides || planted("decided-without-the-anchor"))
    }

    fn begin_decide_if(&self, may: impl FnOnce(&Participation) -> bool) -> Option<Arc<Participation>> {
        let mut state = self.state.lock();
        (state.phase == Phase::Prepared && may(&state.participation)).then(|| {
            state.phase = Phase::Deciding;
            state.participation.clone()
        })
    }

    /// Deciding → Prepared: what was being decided is decided elsewhere now.
    pub fn reopen(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Deciding {
            state.phase = Phase::Prepared;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Preparing or Staging → Prepared, once the records are durable.
    pub fn prepared(&self) {
        let mut state = self.state.lock();
        debug_assert!(
            is_being_prepared(&state),
            "only a preparing transaction becomes prepared"
        );
        state.phase = Phase::Prepared;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends the transaction and wakes everybody who waits for it.
    pub fn end(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        debug_assert!(!is_ended(&state), "a transaction ends once");
        state.phase = Phase::Ended(outcome);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends it without an outcome: [`Phase::Lost`].
    pub fn lose(&self) {
        let mut state = self.state.lock();
        debug_assert!(!is_ended(&state), "a transaction ends once");
        state.phase = Phase::Lost;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The outcome, once there is one.
    ///
    /// # Errors
    /// [`Lost`]: another node knows.
    pub async fn ended(&self) -> Result<Outcome, Lost> {
        self.wait_until(is_ended).await;
        match self.phase() {
            Phase::Ended(outcome) => Ok(outcome),
            _ => Err(Lost),
        }
    }

    /// Waits until a prepare that is being written is durable (or the transaction has ended).
    pub async fn prepare_written(&self) -> Phase {
        self.wait_until(|state| !is_being_prepared(state)).await;
        self.phase()
    }

    /// Waits until a reader that must not look past an undecided commit may read: ended, or its timestamp is known
    /// to be above `snapshot`.
    pub async fn readable_at(&self, snapshot: Timestamp) {
        self.wait_until(|state| is_ended(state) || (snapshot != 0 && self.commit_timestamp() > snapshot))
            .await;
    }

    /// Wakes readers in [`readable_at`](Self::readable_at) to look at the timestamp again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    async fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, or a change in between would be missed.
            changed.as_mut().enable();
            if condition(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

fn is_being_prepared(state: &State) -> bool {
    matches!(state.phase, Phase::Preparing | Phase::Staging)
}

fn is_ended(state: &State) -> bool {
    matches!(state.phase, Phase::Ended(_) | Phase::Lost)
}

/// A running statement.
pub struct StatementGuard<Table> {
    transaction: Arc<Transaction<Table>>,
    sequence: u32,
}

impl<Table> Drop for StatementGuard<Table> {
    fn drop(&mut self) {
        let mut state = self.transaction.state.lock();
        if let Entry::Occupied(mut running) = state.running_sequences.entry(self.sequence) {
            *running.get_mut() -= 1;
            if *running.get() == 0 {
                running.remove();
            }
        }
        let awaited =
            state.closing && state.running_sequences.is_empty() || self.sequence < state.revoked_below;
        drop(state);
        if awaited {
            self.transaction.changed.notify_waiters();
        }
    }
}
