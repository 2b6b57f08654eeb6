//! Where things live in the coordination service.

use neorunbase_protocol::message::ShardId;

/// Ephemeral nodes of the Data Nodes: name → [registration](super::registration).
pub const DATA_NODES: &str = "/datanodes";
/// Ephemeral nodes of the Coordinators: name → internal address.
pub const COORDINATORS: &str = "/coordinators";
/// Election of the Controller.
pub const CONTROLLER_ELECTION: &str = "/elections/controller";
/// Election of the Coordinator leader.
pub const COORDINATOR_ELECTION: &str = "/elections/coordinator";
/// One node a shard group: how many shards and replicas it must have.
pub const GROUPS: &str = "/groups";
/// One node a shard: epoch, primary, in-sync set, replicas.
pub const SHARDS: &str = "/shards";
/// Set after each change below [`SHARDS`], so that one watch suffices to learn of it.
pub const SHARDS_CHANGED: &str = "/shards_changed";
/// One node a Data Node that is to be emptied.
pub const DRAINING: &str = "/draining";
/// One node a Data Node that was ever registered: which disk it has.
pub const DISKS: &str = "/disks";
/// Who leads the catalog, in which term, and which Coordinators have all of it.
pub const CATALOG: &str = "/catalog";
/// No timestamp at or above this number has been handed out yet.
pub const TIMESTAMP_LIMIT: &str = "/timestamp_limit";

/// The znode of a shard.
pub fn shard_path(shard: ShardId) -> String {
    format!("{SHARDS}/{shard:016x}")
}

/// The znode of a Data Node's disk.
pub fn disk_path(node: &str) -> String {
    format!("{DISKS}/{node}")
}

/// The shard that a child of [`SHARDS`] names.
pub fn shard_of_name(name: &str) -> Option<ShardId> {
    ShardId::from_str_radix(name, 16).ok()
}
