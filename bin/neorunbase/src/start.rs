//! `neorunbase start`: the same roles as the daemons, in one process with the embedded coordination service.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt, select_all};
use neorunbase_coordination::{ClientOptions, EmbeddedService, JournalLocation, SessionClient};
use neorunbase_kms::{Keyring, MasterKey};
use neorunbase_operating_system::FileDisk;
use neorunbase_rocksdb_engine::RocksDbOptions;
use neorunbase_server::cluster::DEFAULT_GRACE_PERIOD;
use neorunbase_server::daemon::{
    CoordinatorHandle, CoordinatorSettings, DataNodeHandle, DataNodeSettings, SCRAM_ITERATIONS,
    start_coordinator, start_data_node,
};
use neorunbase_server::datanode::DataNodeConfig;
use neorunbase_world::{Coordination, Disk};

use crate::admin::AdminServer;
use crate::arguments::StartOptions;
use crate::data_directory::{COORDINATION, COORDINATOR, DataDirectory};
use crate::data_node::data_node_failure;
use crate::journal_seal::JournalSeal;
use crate::production_world::{self, Process};
use crate::secrets;
use crate::shutdown::ShutdownSignals;

const KEYRING_PATH: &str = "keyring";
const JOURNAL_PATH: &str = "journal";
const JOURNAL_KEY_NAME: &str = "coordination journal";
/// Sessions inside the process do not expire while it lives.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Nobody outside has a use for the nodes' own ports: any free one on the loopback interface.
const INTERNAL_ADDRESS: &str = "127.0.0.1:0";
const MAX_CONNECTIONS: usize = 1_000;

struct Cluster {
    directory: DataDirectory,
    admin: AdminServer,
    coordination: EmbeddedService,
    sessions: Vec<Arc<SessionClient>>,
    coordinator: Arc<CoordinatorHandle>,
    data_nodes: Vec<Arc<DataNodeHandle>>,
}

/// Runs until a signal asks for the end.
///
/// # Errors
/// If the cluster cannot be started, or one of its data nodes cannot go on.
pub async fn run(options: StartOptions) -> anyhow::Result<()> {
    let mut signals = ShutdownSignals::catch()?;
    let Some(cluster) = signals.or_interrupted(Cluster::start(&options)).await else {
        return Ok(());
    };
    let cluster = cluster?;
    cluster.announce()?;
    let failure = tokio::select! {
        biased;
        () = signals.wait() => None,
        (failure, ..) = select_all(cluster.failures()) => Some(failure),
    };
    signals.unless_impatient(cluster.shutdown()).await;
    failure.map_or(Ok(()), Err)
}

async fn start_coordination(
    process: &Process,
    directory: &DataDirectory,
    master_key: &MasterKey,
) -> anyhow::Result<EmbeddedService> {
    let root = directory.node(COORDINATION)?;
    let context = || format!("data directory {}", root.display());
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::new(&root));
    let keyring = Keyring::open(disk.clone(), process.entropy.clone(), KEYRING_PATH, master_key)
        .await
        .with_context(context)?;
    let key = keyring.named_key(JOURNAL_KEY_NAME).await.with_context(context)?;
    let journal = JournalLocation {
        disk,
        path: JOURNAL_PATH.to_owned(),
        sealer: Arc::new(JournalSeal::new(&key, process.entropy.clone())),
    };
    EmbeddedService::start(
        process.clock.clone(),
        process.entropy.clone(),
        process.spawner.clone(),
        Some(journal),
    )
    .await
    .with_context(context)
}

impl Cluster {
    async fn start(options: &StartOptions) -> anyhow::Result<Self> {
        let master_key = secrets::master_key()?;
        let admin_password = secrets::admin_password()?;
        let directory = DataDirectory::open(&options.data_dir)?;
        let names = directory.data_node_names(options.data_nodes)?;
        let process = Process::new();
        // Opened first: a wrong master key shows here, before anything else is touched.
        let coordination = start_coordination(&process, &directory, &master_key).await?;
        let admin = AdminServer::start(&options.admin_addr, process.clock.clone()).await?;

        let mut sessions = Vec::new();
        let mut open_session = || -> Arc<dyn Coordination> {
            let options = ClientOptions::with_session_timeout(SESSION_TIMEOUT);
            let session =
                SessionClient::embedded(&coordination, process.clock.clone(), &*process.spawner, options);
            let session = Arc::new(session);
            sessions.push(session.clone());
            session
        };
        let root = directory.node(COORDINATOR)?;
        let world = process.world(&root, production_world::coordinator_engines(), open_session());
        let settings = CoordinatorSettings {
            name: COORDINATOR.to_owned(),
            pg_address: options.pg_addr.clone(),
            internal_address: INTERNAL_ADDRESS.to_owned(),
            session_timeout: SESSION_TIMEOUT,
            shards_default: options.shards_default,
            replicas_default: options.replicas_default,
            admin_password,
            max_connections: MAX_CONNECTIONS,
            scram_iterations: SCRAM_ITERATIONS,
            grace_period: DEFAULT_GRACE_PERIOD,
        };
        let coordinator = start_coordinator(world, settings, &master_key)
            .await
            .with_context(|| format!("coordinator in {}", root.display()))?;

        let mut data_nodes = Vec::new();
        for name in names {
            let root = directory.node(&name)?;
            let world = process.world(&root, RocksDbOptions::default(), open_session());
            let settings = DataNodeSettings {
                internal_address: INTERNAL_ADDRESS.to_owned(),
                session_timeout: SESSION_TIMEOUT,
                labels: options.labels.iter().cloned().collect(),
                // All nodes are on one disk: if it hangs, nobody can take over.
                node: DataNodeConfig {
                    disk_patience: Duration::ZERO,
                    ..DataNodeConfig::new(name)
                },
            };
            let data_node = start_data_node(world, settings, &master_key, Some(coordinator.timestamps()))
                .await
                .with_context(|| format!("data node in {}", root.display()))?;
            coordinator.add_local_data_node(&data_node);
            data_nodes.push(data_node);
        }
        admin.is_ready(Some(coordinator.clone()));
        Ok(Self {
            directory,
            admin,
            coordination,
            sessions,
            coordinator,
            data_nodes,
        })
    }

    /// Tells the user how to connect. Scripts wait for the line `ready`.
    fn announce(&self) -> std::io::Result<()> {
        let pg_address = self.coordinator.pg_address();
        let (host, port) = pg_address.rsplit_once(':').unwrap_or((pg_address, "5433"));
        let host = match host.trim_matches(['[', ']']) {
            "0.0.0.0" | "::" => "127.0.0.1",
            host => host,
        };
        let mut output = std::io::stdout().lock();
        writeln!(
            output,
            "NeorunBase {}: 1 coordinator, {} data nodes, data in {}",
            env!("CARGO_PKG_VERSION"),
            self.data_nodes.len(),
            self.directory.path().display()
        )?;
        writeln!(
            output,
            "  psql \"host={host} port={port} user=admin dbname=neorunbase\""
        )?;
        writeln!(output, "  admin server: http://{}/", self.admin.address())?;
        writeln!(output, "ready")?;
        output.flush()
    }

    /// What ends each of the data nodes, if anything does.
    fn failures(&self) -> Vec<BoxFuture<'_, anyhow::Error>> {
        let failures = self.data_nodes.iter();
        failures
            .map(|data_node| data_node_failure(data_node).boxed())
            .collect()
    }

    async fn shutdown(self) {
        self.admin.is_stopping();
        self.coordinator.shutdown().await;
        for data_node in &self.data_nodes {
            data_node.shutdown().await;
        }
        for session in &self.sessions {
            session.close().await;
        }
        self.coordination.stop().await;
        drop(self.directory);
    }
}
