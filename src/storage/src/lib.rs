//! How data is kept: rows and keys as bytes, the node's write-ahead log, and the versions of rows in a shard
//! engine.

pub mod descriptor;
pub mod error;
pub mod key;
pub mod memory_engine;
pub mod row;
#[cfg(test)]
mod sample_datum;
pub mod shard;
mod value;
pub mod wal;

pub use error::StorageError;
pub use shard::ShardStore;
