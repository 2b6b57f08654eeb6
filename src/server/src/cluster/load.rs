//! How much each node holds and leads.

use std::collections::BTreeMap;

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;

use super::placement::Nodes;
use super::shard_map::ShardMap;

/// What a copy counts beside its bytes: small ones are spread by their number, as what they measure is mostly memory that is
/// set aside, and a move makes clients wait.
pub const COPY_BASE_BYTES: u64 = 16 << 20;
/// What leading a shard counts beside its operations a second.
pub const PRIMARY_BASE_OPERATIONS: u64 = 1_000;

/// What is known of a shard's size and use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// Of one copy, approximately.
    pub bytes: u64,
    /// A second, at the primary.
    pub operations: u64,
}

impl ShardLoad {
    /// What a copy weighs.
    pub fn copy_weight(self) -> u64 {
        self.bytes + COPY_BASE_BYTES
    }

    /// What its primary's work weighs.
    pub fn primary_weight(self) -> u64 {
        self.operations + PRIMARY_BASE_OPERATIONS
    }
}

/// By shard, as far as primaries have reported.
pub type ShardLoads = BTreeMap<ShardId, ShardLoad>;

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Copies of shards.
    pub copies: usize,
    /// Their weights.
    pub copies_weight: u64,
    /// Shards it leads.
    pub primaries: usize,
    /// Their weights.
    pub primaries_weight: u64,
}

/// What the living nodes hold.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    nodes: BTreeMap<String, Held>,
    measured: &'a ShardLoads,
}

impl<'a> Load<'a> {
    /// The load of the living nodes.
    pub fn of(map: &ShardMap, nodes: &Nodes, measured: &'a ShardLoads) -> Self {
        let none = |name: &String| (name.clone(), Held::default());
        let mut load = Self {
            nodes: nodes.alive.iter().map(none).collect(),
            measured,
        };
        for (shard, configuration) in map {
            load.add(*shard, configuration);
        }
        load
    }

    /// What is known of `shard`, if anything.
    pub fn measured(&self, shard: ShardId) -> Option<ShardLoad> {
        self.measured.get(&shard).copied()
    }

    fn shard(&self, shard: ShardId) -> ShardLoad {
        self.measured(shard).unwrap_or_default()
    }

    /// What `node` holds; nothing if it is not alive.
    pub fn held(&self, node: &str) -> Held {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    /// Counts one more shard in.
    pub fn add(&mut self, shard: ShardId, configuration: &Configuration) {
        let weights = self.shard(shard);
        for replica in &configuration.replicas {
            if let Some(held) = self.nodes.get_mut(replica) {
                held.copies += 1;
                held.copies_weight += weights.copy_weight();
            }
        }
        if let Some(held) = self.nodes.get_mut(&configuration.primary) {
            held.primaries += 1;
            held.primaries_weight += weights.primary_weight();
        }
    }

    /// Counts `shard` as `after` instead of `before`.
    pub fn replace(&mut self, shard: ShardId, before: &Configuration, after: &Configuration) {
        let weights = self.shard(shard);
        for replica in &before.replicas {
            if let Some(held) = self.nodes.get_mut(replica) {
                held.copies -= 1;
                held.copies_weight -= weights.copy_weight();
            }
        }
        if let Some(held) = self.nodes.get_mut(&before.primary) {
            held.primaries -= 1;
            held.primaries_weight -= weights.primary_weight();
        }
        self.add(shard, after);
    }

    /// The node among `candidates` that leads the least.
    pub fn least_leading<'b>(&self, candidates: impl Iterator<Item = &'b String>) -> Option<String> {
        let led = |name: &&String| {
            let held = self.held(name);
            (held.primaries_weight, held.primaries)
        };
        candidates.min_by_key(led).cloned()
    }
}
