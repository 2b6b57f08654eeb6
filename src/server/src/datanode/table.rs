//! A table as this node knows it, and the index entries of its rows.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_storage::StorageError;
use neorunbase_storage::descriptor::{IndexDescriptor, TableDescriptor};
use neorunbase_storage::key::encode_index_key;
use neorunbase_storage::row::decode_columns;
use neorunbase_storage::shard::index_entry;
use neorunbase_txn::write_set::IndexEntry;
use neorunbase_types::{Datum, SqlError};

/// A decoded descriptor with its encoded form, which the log stores.
#[derive(Debug)]
pub struct StoredTable {
    /// The table.
    pub descriptor: Arc<TableDescriptor>,
    /// Names the encoded form.
    pub digest: u64,
    /// As it came.
    pub encoded: Bytes,
}

impl StoredTable {
    /// Decodes a descriptor.
    ///
    /// # Errors
    /// If the bytes are no descriptor.
    pub fn decode(digest: u64, encoded: Bytes) -> Result<Self, Box<SqlError>> {
        let descriptor = postcard::from_bytes(&encoded)
            .map_err(|error| SqlError::internal(format!("table descriptor cannot be decoded: {error}")))?;
        Ok(Self {
            descriptor: Arc::new(descriptor),
            digest,
            encoded,
        })
    }
}

/// The index's columns of a row. Columns newer than the row have the value they were added with.
fn index_values(index: &IndexDescriptor, row: &[u8]) -> Result<Vec<Datum>, StorageError> {
    let wanted: Vec<(u32, &Datum)> = index
        .columns
        .iter()
        .map(|column| (column.column, &column.missing))
        .collect();
    let mut values = Vec::with_capacity(wanted.len());
    decode_columns(row, &wanted, &mut values)?;
    Ok(values)
}

/// The index key of these values: what entries of equal values begin with.
fn key_of_values(index: &IndexDescriptor, values: &[Datum]) -> Bytes {
    encode_index_key(
        values
            .iter()
            .zip(index.columns.iter().map(|column| column.descending)),
    )
}

/// All index entries of a row.
pub fn index_entries(
    table: &TableDescriptor,
    primary_key: &[u8],
    row: &[u8],
) -> Result<Vec<IndexEntry>, StorageError> {
    let mut entries = Vec::with_capacity(table.indexes.len());
    for index in &table.indexes {
        let entry = index_entry(index, primary_key, row)?;
        entries.push(IndexEntry {
            index: index.storage,
            entry,
        });
    }
    Ok(entries)
}

/// A value that a unique index guards: the index's position in the table, its key, and the values for messages.
#[derive(Clone, Debug, PartialEq)]
pub struct UniqueValue {
    /// Position in [`TableDescriptor::indexes`].
    pub index: usize,
    /// The index key.
    pub key: Bytes,
    /// The values.
    pub values: Vec<Datum>,
}

/// The unique index values of a row. NULL is equal to nothing, so rows with NULL have none.
pub fn unique_values(table: &TableDescriptor, row: &[u8]) -> Result<Vec<UniqueValue>, StorageError> {
    let mut unique = Vec::new();
    for (position, index) in table.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
        let values = index_values(index, row)?;
        if values.iter().any(Datum::is_null) {
            continue;
        }
        unique.push(UniqueValue {
            index: position,
            key: key_of_values(index, &values),
            values,
        });
    }
    Ok(unique)
}
