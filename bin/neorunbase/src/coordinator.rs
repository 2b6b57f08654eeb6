//! `neorunbase coordinator`: one coordinator of a cluster that ZooKeeper holds together.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use neorunbase_server::daemon::{CoordinatorSettings, SCRAM_ITERATIONS, start_coordinator};
use neorunbase_zookeeper::ZooKeeperCoordination;

use crate::admin::AdminServer;
use crate::configuration::CoordinatorConfiguration;
use crate::data_directory::DataDirectory;
use crate::production_world::{self, Process};
use crate::secrets;
use crate::shutdown::ShutdownSignals;

/// Runs until a signal asks for the end.
///
/// # Errors
/// If the coordinator cannot be started.
pub async fn run(file: &Path) -> anyhow::Result<()> {
    let configuration = CoordinatorConfiguration::load(file)?;
    let master_key = secrets::master_key()?;
    let admin_password = secrets::admin_password()?;
    let mut signals = ShutdownSignals::catch()?;
    let directory = DataDirectory::open(&configuration.data_directory)?;
    let process = Process::new();
    let admin = AdminServer::start(&configuration.admin_address, process.clock.clone()).await?;
    let session_timeout = Duration::from_secs(configuration.zookeeper.session_timeout_seconds);

    let starting = async {
        let zookeeper = production_world::connect_zookeeper(&configuration.zookeeper, &process).await?;
        let world = process.world(
            directory.path(),
            production_world::coordinator_engines(),
            zookeeper.clone(),
        );
        let settings = CoordinatorSettings {
            name: configuration.name.clone(),
            pg_address: configuration.pg_address.clone(),
            internal_address: configuration.internal_address.clone(),
            session_timeout,
            shards_default: configuration.shards_default,
            replicas_default: configuration.replicas_default,
            admin_password,
            max_connections: configuration.max_connections,
            scram_iterations: SCRAM_ITERATIONS,
            grace_period: Duration::from_secs(configuration.data_node_grace_seconds),
        };
        let coordinator = start_coordinator(world, settings, &master_key)
            .await
            .with_context(|| format!("coordinator in {}", directory.path().display()))?;
        anyhow::Ok((zookeeper, coordinator))
    };
    let Some(started) = signals.or_interrupted(starting).await else {
        return Ok(());
    };
    let (zookeeper, coordinator): (Arc<ZooKeeperCoordination>, _) = started?;
    admin.is_ready(Some(coordinator.clone()));
    writeln!(
        std::io::stdout(),
        "{}: PostgreSQL clients at {}, admin server at http://{}/\nready",
        configuration.name,
        coordinator.pg_address(),
        admin.address()
    )?;
    signals.wait().await;
    admin.is_stopping();
    let shutdown = async {
        coordinator.shutdown().await;
        zookeeper.close();
    };
    signals.unless_impatient(shutdown).await;
    drop(directory);
    Ok(())
}
