//! One shard's RocksDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_world::ShardEngine;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, EngineError, EngineSnapshot, KeyspaceId};
use parking_lot::{Mutex, RwLock};
use rocksdb::properties::BACKGROUND_ERRORS;
use rocksdb::{DB, FlushOptions, ReadOptions, ReadTier, WriteBatch, WriteOptions};

use crate::engine_error;
use crate::keyspaces::{Incarnation, KeyspaceFile, Keyspaces, OWN_INCARNATION};
use crate::snapshot::{ClosedSnapshot, RocksDbSnapshot};

/// Where the [`Progress`] stands, among the engine's own keys.
const PROGRESS_KEY: &[u8] = b"applied_lsn";

/// What is left of a dropped keyspace is deleted key by key if it is no more than this: each range that is deleted as a whole
/// is looked at by readers until it has been compacted away.
const DELETED_SINGLY: usize = 1_000;

/// How long to sleep between two looks at what a flush has brought to disk.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_micros(500);
/// Flush once more if so many looks showed nothing new.
const FLUSH_POLLS_BEFORE_ANOTHER: u32 = 1000;

/// What each batch leaves behind: both numbers as little-endian 64 bits.
#[derive(Clone, Copy, Default)]
struct Progress {
    applied_lsn: u64,
    /// Counts batches, since several may reach the same log position.
    batch_number: u64,
}

pub(crate) struct RocksDbEngine {
    core: Arc<EngineCore>,
}

/// Shared with the threads that flush and close.
///
/// Locks are taken in the order `keyspace_file`, `database`, then one of the others.
struct EngineCore {
    path: Arc<str>,
    read_options: ReadOptions,
    persisted_read_options: ReadOptions,
    write_options: WriteOptions,
    /// Held while keyspaces come and go.
    keyspace_file: Mutex<KeyspaceFile>,
    keyspaces: Arc<RwLock<Keyspaces>>,
    /// `None` once closed. Readers and writers share it; dropping a keyspace and closing exclude them.
    database: RwLock<Option<Arc<DB>>>,
    /// Batches reach RocksDB in the order of their log positions.
    write_order: Mutex<Progress>,
    /// The position in `write_order`, for readers.
    applied_lsn: AtomicU64,
    /// The highest durable position seen so far; the truth is in the files.
    durable_lsn: AtomicU64,
    /// Set by the first failed write or flush: from then on nothing more is written.
    failure: Mutex<Option<String>>,
}

impl RocksDbEngine {
    /// Wraps a database that was just opened, and the list of its keyspaces.
    pub(crate) fn new(path: Arc<str>, database: DB, file: KeyspaceFile) -> Result<Self, EngineError> {
        let mut persisted_read_options = ReadOptions::default();
        persisted_read_options.set_read_tier(ReadTier::Persisted);
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let progress = read_progress(&path, &database, &persisted_read_options)?;
        let keyspaces = match file.read()? {
            Some(keyspaces) => keyspaces,
            None if progress.batch_number == 0 => {
                file.write(&Keyspaces::none())?;
                Keyspaces::none()
            }
            None => {
                return Err(EngineError::Corrupt {
                    path: path.to_string(),
                    reason: "the list of its keyspaces is missing".to_owned(),
                });
            }
        };
        // A crash may have come before this was deleted, or before that was durable.
        for (first, last) in keyspaces.abandoned() {
            delete_all(&database, first, last, &write_options).map_err(|error| engine_error(&path, error))?;
        }
        Ok(Self {
            core: Arc::new(EngineCore {
                path,
                read_options: ReadOptions::default(),
                persisted_read_options,
                write_options,
                keyspace_file: Mutex::new(file),
                keyspaces: Arc::new(RwLock::new(keyspaces)),
                database: RwLock::new(Some(Arc::new(database))),
                write_order: Mutex::new(progress),
                applied_lsn: AtomicU64::new(progress.applied_lsn),
                durable_lsn: AtomicU64::new(progress.applied_lsn),
                failure: Mutex::new(None),
            }),
        })
    }
}

/// The progress stored in `database`; zero for a new one.
fn read_progress(path: &str, database: &DB, options: &ReadOptions) -> Result<Progress, EngineError> {
    let value = database
        .get_pinned_opt(OWN_INCARNATION.key(PROGRESS_KEY), options)
        .map_err(|error| engine_error(path, error))?;
    let Some(bytes) = value else {
        return Ok(Progress::default());
    };
    let Ok(bytes) = <[u8; 16]>::try_from(&bytes[..]) else {
        return Err(EngineError::Corrupt {
            path: path.to_owned(),
            reason: format!("the applied log position has {} bytes", bytes.len()),
        });
    };
    let both = u128::from_le_bytes(bytes);
    Ok(Progress {
        applied_lsn: both as u64,
        batch_number: (both >> 64) as u64,
    })
}

/// Deletes the keys of these incarnations. Not durable before the next flush, but files that hold nothing else go at once.
fn delete_all(
    database: &DB,
    first: Incarnation,
    last: Incarnation,
    options: &WriteOptions,
) -> Result<(), rocksdb::Error> {
    let (lower, upper) = (first.key(&[]), last.end());
    let mut batch = WriteBatch::default();
    let mut bounds = ReadOptions::default();
    bounds.set_iterate_lower_bound(lower.clone());
    bounds.set_iterate_upper_bound(upper);
    let mut iterator = database.raw_iterator_opt(bounds);
    iterator.seek_to_first();
    while let Some(key) = iterator.key().filter(|_| batch.len() < DELETED_SINGLY) {
        batch.delete(key);
        iterator.next();
    }
    // What cannot be read can still be deleted.
    let is_all = !iterator.valid() && iterator.status().is_ok();
    drop(iterator);
    if !is_all {
        database.delete_file_in_range(lower.as_slice(), upper.as_slice())?;
        batch.clear();
        batch.delete_range(lower.as_slice(), upper.as_slice());
    }
    if batch.is_empty() {
        return Ok(());
    }
    database.write_opt(batch, options)
}

impl Progress {
    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.batch_number) << 64 | u128::from(self.applied_lsn)).to_le_bytes()
    }
}

impl EngineCore {
    fn error(&self, error: rocksdb::Error) -> EngineError {
        engine_error(&self.path, error)
    }

    fn closed(&self) -> EngineError {
        EngineError::Io(format!("{}: the engine is closed", self.path))
    }

    /// Remembers a failed write or flush.
    fn failed(&self, error: rocksdb::Error) -> EngineError {
        let error = self.error(error);
        self.failure.lock().get_or_insert_with(|| error.to_string());
        error
    }

    fn refuse_after_failure(&self) -> Result<(), EngineError> {
        match &*self.failure.lock() {
            Some(failure) => Err(EngineError::Io(format!("writes stopped after: {failure}"))),
            None => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), EngineError> {
        let database = self.database.read().clone().ok_or_else(|| self.closed())?;
        self.flush_database(&database)
    }

    fn flush_database(&self, database: &DB) -> Result<(), EngineError> {
        self.refuse_after_failure()?;
        // Taken before the flush begins, so that all batches up to here are part of it.
        let target = *self.write_order.lock();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let errors_before = background_errors(database);
        loop {
            database.flush_opt(&options).map_err(|error| self.failed(error))?;
            // RocksDB's word is not taken: the files are asked until they hold the last batch
            // (docs/decisions/rocksdb-flush-asks-the-files.md).
            for _ in 0..FLUSH_POLLS_BEFORE_ANOTHER {
                let persisted = read_progress(&self.path, database, &self.persisted_read_options)?;
                if persisted.batch_number >= target.batch_number {
                    self.durable_lsn
                        .fetch_max(persisted.applied_lsn, Ordering::AcqRel);
                    return Ok(());
                }
                if background_errors(database) > errors_before {
                    let message = format!("{}: a flush failed in the background", self.path);
                    self.failure.lock().get_or_insert_with(|| message.clone());
                    return Err(EngineError::Io(message));
                }
                std::thread::sleep(FLUSH_POLL_INTERVAL);
            }
        }
    }

    fn close(&self) -> Result<(), EngineError> {
        let _keyspaces_stay = self.keyspace_file.lock();
        let Some(database) = self.database.write().take() else {
            return Ok(());
        };
        // Released even if the flush fails: the write-ahead log has what the files lack.
        let outcome = self.flush_database(&database);
        let snapshots = Arc::strong_count(&database) - 1;
        if snapshots > 0 {
            tracing::debug!(path = %self.path, snapshots, "shard engine closed while snapshots keep its files open");
        }
        drop(database);
        outcome
    }
}

/// How many flushes and compactions have failed since the database was opened.
fn background_errors(database: &DB) -> u64 {
    database
        .property_int_value(BACKGROUND_ERRORS)
        .ok()
        .flatten()
        .unwrap_or(0)
}

/// Runs `work` where it may block. It runs to its end even if the caller stops waiting.
async fn blocking(
    core: &Arc<EngineCore>,
    work: impl FnOnce(&EngineCore) -> Result<(), EngineError> + Send + 'static,
) -> Result<(), EngineError> {
    let core = Arc::clone(core);
    match tokio::task::spawn_blocking(move || work(&core)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(EngineError::Io(format!("a blocking call was cut short: {error}"))),
    }
}

#[async_trait]
impl ShardEngine for RocksDbEngine {
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        let core = &*self.core;
        let file = core.keyspace_file.lock();
        if core.keyspaces.read().incarnation(keyspace).is_ok() {
            return Ok(());
        }
        core.refuse_after_failure()?;
        if core.database.read().is_none() {
            return Err(core.closed());
        }
        let with = core.keyspaces.read().with(keyspace)?;
        file.write(&with)?;
        *core.keyspaces.write() = with;
        Ok(())
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        let core = &*self.core;
        let file = core.keyspace_file.lock();
        let Ok(incarnation) = core.keyspaces.read().incarnation(keyspace) else {
            return Ok(());
        };
        core.refuse_after_failure()?;
        // Exclusive: a batch that found the keyspace must not meet it dropped half way through.
        let database = core.database.write();
        let database = database.as_ref().ok_or_else(|| core.closed())?;
        let without = core.keyspaces.read().without(keyspace);
        // First, because a full disk may need the room to write the list.
        delete_all(database, incarnation, incarnation, &core.write_options)
            .map_err(|error| core.failed(error))?;
        file.write(&without)?;
        *core.keyspaces.write() = without;
        Ok(())
    }

    fn keyspaces(&self) -> Vec<KeyspaceId> {
        self.core.keyspaces.read().names().collect()
    }

    fn write(&self, batch: EngineBatch) -> Result<(), EngineError> {
        let core = &*self.core;
        core.refuse_after_failure()?;
        let database = core.database.read();
        let database = database.as_ref().ok_or_else(|| core.closed())?;

        let bytes: usize = batch
            .changes
            .iter()
            .map(|change| match change {
                EngineChange::Put { key, value, .. } => key.len() + value.len() + 20,
                EngineChange::Delete { key, .. } => key.len() + 20,
            })
            .sum();
        let mut writes = WriteBatch::with_capacity_bytes(bytes + 64);
        let keyspaces = core.keyspaces.read();
        for change in &batch.changes {
            match change {
                EngineChange::Put { keyspace, key, value } => {
                    writes.put(keyspaces.incarnation(*keyspace)?.key(key), value);
                }
                EngineChange::Delete { keyspace, key } => {
                    writes.delete(keyspaces.incarnation(*keyspace)?.key(key));
                }
            }
        }
        drop(keyspaces);

        let mut progress = core.write_order.lock();
        if batch.applied_lsn < progress.applied_lsn {
            return Err(EngineError::Io(format!(
                "{}: a batch that reaches log position {} came after one that reached {}",
                core.path, batch.applied_lsn, progress.applied_lsn
            )));
        }
        let reached = Progress {
            applied_lsn: batch.applied_lsn,
            batch_number: progress.batch_number + 1,
        };
        writes.put(OWN_INCARNATION.key(PROGRESS_KEY), reached.to_bytes());
        database
            .write_opt(writes, &core.write_options)
            .map_err(|error| core.failed(error))?;
        *progress = reached;
        core.applied_lsn.store(reached.applied_lsn, Ordering::Release);
        Ok(())
    }

    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let core = &*self.core;
        let database = core.database.read();
        let database = database.as_ref().ok_or_else(|| core.closed())?;
        let incarnation = core.keyspaces.read().incarnation(keyspace)?;
        let value = database
            .get_pinned_opt(incarnation.key(key), &core.read_options)
            .map_err(|error| core.error(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        let path = Arc::clone(&self.core.path);
        match &*self.core.database.read() {
            Some(database) => {
                let keyspaces = Arc::clone(&self.core.keyspaces);
                Arc::new(RocksDbSnapshot::new(path, Arc::clone(database), keyspaces))
            }
            None => Arc::new(ClosedSnapshot { path }),
        }
    }

    fn applied_lsn(&self) -> u64 {
        self.core.applied_lsn.load(Ordering::Acquire)
    }

    fn durable_lsn(&self) -> u64 {
        let core = &*self.core;
        // RocksDB also flushes by itself, so the files are asked. An error leaves the last known answer, which
        // keeps more of the log than needed.
        if let Some(database) = core.database.read().as_ref()
            && let Ok(durable) = read_progress(&core.path, database, &core.persisted_read_options)
        {
            return core
                .durable_lsn
                .fetch_max(durable.applied_lsn, Ordering::AcqRel)
                .max(durable.applied_lsn);
        }
        core.durable_lsn.load(Ordering::Acquire)
    }

    async fn flush(&self) -> Result<(), EngineError> {
        blocking(&self.core, EngineCore::flush).await
    }

    fn approximate_bytes(&self) -> u64 {
        let database = self.core.database.read();
        let Some(database) = database.as_ref() else {
            return 0;
        };
        let size_of = |property| database.property_int_value(property).ok().flatten().unwrap_or(0);
        let properties = ["rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
        properties.into_iter().map(size_of).sum()
    }

    async fn close(&self) -> Result<(), EngineError> {
        blocking(&self.core, EngineCore::close).await
    }
}
