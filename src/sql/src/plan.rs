//! What a statement means: the analysed form that sessions execute and cache.

use std::sync::Arc;

use neorunbase_catalog::Table;
use neorunbase_catalog::schema::{Column, TableId};
use neorunbase_expression::{Expression, ScanProgram, WriteProgram};
use neorunbase_types::{Interval, SqlError, SqlType};
use serde::{Deserialize, Serialize};

use crate::access::{AccessPath, RowLocking};

/// A result column.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultColumn {
    /// Its label.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Its table's oid and column number where it is a plain column, else zeros.
    pub origin: (u32, i16),
}

/// An analysed statement.
#[derive(Clone)]
pub struct Statement {
    /// The plan.
    pub plan: Plan,
    /// Types of `$1`, …
    pub parameter_types: Vec<SqlType>,
    /// Result columns, or `None` if it returns no rows.
    pub columns: Option<Vec<ResultColumn>>,
    /// Version of the catalog it was analysed against; when tables it uses have changed, analyse again.
    pub catalog_version: u64,
    /// May run in a READ ONLY transaction.
    pub read_only: bool,
    /// It says `cluster_logical_timestamp()`: each execution has to be analysed with the timestamp that it is to show.
    pub uses_logical_timestamp: bool,
}

/// The kinds of statement.
#[derive(Clone)]
pub enum Plan {
    /// An empty string or only comments.
    Empty,
    /// A single-table SELECT without joins, grouping, ordering (or with at most one row): no planner at run time.
    SimpleSelect(Arc<SimpleSelect>),
    /// Rows of expressions that need no table: `SELECT 1, version()`.
    Values(Vec<Vec<Expression>>),
    /// Any other query, by DataFusion.
    Query(Arc<crate::query::QueryPlan>),
    /// INSERT
    Insert(Arc<Insert>),
    /// UPDATE or DELETE that the Data Nodes can evaluate.
    Modify(Arc<Modify>),
    /// UPDATE or DELETE with joins or subqueries, or of key columns: a query finds the rows first.
    ModifyByQuery(Arc<ModifyByQuery>),
    /// COPY … FROM STDIN or TO STDOUT
    Copy(Arc<Copy>),
    /// CREATE, ALTER, DROP, TRUNCATE
    Definition(Arc<Definition>),
    /// BEGIN, COMMIT, …
    Transaction(TransactionCommand),
    /// SET, SHOW, RESET, DISCARD
    Setting(SettingCommand),
    /// VACUUM, ANALYZE: accepted; VACUUM collects old row versions.
    Maintenance {
        /// The command tag, such as `VACUUM`.
        tag: &'static str,
    },
    /// EXPLAIN of a statement: its plan as text lines.
    Explain(Vec<String>),
    /// Always fails (analysis could tell).
    Failure(Box<SqlError>),
}

/// `SELECT exprs FROM table WHERE …` whose rows need no further work after the Data Nodes.
pub struct SimpleSelect {
    /// The table.
    pub table: Arc<Table>,
    /// Which rows to visit.
    pub path: AccessPath,
    /// Filter and output.
    pub program: Arc<ScanProgram>,
    /// LIMIT (constant or parameter).
    pub limit: Option<Expression>,
    /// FOR UPDATE / SHARE
    pub locking: Option<RowLocking>,
}

/// Where inserted rows come from.
pub enum InsertSource {
    /// VALUES: one expression a target column and row, already cast to the column's type.
    Values(Vec<Vec<Expression>>),
    /// A query; its columns are cast by position with these expressions (inputs = query columns).
    Query(Arc<crate::query::QueryPlan>, Vec<Expression>),
}

/// INSERT
pub struct Insert {
    /// The table.
    pub table: Arc<Table>,
    /// For each table column in order: the value over the source row's columns (`Input` = position in the source row)
    /// or a default.
    pub row: Vec<Expression>,
    /// The source rows.
    pub source: InsertSource,
    /// ON CONFLICT DO NOTHING
    pub skip_conflicts: bool,
    /// RETURNING over the inserted row's columns in table order (`Input` = position in `table.columns`).
    pub returning: Option<Vec<Expression>>,
}

/// UPDATE or DELETE pushed to the Data Nodes.
pub struct Modify {
    /// The table.
    pub table: Arc<Table>,
    /// Which rows to visit.
    pub path: AccessPath,
    /// Filter, assignments, NOT NULL checks, RETURNING.
    pub program: Arc<WriteProgram>,
    /// DELETE
    pub delete: bool,
    /// Has RETURNING.
    pub returning: bool,
}

/// UPDATE or DELETE by way of a query.
pub struct ModifyByQuery {
    /// The table.
    pub table: Arc<Table>,
    /// Yields, for each row to change: all columns of the old row in table order, then (for UPDATE) all columns of the new row;
    /// for tables without primary key the hidden row id comes first of all.
    pub query: Arc<crate::query::QueryPlan>,
    /// DELETE
    pub delete: bool,
    /// RETURNING over the new (UPDATE) or old (DELETE) row in table order.
    pub returning: Option<Vec<Expression>>,
}

/// COPY
pub struct Copy {
    /// The table (COPY FROM) …
    pub table: Option<Arc<Table>>,
    /// … and its columns in file order (positions in `table.columns`).
    pub columns: Vec<usize>,
    /// COPY TO: the query.
    pub query: Option<Arc<crate::query::QueryPlan>>,
    /// Text or CSV.
    pub csv: bool,
    /// Skip or write a header line.
    pub header: bool,
    /// Between columns.
    pub delimiter: u8,
    /// Stands for NULL.
    pub null: String,
}

/// BEGIN and friends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionCommand {
    /// BEGIN, START TRANSACTION
    Begin(TransactionModes),
    /// COMMIT, END
    Commit,
    /// ROLLBACK, ABORT
    Rollback,
    /// SAVEPOINT
    Savepoint(String),
    /// ROLLBACK TO SAVEPOINT
    RollbackTo(String),
    /// RELEASE SAVEPOINT
    Release(String),
    /// SET TRANSACTION
    SetModes(TransactionModes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION
    SetSessionModes(TransactionModes),
}

/// What BEGIN and SET TRANSACTION may say; `None`: as before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// ISOLATION LEVEL
    pub isolation: Option<IsolationLevel>,
    /// READ ONLY / READ WRITE
    pub read_only: Option<bool>,
    /// DEFERRABLE / NOT DEFERRABLE
    pub deferrable: Option<bool>,
    /// AS OF SYSTEM TIME
    pub as_of: Option<AsOf>,
}

/// Which past AS OF SYSTEM TIME shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// A timestamp of the database, as `cluster_logical_timestamp()` shows it.
    Logical(u64),
    /// An instant, in microseconds since 1970.
    Instant(i64),
    /// So long ago: a negative interval.
    Ago(Interval),
}

/// Isolation levels. READ UNCOMMITTED is READ COMMITTED, as in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IsolationLevel {
    /// Each statement sees what was committed before it began.
    ReadCommitted,
    /// Snapshot isolation.
    RepeatableRead,
    /// Strict serializability.
    Serializable,
}

/// SET, SHOW, RESET, DISCARD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingCommand {
    /// SET [LOCAL] name = value (`None`: DEFAULT)
    Set {
        /// The setting, lower case.
        name: String,
        /// Its new value.
        value: Option<String>,
        /// Until the end of the transaction only.
        local: bool,
    },
    /// SHOW name (or `all`)
    Show(String),
    /// RESET name (or `all`)
    Reset(String),
    /// DISCARD ALL and friends
    Discard,
}

/// A change of the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Definition {
    /// CREATE TABLE
    CreateTable(CreateTable),
    /// DROP TABLE
    DropTables {
        /// Those that exist.
        tables: Vec<TableId>,
        /// For those that do not (IF EXISTS): notices.
        missing: Vec<String>,
    },
    /// CREATE INDEX
    CreateIndex {
        /// On which table.
        table: TableId,
        /// Its name (chosen, if none was given).
        name: String,
        /// Columns (ids) and whether descending.
        columns: Vec<(u32, bool)>,
        /// UNIQUE
        unique: bool,
        /// IF NOT EXISTS
        if_not_exists: bool,
    },
    /// DROP INDEX
    DropIndexes {
        /// Ids of those that exist.
        indexes: Vec<TableId>,
        /// For those that do not (IF EXISTS): notices.
        missing: Vec<String>,
    },
    /// ALTER TABLE … ADD PRIMARY KEY: rewrites the table.
    AddPrimaryKey {
        /// The table.
        table: TableId,
        /// The constraint's name.
        name: String,
        /// Column ids.
        columns: Vec<u32>,
    },
    /// ALTER TABLE … ADD COLUMN
    AddColumn {
        /// The table.
        table: TableId,
        /// The column (its `id` is assigned when executed).
        column: Column,
        /// IF NOT EXISTS
        if_not_exists: bool,
    },
    /// ALTER TABLE … DROP COLUMN
    DropColumn {
        /// The table.
        table: TableId,
        /// The column.
        column: u32,
    },
    /// ALTER TABLE … RENAME TO
    RenameTable {
        /// The table.
        table: TableId,
        /// Its new name.
        name: String,
    },
    /// ALTER TABLE … RENAME COLUMN
    RenameColumn {
        /// The table.
        table: TableId,
        /// The column.
        column: u32,
        /// Its new name.
        name: String,
    },
    /// TRUNCATE
    Truncate {
        /// The tables.
        tables: Vec<TableId>,
    },
    /// ALTER USER … PASSWORD, CREATE USER … PASSWORD
    SetPassword {
        /// The user.
        user: String,
        /// In the clear, or a SCRAM verifier in PostgreSQL's text form.
        password: String,
        /// CREATE USER
        create: bool,
    },
    /// DROP USER
    DropUser {
        /// The user.
        user: String,
        /// IF EXISTS
        if_exists: bool,
    },
}

/// CREATE TABLE
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Columns with ids 1, 2, …
    pub columns: Vec<Column>,
    /// Constraint name and column ids.
    pub primary_key: Option<(String, Vec<u32>)>,
    /// Column ids of SHARD KEY, if given.
    pub shard_key: Option<Vec<u32>>,
    /// SHARDS, if given.
    pub shards: Option<u32>,
    /// REPLICAS, if given.
    pub replicas: Option<u32>,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
}
