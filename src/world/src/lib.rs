//! The injectable world: every effect that can differ between two runs of the same role code.
//!
//! Roles receive a [`World`] and reach time, tasks, randomness, the network, disks, shard engines and the
//! coordination service only through it. `src/operating_system` supplies the production side, `sim/` the
//! simulated one. This crate depends on nothing else of ours.

pub mod clock;
pub mod coordination;
pub mod disk;
pub mod entropy;
pub mod fault;
pub mod network;
pub mod shard_engine;
pub mod spawn;

use std::sync::Arc;

pub use clock::{Clock, MonotonicTime};
pub use coordination::Coordination;
pub use disk::{Disk, DiskFile};
pub use entropy::Entropy;
pub use network::{Listener, Network, NodeAddress, Stream};
pub use shard_engine::{ShardEngine, ShardEngineFactory};
pub use spawn::{Spawner, TaskHandle};

/// One node's view of everything outside its own memory.
#[derive(Clone)]
pub struct World {
    /// Time as this node sees it (in the simulator: skewed and drifting).
    pub clock: Arc<dyn Clock>,
    /// Seeded in the simulator, the operating system's generator in production.
    pub entropy: Arc<dyn Entropy>,
    /// Starts background tasks that die with the node.
    pub spawner: Arc<dyn Spawner>,
    /// Connections between processes.
    pub network: Arc<dyn Network>,
    /// The node's own disk; the only way to durability.
    pub disk: Arc<dyn Disk>,
    /// Opens the ordered stores that shards live in.
    pub engines: Arc<dyn ShardEngineFactory>,
    /// ZooKeeper, or the embedded service that stands in for it.
    pub coordination: Arc<dyn Coordination>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("World")
    }
}
