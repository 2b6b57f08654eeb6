//! The ordered key-value store below MVCC: one engine a shard, one keyspace a table or index.
//!
//! An engine has no log of its own. A batch is atomic and visible at once, but durable only after a flush;
//! after a crash the engine holds exactly the batches up to some `applied_lsn`, which tells where replay of
//! the node's write-ahead log begins. RocksDB in production (a prefix of its keys a keyspace, its log off), an ordered
//! map with the same crash semantics in the simulator.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// Names a keyspace inside an engine: a table's rows, their history, or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u64);

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChange {
    /// Sets `key` to `value`.
    Put {
        /// Where.
        keyspace: KeyspaceId,
        /// Which key.
        key: Bytes,
        /// The new value.
        value: Bytes,
    },
    /// Removes `key`.
    Delete {
        /// Where.
        keyspace: KeyspaceId,
        /// Which key.
        key: Bytes,
    },
}

/// Changes that become visible and durable together. Every keyspace named must have been created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineBatch {
    /// Applied in order; a later change of the same key wins.
    pub changes: Vec<EngineChange>,
    /// The log position that this batch reaches; must not be below the engine's.
    pub applied_lsn: u64,
}

/// What an engine can report.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The keyspace was never created or was dropped.
    #[error("keyspace {0} does not exist in this shard engine")]
    UnknownKeyspace(u64),
    /// Wrong key, tampered or damaged files. Nothing was served from them.
    #[error("shard engine at {path} is damaged or has another key: {reason}")]
    Corrupt {
        /// Which engine.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The device failed or is full. The engine refuses writes from here on.
    #[error("shard engine i/o failed: {0}")]
    Io(String),
}

/// A consistent view of the whole engine at one instant.
pub trait EngineSnapshot: Send + Sync {
    /// The value of `key` in this view.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// A cursor over `lower <= key < upper` (`upper` empty: to the end), ascending, or descending if `reverse`.
    ///
    /// # Errors
    /// [`EngineError`].
    fn scan<'a>(
        &'a self,
        keyspace: KeyspaceId,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<Box<dyn EngineCursor + 'a>, EngineError>;
}

/// Walks keys in order.
pub trait EngineCursor: Send {
    /// The next key and value, or `None` at the end. The slices live until the next call.
    ///
    /// # Errors
    /// [`EngineError`].
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, EngineError>;
}

/// One shard's store. All calls are synchronous and take microseconds, [`flush`](ShardEngine::flush) aside.
#[async_trait]
pub trait ShardEngine: Send + Sync {
    /// Creates `keyspace`, durably; nothing happens if it exists.
    ///
    /// # Errors
    /// [`EngineError`].
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError>;

    /// Drops `keyspace` and its content, durably; nothing happens if it does not exist.
    ///
    /// # Errors
    /// [`EngineError`].
    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError>;

    /// The existing keyspaces, ascending.
    fn keyspaces(&self) -> Vec<KeyspaceId>;

    /// Applies `batch` atomically. Visible at once; durable after the next flush.
    ///
    /// # Errors
    /// [`EngineError`]; nothing was applied then.
    fn write(&self, batch: EngineBatch) -> Result<(), EngineError>;

    /// The current value of `key`.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// A consistent view of now.
    fn snapshot(&self) -> Arc<dyn EngineSnapshot>;

    /// The log position reached by the last applied batch (0 for a new engine).
    fn applied_lsn(&self) -> u64;

    /// The log position that would survive a power loss now: the log may be cut below it.
    fn durable_lsn(&self) -> u64;

    /// Makes everything applied so far durable.
    ///
    /// # Errors
    /// [`EngineError`]; the durable position did not move then.
    async fn flush(&self) -> Result<(), EngineError>;

    /// Approximate bytes held, for rebalancing and monitoring.
    fn approximate_bytes(&self) -> u64;

    /// Flushes and releases files and locks. The engine must not be used afterwards.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn close(&self) -> Result<(), EngineError>;
}

/// The 256-bit key that encrypts an engine's files, with its version.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineKey {
    /// Counts rotations; written in the clear in each file's header.
    pub version: u32,
    /// The secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for EngineKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "EngineKey {{ version: {}, secret: <hidden> }}",
            self.version
        )
    }
}

/// Opens engines in a node's data directory.
#[async_trait]
pub trait ShardEngineFactory: Send + Sync {
    /// Opens the engine at `path` (relative to the node's data directory), creating it if missing.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] for a wrong key or damaged files.
    async fn open(&self, path: &str, key: &EngineKey) -> Result<Arc<dyn ShardEngine>, EngineError>;

    /// Removes a closed engine and its files; nothing happens if there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn destroy(&self, path: &str) -> Result<(), EngineError>;
}
