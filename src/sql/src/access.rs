//! How queries reach rows. The Coordinator implements [`TableAccess`] for one statement: its transaction,
//! snapshot, routing and retries live behind it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use neorunbase_catalog::Table;
use neorunbase_expression::{Expression, ScanProgram};
use neorunbase_types::{Datum, Result};

/// Which rows of a table a statement needs to visit. Values are constant expressions over parameters.
/// Only a way to find candidates: the statement's filter is still applied to every row.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessPath {
    /// These primary keys (all key columns, in key order, already of the columns' types): each touches one shard.
    Keys(Vec<Vec<Expression>>),
    /// One shard (the shard key's values are known), all its rows with this primary key prefix (may be empty).
    ShardKey {
        /// The shard key columns' values.
        shard_key: Vec<Expression>,
        /// Values of leading primary key columns.
        key_prefix: Vec<Expression>,
    },
    /// All shards, rows whose leading index columns have these values. `index` is a position in `Table::indexes`.
    Index {
        /// Which index.
        index: usize,
        /// Values of its leading columns.
        prefix: Vec<Expression>,
    },
    /// All rows of all shards.
    Full,
}

/// Row locks that a query takes (`FOR UPDATE` and friends).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLocking {
    /// FOR UPDATE / NO KEY UPDATE rather than FOR SHARE / KEY SHARE.
    pub exclusive: bool,
    /// NOWAIT
    pub no_wait: bool,
    /// SKIP LOCKED
    pub skip_locked: bool,
}

/// One table scan.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The table.
    pub table: Arc<Table>,
    /// Which rows to visit.
    pub path: AccessPath,
    /// Filter and output, run on the Data Nodes. Inputs are column ids of `table`.
    pub program: Arc<ScanProgram>,
    /// The statement's parameters.
    pub parameters: Arc<[Datum]>,
    /// Enough rows (of the whole scan); `None`: all.
    pub limit: Option<u64>,
    /// Locks to take.
    pub locking: Option<RowLocking>,
}

/// Rows of one statement, under its transaction and snapshot.
#[async_trait]
pub trait TableAccess: Send + Sync {
    /// Runs a scan. Each batch holds encoded tuples (`neorunbase_storage::row::decode_tuple`) of the program's
    /// output, in no particular order.
    ///
    /// # Errors
    /// The statement's error; it ends the stream.
    async fn scan(&self, request: ScanRequest) -> Result<BoxStream<'static, Result<Vec<Bytes>>>>;
}
