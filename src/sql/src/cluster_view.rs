//! What SQL may know of the cluster below it.

use serde::Serialize;

/// Who holds a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Of one copy, approximately; `None`: not known yet.
    pub bytes: Option<u64>,
    /// At its primary, lately; `None`: not known yet.
    pub operations_per_second: Option<u64>,
}

/// A data node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeSummary {
    /// Its name.
    pub name: String,
    /// Where other processes reach it; empty while it is gone.
    pub address: String,
    /// `name=value, …`
    pub labels: String,
    /// `alive`, `draining`, `drained` (and alive), or `gone`.
    pub state: String,
    /// Copies of shards that it holds or is about to hold.
    pub copies: u64,
    /// Shards that it leads.
    pub primaries: u64,
    /// Approximate bytes in its copies.
    pub bytes: u64,
    /// As primary, lately.
    pub operations_per_second: u64,
}

/// Something that the cluster does to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JobSummary {
    /// `copy`, `handover` or `drain`.
    pub kind: String,
    /// The shard group, if it is about a shard.
    pub group: Option<u32>,
    /// The shard's number in the group.
    pub shard: Option<u32>,
    /// The node that gives.
    pub from: String,
    /// The node that takes.
    pub to: Option<String>,
    /// Bytes of a copy that have arrived.
    pub bytes_done: Option<u64>,
    /// All bytes of the copy, approximately.
    pub bytes_total: Option<u64>,
    /// When a copy began, in microseconds since 1970-01-01 UTC.
    pub started_unix_micros: Option<i64>,
    /// How it stands.
    pub state: String,
    /// What it is for.
    pub reason: String,
}

/// The cluster, as far as system tables show it.
pub trait ClusterView: std::fmt::Debug + Send + Sync {
    /// All shards, ascending.
    fn shards(&self) -> Vec<ShardPlacement>;

    /// All data nodes, by name.
    fn nodes(&self) -> Vec<NodeSummary>;

    /// What is under way.
    fn jobs(&self) -> Vec<JobSummary>;
}

/// A catalog without a cluster below it.
#[derive(Clone, Copy, Debug)]
pub struct NoCluster;

impl ClusterView for NoCluster {
    fn shards(&self) -> Vec<ShardPlacement> {
        Vec::new()
    }

    fn nodes(&self) -> Vec<NodeSummary> {
        Vec::new()
    }

    fn jobs(&self) -> Vec<JobSummary> {
        Vec::new()
    }
}
