//! What a Data Node must know of a table to write it: where rows and index entries go and what to call things
//! in error messages. Travels with each write as a cached program.

use neorunbase_types::{Datum, SqlType};
use serde::{Deserialize, Serialize};

/// A column that is part of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// The column's id in stored rows.
    pub column: u32,
    /// Its name, for messages.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Sorts descending (indexes only).
    pub descending: bool,
    /// The value in rows that were written before the column existed.
    pub missing: Datum,
}

/// An index as the Data Node maintains it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexDescriptor {
    /// Keyspace of the entries: index key ‖ primary key.
    pub storage: u64,
    /// Its name, for messages.
    pub name: String,
    /// Its columns.
    pub columns: Vec<KeyColumn>,
    /// Enforce uniqueness (of rows without NULL in these columns).
    pub unique: bool,
}

/// A table as the Data Node writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDescriptor {
    /// Keyspace of the newest row versions.
    pub storage: u64,
    /// The table's schema, for messages.
    pub schema_name: String,
    /// The table's name, for messages.
    pub table_name: String,
    /// The primary key constraint's name, for messages.
    pub primary_key_name: String,
    /// The primary key's columns.
    pub primary_key: Vec<KeyColumn>,
    /// Its indexes.
    pub indexes: Vec<IndexDescriptor>,
    /// The table's schema version.
    pub version: u64,
}
