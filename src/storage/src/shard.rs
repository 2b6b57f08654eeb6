//! Multi-version rows in one shard engine.
//!
//! The newest version of a row stands under its key in the table's keyspace; older versions stand in one
//! history keyspace, each with the commit timestamp at which it was superseded. Index entries are made with
//! the version that first needs them and stay until no version that a snapshot could see needs them: who
//! reads by an index checks each entry against the row.

mod apply;
mod garbage;
mod index_build;
mod scan;
mod snapshot;
mod version;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineSnapshot, KeyspaceId, ShardEngine};
use parking_lot::{Mutex, RwLock};

pub use self::apply::RowChange;
pub use self::garbage::{GarbageCursor, GarbageProgress};
pub use self::index_build::{IndexBuildCursor, IndexBuildProgress, index_entry};
pub use self::scan::{IndexScan, VersionScan, VisibleRow};
pub use self::snapshot::{RangeChange, StoreSnapshot};
pub use self::version::{OldVersion, RowVersion};
use crate::StorageError;

/// Small durable facts of the shard, such as decisions. Keys that begin with 0x00 are the store's own.
pub const SYSTEM_KEYSPACE: KeyspaceId = KeyspaceId(1);
/// Old row versions: storage u64 BE ‖ row key ‖ !commit timestamp u64 BE.
pub const HISTORY_KEYSPACE: KeyspaceId = KeyspaceId(2);

/// Where the oldest readable snapshot is kept.
const COLLECTED_BELOW_KEY: &[u8] = b"\0collected below";

/// What was removed from `engine` for good was superseded at or before this: snapshots from here on lack nothing.
///
/// # Errors
/// Damage, or the engine's error.
pub fn collected_below(engine: &dyn EngineSnapshot) -> Result<u64, StorageError> {
    match engine.get(SYSTEM_KEYSPACE, COLLECTED_BELOW_KEY)? {
        None => Ok(0),
        Some(value) => version::take_u64(&mut &value[..]),
    }
}

/// The rows of one shard.
///
/// Row keys of one storage must be prefix-free, as those of [`crate::key`] are.
pub struct ShardStore {
    engine: Arc<dyn ShardEngine>,
    /// Snapshots below this may miss versions.
    collected_below: AtomicU64,
    /// Storages dropped by this process: what is still under way for them is skipped.
    dropped: RwLock<BTreeSet<u64>>,
    /// Nothing is collected any more.
    is_retired: AtomicBool,
    /// Held by everything that reads in order to write.
    writing: Mutex<()>,
}

impl std::fmt::Debug for ShardStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ShardStore(at {})", self.engine.applied_lsn())
    }
}

impl ShardStore {
    /// The rows in `engine`; makes the keyspaces that every shard has.
    ///
    /// # Errors
    /// The engine's error.
    pub fn new(engine: Arc<dyn ShardEngine>) -> Result<Self, StorageError> {
        engine.create_keyspace(SYSTEM_KEYSPACE)?;
        engine.create_keyspace(HISTORY_KEYSPACE)?;
        let collected_below = collected_below(&*engine.snapshot())?;
        Ok(Self {
            engine,
            collected_below: AtomicU64::new(collected_below),
            dropped: RwLock::new(BTreeSet::new()),
            is_retired: AtomicBool::new(false),
            writing: Mutex::new(()),
        })
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn ShardEngine> {
        &self.engine
    }

    /// The engine gets other content: collections that are under way must not touch that, nor what it says of how far it
    /// was collected.
    pub fn retire(&self) {
        let _writing = self.writing.lock();
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Makes a table's or index's keyspace, durably, unless it is there.
    ///
    /// # Errors
    /// The engine's error.
    pub fn ensure_storage(&self, storage: u64) -> Result<(), StorageError> {
        self.engine.create_keyspace(KeyspaceId(storage))?;
        Ok(())
    }

    /// Drops a table's or index's keyspace, durably; its history goes with the garbage. Ids are never used
    /// again: what [`apply`](Self::apply) still brings for it is skipped.
    ///
    /// # Errors
    /// The engine's error.
    pub fn drop_storage(&self, storage: u64) -> Result<(), StorageError> {
        let _writing = self.writing.lock();
        self.dropped.write().insert(storage);
        self.engine.drop_keyspace(KeyspaceId(storage))?;
        Ok(())
    }

    /// Whether the keyspace is there.
    pub fn has_storage(&self, storage: u64) -> bool {
        self.engine
            .keyspaces()
            .binary_search(&KeyspaceId(storage))
            .is_ok()
    }

    /// The newest version of a row, deleted or not; `None` if it never existed (or was deleted long ago).
    ///
    /// # Errors
    /// [`StorageError::UnknownStorage`], damage, or the engine's error.
    pub fn newest(&self, storage: u64, key: &[u8]) -> Result<Option<RowVersion>, StorageError> {
        match self.engine.get(KeyspaceId(storage), key)? {
            Some(value) => Ok(Some(RowVersion::decode(value)?)),
            None => Ok(None),
        }
    }

    /// The version of a row, deleted or not, that `snapshot` sees (0: the newest).
    ///
    /// # Errors
    /// As [`newest`](Self::newest), and [`StorageError::SnapshotTooOld`].
    pub fn read_at(
        &self,
        storage: u64,
        key: &[u8],
        snapshot: u64,
    ) -> Result<Option<RowVersion>, StorageError> {
        let newest = self.newest(storage, key)?;
        match newest {
            Some(version) if snapshot != 0 && version.commit_timestamp > snapshot => {
                self.snapshot().read_history(storage, key, snapshot)
            }
            newest => {
                self.check_readable(snapshot)?;
                Ok(newest)
            }
        }
    }

    /// A consistent view of now, for reads that belong together.
    pub fn snapshot(&self) -> StoreSnapshot {
        let engine_snapshot = self.engine.snapshot();
        // Loaded after: a collection raises it before it removes anything.
        StoreSnapshot::new(engine_snapshot, self.collected_below.load(Ordering::SeqCst))
    }

    /// [`StoreSnapshot::scan`] of now.
    ///
    /// # Errors
    /// As there.
    pub fn scan(
        &self,
        storage: u64,
        lower: &[u8],
        upper: &[u8],
        snapshot: u64,
        reverse: bool,
    ) -> Result<VersionScan, StorageError> {
        self.snapshot().scan(storage, lower, upper, snapshot, reverse)
    }

    /// [`StoreSnapshot::scan_index`] of now.
    ///
    /// # Errors
    /// As there.
    pub fn scan_index(
        &self,
        index: u64,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<IndexScan, StorageError> {
        self.snapshot().scan_index(index, lower, upper, reverse)
    }

    /// A fact of the shard.
    ///
    /// # Errors
    /// The engine's error.
    pub fn system_get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.engine.get(SYSTEM_KEYSPACE, key)?)
    }

    /// All facts whose keys begin with `prefix`, in order.
    ///
    /// # Errors
    /// The engine's error.
    pub fn system_scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let snapshot = self.engine.snapshot();
        let upper = crate::key::prefix_end(prefix);
        let mut cursor = snapshot.scan(SYSTEM_KEYSPACE, prefix, &upper, false)?;
        let mut found = Vec::new();
        while let Some((key, value)) = cursor.next()? {
            found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        Ok(found)
    }

    /// Snapshots below this are refused.
    pub fn collected_below(&self) -> u64 {
        self.collected_below.load(Ordering::SeqCst)
    }

    fn check_readable(&self, snapshot: u64) -> Result<(), StorageError> {
        snapshot::check_readable(snapshot, self.collected_below())
    }
}
