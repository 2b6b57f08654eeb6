//! Commits: the newest version moves to the history, the new one takes its place, indexes follow.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, KeyspaceId};

use super::index_build::{entry_of, index_key};
use super::version::{self, HistoryKind, StaleEntry};
use super::{HISTORY_KEYSPACE, RowVersion, SYSTEM_KEYSPACE, ShardStore};
use crate::StorageError;
use crate::descriptor::TableDescriptor;
use crate::wal::Lsn;

/// What a commit makes of one row.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// The row's table.
    pub table: Arc<TableDescriptor>,
    /// Its key.
    pub key: Bytes,
    /// The new content; `None` deletes the row.
    pub row: Option<Bytes>,
}

impl ShardStore {
    /// Applies one commit: visible at once and together, durable with the engine's next flush (and by the log
    /// before that). Each row once; `extra` are facts of the shard to put or remove.
    ///
    /// # Errors
    /// [`StorageError::AlreadyApplied`] unless `lsn` is above the engine's, [`StorageError::CommitOutOfOrder`] if
    /// a row has a later version, [`StorageError::UnknownStorage`], damage, or the engine's error. Nothing was
    /// applied then.
    pub fn apply(
        &self,
        changes: &[RowChange],
        commit_timestamp: u64,
        lsn: Lsn,
        extra: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), StorageError> {
        let _writing = self.writing.lock();
        let dropped = self.dropped.read();
        self.apply_where(changes, commit_timestamp, lsn, extra, |storage| {
            !dropped.contains(&storage)
        })
    }

    /// As [`apply`](Self::apply), for a log that is read again after a restart: changes of storages that do not
    /// exist are skipped, because they were dropped later than this position of the log.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn replay(
        &self,
        changes: &[RowChange],
        commit_timestamp: u64,
        lsn: Lsn,
        extra: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), StorageError> {
        let _writing = self.writing.lock();
        let existing = self.engine.keyspaces();
        let exists = |storage| existing.binary_search(&KeyspaceId(storage)).is_ok();
        self.apply_where(changes, commit_timestamp, lsn, extra, exists)
    }

    fn apply_where(
        &self,
        changes: &[RowChange],
        commit_timestamp: u64,
        lsn: Lsn,
        extra: &[(Bytes, Option<Bytes>)],
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(), StorageError> {
        let applied_lsn = self.engine.applied_lsn();
        if lsn <= applied_lsn {
            return Err(StorageError::AlreadyApplied { lsn, applied_lsn });
        }
        let mut batch = Vec::with_capacity(changes.len() * 3 + extra.len());
        for change in changes {
            if wanted(change.table.storage) {
                self.apply_change(change, commit_timestamp, &wanted, &mut batch)?;
            }
        }
        for (key, value) in extra {
            debug_assert!(key.first() != Some(&0), "this prefix is the store's own");
            let (keyspace, key) = (SYSTEM_KEYSPACE, key.clone());
            batch.push(match value {
                Some(value) => EngineChange::Put {
                    keyspace,
                    key,
                    value: value.clone(),
                },
                None => EngineChange::Delete { keyspace, key },
            });
        }
        self.engine.write(EngineBatch {
            changes: batch,
            applied_lsn: lsn,
        })?;
        Ok(())
    }

    fn apply_change(
        &self,
        change: &RowChange,
        commit_timestamp: u64,
        wanted: &impl Fn(u64) -> bool,
        batch: &mut Vec<EngineChange>,
    ) -> Result<(), StorageError> {
        let table = &*change.table;
        let storage = KeyspaceId(table.storage);
        let old = match self.engine.get(storage, &change.key)? {
            Some(value) => Some(RowVersion::decode(value)?),
            None => None,
        };
        if let Some(old) = &old
            && old.commit_timestamp > commit_timestamp
        {
            return Err(StorageError::CommitOutOfOrder {
                commit_timestamp,
                newest: old.commit_timestamp,
            });
        }
        if change.row.is_none() && old.as_ref().is_none_or(|old| old.row.is_none()) {
            return Ok(());
        }
        // A commit that comes in parts replaces what it wrote itself: nobody saw that.
        let replaces_itself = old
            .as_ref()
            .is_some_and(|old| old.commit_timestamp == commit_timestamp);
        let old_row = old.as_ref().and_then(|old| old.row.as_deref());

        let mut stale_entries = Vec::new();
        for index in table.indexes.iter().filter(|index| wanted(index.storage)) {
            let old_key = old_row.map(|row| index_key(index, row)).transpose()?;
            let new_key = change
                .row
                .as_deref()
                .map(|row| index_key(index, row))
                .transpose()?;
            if old_key == new_key {
                continue;
            }
            if let Some(index_key) = old_key {
                stale_entries.push(StaleEntry {
                    index: index.storage,
                    index_key,
                });
            }
            if let Some(new_key) = new_key {
                batch.push(put_entry(index.storage, &new_key, &change.key, commit_timestamp));
            }
        }
        if replaces_itself {
            self.release_entries(change, commit_timestamp, stale_entries, batch)?;
        } else if let Some(old) = &old {
            batch.push(EngineChange::Put {
                keyspace: HISTORY_KEYSPACE,
                key: version::history_key(table.storage, &change.key, old.commit_timestamp),
                value: version::encode_history(commit_timestamp, old_row, &stale_entries),
            });
        }
        if change.row.is_none() {
            batch.push(EngineChange::Put {
                keyspace: HISTORY_KEYSPACE,
                key: version::deletion_marker_key(table.storage, &change.key),
                value: version::encode_deletion_marker(commit_timestamp),
            });
        }
        batch.push(EngineChange::Put {
            keyspace: storage,
            key: change.key.clone(),
            value: version::encode_newest(commit_timestamp, change.row.as_deref()),
        });
        Ok(())
    }

    /// Takes entries away that a commit made (or kept) for a version that it now replaces itself: each goes back
    /// to the newest older version that has it.
    fn release_entries(
        &self,
        change: &RowChange,
        commit_timestamp: u64,
        released: Vec<StaleEntry>,
        batch: &mut Vec<EngineChange>,
    ) -> Result<(), StorageError> {
        if released.is_empty() {
            return Ok(());
        }
        let storage = change.table.storage;
        let lower = version::history_key(storage, &change.key, commit_timestamp);
        let upper = version::deletion_marker_key(storage, &change.key);
        let snapshot = self.engine.snapshot();
        let mut cursor = snapshot.scan(HISTORY_KEYSPACE, &lower, &upper, false)?;
        let mut older = Vec::new();
        while let Some((history_key, value)) = cursor.next()? {
            // From here on all is garbage, parts of which may be gone.
            if version::decode_history(value)?.superseded_at <= self.collected_below() {
                break;
            }
            older.push((Bytes::copy_from_slice(history_key), Bytes::copy_from_slice(value)));
        }
        // Of the version right before, which may not know yet that its successor does without an entry.
        let mut stale_before = match older.first() {
            Some((_, value)) => version::decode_history(value)?.stale_entries,
            None => Vec::new(),
        };
        let known_before = stale_before.len();
        'released: for entry in released {
            let Some(index) = change
                .table
                .indexes
                .iter()
                .find(|index| index.storage == entry.index)
            else {
                continue;
            };
            for (position, (history_key, value)) in older.iter().enumerate() {
                let HistoryKind::Version(Some(row)) = version::decode_history(value)?.kind else {
                    continue;
                };
                if index_key(index, row)? != entry.index_key {
                    continue;
                }
                let made_at = version::split_history_key(history_key)?.2;
                batch.push(put_entry(entry.index, &entry.index_key, &change.key, made_at));
                if position == 0 && !stale_before.contains(&entry) {
                    stale_before.push(entry);
                }
                continue 'released;
            }
            batch.push(EngineChange::Delete {
                keyspace: KeyspaceId(entry.index),
                key: entry_of(&entry.index_key, &change.key),
            });
        }
        if stale_before.len() > known_before
            && let Some((history_key, value)) = older.first()
        {
            let record = version::decode_history(value)?;
            let HistoryKind::Version(row) = record.kind else {
                return Err(StorageError::Malformed { what: "row version" });
            };
            batch.push(EngineChange::Put {
                keyspace: HISTORY_KEYSPACE,
                key: history_key.clone(),
                value: version::encode_history(record.superseded_at, row, &stale_before),
            });
        }
        Ok(())
    }
}

/// An index entry, with the commit that made it: the collection of an older version's entry then knows that a
/// newer one has it again.
fn put_entry(index: u64, index_key: &[u8], key: &[u8], made_at: u64) -> EngineChange {
    EngineChange::Put {
        keyspace: KeyspaceId(index),
        key: entry_of(index_key, key),
        value: Bytes::copy_from_slice(&made_at.to_be_bytes()),
    }
}
