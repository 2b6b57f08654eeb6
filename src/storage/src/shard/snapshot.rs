//! A consistent view of a shard's rows and index entries.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::fault::planted;
use neorunbase_world::shard_engine::{EngineSnapshot, KeyspaceId};

use super::scan::{IndexScan, VersionScan};
use super::version::{self, HistoryKind, RowVersion};
use super::{HISTORY_KEYSPACE, SYSTEM_KEYSPACE};
use crate::StorageError;

/// What [`StoreSnapshot::changed_since`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeChange {
    /// This key has changed.
    Changed(Bytes),
    /// None has.
    Unchanged,
    /// None before `resume` has; ask again from there.
    NotYet {
        /// The first key that was not looked at.
        resume: Bytes,
    },
}

/// All of a shard's rows at one instant. Cheap to clone.
#[derive(Clone)]
pub struct StoreSnapshot {
    engine_snapshot: Arc<dyn EngineSnapshot>,
    collected_below: u64,
}

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StoreSnapshot")
    }
}

pub(super) fn check_readable(snapshot: u64, collected_below: u64) -> Result<(), StorageError> {
    if snapshot != 0 && snapshot < collected_below && !planted("gc-below-snapshot") {
        return Err(StorageError::SnapshotTooOld {
            snapshot,
            collected_below,
        });
    }
    Ok(())
}

impl StoreSnapshot {
    pub(super) fn new(engine_snapshot: Arc<dyn EngineSnapshot>, collected_below: u64) -> Self {
        Self {
            engine_snapshot,
            collected_below,
        }
    }

    /// Whether everything that `snapshot` sees is still there. Who finds nothing in an index must ask, since the entry
    /// that would have led to a row may have been collected.
    ///
    /// # Errors
    /// [`StorageError::SnapshotTooOld`].
    pub fn check_readable(&self, snapshot: u64) -> Result<(), StorageError> {
        check_readable(snapshot, self.collected_below)
    }

    /// The version of a row, deleted or not, that `snapshot` sees (0: the newest in this view).
    ///
    /// # Errors
    /// [`StorageError::UnknownStorage`], [`StorageError::SnapshotTooOld`], damage, or the engine's error.
    pub fn read_at(
        &self,
        storage: u64,
        key: &[u8],
        snapshot: u64,
    ) -> Result<Option<RowVersion>, StorageError> {
        check_readable(snapshot, self.collected_below)?;
        let Some(value) = self.engine_snapshot.get(KeyspaceId(storage), key)? else {
            return Ok(None);
        };
        let newest = RowVersion::decode(value)?;
        if snapshot == 0 || newest.commit_timestamp <= snapshot {
            return Ok(Some(newest));
        }
        self.read_history(storage, key, snapshot)
    }

    /// The version that `snapshot` sees, of a row whose newest version it does not see.
    pub(super) fn read_history(
        &self,
        storage: u64,
        key: &[u8],
        snapshot: u64,
    ) -> Result<Option<RowVersion>, StorageError> {
        check_readable(snapshot, self.collected_below)?;
        with_old_version(
            &*self.engine_snapshot,
            storage,
            key,
            snapshot,
            |commit_timestamp, row| RowVersion {
                commit_timestamp,
                row: row.map(Bytes::copy_from_slice),
            },
        )
    }

    /// The rows with `lower <= key < upper` (`upper` empty: to the end) that `snapshot` sees (0: the newest in
    /// this view), by key, descending if `reverse`. Deleted rows are left out.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn scan(
        &self,
        storage: u64,
        lower: &[u8],
        upper: &[u8],
        snapshot: u64,
        reverse: bool,
    ) -> Result<VersionScan, StorageError> {
        check_readable(snapshot, self.collected_below)?;
        let snapshot = if snapshot == 0 { u64::MAX } else { snapshot };
        VersionScan::new(
            self.engine_snapshot.clone(),
            storage,
            lower,
            upper,
            snapshot,
            reverse,
        )
    }

    /// The entries (index key ‖ primary key) of an index in `lower <= entry < upper`. An entry may belong to an
    /// old version only, or to one that is newer than the reader's snapshot: the reader must read the row
    /// (through this same view) and check that it still has this index key.
    ///
    /// # Errors
    /// [`StorageError::UnknownStorage`] or the engine's error.
    pub fn scan_index(
        &self,
        index: u64,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<IndexScan, StorageError> {
        IndexScan::new(self.engine_snapshot.clone(), index, lower, upper, reverse)
    }

    /// Whether the newest version of any key in the range, deletions included, is later than `after`: what a
    /// validation of a range read asks. Looks at `budget_keys` keys at most.
    ///
    /// # Errors
    /// As [`scan_index`](Self::scan_index).
    pub fn changed_since(
        &self,
        storage: u64,
        lower: &[u8],
        upper: &[u8],
        after: u64,
        budget_keys: usize,
    ) -> Result<RangeChange, StorageError> {
        // A deletion that was collected is no later than the collection's watermark.
        check_readable(after, self.collected_below)?;
        let mut cursor = self
            .engine_snapshot
            .scan(KeyspaceId(storage), lower, upper, false)?;
        let mut seen = 0;
        while let Some((key, value)) = cursor.next()? {
            if seen >= budget_keys.max(1) {
                return Ok(RangeChange::NotYet {
                    resume: Bytes::copy_from_slice(key),
                });
            }
            seen += 1;
            if version::split_newest(value)?.0 > after {
                return Ok(RangeChange::Changed(Bytes::copy_from_slice(key)));
            }
        }
        Ok(RangeChange::Unchanged)
    }

    /// A fact of the shard in this view.
    ///
    /// # Errors
    /// The engine's error.
    pub fn system_get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.engine_snapshot.get(SYSTEM_KEYSPACE, key)?)
    }
}

/// Hands the newest old version with a commit timestamp of at most `snapshot` to `visit`.
pub(super) fn with_old_version<T>(
    engine_snapshot: &dyn EngineSnapshot,
    storage: u64,
    key: &[u8],
    snapshot: u64,
    visit: impl FnOnce(u64, Option<&[u8]>) -> T,
) -> Result<Option<T>, StorageError> {
    let lower = version::history_key(storage, key, snapshot);
    // The deletion marker, at timestamp 0, stays outside.
    let upper = version::history_key(storage, key, 0);
    let mut cursor = engine_snapshot.scan(HISTORY_KEYSPACE, &lower, &upper, false)?;
    let Some((history_key, value)) = cursor.next()? else {
        return Ok(None);
    };
    let (_, _, commit_timestamp) = version::split_history_key(history_key)?;
    let record = version::decode_history(value)?;
    let HistoryKind::Version(row) = record.kind else {
        return Err(StorageError::Malformed { what: "row version" });
    };
    Ok(Some(visit(commit_timestamp, row)))
}
