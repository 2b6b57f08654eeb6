//! Puts the operating system's side of the world together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use neorunbase_operating_system::{FileDisk, OsClock, OsEntropy, TcpNetwork, TokioSpawner};
use neorunbase_rocksdb_engine::{RocksDbEngineFactory, RocksDbOptions};
use neorunbase_world::{Clock, Coordination, Entropy, Network, Spawner, World};
use neorunbase_zookeeper::{ConnectError, ZooKeeperCoordination};

use crate::configuration::ZooKeeperConfiguration;
use crate::failure::Refusal;

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What all nodes of one process share.
#[derive(Clone)]
pub struct Process {
    /// One a process: its times are comparable.
    pub clock: Arc<dyn Clock>,
    /// The operating system's random generator.
    pub entropy: Arc<dyn Entropy>,
    /// The runtime.
    pub spawner: Arc<dyn Spawner>,
    network: Arc<dyn Network>,
}

impl Process {
    /// Of the present process; inside the runtime.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(OsClock::new()),
            entropy: Arc::new(OsEntropy),
            spawner: Arc::new(TokioSpawner::current()),
            network: Arc::new(TcpNetwork),
        }
    }

    /// The world of the node that keeps its files below `root`.
    pub fn world(&self, root: &Path, engines: RocksDbOptions, coordination: Arc<dyn Coordination>) -> World {
        World {
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            spawner: self.spawner.clone(),
            network: self.network.clone(),
            disk: Arc::new(FileDisk::new(root)),
            engines: Arc::new(RocksDbEngineFactory::new(root.to_owned(), engines)),
            coordination,
        }
    }
}

/// RocksDB's limits for a coordinator, whose catalog is small.
pub fn coordinator_engines() -> RocksDbOptions {
    RocksDbOptions {
        block_cache_bytes: 32 << 20,
        total_write_buffer_bytes: 32 << 20,
        write_buffer_bytes: 8 << 20,
        background_threads: 1,
        ..RocksDbOptions::default()
    }
}

/// A session with ZooKeeper, waiting for it as long as it takes: the processes of a cluster may be started in
/// any order.
///
/// # Errors
/// If the configuration can never work.
pub async fn connect_zookeeper(
    configuration: &ZooKeeperConfiguration,
    process: &Process,
) -> anyhow::Result<Arc<ZooKeeperCoordination>> {
    let session_timeout = Duration::from_secs(configuration.session_timeout_seconds);
    loop {
        match ZooKeeperCoordination::connect(&configuration.servers, &configuration.root, session_timeout)
            .await
        {
            Ok(connected) => return Ok(Arc::new(connected)),
            Err(error @ ConnectError::BadChroot(_)) => return Err(Refusal(error.to_string()).into()),
            Err(error) => {
                tracing::warn!(%error, "waiting for ZooKeeper");
                process.clock.sleep(RETRY_PAUSE).await;
            }
        }
    }
}
