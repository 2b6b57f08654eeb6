//! What SQL may know of the cluster below it.

/// Who holds a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlacement {
    /// Its shard group.
    pub group: u32,
    /// Its number in the group.
    pub shard: u32,
    /// The node that serves it.
    pub primary: String,
    /// Counts the changes of primary.
    pub term: u64,
    /// Counts all changes of the placement.
    pub epoch: u64,
    /// Nodes that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<String>,
    /// All nodes that hold, or are about to hold, a copy.
    pub replicas: Vec<String>,
}

/// The cluster, as far as system tables show it.
pub trait ClusterView: std::fmt::Debug + Send + Sync {
    /// All shards, ascending.
    fn shards(&self) -> Vec<ShardPlacement>;
}

/// A catalog without a cluster below it.
#[derive(Clone, Copy, Debug)]
pub struct NoCluster;

impl ClusterView for NoCluster {
    fn shards(&self) -> Vec<ShardPlacement> {
        Vec::new()
    }
}
