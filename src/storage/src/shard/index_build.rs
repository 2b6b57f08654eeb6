//! Index entries, and filling a new index from the rows that are there.

use bytes::Bytes;
use neorunbase_types::Datum;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, KeyspaceId};

use super::version::{self, HistoryKind, StaleEntry};
use super::{HISTORY_KEYSPACE, ShardStore};
use crate::StorageError;
use crate::descriptor::IndexDescriptor;
use crate::key::{key_contains_null, prefix_end, put_key_value, split_index_entry};
use crate::row::decode_columns;

/// The index key of a row.
pub(super) fn index_key(index: &IndexDescriptor, row: &[u8]) -> Result<Bytes, StorageError> {
    let wanted: Vec<(u32, &Datum)> = index
        .columns
        .iter()
        .map(|column| (column.column, &column.missing))
        .collect();
    let mut values = Vec::with_capacity(wanted.len());
    decode_columns(row, &wanted, &mut values)?;
    let mut output = Vec::with_capacity(values.len() * 12);
    for (value, column) in values.iter().zip(&index.columns) {
        put_key_value(&mut output, value, column.descending);
    }
    Ok(Bytes::from(output))
}

/// An index entry: index key ‖ primary key.
pub(super) fn entry_of(index_key: &[u8], key: &[u8]) -> Bytes {
    let mut output = Vec::with_capacity(index_key.len() + key.len());
    output.extend_from_slice(index_key);
    output.extend_from_slice(key);
    Bytes::from(output)
}

/// The entry of a row in an index. Who reads by an index compares it with the entry that led to the row.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn index_entry(index: &IndexDescriptor, key: &[u8], row: &[u8]) -> Result<Bytes, StorageError> {
    Ok(entry_of(&index_key(index, row)?, key))
}

/// Where a build goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexBuildCursor {
    from: Bytes,
    in_history: bool,
}

/// What one step of a build did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexBuildProgress {
    /// Entries made.
    pub entries: usize,
    /// Where to go on; `None`: the index is complete.
    pub resume: Option<IndexBuildCursor>,
}

impl ShardStore {
    /// One step of filling `index` of the table stored at `storage`: looks at `budget_rows` rows at most, first the
    /// newest versions, then the old ones that snapshots may still see. Commits may go on meanwhile, if their
    /// tables list the index. The build is not in the log: flush the engine when it is complete, and begin
    /// again after a crash before that.
    ///
    /// # Errors
    /// [`StorageError::UnknownStorage`], damage, or the engine's error.
    pub fn build_index(
        &self,
        storage: u64,
        index: &IndexDescriptor,
        budget_rows: usize,
        resume: Option<IndexBuildCursor>,
    ) -> Result<IndexBuildProgress, StorageError> {
        let cursor = resume.unwrap_or(IndexBuildCursor {
            from: Bytes::new(),
            in_history: false,
        });
        let _writing = self.writing.lock();
        let mut step = BuildStep {
            store: self,
            index,
            changes: Vec::new(),
            made: Default::default(),
        };
        let next = if cursor.in_history {
            step.fill_from_history(storage, &cursor.from, budget_rows)?
        } else {
            step.fill_from_newest(storage, &cursor.from, budget_rows)?
        };
        let progress = IndexBuildProgress {
            entries: step.made.len(),
            resume: next,
        };
        let changes = step.changes;
        self.engine.write(EngineBatch {
            changes,
            applied_lsn: self.engine.applied_lsn(),
        })?;
        Ok(progress)
    }

    /// An index key (without NULLs) that two rows have, if any: what makes the build of a unique index fail.
    ///
    /// # Errors
    /// As [`build_index`](Self::build_index).
    pub fn first_duplicate(
        &self,
        storage: u64,
        index: &IndexDescriptor,
    ) -> Result<Option<Bytes>, StorageError> {
        let view = self.snapshot();
        let mut scan = view.scan_index(index.storage, &[], &[], false)?;
        let mut last: Option<Bytes> = None;
        while let Some(entry) = scan.next()? {
            let (key_bytes, primary_key) = split_index_entry(&entry, index.columns.len())?;
            if key_contains_null(key_bytes, index.columns.len())? {
                continue;
            }
            let row = view
                .read_at(storage, primary_key, 0)?
                .and_then(|version| version.row);
            let Some(row) = row else {
                continue;
            };
            if index_key(index, &row)? != key_bytes {
                continue;
            }
            if last.as_deref() == Some(key_bytes) {
                return Ok(last);
            }
            last = Some(Bytes::copy_from_slice(key_bytes));
        }
        Ok(None)
    }
}

struct BuildStep<'a> {
    store: &'a ShardStore,
    index: &'a IndexDescriptor,
    changes: Vec<EngineChange>,
    /// Entries made in this step, which the engine does not know yet.
    made: std::collections::BTreeSet<Bytes>,
}

impl BuildStep<'_> {
    /// Makes the entry, unless it is there already: then a version at least as new needs it.
    fn make_entry(&mut self, entry: Bytes, commit_timestamp: u64) -> Result<bool, StorageError> {
        let keyspace = KeyspaceId(self.index.storage);
        if self.made.contains(&entry) || self.store.engine.get(keyspace, &entry)?.is_some() {
            return Ok(false);
        }
        self.made.insert(entry.clone());
        let value = Bytes::copy_from_slice(&commit_timestamp.to_be_bytes());
        self.changes.push(EngineChange::Put {
            keyspace,
            key: entry,
            value,
        });
        Ok(true)
    }

    fn fill_from_newest(
        &mut self,
        storage: u64,
        from: &[u8],
        budget_rows: usize,
    ) -> Result<Option<IndexBuildCursor>, StorageError> {
        let snapshot = self.store.engine.snapshot();
        let mut cursor = snapshot.scan(KeyspaceId(storage), from, &[], false)?;
        let mut seen = 0;
        while let Some((key, value)) = cursor.next()? {
            if seen >= budget_rows.max(1) {
                return Ok(Some(IndexBuildCursor {
                    from: Bytes::copy_from_slice(key),
                    in_history: false,
                }));
            }
            seen += 1;
            if let (commit_timestamp, Some(row)) = version::split_newest(value)? {
                self.make_entry(index_entry(self.index, key, row)?, commit_timestamp)?;
            }
        }
        Ok(Some(IndexBuildCursor {
            from: Bytes::copy_from_slice(&storage.to_be_bytes()),
            in_history: true,
        }))
    }

    /// Newest first for each row, so an entry that is missing here belongs to this version and older ones only.
    fn fill_from_history(
        &mut self,
        storage: u64,
        from: &[u8],
        budget_rows: usize,
    ) -> Result<Option<IndexBuildCursor>, StorageError> {
        let snapshot = self.store.engine.snapshot();
        let upper = prefix_end(&storage.to_be_bytes());
        let mut cursor = snapshot.scan(HISTORY_KEYSPACE, from, &upper, false)?;
        let mut seen = 0;
        while let Some((history_key, value)) = cursor.next()? {
            if seen >= budget_rows.max(1) {
                return Ok(Some(IndexBuildCursor {
                    from: Bytes::copy_from_slice(history_key),
                    in_history: true,
                }));
            }
            seen += 1;
            let (_, key, commit_timestamp) = version::split_history_key(history_key)?;
            let mut record = version::decode_history(value)?;
            let HistoryKind::Version(Some(row)) = record.kind else {
                continue;
            };
            let index_key = index_key(self.index, row)?;
            if self.make_entry(entry_of(&index_key, key), commit_timestamp)? {
                record.stale_entries.push(StaleEntry {
                    index: self.index.storage,
                    index_key,
                });
                self.changes.push(EngineChange::Put {
                    keyspace: HISTORY_KEYSPACE,
                    key: Bytes::copy_from_slice(history_key),
                    value: version::encode_history(record.superseded_at, Some(row), &record.stale_entries),
                });
            }
        }
        Ok(None)
    }
}
