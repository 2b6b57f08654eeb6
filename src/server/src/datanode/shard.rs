//! One shard of this node: its store, the term it is served in, and the writes that readers must wait for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use neorunbase_protocol::message::{ShardId, StorageId, Timestamp, TransactionId};
use neorunbase_replication::LogPosition;
use neorunbase_storage::StorageError;
use neorunbase_storage::descriptor::{IndexDescriptor, TableDescriptor};
use neorunbase_storage::shard::{RowChange, ShardStore};
use neorunbase_txn::Phase;
use neorunbase_txn::write_set::ShardWrites;
use neorunbase_world::fault::planted;
use neorunbase_world::{Clock, MonotonicTime};
use parking_lot::{Mutex, RwLock};

use super::Participant;
use super::fence::{FENCE_PREFIX, Fences};
use super::table::StoredTable;

const TABLE_PREFIX: &[u8] = b"table/";
/// System keys of the anchor's decisions: this, then the transaction in eight bytes.
pub const DECISION_PREFIX: &[u8] = b"decision/";

/// System keys of prepare records that came with a copy of the shard: this, then the transaction in eight bytes.
pub const PREPARED_PREFIX: &[u8] = b"prepared/";

/// The last entry of the shard's log that the engine holds: term and sequence, eight bytes each.
const POSITION_KEY: &[u8] = b"log position";

fn encode_position(position: LogPosition) -> Bytes {
    [position.term.to_be_bytes(), position.sequence.to_be_bytes()]
        .concat()
        .into()
}

fn decode_position(encoded: &[u8]) -> Option<LogPosition> {
    let (term, sequence) = encoded.split_first_chunk::<8>()?;
    Some(LogPosition {
        term: u64::from_be_bytes(*term),
        sequence: u64::from_be_bytes(sequence.try_into().ok()?),
    })
}

/// Where the engine of a shard lives.
pub fn engine_path(shard: ShardId) -> String {
    format!("shards/{shard:016x}")
}

/// The system key of a decision.
pub fn decision_key(transaction: TransactionId) -> Bytes {
    [DECISION_PREFIX, &transaction.to_be_bytes()].concat().into()
}

/// The system key of a prepare record that is not in this node's log.
pub fn prepared_key(transaction: TransactionId) -> Bytes {
    [PREPARED_PREFIX, &transaction.to_be_bytes()].concat().into()
}

fn table_key(digest: u64) -> Bytes {
    [TABLE_PREFIX, &digest.to_be_bytes()].concat().into()
}

/// A request that may leave something in a shard.
pub struct Entered(Arc<Shard>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.entered.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A shard.
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// Its rows.
    pub store: ShardStore,
    /// The last entry of the shard's log that the engine holds.
    applied: Mutex<LogPosition>,
    term: AtomicU64,
    serving: AtomicBool,
    /// Frames under way that are atomic only while the shard has no other copy.
    alone_frames: AtomicUsize,
    /// Whether new transactions are sent away.
    is_closed: AtomicBool,
    /// Requests under way that may leave something in the shard.
    entered: AtomicUsize,
    /// Requests that were served here as primary.
    operations: AtomicU64,
    /// Until when (monotonic nanoseconds) no other node can have become primary.
    lease_until: AtomicU64,
    /// Held shared while a read takes its view, exclusively while a commit is applied: a read of several keys sees
    /// all of a commit or nothing. Never held across an await.
    pub visibility: RwLock<()>,
    in_doubt: Mutex<InDoubt>,
    /// Length of `in_doubt`: nearly always zero, and then reads need not take its lock.
    in_doubt_keys: AtomicUsize,
    tables: RwLock<Tables>,
    /// Versions of tables that are refused.
    pub fences: Fences,
    /// Why the shard must not be used (damaged log or files).
    pub damage: Mutex<Option<String>>,
}

#[derive(Default)]
struct InDoubt {
    storages: BTreeMap<StorageId, BTreeMap<Bytes, Arc<Participant>>>,
    keys: usize,
}

#[derive(Default)]
struct Tables {
    /// Descriptors that the shard's system keyspace holds.
    stored: BTreeMap<u64, Arc<StoredTable>>,
    /// The newest descriptor of each index.
    indexes: BTreeMap<StorageId, IndexDescriptor>,
}

impl Tables {
    fn learn_indexes(&mut self, table: &TableDescriptor) {
        for index in &table.indexes {
            self.indexes.entry(index.storage).or_insert_with(|| index.clone());
        }
    }
}

impl Shard {
    /// A shard over an open store, not yet served; `term` is the highest that this node has begun.
    ///
    /// # Errors
    /// If what the store holds about tables cannot be read.
    pub fn new(id: ShardId, store: ShardStore, term: u64) -> Result<Self, StorageError> {
        let mut tables = Tables::default();
        for (key, value) in store.system_scan(TABLE_PREFIX)? {
            let digest = key
                .get(TABLE_PREFIX.len()..)
                .and_then(|digest| digest.try_into().ok())
                .map(u64::from_be_bytes)
                .ok_or(StorageError::Malformed { what: "system key" })?;
            let table = StoredTable::decode(digest, value).map_err(|_| StorageError::Malformed {
                what: "table descriptor",
            })?;
            tables.learn_indexes(&table.descriptor);
            tables.stored.insert(digest, Arc::new(table));
        }
        let fences = Fences::default();
        for (key, value) in store.system_scan(FENCE_PREFIX)? {
            let malformed = StorageError::Malformed { what: "table fence" };
            fences.restore(&key, &value).ok_or(malformed)?;
        }
        let mut applied = match store.system_get(POSITION_KEY)? {
            None => LogPosition::default(),
            Some(encoded) => {
                decode_position(&encoded).ok_or(StorageError::Malformed { what: "log position" })?
            }
        };
        if planted("checkpoint-without-its-term") {
            applied.term = term;
        }
        Ok(Self {
            id,
            store,
            applied: Mutex::new(applied),
            term: AtomicU64::new(term),
            serving: AtomicBool::new(false),
            alone_frames: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            entered: AtomicUsize::new(0),
            operations: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            visibility: RwLock::new(()),
            in_doubt: Mutex::new(InDoubt::default()),
            in_doubt_keys: AtomicUsize::new(0),
            tables: RwLock::new(tables),
            fences,
            damage: Mutex::new(None),
        })
    }

    /// The highest term that this node has begun as primary.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    /// Notes that a request is served.
    pub fn count_operation(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were served since the node started.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// The term in which the shard is served now.
    pub fn serving(&self) -> Option<u64> {
        self.serving.load(Ordering::SeqCst).then(|| self.term())
    }

    /// Records made from now on are of `term`, which is durable as begun.
    pub fn begin_term(&self, term: u64) {
        self.term.fetch_max(term, Ordering::SeqCst);
    }

    /// Begins to serve in the term that was begun last.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::SeqCst);
    }

    /// Serves no more.
    pub fn stop(&self) {
        self.serving.store(false, Ordering::SeqCst);
        self.lease(None);
    }

    /// Until when this node can be sure to be the shard's only primary.
    pub fn lease(&self, until: Option<MonotonicTime>) {
        let until = until.unwrap_or(MonotonicTime(0));
        self.lease_until.store(until.0, Ordering::SeqCst);
    }

    /// Begins (or ends) a frame that is atomic only while the shard has no other copy.
    pub fn stays_alone(&self, begins: bool) {
        if begins {
            self.alone_frames.fetch_add(1, Ordering::SeqCst);
        } else {
            self.alone_frames.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether nothing under way counts on the shard having no other copy.
    pub fn may_have_copies(&self) -> bool {
        self.alone_frames.load(Ordering::SeqCst) == 0
    }

    /// Closes (or opens) the shard for transactions that have nothing in it.
    pub fn close(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    /// Whether new transactions are to be sent away.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Counts a request in. To be asked [`is_closed`](Self::is_closed) afterwards.
    pub fn enter(self: &Arc<Self>) -> Entered {
        self.entered.fetch_add(1, Ordering::SeqCst);
        Entered(self.clone())
    }

    /// Whether no request is under way that may leave something here.
    pub fn is_quiet(&self) -> bool {
        self.entered.load(Ordering::SeqCst) == 0
    }

    /// Whether what was read just now in `term` is the newest there is anywhere.
    pub fn is_current(&self, term: u64, clock: &dyn Clock) -> bool {
        let until = self.lease_until.load(Ordering::SeqCst);
        if planted("stale-primary-read") {
            return self.serving() == Some(term);
        }
        self.serving() == Some(term) && (until == u64::MAX || clock.monotonic().0 < until)
    }

    /// Whether the shard must not be used.
    pub fn is_damaged(&self) -> bool {
        self.damage.lock().is_some()
    }

    /// Makes and drops storages.
    ///
    /// # Errors
    /// The engine's.
    pub fn change_storage(&self, create: &[StorageId], drop: &[StorageId]) -> Result<(), StorageError> {
        for storage in create {
            self.store.ensure_storage(*storage)?;
        }
        for storage in drop {
            self.store.drop_storage(*storage)?;
        }
        Ok(())
    }

    /// Fills an index of `table` with the entries of all rows, in one go. Nothing happens if either was dropped since.
    ///
    /// # Errors
    /// The engine's.
    pub fn build_index(&self, table: &TableDescriptor, storage: StorageId) -> Result<(), StorageError> {
        let Some(index) = table.indexes.iter().find(|index| index.storage == storage) else {
            return Ok(());
        };
        let mut resume = None;
        loop {
            let step = self.store.build_index(table.storage, index, usize::MAX, resume);
            resume = match step {
                Err(StorageError::UnknownStorage(_)) => return Ok(()),
                step => step?.resume,
            };
            if resume.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether a log record must carry the table's descriptor.
    pub fn knows_table(&self, digest: u64) -> bool {
        self.tables.read().stored.contains_key(&digest)
    }

    /// A descriptor that the shard has stored.
    pub fn stored_table(&self, digest: u64) -> Option<Arc<StoredTable>> {
        self.tables.read().stored.get(&digest).cloned()
    }

    /// The index with this storage, if any table of the shard was ever seen to have it.
    pub fn index(&self, storage: StorageId) -> Option<IndexDescriptor> {
        self.tables.read().indexes.get(&storage).cloned()
    }

    /// Remembers a table's indexes before anything of it is in the log.
    pub fn see_table(&self, table: &TableDescriptor) {
        let known = {
            let tables = self.tables.read();
            table
                .indexes
                .iter()
                .all(|index| tables.indexes.contains_key(&index.storage))
        };
        if !known {
            self.tables.write().learn_indexes(table);
        }
    }

    /// Applies a commit's changes, descriptors new to the shard, and system changes, in one batch.
    ///
    /// # Errors
    /// The store's; nothing was applied then. Changes of storages that have been dropped are left out, not errors.
    pub fn apply(
        &self,
        changes: &[RowChange],
        commit_timestamp: Timestamp,
        position: LogPosition,
        new_tables: &[Arc<StoredTable>],
        system: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), StorageError> {
        let mut applied = self.applied.lock();
        assert!(
            position.sequence > applied.sequence,
            "entries of shard {:#x} are applied in order: {position:?} after {applied:?}",
            self.id
        );
        let mut system = system.to_vec();
        system.push((Bytes::from_static(POSITION_KEY), Some(encode_position(position))));
        system.extend(
            new_tables
                .iter()
                .map(|table| (table_key(table.digest), Some(table.encoded.clone()))),
        );
        let result = {
            let _exclusive = self.visibility.write();
            let sequence = position.sequence;
            match self.store.apply(changes, commit_timestamp, sequence, &system) {
                // Dropped before the last restart, while a prepared transaction had written to it.
                Err(StorageError::UnknownStorage(_)) => {
                    self.store.replay(changes, commit_timestamp, sequence, &system)
                }
                result => result,
            }
        };
        if result.is_ok() {
            *applied = position;
        }
        if result.is_ok() && !new_tables.is_empty() {
            let mut tables = self.tables.write();
            for table in new_tables {
                tables.learn_indexes(&table.descriptor);
                tables.stored.insert(table.digest, table.clone());
            }
        }
        result
    }

    /// The last entry of the shard's log that the engine holds.
    pub fn applied(&self) -> LogPosition {
        *self.applied.lock()
    }

    /// The engine holds everything up to `position`, as the entries after [`applied`](Self::applied) change nothing there.
    ///
    /// # Errors
    /// The engine's.
    pub fn advance_to(&self, position: LogPosition) -> Result<(), StorageError> {
        if position.sequence > self.applied().sequence {
            self.apply(&[], 0, position, &[], &[])?;
        }
        Ok(())
    }

    /// Marks a transaction's writes: from now on readers that may have to see them wait for it.
    pub fn mark_in_doubt(&self, participant: &Arc<Participant>, writes: &ShardWrites<StoredTable>) {
        let mut in_doubt = self.in_doubt.lock();
        let mut insert = |storage, key: &Bytes| {
            let keys = in_doubt.storages.entry(storage).or_default();
            if keys.insert(key.clone(), participant.clone()).is_none() {
                in_doubt.keys += 1;
            }
        };
        for (storage, table) in writes.tables() {
            table.rows.keys().for_each(|key| insert(storage, key));
        }
        for (index, entries) in writes.entries() {
            entries.keys().for_each(|entry| insert(index, entry));
        }
        self.in_doubt_keys.store(in_doubt.keys, Ordering::SeqCst);
    }

    /// Undoes [`mark_in_doubt`](Self::mark_in_doubt).
    pub fn clear_in_doubt(&self, participant: &Arc<Participant>, writes: &ShardWrites<StoredTable>) {
        let mut in_doubt = self.in_doubt.lock();
        let InDoubt {
            storages,
            keys: count,
        } = &mut *in_doubt;
        let mut remove = |storage, key: &Bytes| {
            if let Some(keys) = storages.get_mut(&storage)
                && keys.get(key).is_some_and(|owner| Arc::ptr_eq(owner, participant))
            {
                keys.remove(key);
                *count -= 1;
            }
        };
        for (storage, table) in writes.tables() {
            table.rows.keys().for_each(|key| remove(storage, key));
        }
        for (index, entries) in writes.entries() {
            entries.keys().for_each(|entry| remove(index, entry));
        }
        storages.retain(|_, keys| !keys.is_empty());
        self.in_doubt_keys.store(in_doubt.keys, Ordering::SeqCst);
    }

    /// Whether a transaction that is being committed has written the storage.
    pub fn is_in_doubt(&self, storage: StorageId) -> bool {
        self.in_doubt_keys.load(Ordering::SeqCst) != 0 && self.in_doubt.lock().storages.contains_key(&storage)
    }

    /// A transaction that must end before `key` can be read at `snapshot` (0: newest) by `reader`.
    pub fn in_doubt_at(
        &self,
        storage: StorageId,
        key: &[u8],
        snapshot: Timestamp,
        reader: TransactionId,
    ) -> Option<Arc<Participant>> {
        self.marked_at(storage, key, |participant| {
            must_wait(participant, snapshot, reader)
        })
    }

    /// As [`in_doubt_at`](Self::in_doubt_at), for any key of a range (`upper` empty: to the end).
    pub fn in_doubt_within(
        &self,
        storage: StorageId,
        lower: &[u8],
        upper: &[u8],
        snapshot: Timestamp,
        reader: TransactionId,
    ) -> Option<Arc<Participant>> {
        self.marked_within(storage, lower, upper, |participant| {
            must_wait(participant, snapshot, reader)
        })
    }

    /// The transaction whose write of `key` is marked, if it `concerns` the caller.
    pub fn marked_at(
        &self,
        storage: StorageId,
        key: &[u8],
        concerns: impl FnOnce(&Participant) -> bool,
    ) -> Option<Arc<Participant>> {
        if self.in_doubt_keys.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let in_doubt = self.in_doubt.lock();
        let participant = in_doubt.storages.get(&storage)?.get(key)?;
        concerns(participant).then(|| participant.clone())
    }

    /// As [`marked_at`](Self::marked_at), for any key of a range (`upper` empty: to the end).
    pub fn marked_within(
        &self,
        storage: StorageId,
        lower: &[u8],
        upper: &[u8],
        concerns: impl Fn(&Participant) -> bool,
    ) -> Option<Arc<Participant>> {
        if self.in_doubt_keys.load(Ordering::SeqCst) == 0 || (!upper.is_empty() && lower >= upper) {
            return None;
        }
        let upper = if upper.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(upper)
        };
        let in_doubt = self.in_doubt.lock();
        let keys = in_doubt.storages.get(&storage)?;
        keys.range::<[u8], _>((Bound::Included(lower), upper))
            .map(|(_, participant)| participant)
            .find(|participant| concerns(participant))
            .cloned()
    }
}

/// Whether a reader at `snapshot` cannot tell yet if it should see the writes of `participant`.
///
/// A transaction's commit timestamp is drawn after it was marked: while it is still *preparing*, no timestamp can
/// have been drawn, so it will lie above every snapshot that exists. Not so while it is *committing* in one round or
/// *staging*: there it may have been drawn, but nothing is acknowledged. A reader of the newest versions only owes an
/// answer about commits that were acknowledged, which takes a prepared transaction whose decision is elsewhere.
fn must_wait(participant: &Participant, snapshot: Timestamp, reader: TransactionId) -> bool {
    if participant.id() == reader {
        return false;
    }
    match participant.phase() {
        Phase::Active | Phase::Preparing | Phase::Ended(_) | Phase::Lost => false,
        Phase::Staging if planted("staging-taken-for-preparing") => false,
        Phase::Committing | Phase::Staging => snapshot != 0 && possibly_visible(participant, snapshot),
        Phase::Prepared | Phase::Deciding => snapshot == 0 || possibly_visible(participant, snapshot),
    }
}

fn possibly_visible(participant: &Participant, snapshot: Timestamp) -> bool {
    let commit_timestamp = participant.commit_timestamp();
    commit_timestamp == 0 || commit_timestamp <= snapshot
}
