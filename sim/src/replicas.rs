//! Whether all copies of a shard hold the same, as only somebody outside the cluster can see.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use neorunbase_server::cluster::ShardMap;
use neorunbase_server::cluster::failure_domain::Topology;
use neorunbase_storage::StorageError;
use neorunbase_storage::descriptor::{IndexDescriptor, TableDescriptor};
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_storage::shard::{
    HISTORY_KEYSPACE, OldVersion, RowVersion, SYSTEM_KEYSPACE, collected_below, index_entry,
};
use neorunbase_world::shard_engine::{EngineError, EngineSnapshot, KeyspaceId};

/// Rows by storage and key, with the commit that made each.
type Rows = BTreeMap<(u64, Bytes), (u64, Bytes)>;
/// Storage, key, and the commit that made the version.
type VersionKey = (u64, Bytes, u64);

/// What a copy of a shard holds.
#[derive(Default)]
struct Held {
    storages: BTreeSet<u64>,
    rows: Rows,
    /// The index entries of `rows`, by the storage of the index.
    entries: BTreeSet<(u64, Bytes)>,
    /// Old versions, with the commit that superseded each.
    versions: BTreeMap<VersionKey, (u64, Bytes)>,
    collected_below: u64,
}

/// What is not as it should be once nothing is under way.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Shards without all of their copies.
    pub missing: Vec<String>,
    /// Copies that differ.
    pub unequal: Vec<String>,
}

impl Differences {
    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unequal.is_empty()
    }
}

/// Compares what all members of each in-sync set hold: the rows that live, that indexes lead to them, and old versions.
/// (What no snapshot can see any more is collected by each node in its own time.)
pub fn differences(
    map: &ShardMap,
    replicas: usize,
    engines_of: impl Fn(&str) -> Option<MemoryEngineFactory>,
) -> Differences {
    let mut found = Differences::default();
    for (shard, configuration) in map {
        if configuration.in_sync.len() < replicas {
            found.missing.push(format!(
                "shard {shard:#x} has {configuration:?} instead of {replicas} copies"
            ));
        }
    }
    if !found.missing.is_empty() {
        // Nothing is said of copies before all are there.
        return found;
    }
    for (shard, configuration) in map {
        let path = neorunbase_server::datanode::engine_path(*shard);
        let held_by = |node: &String| {
            let engine = engines_of(node).and_then(|engines| engines.look_into(&path));
            engine.map(|engine| Held::read(&*engine))
        };
        let Some(Ok(expected)) = held_by(&configuration.primary) else {
            found
                .missing
                .push(format!("shard {shard:#x} cannot be read on its primary"));
            continue;
        };
        for node in configuration
            .in_sync
            .iter()
            .filter(|node| **node != configuration.primary)
        {
            match held_by(node) {
                Some(Ok(held)) => {
                    if let Some(difference) = expected.first_difference(&held) {
                        found.unequal.push(format!(
                            "shard {shard:#x}: {node} differs from {}: {difference}",
                            configuration.primary
                        ));
                    }
                }
                Some(Err(error)) => found.unequal.push(format!("shard {shard:#x} on {node}: {error}")),
                None => found
                    .missing
                    .push(format!("shard {shard:#x} is not open on {node}")),
            }
        }
    }
    found
}

/// Node counts this far apart are even: shards are not equally large.
const EVEN_WITHIN: usize = 2;

/// Shards whose copies share more zones or racks than they must, and copies that make nodes uneven although they could be
/// elsewhere. All `nodes` are alive.
pub fn misplaced(map: &ShardMap, topology: &Topology, nodes: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let all: BTreeSet<String> = nodes.iter().cloned().collect();
    let mut copies: BTreeMap<&String, usize> = nodes.iter().map(|node| (node, 0)).collect();
    for (shard, configuration) in map {
        let replicas = &configuration.replicas;
        let best = topology.fewest_collisions(replicas.len(), &all);
        if topology.all_collisions(replicas) > best {
            found.push(format!("shard {shard:#x} on {replicas:?} could be spread better"));
        }
        for replica in replicas {
            *copies.entry(replica).or_default() += 1;
        }
    }
    for (shard, configuration) in map {
        for from in &configuration.replicas {
            let others = || configuration.replicas.iter().filter(|name| *name != from);
            let better = nodes.iter().find(|to| {
                !configuration.replicas.contains(to)
                    && topology.collisions(to, others()) <= topology.collisions(from, others())
                    && copies[from] > copies[*to] + EVEN_WITHIN
            });
            if let Some(to) = better {
                found.push(format!(
                    "{from} holds {} copies and {to} {}, where one of shard {shard:#x} could be",
                    copies[from], copies[to]
                ));
            }
        }
    }
    found
}

impl Held {
    fn read(engine: &dyn EngineSnapshot) -> Result<Self, StorageError> {
        let mut held = Self {
            collected_below: collected_below(engine)?,
            ..Self::default()
        };
        for (storage, indexes) in tables_in(engine)? {
            let mut cursor = match engine.scan(KeyspaceId(storage), &[], &[], false) {
                // Dropped since.
                Err(EngineError::UnknownKeyspace(_)) => continue,
                cursor => cursor?,
            };
            held.storages.insert(storage);
            while let Some((key, value)) = cursor.next()? {
                let version = RowVersion::decode(Bytes::copy_from_slice(value))?;
                let Some(row) = version.row else { continue };
                for index in indexes.values() {
                    let entry = index_entry(index, key, &row)?;
                    if has_entry(engine, index.storage, &entry)? {
                        held.entries.insert((index.storage, entry));
                    }
                }
                let key = (storage, Bytes::copy_from_slice(key));
                held.rows.insert(key, (version.commit_timestamp, row));
            }
        }
        let mut history = engine.scan(HISTORY_KEYSPACE, &[], &[], false)?;
        while let Some((key, value)) = history.next()? {
            if let Some(version) = OldVersion::decode(key, value)?
                && held.storages.contains(&version.storage)
            {
                let made = (version.storage, version.key, version.commit_timestamp);
                held.versions.insert(made, (version.superseded_at, version.row));
            }
        }
        Ok(held)
    }

    /// Where `other` is not the same, if anywhere.
    fn first_difference(&self, other: &Self) -> Option<String> {
        let key = first_different(&self.rows, &other.rows);
        if let Some(key) = key {
            return Some(format!(
                "storage {} key {:?}: {:?} instead of {:?}",
                key.0,
                key.1,
                other.rows.get(key).map(|(timestamp, _)| timestamp),
                self.rows.get(key).map(|(timestamp, _)| timestamp)
            ));
        }
        if let Some((index, entry)) = self.entries.symmetric_difference(&other.entries).next() {
            let what = if self.entries.contains(&(*index, entry.clone())) {
                "lacks"
            } else {
                "alone has"
            };
            return Some(format!(
                "index {index}: it {what} the entry {entry:?} of a row that lives"
            ));
        }
        // Versions that were superseded earlier may have been collected, by the one or the other.
        let collected_below = self.collected_below.max(other.collected_below);
        let (versions, others) = (
            self.versions_after(collected_below),
            other.versions_after(collected_below),
        );
        let made = first_different(&versions, &others)?;
        Some(format!(
            "old version of storage {} key {:?}, made at {}: superseded at {:?} instead of {:?} (collected below {} and {})",
            made.0,
            made.1,
            made.2,
            others.get(made).map(|version| version.0),
            versions.get(made).map(|version| version.0),
            other.collected_below,
            self.collected_below
        ))
    }

    fn versions_after(&self, collected_below: u64) -> BTreeMap<&VersionKey, &(u64, Bytes)> {
        let versions = self.versions.iter();
        versions
            .filter(|(_, version)| version.0 > collected_below)
            .collect()
    }
}

fn first_different<'a, K: Ord, V: PartialEq>(
    expected: &'a BTreeMap<K, V>,
    found: &'a BTreeMap<K, V>,
) -> Option<&'a K> {
    let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
    keys.into_iter().find(|key| expected.get(*key) != found.get(*key))
}

/// Each table's storage with the indexes that any of its definitions has.
fn tables_in(
    engine: &dyn EngineSnapshot,
) -> Result<BTreeMap<u64, BTreeMap<u64, IndexDescriptor>>, StorageError> {
    let mut tables: BTreeMap<u64, BTreeMap<u64, IndexDescriptor>> = BTreeMap::new();
    let mut encoded_tables = engine.scan(SYSTEM_KEYSPACE, b"table/", b"table0", false)?;
    while let Some((_, encoded)) = encoded_tables.next()? {
        let table: TableDescriptor =
            postcard::from_bytes(encoded).map_err(|error| EngineError::Io(error.to_string()))?;
        let indexes = table.indexes.into_iter().map(|index| (index.storage, index));
        tables.entry(table.storage).or_default().extend(indexes);
    }
    Ok(tables)
}

fn has_entry(engine: &dyn EngineSnapshot, index: u64, entry: &[u8]) -> Result<bool, StorageError> {
    match engine.get(KeyspaceId(index), entry) {
        // Dropped since, or its build has failed.
        Err(EngineError::UnknownKeyspace(_)) => Ok(false),
        found => Ok(found?.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::executor::block_on;
    use neorunbase_replication::Configuration;
    use neorunbase_storage::ShardStore;
    use neorunbase_storage::descriptor::KeyColumn;
    use neorunbase_storage::row::encode_row;
    use neorunbase_storage::shard::RowChange;
    use neorunbase_types::{Datum, SqlType};
    use neorunbase_world::shard_engine::{
        EngineBatch, EngineChange, EngineKey, ShardEngine, ShardEngineFactory,
    };

    use super::*;

    const SHARD: u64 = 1 << 32;
    const TABLE: u64 = 10;
    const INDEX: u64 = 11;

    fn table() -> TableDescriptor {
        let column = |column: u32, name: &str| KeyColumn {
            column,
            name: name.to_owned(),
            sql_type: SqlType::BigInt,
            descending: false,
            missing: Datum::Null,
        };
        TableDescriptor {
            storage: TABLE,
            schema_name: "public".to_owned(),
            table_name: "t".to_owned(),
            primary_key_name: "t_pkey".to_owned(),
            primary_key: vec![column(1, "id")],
            indexes: vec![IndexDescriptor {
                storage: INDEX,
                name: "t_mark".to_owned(),
                columns: vec![column(2, "mark")],
                unique: false,
            }],
            version: 1,
        }
    }

    /// A node's copy of the shard.
    struct Copy {
        engines: MemoryEngineFactory,
        store: ShardStore,
        engine: Arc<dyn ShardEngine>,
    }

    impl Copy {
        /// The row `k` with mark 1, then 2, then 3, at these times.
        fn new() -> Self {
            let engines = MemoryEngineFactory::new();
            let key = EngineKey {
                version: 1,
                secret: [0; 32],
            };
            let path = neorunbase_server::datanode::engine_path(SHARD);
            let engine = block_on(engines.open(&path, &key)).unwrap();
            let store = ShardStore::new(engine.clone()).unwrap();
            for storage in [TABLE, INDEX] {
                store.ensure_storage(storage).unwrap();
            }
            let definition = postcard::to_allocvec(&table()).unwrap();
            let copy = Self {
                engines,
                store,
                engine,
            };
            for mark in 1..=3 {
                let row = encode_row(&[(1, &Datum::BigInt(7)), (2, &Datum::BigInt(mark))]);
                let change = RowChange {
                    table: Arc::new(table()),
                    key: Bytes::from_static(b"k"),
                    row: Some(row),
                };
                let known = (Bytes::from_static(b"table/1"), Some(definition.clone().into()));
                let at = mark as u64 * 10;
                copy.store.apply(&[change], at, at, &[known]).unwrap();
            }
            copy
        }

        fn remove_last(&self, keyspace: KeyspaceId) {
            let snapshot = self.engine.snapshot();
            let mut cursor = snapshot.scan(keyspace, &[], &[], true).unwrap();
            let (key, _) = cursor.next().unwrap().unwrap();
            let change = EngineChange::Delete {
                keyspace,
                key: Bytes::copy_from_slice(key),
            };
            let batch = EngineBatch {
                changes: vec![change],
                applied_lsn: self.engine.applied_lsn(),
            };
            self.engine.write(batch).unwrap();
        }
    }

    fn compare(first: &Copy, second: &Copy) -> Differences {
        let nodes = vec!["first".to_owned(), "second".to_owned()];
        let configuration = Configuration {
            in_sync: nodes.clone(),
            ..Configuration::new(nodes)
        };
        let map = ShardMap::from([(SHARD, configuration)]);
        differences(&map, 2, |node| {
            Some(
                if node == "first" {
                    &first.engines
                } else {
                    &second.engines
                }
                .clone(),
            )
        })
    }

    #[test]
    fn what_is_the_same_does_not_differ_however_much_was_collected() {
        let (first, second) = (Copy::new(), Copy::new());
        assert!(compare(&first, &second).is_empty());
        second.store.collect_garbage(20, 100, None).unwrap();
        assert!(compare(&first, &second).is_empty());
        first.store.collect_garbage(30, 100, None).unwrap();
        assert!(compare(&first, &second).is_empty());
    }

    #[test]
    fn rows_index_entries_and_old_versions_are_missed() {
        for (keyspace, expected) in [
            (KeyspaceId(TABLE), "storage 10 key"),
            (KeyspaceId(INDEX), "index 11: it lacks"),
            (HISTORY_KEYSPACE, "old version of storage 10"),
        ] {
            let (first, second) = (Copy::new(), Copy::new());
            second.remove_last(keyspace);
            let found = compare(&first, &second);
            assert!(found.missing.is_empty());
            assert!(found.unequal[0].contains(expected), "{found:?}");
        }
    }
}
