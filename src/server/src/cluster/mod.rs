//! What every process knows of the cluster through the coordination service: who is there, which node serves
//! which shard, and who decides about it.

pub mod controller;
pub mod coordinators;
pub mod directory;
pub mod drain;
pub mod failure_domain;
pub mod load;
pub mod observer;
pub mod paths;
pub mod placement;
pub mod registration;
pub mod shard_map;
mod view;

pub use controller::{Controller, ControllerSettings, DEFAULT_GRACE_PERIOD};
pub use coordinators::CoordinatorDirectory;
pub use directory::NodeDirectory;
pub use shard_map::{ShardMap, ShardMapWatcher};
