//! Removal of what no snapshot can see any more.
//!
//! Each old version says when it was superseded and which index entries its successor did not need, so the
//! history alone tells what can go; no schema is needed. Removal has no position in the log: it only ever
//! takes what replay from any earlier position would not look at.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, EngineError, KeyspaceId};

use super::version::{self, HistoryKind, StaleEntry};
use super::{COLLECTED_BELOW_KEY, HISTORY_KEYSPACE, SYSTEM_KEYSPACE, ShardStore};
use crate::StorageError;

/// Where a collection goes on. A pass keeps the watermark that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageCursor {
    from: Bytes,
    watermark: u64,
}

/// What one step of a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarbageProgress {
    /// Old versions removed.
    pub removed_versions: usize,
    /// Deleted rows removed for good.
    pub removed_rows: usize,
    /// Index entries removed.
    pub removed_index_entries: usize,
    /// Where to go on; `None`: the pass is complete.
    pub resume: Option<GarbageCursor>,
}

/// A history record that can go, as it was when it was found.
struct Candidate {
    history_key: Bytes,
    value: Bytes,
    stale_entries: Vec<StaleEntry>,
    is_marker: bool,
}

impl ShardStore {
    /// One step of a pass over the history: looks at `budget_rows` records at most, and removes those that no
    /// snapshot at or after `watermark` needs. Snapshots before `watermark` are refused from now on.
    ///
    /// # Errors
    /// Damage, or the engine's error.
    pub fn collect_garbage(
        &self,
        watermark: u64,
        budget_rows: usize,
        resume: Option<GarbageCursor>,
    ) -> Result<GarbageProgress, StorageError> {
        // Before anything goes, so that whoever misses a version also sees why.
        self.collected_below.fetch_max(watermark, Ordering::SeqCst);
        let (from, watermark) = match resume {
            Some(cursor) => (cursor.from, cursor.watermark),
            None => (Bytes::new(), watermark),
        };
        let mut progress = GarbageProgress::default();
        let candidates = self.find_candidates(&from, watermark, budget_rows, &mut progress)?;
        if candidates.is_empty() {
            return Ok(progress);
        }
        let _writing = self.writing.lock();
        if self.is_retired.load(Ordering::SeqCst) {
            return Ok(GarbageProgress::default());
        }
        let mut changes = Vec::with_capacity(candidates.len() + 1);
        for candidate in candidates {
            self.remove_candidate(&candidate, &mut changes, &mut progress)?;
        }
        if changes.is_empty() {
            return Ok(progress);
        }
        changes.push(EngineChange::Put {
            keyspace: SYSTEM_KEYSPACE,
            key: Bytes::from_static(COLLECTED_BELOW_KEY),
            value: Bytes::copy_from_slice(&self.collected_below().to_be_bytes()),
        });
        self.engine.write(EngineBatch {
            changes,
            applied_lsn: self.engine.applied_lsn(),
        })?;
        Ok(progress)
    }

    /// Reads the history without holding up writers.
    fn find_candidates(
        &self,
        from: &[u8],
        watermark: u64,
        budget_rows: usize,
        progress: &mut GarbageProgress,
    ) -> Result<Vec<Candidate>, StorageError> {
        let snapshot = self.engine.snapshot();
        let keyspaces = self.engine.keyspaces();
        let mut cursor = snapshot.scan(HISTORY_KEYSPACE, from, &[], false)?;
        let mut candidates = Vec::new();
        let mut seen = 0;
        while let Some((history_key, value)) = cursor.next()? {
            if seen >= budget_rows.max(1) {
                progress.resume = Some(GarbageCursor {
                    from: Bytes::copy_from_slice(history_key),
                    watermark,
                });
                break;
            }
            seen += 1;
            let (storage, _, _) = version::split_history_key(history_key)?;
            let record = version::decode_history(value)?;
            let was_dropped = keyspaces.binary_search(&KeyspaceId(storage)).is_err();
            if record.superseded_at <= watermark || was_dropped {
                candidates.push(Candidate {
                    history_key: Bytes::copy_from_slice(history_key),
                    value: Bytes::copy_from_slice(value),
                    stale_entries: record.stale_entries,
                    is_marker: record.kind == HistoryKind::DeletionMarker,
                });
            }
        }
        Ok(candidates)
    }

    fn remove_candidate(
        &self,
        candidate: &Candidate,
        changes: &mut Vec<EngineChange>,
        progress: &mut GarbageProgress,
    ) -> Result<(), StorageError> {
        let (storage, key, commit_timestamp) = version::split_history_key(&candidate.history_key)?;
        if self
            .engine
            .get(HISTORY_KEYSPACE, &candidate.history_key)?
            .as_ref()
            != Some(&candidate.value)
        {
            // Changed since it was found: by a later deletion, an index build or another collection.
            return Ok(());
        }
        if candidate.is_marker {
            // All older versions come before the marker, so they went before or go with it: otherwise a row
            // inserted later would let them be seen again.
            let deleted_at = version::take_u64(&mut &candidate.value[..])?;
            let newest = self.get_unless_dropped(storage, key)?;
            if let Some(newest) = newest
                && version::split_newest(&newest)? == (deleted_at, None)
            {
                changes.push(EngineChange::Delete {
                    keyspace: KeyspaceId(storage),
                    key: Bytes::copy_from_slice(key),
                });
                progress.removed_rows += 1;
            }
        } else {
            progress.removed_versions += 1;
        }
        for stale in &candidate.stale_entries {
            let entry = super::index_build::entry_of(&stale.index_key, key);
            let made_at = self.get_unless_dropped(stale.index, &entry)?;
            let made_at = made_at
                .map(|value| version::take_u64(&mut &value[..]))
                .transpose()?;
            // Made after this version: a newer one needs it.
            if made_at.is_some_and(|made_at| made_at <= commit_timestamp) {
                changes.push(EngineChange::Delete {
                    keyspace: KeyspaceId(stale.index),
                    key: entry,
                });
                progress.removed_index_entries += 1;
            }
        }
        changes.push(EngineChange::Delete {
            keyspace: HISTORY_KEYSPACE,
            key: candidate.history_key.clone(),
        });
        Ok(())
    }

    fn get_unless_dropped(&self, storage: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.engine.get(KeyspaceId(storage), key) {
            Err(EngineError::UnknownKeyspace(_)) => Ok(None),
            other => Ok(other?),
        }
    }
}
