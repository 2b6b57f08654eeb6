//! Where a table's rows are: its shards, and which of them a key belongs to.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_catalog::routing::{hash_shard_key, shard_of_hash};
use neorunbase_catalog::schema::ROW_ID_COLUMN;
use neorunbase_catalog::{CatalogSnapshot, Table};
use neorunbase_protocol::message::{ProgramRef, ShardId, shard_id};
use neorunbase_storage::descriptor::{IndexDescriptor, KeyColumn, TableDescriptor};
use neorunbase_storage::key::encode_key;
use neorunbase_types::{Datum, Result, SqlError};

/// A table's shards and the descriptor that Data Nodes need to write it.
#[derive(Clone, Debug)]
pub struct TableLocation {
    /// The table.
    pub table: Arc<Table>,
    /// Number of shards of its group.
    shards: u32,
    /// Positions of the shard key's columns in the row key.
    shard_key_positions: Vec<usize>,
    /// Whether the shard key is the whole row key, in order: both then have one encoding.
    shard_key_is_key: bool,
    /// Its descriptor.
    pub descriptor: ProgramRef,
}

impl TableLocation {
    /// Finds `table` in `catalog`.
    ///
    /// # Errors
    /// `XX000` if the catalog contradicts itself.
    pub fn new(catalog: &CatalogSnapshot, table: &Arc<Table>) -> Result<Self> {
        let group = catalog
            .group_of(table)
            .ok_or_else(|| SqlError::internal(format!("table \"{}\" has no shard group", table.name)))?;
        let key_columns = table.key_columns();
        let shard_key_positions = table
            .shard_key
            .iter()
            .map(|column| key_columns.iter().position(|key| key == column))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| SqlError::internal("the shard key is not part of the row key"))?;
        let shard_key_is_key =
            shard_key_positions.len() == key_columns.len() && shard_key_positions.is_sorted();
        let encoded = postcard::to_stdvec(&descriptor(table)).map_err(SqlError::internal)?;
        Ok(Self {
            table: table.clone(),
            shards: group.shards,
            shard_key_positions,
            shard_key_is_key,
            descriptor: ProgramRef::new(encoded),
        })
    }

    /// All shards.
    pub fn all_shards(&self) -> Vec<ShardId> {
        (0..self.shards)
            .map(|index| shard_id(self.table.group, index))
            .collect()
    }

    /// The encoded row key and its shard. `key` holds the key columns' values in key order.
    pub fn locate(&self, key: &[Datum]) -> (ShardId, Bytes) {
        let encoded = encode_key(key);
        let hash = if self.shard_key_is_key {
            hash_shard_key(&encoded)
        } else {
            let shard_key: Vec<Datum> = self
                .shard_key_positions
                .iter()
                .map(|position| key[*position].clone())
                .collect();
            hash_shard_key(&encode_key(&shard_key))
        };
        (self.shard_of_hash(hash), encoded)
    }

    /// The shard of a shard key (its columns' values in shard key order).
    pub fn shard_of(&self, shard_key: &[Datum]) -> ShardId {
        self.shard_of_hash(hash_shard_key(&encode_key(shard_key)))
    }

    fn shard_of_hash(&self, hash: u64) -> ShardId {
        shard_id(self.table.group, shard_of_hash(hash, self.shards))
    }
}

/// What Data Nodes need to know of `table`.
pub fn descriptor(table: &Table) -> TableDescriptor {
    let key_column = |id: u32, descending: bool| KeyColumn {
        column: id,
        name: table
            .column_by_id(id)
            .map_or_else(|| "row id".to_owned(), |column| column.name.clone()),
        sql_type: table.key_column_type(id),
        descending,
        missing: table
            .column_by_id(id)
            .map_or(Datum::Null, |column| column.missing.clone()),
    };
    TableDescriptor {
        storage: table.storage,
        schema_name: table.schema.clone(),
        table_name: table.name.clone(),
        primary_key_name: table
            .primary_key
            .as_ref()
            .map_or_else(|| format!("{}_row_id", table.name), |key| key.name.clone()),
        primary_key: table
            .key_columns()
            .into_iter()
            .map(|id| key_column(id, false))
            .collect(),
        indexes: table
            .indexes
            .iter()
            .map(|index| IndexDescriptor {
                storage: index.storage,
                name: index.name.clone(),
                columns: index
                    .columns
                    .iter()
                    .map(|(id, descending)| key_column(*id, *descending))
                    .collect(),
                unique: index.unique,
            })
            .collect(),
        version: table.version,
    }
}

/// Whether rows of `table` are keyed by the hidden row id.
pub fn has_hidden_key(table: &Table) -> bool {
    table.shard_key.first() == Some(&ROW_ID_COLUMN)
}
