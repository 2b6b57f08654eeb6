//! The simulated machines: what runs on each, and who starts it again.

mod victim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use madsim::runtime::Handle;
use madsim::task::NodeId;
use neorunbase_coordination::{
    ClientOptions, EmbeddedClient as SessionClient, EmbeddedService, RemoteClient, SessionId,
};
use neorunbase_fault_injection::{DiskCrash, Victim};
use neorunbase_server::cluster::ShardMap;
use neorunbase_server::cluster::drain::{undrain, wish_drain};
use neorunbase_server::cluster::failure_domain::Topology;
use neorunbase_server::cluster::shard_map::read_shard_map;
use neorunbase_server::{daemon, datanode};
use neorunbase_storage::memory_engine::{EnginesElsewhere, MemoryEngineFactory};
use neorunbase_workloads::ClientWorld;
use neorunbase_world::{World, fault};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::configuration::{COORDINATION, Configuration};
use crate::replicas::{self, Differences};
use crate::roles::{self, COORDINATION_PORT, Role};
use crate::trace::{Trace, trace};
use crate::world::clock::SimClock;
use crate::world::disk::{OtherDisk, SimDisk};
use crate::world::entropy::SimEntropy;
use crate::world::network::Fabric;
use crate::world::now_nanos;
use crate::world::spawner::SimSpawner;

/// How often the supervisor looks for disks that failed under their process.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(500);
/// An operator's command that was not answered is given again after this.
const COMMAND_RETRY: Duration = Duration::from_millis(300);
/// A killed process's tasks must be gone before the next life begins.
const SHORTEST_DOWN_TIME: Duration = Duration::from_millis(2);

struct Machine {
    id: NodeId,
    disk: SimDisk,
    engines: MemoryEngineFactory,
    clock: SimClock,
    /// The session of its present process.
    session: Mutex<Option<Arc<RemoteClient>>>,
    /// Asks its present process, once that serves, to shut down, and where to tell that it has.
    stopper: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>>,
    up: Mutex<bool>,
    failed_syncs_seen: Mutex<u64>,
    /// What the machine had before its disk was replaced.
    disk_before: Mutex<Option<(OtherDisk, EnginesElsewhere)>>,
}

/// A node that nothing brings up before it is revived.
struct Death {
    at_nanos: u64,
    /// Of the process that died.
    session: Option<SessionId>,
}

fn is_other_disk(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<daemon::StartError>();
    matches!(
        cause,
        Some(daemon::StartError::DataNode(
            datanode::StartError::OtherDisk { .. }
        ))
    )
}

/// The cluster. Machines live as long as it does, their processes come and go.
pub struct Cluster {
    configuration: Configuration,
    trace: Trace,
    fabric: Fabric,
    machines: BTreeMap<String, Machine>,
    service: Mutex<Option<Arc<EmbeddedService>>>,
    /// Sessions that are kept from the coordination service, by node.
    kept_away: Mutex<BTreeMap<String, SessionId>>,
    /// Sessions whose server of the coordination service lags, by node.
    lagging: Mutex<BTreeMap<String, SessionId>>,
    /// Whether a rolling restart is under way.
    is_rolling: AtomicBool,
    /// Whether it is to go no further: everything heals.
    is_called_off: AtomicBool,
    /// Nodes that nothing brings up before they are revived.
    dead: Mutex<BTreeMap<String, Death>>,
    /// Data Nodes that are to be emptied.
    draining: Mutex<BTreeSet<String>>,
    /// Itself, for tasks that outlive a call.
    own: Weak<Self>,
    /// Processes that ended by themselves, and in which life of their machine.
    exits: mpsc::UnboundedSender<(String, u64)>,
}

impl Cluster {
    /// Makes all machines and starts them.
    pub fn start(configuration: &Configuration, trace: &Trace) -> Arc<Self> {
        let mut names = configuration.server_names();
        let servers = names.clone();
        names.extend(configuration.client_names());
        let fabric = Fabric::new(
            &names,
            configuration.seed ^ 0x6e65_7477_6f72_6b21,
            configuration.link_speed(),
            trace.clone(),
        );
        if configuration.buggify {
            fault::turn_on_buggify(configuration.seed);
        }
        let (exits, exited) = mpsc::unbounded_channel();
        let cluster = Arc::new_cyclic(|weak: &Weak<Self>| {
            let machines = servers
                .iter()
                .enumerate()
                .map(|(index, name)| {
                    let (own, cluster) = (name.clone(), weak.clone());
                    let node = Handle::current()
                        .create_node()
                        .name(name)
                        .init(move || Self::process(cluster.clone(), own.clone()))
                        .build();
                    let disk = SimDisk::new(
                        name,
                        configuration.seed ^ (index as u64 + 1) << 48,
                        configuration.disk_speed(),
                        trace.clone(),
                    );
                    let machine = Machine {
                        id: node.id(),
                        disk,
                        engines: MemoryEngineFactory::new(),
                        clock: SimClock(configuration.clock_error(index)),
                        session: Mutex::new(None),
                        stopper: Mutex::new(None),
                        up: Mutex::new(true),
                        failed_syncs_seen: Mutex::new(0),
                        disk_before: Mutex::new(None),
                    };
                    (name.clone(), machine)
                })
                .collect();
            Self {
                configuration: configuration.clone(),
                trace: trace.clone(),
                fabric,
                machines,
                service: Mutex::new(None),
                kept_away: Mutex::default(),
                lagging: Mutex::default(),
                is_rolling: AtomicBool::new(false),
                is_called_off: AtomicBool::new(false),
                dead: Mutex::default(),
                draining: Mutex::default(),
                own: weak.clone(),
                exits,
            }
        });
        madsim::task::spawn(cluster.clone().supervise(exited));
        cluster
    }

    /// The first task of each life of a machine.
    async fn process(cluster: Weak<Self>, name: String) {
        let Some(cluster) = cluster.upgrade() else { return };
        crate::observation::this_node_is(&name);
        let incarnation = cluster.machines[&name].disk.incarnation();
        if cluster.configuration.late_data_node().as_ref() == Some(&name) {
            let joins_at = Duration::from_millis(cluster.configuration.late_data_node_ms);
            madsim::time::sleep(joins_at.saturating_sub(Duration::from_nanos(now_nanos()))).await;
        }
        trace!(cluster.trace, "node {name} starts");
        match cluster.run_role(&name).await {
            Ok(running) => {
                let (stopper, stop) = oneshot::channel();
                *cluster.machines[&name].stopper.lock() = Some(stopper);
                // The role works in the background until it is asked to stop, or cannot go on.
                tokio::select! {
                    biased;
                    stopped = stop => if let Ok(stopped) = stopped {
                        trace!(cluster.trace, "node {name} shuts down");
                        cluster.shut_down(&name, &*running).await;
                        // The supervisor may have lost its patience.
                        let _ = stopped.send(());
                    },
                    reason = running.failed() => {
                        trace!(cluster.trace, "node {name} exits: {reason}");
                        // The supervisor ends when the simulation does.
                        let _ = cluster.exits.send((name, incarnation));
                    }
                }
                futures::future::pending::<()>().await;
                drop(running);
            }
            Err(error) => {
                trace!(cluster.trace, "node {name} exits: {error:#}");
                tracing::warn!(name, "exits: {error:#}");
                if is_other_disk(&error) {
                    cluster.put_disk_back(&name);
                }
                // The supervisor ends when the simulation does.
                let _ = cluster.exits.send((name, incarnation));
                futures::future::pending::<()>().await;
            }
        }
    }

    /// An operator does what a node asks for that refuses its new disk.
    fn put_disk_back(&self, name: &str) {
        let machine = &self.machines[name];
        if let Some((disk, engines)) = machine.disk_before.lock().take() {
            trace!(self.trace, "node {name} gets its disk back");
            machine.disk.put_in(disk);
            machine.engines.put_in(engines);
        }
    }

    /// What a process does when it is asked to end.
    async fn shut_down(&self, name: &str, running: &dyn Role) {
        running.shut_down().await;
        let session = self.machines[name].session.lock().clone();
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn run_role(&self, name: &str) -> anyhow::Result<roles::Running> {
        let machine = &self.machines[name];
        let network = Arc::new(self.fabric.network_of(name));
        let clock = Arc::new(machine.clock);
        let spawner = Arc::new(SimSpawner);
        let session_timeout = Duration::from_millis(self.configuration.session_timeout_ms);
        let session = Arc::new(RemoteClient::remote(
            &format!("{COORDINATION}:{COORDINATION_PORT}"),
            network.clone(),
            clock.clone(),
            spawner.clone(),
            ClientOptions::with_session_timeout(session_timeout),
        ));
        let world = World {
            clock,
            entropy: Arc::new(SimEntropy),
            spawner,
            network,
            disk: Arc::new(machine.disk.clone()),
            engines: Arc::new(machine.engines.clone()),
            coordination: session.clone(),
        };
        match name {
            COORDINATION => {
                drop((session, world.coordination.clone()));
                let (service, running) = roles::coordination(&world).await?;
                *self.service.lock() = Some(service);
                Ok(running)
            }
            _ if self
                .configuration
                .coordinator_names()
                .iter()
                .any(|coordinator| coordinator == name) =>
            {
                *machine.session.lock() = Some(session);
                roles::coordinator(world, name, &self.configuration).await
            }
            _ => {
                *machine.session.lock() = Some(session);
                roles::data_node(world, name, &self.configuration).await
            }
        }
    }

    /// What an init system and an operator do: processes that exit, or whose disk failed, are started again.
    async fn supervise(self: Arc<Self>, mut exited: mpsc::UnboundedReceiver<(String, u64)>) {
        loop {
            madsim::time::sleep(SUPERVISION_INTERVAL).await;
            let mut restart = Vec::new();
            while let Ok((name, incarnation)) = exited.try_recv() {
                if self.machines[&name].disk.incarnation() == incarnation {
                    restart.push(name);
                }
            }
            for (name, machine) in &self.machines {
                let failed = machine.disk.failed_syncs();
                let mut seen = machine.failed_syncs_seen.lock();
                if *seen < failed {
                    *seen = failed;
                    restart.push(name.clone());
                }
            }
            for name in restart {
                if *self.machines[&name].up.lock() {
                    trace!(self.trace, "node {name} is restarted by its supervisor");
                    self.kill(&name, DiskCrash::Kept, false);
                    madsim::time::sleep(SHORTEST_DOWN_TIME).await;
                    self.restart(&name);
                }
            }
        }
    }

    /// What clients on `machine` need. All of them share one clock.
    pub fn client_world(&self, machine: &str) -> ClientWorld {
        ClientWorld {
            clock: Arc::new(SimClock::default()),
            spawner: Arc::new(SimSpawner),
            network: Arc::new(self.fabric.network_of(machine)),
        }
    }

    /// Messages and bytes that went over the network.
    pub fn traffic(&self) -> (u64, u64) {
        self.fabric.traffic()
    }

    /// Who holds the shards. `None`: the coordination service is away.
    async fn shard_map(&self) -> Option<ShardMap> {
        read_shard_map(&self.operator()?).await.ok()
    }

    /// What is wrong with the copies of shards, as far as can be seen now. `None`: the coordination service is away.
    pub async fn differences_of_copies(&self) -> Option<Differences> {
        let map = self.shard_map().await?;
        let engines_of = |node: &str| self.machines.get(node).map(|machine| machine.engines.clone());
        let replicas = self.configuration.replicas as usize;
        Some(replicas::differences(&map, replicas, engines_of))
    }

    /// What is wrong with the places of copies, as far as can be seen now. `None`: the coordination service is away.
    pub async fn misplaced_copies(&self) -> Option<Vec<String>> {
        let map = self.shard_map().await?;
        let nodes = self.configuration.data_node_names();
        let labels = nodes
            .iter()
            .map(|name| (name.clone(), self.configuration.labels_of(name)));
        let labels: BTreeMap<_, _> = labels.collect();
        Some(replicas::misplaced(&map, &Topology::new(labels.iter()), &nodes))
    }

    /// A session of somebody beside the cluster. `None`: the coordination service is away.
    fn operator(&self) -> Option<SessionClient> {
        let service = self.service.lock().clone()?;
        let options = ClientOptions::with_session_timeout(Duration::from_secs(10));
        let clock = Arc::new(SimClock::default());
        Some(SessionClient::embedded(&service, clock, &SimSpawner, options))
    }

    /// Has the coordination service know what is wanted of `node`.
    async fn command_drain(&self, node: &str) {
        loop {
            let is_wanted = self.draining.lock().contains(node);
            let done = match self.operator() {
                None => false,
                Some(operator) if is_wanted => wish_drain(&operator, node).await.is_ok(),
                Some(operator) => undrain(&operator, node).await.is_ok(),
            };
            if done && self.draining.lock().contains(node) == is_wanted {
                return;
            }
            madsim::time::sleep(COMMAND_RETRY).await;
        }
    }

    /// All machines lose power and come back; what was not synced is treated as `disk` says.
    pub async fn power_cycle(&self, disk: DiskCrash) {
        for name in self.machines.keys() {
            self.kill(name, disk, true);
        }
        madsim::time::sleep(SHORTEST_DOWN_TIME * 10).await;
        for name in self.machines.keys() {
            self.restart(name);
        }
    }
}
