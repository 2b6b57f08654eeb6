//! Tables and what belongs to them.

use neorunbase_expression::{ColumnId, Expression};
use neorunbase_types::{Datum, SqlType};
use serde::{Deserialize, Serialize};

/// A table's name for ever; also its `pg_class.oid`.
pub type TableId = u32;

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Names the column in stored rows; never reused in a table. Also `pg_attribute.attnum`.
    pub id: ColumnId,
    /// As users write it.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// NOT NULL (primary key columns included).
    pub not_null: bool,
    /// DEFAULT, already cast to the column's type.
    pub default: Option<Expression>,
    /// The default's source text, for the catalogs.
    pub default_text: Option<String>,
    /// The value in rows that were written before the column existed.
    pub missing: Datum,
}

/// The primary key; its columns order the rows inside a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrimaryKey {
    /// The constraint's name, such as `orders_pkey`.
    pub name: String,
    /// In key order.
    pub columns: Vec<ColumnId>,
}

/// An index, local to each shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Its `pg_class.oid`.
    pub id: TableId,
    /// Where its entries live.
    pub storage: u64,
    /// Its name.
    pub name: String,
    /// In key order; `true`: descending.
    pub columns: Vec<(ColumnId, bool)>,
    /// No two rows with the same values (none of them NULL). Only if the shard key's columns are among them.
    pub unique: bool,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its id.
    pub id: TableId,
    /// Its schema, such as `public`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Live columns in order of definition.
    pub columns: Vec<Column>,
    /// `None`: rows are keyed by a hidden row id (column [`ROW_ID_COLUMN`]).
    pub primary_key: Option<PrimaryKey>,
    /// Hashed to find the shard. All are primary key columns; `[ROW_ID_COLUMN]` where there is none.
    pub shard_key: Vec<ColumnId>,
    /// Its indexes, primary key aside.
    pub indexes: Vec<Index>,
    /// Where its rows live; changes with TRUNCATE and rewrites.
    pub storage: u64,
    /// The shard group that holds it. Tables of a group are co-located.
    pub group: u32,
    /// Grows with each change of this table.
    pub version: u64,
    /// The next column's id.
    pub next_column_id: ColumnId,
    /// Who created it.
    pub owner: String,
    /// The timestamp at which its storage took over from nothing, or from another one: it holds nothing of the past
    /// before.
    #[serde(default)]
    pub rows_since: u64,
}

/// The hidden `bigint` key of tables without a primary key.
pub const ROW_ID_COLUMN: ColumnId = u32::MAX;

impl Table {
    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column with this id.
    pub fn column_by_id(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Columns of the rows' key, in key order: the primary key's, or the hidden row id.
    pub fn key_columns(&self) -> Vec<ColumnId> {
        self.primary_key
            .as_ref()
            .map_or_else(|| vec![ROW_ID_COLUMN], |key| key.columns.clone())
    }

    /// The type of a key column (the hidden row id is `bigint`).
    pub fn key_column_type(&self, id: ColumnId) -> SqlType {
        self.column_by_id(id)
            .map_or(SqlType::BigInt, |column| column.sql_type.clone())
    }
}

/// A set of shards that split the hash space evenly; the tables in it are co-located.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardGroup {
    /// Its number.
    pub id: u32,
    /// How many shards.
    pub shards: u32,
    /// Copies of each.
    pub replicas: u32,
    /// Names of the shard key's types: tables are co-located only if they hash alike.
    pub key_signature: String,
}

/// A role that may log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The SCRAM-SHA-256 verifier in PostgreSQL's text form.
    pub verifier: String,
    /// May do everything.
    pub superuser: bool,
    /// Must change the password before anything else works.
    pub must_change_password: bool,
}
