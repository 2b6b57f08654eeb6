//! An immutable view of the catalog. Statements hold one for as long as they run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schema::{ShardGroup, Table, TableId, User};

/// Everything the catalog holds, at one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogSnapshot {
    /// Grows with each change of anything.
    pub version: u64,
    /// Schemas other than the system's.
    pub schemas: Vec<String>,
    /// All tables.
    pub tables: BTreeMap<TableId, Arc<Table>>,
    /// All shard groups.
    pub groups: BTreeMap<u32, ShardGroup>,
    /// All users.
    pub users: BTreeMap<String, User>,
    /// The next table, index or other object id (`oid`s from 16384 on, as in PostgreSQL).
    pub next_object_id: u32,
    /// The next storage id.
    pub next_storage_id: u64,
    /// What no table names any more, until it is gone from all shards.
    pub dropped: Vec<DroppedStorage>,
}

/// A storage that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedStorage {
    /// The shard group that has it.
    pub group: u32,
    /// The storage.
    pub storage: u64,
}

/// The schema that unqualified names live in.
pub const DEFAULT_SCHEMA: &str = "public";
/// Object ids below this are the system's.
pub const FIRST_USER_OBJECT_ID: u32 = 16_384;
/// Storage ids below this are the shard engines' own keyspaces.
pub const FIRST_STORAGE_ID: u64 = 1_024;

impl CatalogSnapshot {
    /// The catalog of a new cluster.
    pub fn new() -> Self {
        Self {
            version: 1,
            schemas: vec![DEFAULT_SCHEMA.to_owned()],
            next_object_id: FIRST_USER_OBJECT_ID,
            next_storage_id: FIRST_STORAGE_ID,
            ..Self::default()
        }
    }

    /// Finds a table; `schema` `None` searches the default one.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Option<&Arc<Table>> {
        let schema = schema.unwrap_or(DEFAULT_SCHEMA);
        self.tables
            .values()
            .find(|table| table.name == name && table.schema == schema)
    }

    /// The table whose rows are in `storage`.
    pub fn table_in(&self, storage: u64) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.storage == storage)
    }

    /// Has `storages` of the shards of `group` dropped, once nobody can be reading them.
    pub fn drop_storages(&mut self, group: u32, storages: impl IntoIterator<Item = u64>) {
        let dropped = storages
            .into_iter()
            .map(|storage| DroppedStorage { group, storage });
        self.dropped.extend(dropped);
    }

    /// The shard group of `table`. Every table has one.
    pub fn group_of(&self, table: &Table) -> Option<&ShardGroup> {
        self.groups.get(&table.group)
    }
}
