//! `neorunbase datanode`: one data node of a cluster that ZooKeeper holds together.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use neorunbase_rocksdb_engine::RocksDbOptions;
use neorunbase_server::daemon::{DataNodeHandle, DataNodeSettings, start_data_node};
use neorunbase_server::datanode::DataNodeConfig;
use neorunbase_zookeeper::ZooKeeperCoordination;

use crate::admin::AdminServer;
use crate::arguments::DataNodeOptions;
use crate::configuration::DataNodeConfiguration;
use crate::data_directory::DataDirectory;
use crate::production_world::{self, Process};
use crate::secrets;
use crate::shutdown::ShutdownSignals;

/// Runs until a signal asks for the end.
///
/// # Errors
/// If the data node cannot be started.
pub async fn run(options: DataNodeOptions) -> anyhow::Result<()> {
    let mut configuration = DataNodeConfiguration::load(&options.config)?;
    configuration.labels.extend(options.labels);
    let master_key = secrets::master_key()?;
    let mut signals = ShutdownSignals::catch()?;
    let directory = DataDirectory::open(&configuration.data_directory)?;
    let process = Process::new();
    let admin = AdminServer::start(&configuration.admin_address, process.clock.clone()).await?;
    let session_timeout = Duration::from_secs(configuration.zookeeper.session_timeout_seconds);
    let engines = RocksDbOptions {
        block_cache_bytes: configuration.block_cache_mebibytes << 20,
        total_write_buffer_bytes: configuration.write_buffer_mebibytes << 20,
        ..RocksDbOptions::default()
    };

    let starting = async {
        let zookeeper = production_world::connect_zookeeper(&configuration.zookeeper, &process).await?;
        let world = process.world(directory.path(), engines, zookeeper.clone());
        let mut node = DataNodeConfig::new(configuration.name.clone());
        node.history_retention = Duration::from_secs(configuration.history_retention_seconds);
        node.replication.copy_bytes_per_second = configuration.copy_bytes_per_second;
        node.disk_patience = Duration::from_secs(configuration.disk_patience_seconds);
        let settings = DataNodeSettings {
            internal_address: configuration.internal_address.clone(),
            session_timeout,
            labels: configuration.labels.clone(),
            node,
        };
        let data_node = start_data_node(world, settings, &master_key, None)
            .await
            .with_context(|| format!("data node in {}", directory.path().display()))?;
        anyhow::Ok((zookeeper, data_node))
    };
    let Some(started) = signals.or_interrupted(starting).await else {
        return Ok(());
    };
    let (zookeeper, data_node): (Arc<ZooKeeperCoordination>, _) = started?;
    admin.is_ready(None);
    writeln!(
        std::io::stdout(),
        "{}: other nodes at {}, admin server at http://{}/\nready",
        data_node.name(),
        data_node.address(),
        admin.address()
    )?;
    let failure = tokio::select! {
        biased;
        () = signals.wait() => None,
        failure = data_node_failure(&data_node) => Some(failure),
    };
    admin.is_stopping();
    let shutdown = async {
        data_node.shutdown().await;
        zookeeper.close();
    };
    signals.unless_impatient(shutdown).await;
    drop(directory);
    failure.map_or(Ok(()), Err)
}

/// Returns when the data node cannot go on. Whoever started the process is to start it again: that is what mends it.
pub async fn data_node_failure(data_node: &DataNodeHandle) -> anyhow::Error {
    let reason = data_node.failed().await;
    anyhow::anyhow!("data node \"{}\" has failed: {reason}", data_node.name())
}
