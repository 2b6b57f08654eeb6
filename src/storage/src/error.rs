//! What can go wrong below SQL.

use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::shard_engine::EngineError;

/// An error of rows, keys or versions.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Bytes that nobody here wrote.
    #[error("stored {what} cannot be decoded")]
    Malformed {
        /// A row, a key, a version…
        what: &'static str,
    },
    /// The table or index was never created here, or was dropped.
    #[error("storage {0} does not exist in this shard")]
    UnknownStorage(u64),
    /// What the snapshot would see was collected already.
    #[error("snapshot {snapshot} is older than {collected_below}, below which row versions were removed")]
    SnapshotTooOld {
        /// The snapshot asked for.
        snapshot: u64,
        /// The oldest that can be read.
        collected_below: u64,
    },
    /// A version was to be put before one that is there already.
    #[error("commit timestamp {commit_timestamp} is before {newest}, that of the row's newest version")]
    CommitOutOfOrder {
        /// Of the change.
        commit_timestamp: u64,
        /// Of the newest version.
        newest: u64,
    },
    /// The log position was applied before.
    #[error("log position {lsn} was already applied (the shard is at {applied_lsn})")]
    AlreadyApplied {
        /// Of the change.
        lsn: u64,
        /// The engine's.
        applied_lsn: u64,
    },
    /// The shard engine's own error.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::UnknownKeyspace(keyspace) => Self::UnknownStorage(keyspace),
            other => Self::Engine(other),
        }
    }
}

impl From<StorageError> for Box<SqlError> {
    fn from(error: StorageError) -> Self {
        let state = match &error {
            StorageError::Malformed { .. } | StorageError::Engine(EngineError::Corrupt { .. }) => {
                SqlState::DATA_CORRUPTED
            }
            StorageError::SnapshotTooOld { .. } => {
                return SqlError::new(SqlState::SNAPSHOT_TOO_OLD, "snapshot too old")
                    .with_detail(error.to_string())
                    .with_hint(
                        "Old row versions stay readable for history_retention_seconds of the data nodes; VACUUM removes them \
                         earlier.",
                    );
            }
            StorageError::Engine(EngineError::Io(_)) => SqlState::IO_ERROR,
            StorageError::UnknownStorage(_)
            | StorageError::CommitOutOfOrder { .. }
            | StorageError::AlreadyApplied { .. }
            | StorageError::Engine(EngineError::UnknownKeyspace(_)) => SqlState::INTERNAL_ERROR,
        };
        SqlError::new(state, error.to_string())
    }
}
