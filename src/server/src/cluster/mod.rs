//! What every process knows of the cluster through the coordination service: who is there, which node serves
//! which shard, and who decides about it.

pub mod controller;
pub mod coordinators;
pub mod directory;
pub mod paths;
mod placement;
pub mod shard_map;

pub use controller::Controller;
pub use coordinators::CoordinatorDirectory;
pub use directory::NodeDirectory;
pub use shard_map::{ShardMap, ShardMapWatcher};
