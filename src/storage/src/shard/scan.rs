//! Cursors over rows and index entries that own the view that they read.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineCursor, EngineSnapshot, KeyspaceId};
use self_cell::self_cell;

use super::snapshot::with_old_version;
use super::version::{self, RowVersion};
use crate::StorageError;

type BoxedCursor<'a> = Box<dyn EngineCursor + 'a>;

self_cell!(
    struct OwnedCursor {
        owner: Arc<dyn EngineSnapshot>,
        #[covariant]
        dependent: BoxedCursor,
    }
);

fn owned_cursor(
    engine_snapshot: Arc<dyn EngineSnapshot>,
    keyspace: u64,
    lower: &[u8],
    upper: &[u8],
    reverse: bool,
) -> Result<OwnedCursor, StorageError> {
    Ok(OwnedCursor::try_new(engine_snapshot, |view| {
        view.scan(KeyspaceId(keyspace), lower, upper, reverse)
    })?)
}

/// A row that a scan stands at.
#[derive(Clone, Copy, Debug)]
pub struct VisibleRow<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The commit that made the version.
    pub commit_timestamp: u64,
    /// Its content.
    pub row: &'a [u8],
}

/// Walks the rows that a snapshot sees.
pub struct VersionScan {
    cursor: OwnedCursor,
    storage: u64,
    snapshot: u64,
}

impl std::fmt::Debug for VersionScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "VersionScan(storage {}, at {})",
            self.storage, self.snapshot
        )
    }
}

impl VersionScan {
    pub(super) fn new(
        engine_snapshot: Arc<dyn EngineSnapshot>,
        storage: u64,
        lower: &[u8],
        upper: &[u8],
        snapshot: u64,
        reverse: bool,
    ) -> Result<Self, StorageError> {
        let cursor = owned_cursor(engine_snapshot, storage, lower, upper, reverse)?;
        Ok(Self {
            cursor,
            storage,
            snapshot,
        })
    }

    /// The next row, copied.
    ///
    /// # Errors
    /// Damage, or the engine's error.
    #[allow(clippy::should_implement_trait)] // it can fail
    pub fn next(&mut self) -> Result<Option<(Bytes, RowVersion)>, StorageError> {
        self.next_with(|row| {
            let version = RowVersion {
                commit_timestamp: row.commit_timestamp,
                row: Some(Bytes::copy_from_slice(row.row)),
            };
            (Bytes::copy_from_slice(row.key), version)
        })
    }

    /// Hands the next row to `visit` without copying it.
    ///
    /// # Errors
    /// Damage, or the engine's error.
    pub fn next_with<T>(
        &mut self,
        visit: impl FnOnce(VisibleRow<'_>) -> T,
    ) -> Result<Option<T>, StorageError> {
        let (storage, snapshot) = (self.storage, self.snapshot);
        self.cursor.with_dependent_mut(|view, cursor| {
            let mut visit = Some(visit);
            while let Some((key, value)) = cursor.next()? {
                let (commit_timestamp, row) = version::split_newest(value)?;
                let mut give = |commit_timestamp, row: Option<&[u8]>| {
                    let row = row?;
                    let visit = visit.take()?;
                    Some(visit(VisibleRow {
                        key,
                        commit_timestamp,
                        row,
                    }))
                };
                let given = if commit_timestamp <= snapshot {
                    give(commit_timestamp, row)
                } else {
                    with_old_version(&**view, storage, key, snapshot, give)?.flatten()
                };
                if given.is_some() {
                    return Ok(given);
                }
            }
            Ok(None)
        })
    }
}

/// Walks the entries of an index.
pub struct IndexScan {
    cursor: OwnedCursor,
}

impl std::fmt::Debug for IndexScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("IndexScan")
    }
}

impl IndexScan {
    pub(super) fn new(
        engine_snapshot: Arc<dyn EngineSnapshot>,
        index: u64,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<Self, StorageError> {
        Ok(Self {
            cursor: owned_cursor(engine_snapshot, index, lower, upper, reverse)?,
        })
    }

    /// The next entry, copied. [`crate::key::split_index_entry`] cuts it.
    ///
    /// # Errors
    /// The engine's error.
    #[allow(clippy::should_implement_trait)] // it can fail
    pub fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        self.next_with(Bytes::copy_from_slice)
    }

    /// Hands the next entry to `visit` without copying it.
    ///
    /// # Errors
    /// The engine's error.
    pub fn next_with<T>(&mut self, visit: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, StorageError> {
        self.cursor
            .with_dependent_mut(|_, cursor| Ok(cursor.next()?.map(|(entry, _)| visit(entry))))
    }
}
