//! Whether all copies of a shard hold the same, as only somebody outside the cluster can see.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use neorunbase_server::cluster::ShardMap;
use neorunbase_server::cluster::failure_domain::Topology;
use neorunbase_storage::descriptor::TableDescriptor;
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_storage::shard::{RowVersion, SYSTEM_KEYSPACE};
use neorunbase_world::shard_engine::{EngineError, EngineSnapshot, KeyspaceId};

/// Rows by storage and key, with the commit that made each.
type Rows = BTreeMap<(u64, Bytes), (u64, Bytes)>;

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

/// Compares the live rows of all members of each in-sync set. (What is deleted is collected by each node in its own
/// time.)
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
            continue;
        }
        let path = neorunbase_server::datanode::engine_path(*shard);
        let rows_on = |node: &String| {
            let engine = engines_of(node).and_then(|engines| engines.look_into(&path));
            engine.map(|engine| live_rows(&*engine))
        };
        let Some(Ok(expected)) = rows_on(&configuration.primary) else {
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
            match rows_on(node) {
                Some(Ok(rows)) if rows == expected => {}
                Some(Ok(rows)) => found.unequal.push(format!(
                    "shard {shard:#x}: {node} differs from {}: {}",
                    configuration.primary,
                    first_difference(&expected, &rows)
                )),
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

fn first_difference(expected: &Rows, rows: &Rows) -> String {
    let keys: BTreeSet<_> = expected.keys().chain(rows.keys()).collect();
    let different = keys.into_iter().find(|key| expected.get(*key) != rows.get(*key));
    match different {
        None => "nowhere".to_owned(),
        Some(key) => format!(
            "storage {} key {:?}: {:?} instead of {:?}",
            key.0,
            key.1,
            rows.get(key).map(|(timestamp, _)| timestamp),
            expected.get(key).map(|(timestamp, _)| timestamp)
        ),
    }
}

fn live_rows(engine: &dyn EngineSnapshot) -> Result<Rows, EngineError> {
    let mut storages = BTreeSet::new();
    let mut tables = engine.scan(SYSTEM_KEYSPACE, b"table/", b"table0", false)?;
    while let Some((_, encoded)) = tables.next()? {
        let table: TableDescriptor =
            postcard::from_bytes(encoded).map_err(|error| EngineError::Io(error.to_string()))?;
        storages.insert(table.storage);
    }
    let mut rows = Rows::new();
    for storage in storages {
        let mut cursor = match engine.scan(KeyspaceId(storage), &[], &[], false) {
            // Dropped since.
            Err(EngineError::UnknownKeyspace(_)) => continue,
            cursor => cursor?,
        };
        while let Some((key, value)) = cursor.next()? {
            let version = RowVersion::decode(Bytes::copy_from_slice(value))
                .map_err(|error| EngineError::Io(error.to_string()))?;
            if let Some(row) = version.row {
                let key = (storage, Bytes::copy_from_slice(key));
                rows.insert(key, (version.commit_timestamp, row));
            }
        }
    }
    Ok(rows)
}
