//! The production shard engine: one RocksDB a shard, each keyspace a prefix of its keys, every file encrypted.
//!
//! RocksDB's own log is off. Each batch also writes the log position that it reaches, so that after a crash that one number
//! tells exactly which batches the files hold; the node's write-ahead log has the rest.

#![cfg(not(madsim))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "RocksDB reaches the files and threads of the operating system; only production links it"
)]

mod encrypted_env;
mod engine;
mod factory;
mod file_cipher;
mod keyspaces;
mod options;
mod snapshot;

pub use factory::RocksDbEngineFactory;
pub use options::RocksDbOptions;

use neorunbase_world::shard_engine::EngineError;
use rocksdb::ErrorKind;

/// Sorts RocksDB's errors into those that name damage and those of the device.
pub(crate) fn engine_error(path: &str, error: rocksdb::Error) -> EngineError {
    match error.kind() {
        // The file cipher reports a wrong key or a foreign file as an invalid argument.
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
            EngineError::Corrupt {
                path: path.to_owned(),
                reason: error.into_string(),
            }
        }
        _ => EngineError::Io(format!("{path}: {error}")),
    }
}
