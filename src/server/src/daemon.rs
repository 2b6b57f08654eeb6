//! Puts the processes together: a Coordinator, a Data Node, or both in one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_coordination::{Election, Membership};
use neorunbase_frontend::listener::{ConnectionLimits, Server};
use neorunbase_kms::{KeyError, Keyring, MasterKey};
use neorunbase_protocol::channel::{Channel, RequestHandler};
use neorunbase_protocol::message::{ShardId, ShardRef};
use neorunbase_protocol::remote::ConnectionTimeouts;
use neorunbase_protocol::{ClusterSecret, server};
use neorunbase_sql::cluster_view::{ClusterView, JobSummary, NodeSummary, ShardPlacement};
use neorunbase_txn::timestamp::TimestampSource;
use neorunbase_world::coordination::{CoordinationError, ensure_path};
use neorunbase_world::shard_engine::{EngineError, EngineKey};
use neorunbase_world::{TaskHandle, World};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::cluster::drain::{self, DrainError};
use crate::cluster::failure_domain::Labels;
use crate::cluster::observer::{observe, observe_forever};
use crate::cluster::registration::Registration;
use crate::cluster::{Controller, ControllerSettings, CoordinatorDirectory, NodeDirectory, ShardMap, paths};
use crate::coordinator::oracle::{LeaderOracle, LeaderTimestamps, Oracle};
use crate::coordinator::{
    Coordinator, CoordinatorDefaults, CoordinatorGateway, InternalService, MetadataStore, leadership,
};
use crate::datanode::{self, DataNode, DataNodeConfig, PeerDirectory};

/// Files of a Coordinator, on its own disk.
const KEYRING_PATH: &str = "keyring";
const METADATA_PATH: &str = "metadata";
const METADATA_KEY_NAME: &str = "metadata";
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// PBKDF2 rounds of passwords outside the simulator: also what unknown users are shown.
pub const SCRAM_ITERATIONS: u32 = neorunbase_frontend::scram::DEFAULT_ITERATIONS;

/// What a Coordinator process needs to know.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// Its name in the cluster.
    pub name: String,
    /// Where PostgreSQL clients connect.
    pub pg_address: String,
    /// Where other processes of the cluster connect.
    pub internal_address: String,
    /// Of the coordination session.
    pub session_timeout: Duration,
    /// SHARDS of tables that do not say.
    pub shards_default: u32,
    /// REPLICAS of tables that do not say.
    pub replicas_default: u32,
    /// The first user's password in a new cluster.
    pub admin_password: Option<String>,
    /// PostgreSQL clients at a time.
    pub max_connections: usize,
    /// PBKDF2 rounds of new passwords.
    pub scram_iterations: u32,
    /// A Data Node that is away for longer is taken to have lost its copies: others are made elsewhere.
    pub grace_period: Duration,
}

/// What a Data Node process needs to know.
#[derive(Clone, Debug)]
pub struct DataNodeSettings {
    /// Where other processes of the cluster connect.
    pub internal_address: String,
    /// Of the coordination session.
    pub session_timeout: Duration,
    /// Where the node stands: copies of a shard go to different zones and racks.
    pub labels: Labels,
    /// The node itself.
    pub node: DataNodeConfig,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The master key or the keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The Data Node's files.
    #[error(transparent)]
    DataNode(#[from] datanode::StartError),
    /// The metadata store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The coordination service.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// A socket or directory.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The operating system's error.
        source: std::io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// The secret by which processes of one cluster know each other.
fn cluster_secret(master_key: &MasterKey) -> ClusterSecret {
    ClusterSecret(master_key.derive("node-to-node"))
}

async fn ensure_paths(world: &World) -> Result<(), StartError> {
    for path in [
        paths::DATA_NODES,
        paths::COORDINATORS,
        paths::CONTROLLER_ELECTION,
        paths::COORDINATOR_ELECTION,
        paths::GROUPS,
        paths::SHARDS,
        paths::DRAINING,
        paths::DISKS,
    ] {
        loop {
            match ensure_path(&*world.coordination, path).await {
                Ok(()) => break,
                Err(CoordinationError::ConnectionLost | CoordinationError::SessionExpired) => {
                    tracing::info!("waiting for the coordination service");
                    world.clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Tasks that end with their process's handle.
#[derive(Default)]
struct Tasks(Mutex<Vec<TaskHandle>>);

impl Tasks {
    fn add(&self, task: TaskHandle) {
        self.0.lock().push(task);
    }

    fn abort_all(&self) {
        for task in self.0.lock().drain(..) {
            task.abort();
        }
    }
}

/// A running Coordinator.
pub struct CoordinatorHandle {
    world: World,
    name: String,
    pg_address: String,
    directory: Arc<NodeDirectory>,
    coordinator: Arc<Coordinator>,
    metadata: Arc<MetadataStore>,
    timestamps: Arc<dyn TimestampSource>,
    oracle: Arc<Oracle>,
    shutdown: watch::Sender<bool>,
    tasks: Tasks,
    membership: Mutex<Option<Membership>>,
}

/// The cluster as a Coordinator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// The Coordinator that answers.
    pub coordinator: String,
    /// The catalog's version.
    pub catalog_version: u64,
    /// Number of tables.
    pub tables: usize,
    /// All known Data Nodes.
    pub data_nodes: Vec<DataNodeStatus>,
}

/// One Data Node of [`ClusterStatus`].
#[derive(Clone, Debug, Serialize)]
pub struct DataNodeStatus {
    /// Its name.
    pub name: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Shards it is primary of.
    pub shards: usize,
    /// Approximate bytes in its shards.
    pub bytes: u64,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Open transactions.
    pub open_transactions: u64,
    /// Prepared, undecided transactions.
    pub prepared_transactions: u64,
}

/// Starts a Coordinator: it waits for a catalog, as the leader or from it, then serves in the background.
///
/// # Errors
/// [`StartError`].
pub async fn start_coordinator(
    world: World,
    settings: CoordinatorSettings,
    master_key: &MasterKey,
) -> Result<Arc<CoordinatorHandle>, StartError> {
    let keyring = Keyring::open(
        world.disk.clone(),
        world.entropy.clone(),
        KEYRING_PATH,
        master_key,
    )
    .await?;
    let metadata_key = keyring.named_key(METADATA_KEY_NAME).await?;
    let engine_key = EngineKey {
        version: metadata_key.version,
        secret: metadata_key.secret,
    };
    ensure_paths(&world).await?;
    let secret = cluster_secret(master_key);
    let coordinators = CoordinatorDirectory::start(&world, secret.clone()).await?;
    let oracle = Oracle::new(&world);
    let metadata = MetadataStore::open(
        &world,
        &settings.name,
        coordinators.clone(),
        oracle.clone(),
        METADATA_PATH,
        &engine_key,
    )
    .await?;

    let internal = world
        .network
        .listen(&settings.internal_address)
        .await
        .map_err(io_error(format!(
            "cannot listen on {}",
            settings.internal_address
        )))?;
    let internal_address = internal.local_address();
    let leader_oracle = LeaderOracle::new(world.clone(), coordinators.clone(), Some(oracle.clone()));
    let timestamps: Arc<dyn TimestampSource> = Arc::new(LeaderTimestamps(leader_oracle));
    let directory = NodeDirectory::start(&world, secret.clone(), ConnectionTimeouts::default()).await?;
    let defaults = CoordinatorDefaults {
        shards_default: settings.shards_default,
        replicas_default: settings.replicas_default,
        scram_iterations: settings.scram_iterations,
    };
    let coordinator = Coordinator::new(
        world.clone(),
        &settings.name,
        metadata.clone(),
        coordinators,
        directory.clone(),
        timestamps.clone(),
        defaults,
    );

    let tasks = Tasks::default();
    let internal_service = Arc::new(InternalService {
        coordinator: coordinator.clone(),
        oracle: oracle.clone(),
    });
    tasks.add(world.spawner.spawn(
        "coordinator internal server",
        Box::pin(server::serve(world.clone(), internal, secret, internal_service)),
    ));
    let election = Election::new(
        world.coordination.clone(),
        world.clock.clone(),
        &*world.entropy,
        settings.session_timeout,
        paths::COORDINATOR_ELECTION,
        &settings.name,
    )
    .with_data(Bytes::from(internal_address.clone()));
    let password = settings.admin_password.clone();
    let office = leadership::run(coordinator.clone(), oracle.clone(), election, password);
    tasks.add(world.spawner.spawn("leadership", Box::pin(office)));
    tasks.add(
        world
            .spawner
            .spawn("follow the leader", Box::pin(coordinator.clone().follow())),
    );
    let observer = observe_forever(world.clone(), directory.clone());
    tasks.add(world.spawner.spawn("observer", Box::pin(observer)));
    let controller = ControllerSettings {
        name: settings.name.clone(),
        session_timeout: settings.session_timeout,
        grace_period: settings.grace_period,
    };
    let controller = Controller::run(world.clone(), controller, directory.clone());
    tasks.add(world.spawner.spawn("controller", Box::pin(controller)));
    let membership = Membership::start(
        world.coordination.clone(),
        world.clock.clone(),
        &*world.spawner,
        paths::COORDINATORS,
        &settings.name,
        Bytes::from(internal_address),
    );
    // Not before it could stand in for another Coordinator: whoever restarts them one after the other waits for this.
    metadata.published().await;
    metadata.joined().await;
    let listener = world
        .network
        .listen(&settings.pg_address)
        .await
        .map_err(io_error(format!("cannot listen on {}", settings.pg_address)))?;
    let pg_address = listener.local_address();
    let limits = ConnectionLimits {
        connections: settings.max_connections,
        ..ConnectionLimits::default()
    };
    let gateway = Arc::new(CoordinatorGateway(coordinator.clone()));
    let (shutdown, shutdown_seen) = watch::channel(false);
    let frontend = Server::new(&world, gateway, limits);
    tasks.add(world.spawner.spawn(
        "postgresql server",
        Box::pin(frontend.serve(listener, shutdown_seen)),
    ));
    Ok(Arc::new(CoordinatorHandle {
        world,
        name: settings.name,
        pg_address,
        directory,
        coordinator,
        metadata,
        timestamps,
        oracle,
        shutdown,
        tasks,
        membership: Mutex::new(Some(membership)),
    }))
}

impl CoordinatorHandle {
    /// Where PostgreSQL clients connect.
    pub fn pg_address(&self) -> &str {
        &self.pg_address
    }

    /// The oracle, for Data Nodes in this process.
    pub fn timestamps(&self) -> Arc<dyn TimestampSource> {
        self.timestamps.clone()
    }

    /// Statements reach this Data Node without a network from now on.
    pub fn add_local_data_node(&self, data_node: &DataNodeHandle) {
        self.directory.add_local(&data_node.name, data_node.node.clone());
    }

    /// The cluster as seen from here.
    pub async fn status(&self) -> ClusterStatus {
        let catalog = self.metadata.snapshot();
        let observations = observe(&self.world, &self.directory).await;
        let mut data_nodes = Vec::new();
        for name in self.directory.data_nodes() {
            let reachable = observations.reachable.contains(&name);
            let report = observations.reports.get(&name).filter(|_| reachable);
            let answer = report.map(|report| report.status.clone()).unwrap_or_default();
            data_nodes.push(DataNodeStatus {
                name,
                reachable,
                shards: answer.shards.len(),
                bytes: answer.shards.iter().map(|shard| shard.bytes).sum(),
                wal_bytes: answer.wal_bytes,
                open_transactions: answer.open_transactions,
                prepared_transactions: answer.shards.iter().map(|shard| shard.prepared).sum(),
            });
        }
        ClusterStatus {
            coordinator: self.name.clone(),
            catalog_version: catalog.version,
            tables: catalog.tables.len(),
            data_nodes,
        }
    }

    /// The data nodes, as they are now.
    pub async fn nodes(&self) -> Vec<NodeSummary> {
        observe(&self.world, &self.directory).await;
        self.directory.nodes()
    }

    /// The shards.
    pub fn shards(&self) -> Vec<ShardPlacement> {
        self.directory.shards()
    }

    /// What the cluster does to itself now.
    pub async fn jobs(&self) -> Vec<JobSummary> {
        observe(&self.world, &self.directory).await;
        self.directory.jobs()
    }

    /// Has the data node `name` emptied.
    ///
    /// # Errors
    /// [`DrainError`].
    pub async fn drain(&self, name: &str) -> Result<(), DrainError> {
        let alive: BTreeSet<String> = self.directory.registrations().into_keys().collect();
        let map = self.directory.shard_map().borrow().clone();
        let has_copies = map
            .values()
            .any(|configuration| configuration.replicas.iter().any(|replica| replica == name));
        drain::drain(&*self.world.coordination, name, &alive, has_copies).await?;
        tracing::info!(name, "the data node is to be emptied");
        Ok(())
    }

    /// Lets the data node `name` take copies again.
    ///
    /// # Errors
    /// Those of the coordination service.
    pub async fn undrain(&self, name: &str) -> Result<(), DrainError> {
        drain::undrain(&*self.world.coordination, name).await?;
        tracing::info!(name, "the data node takes copies again");
        Ok(())
    }

    /// Ends sessions, leaves the cluster and closes the metadata store.
    pub async fn shutdown(&self) {
        // Nobody listening any more is as good.
        let _ = self.shutdown.send(true);
        let deadline = self.world.clock.monotonic().after(Duration::from_secs(6));
        while !self.shutdown.is_closed() && self.world.clock.monotonic() < deadline {
            self.world.clock.sleep(Duration::from_millis(20)).await;
        }
        leave(&self.membership).await;
        self.tasks.abort_all();
        self.metadata.stop_leading();
        if let Err(error) = self.oracle.release().await {
            tracing::debug!(%error, "the next leader waits for the end of this one's lease");
        }
        if let Err(error) = self.metadata.close().await {
            tracing::error!(%error, "metadata store did not close cleanly");
        }
    }

    /// The role itself.
    pub fn coordinator(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }
}

/// A running Data Node.
pub struct DataNodeHandle {
    name: String,
    address: String,
    node: Arc<DataNode>,
    tasks: Tasks,
    membership: Mutex<Option<Membership>>,
}

/// Shards and their primaries, as a Data Node looks them up.
struct ShardPeers(Arc<NodeDirectory>);

#[async_trait]
impl PeerDirectory for ShardPeers {
    async fn channel_for_shard(&self, shard: ShardId) -> Option<(Arc<dyn Channel>, ShardRef)> {
        self.0
            .primary(shard)
            .map(|(reference, channel)| (channel, reference))
    }

    fn data_nodes(&self) -> Vec<String> {
        self.0.data_nodes()
    }

    async fn channel_to(&self, name: &str) -> Option<Arc<dyn Channel>> {
        self.0.channel(name)
    }
}

/// Starts a Data Node: recovers its files, registers it and serves in the background. `timestamps`: the oracle of
/// this process; `None`: that of the leader, found through the coordination service.
///
/// # Errors
/// [`StartError`].
pub async fn start_data_node(
    world: World,
    settings: DataNodeSettings,
    master_key: &MasterKey,
    timestamps: Option<Arc<dyn TimestampSource>>,
) -> Result<Arc<DataNodeHandle>, StartError> {
    ensure_paths(&world).await?;
    let secret = cluster_secret(master_key);
    let directory = NodeDirectory::start(&world, secret.clone(), ConnectionTimeouts::default()).await?;
    let tasks = Tasks::default();
    let timestamps = match timestamps {
        Some(timestamps) => timestamps,
        None => {
            let coordinators = CoordinatorDirectory::start(&world, secret.clone()).await?;
            let oracle = LeaderOracle::new(world.clone(), coordinators, None);
            Arc::new(LeaderTimestamps(oracle))
        }
    };
    let peers = Arc::new(ShardPeers(directory.clone()));
    let name = settings.node.name.clone();
    let node = DataNode::open(world.clone(), settings.node, master_key, timestamps, peers).await?;
    directory.add_local(&name, node.clone());
    node.claim_disk().await?;
    while let Err(error) = node.leave_sets_of_damaged().await {
        tracing::info!(%error, "waiting for the coordination service: copies here are damaged");
        world.clock.sleep(RETRY_PAUSE).await;
    }

    let map = directory.shard_map();
    tasks.add(world.spawner.spawn(
        "shard assignment",
        Box::pin(follow_shard_map(world.clone(), node.clone(), map)),
    ));
    let listener = world
        .network
        .listen(&settings.internal_address)
        .await
        .map_err(io_error(format!(
            "cannot listen on {}",
            settings.internal_address
        )))?;
    let address = listener.local_address();
    let registration = Registration::new(address.clone(), settings.labels).encode();
    let registration = registration.map_err(|error| io_error("labels")(error.into()))?;
    let handler: Arc<dyn RequestHandler> = node.clone();
    tasks.add(world.spawner.spawn(
        "data node server",
        Box::pin(server::serve(world.clone(), listener, secret, handler)),
    ));
    let membership = Membership::start(
        world.coordination.clone(),
        world.clock.clone(),
        &*world.spawner,
        paths::DATA_NODES,
        &name,
        registration,
    );
    let handle = Arc::new(DataNodeHandle {
        name,
        address,
        node,
        tasks,
        membership: Mutex::new(Some(membership)),
    });
    let leaving = leave_when_failed(handle.node.clone(), Arc::downgrade(&handle));
    handle
        .tasks
        .add(world.spawner.spawn("leave after a failure", Box::pin(leaving)));
    Ok(handle)
}

/// A node that cannot go on makes room for another primary at once, not when somebody ends its process.
async fn leave_when_failed(node: Arc<DataNode>, handle: std::sync::Weak<DataNodeHandle>) {
    node.failed().await;
    drop(node);
    if let Some(handle) = handle.upgrade() {
        leave(&handle.membership).await;
    }
}

/// Leaves the list of members, if that was not done before.
async fn leave(membership: &Mutex<Option<Membership>>) {
    let membership = membership.lock().take();
    if let Some(membership) = membership
        && let Err(error) = membership.leave().await
    {
        tracing::info!(%error, "stays registered until the session has ended");
    }
}

async fn follow_shard_map(world: World, node: Arc<DataNode>, mut map: watch::Receiver<Arc<ShardMap>>) {
    loop {
        let current = map.borrow_and_update().clone();
        match node.configure(&current).await {
            Ok(()) => {
                if map.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot hold the shards assigned to this node");
                world.clock.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl DataNodeHandle {
    /// Returns when the node has failed: it serves nothing any more, and must be started anew. Everything that it has
    /// acknowledged is there then. The reason, in words.
    pub async fn failed(&self) -> String {
        self.node.failed().await;
        self.node.failure().unwrap_or_default().to_owned()
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where other processes reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Leaves the cluster and flushes everything, so that the next start has nothing to replay.
    pub async fn shutdown(&self) {
        leave(&self.membership).await;
        self.tasks.abort_all();
        self.node.close().await;
    }
}
