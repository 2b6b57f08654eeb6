//! The Controller: the elected process that decides which node serves which shard.
//!
//! Its session is a hint, never a lock: two of them may believe to be elected for a while. Each change of a
//! shard is therefore a versioned set of that shard's znode, read by the same Controller; the loser of a race
//! reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use neorunbase_coordination::Election;
use neorunbase_protocol::message::{ShardId, shard_id};
use neorunbase_replication::Configuration;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, CreateMode, ensure_path};
use neorunbase_world::fault::{buggify, dawdle};
use neorunbase_world::{Coordination, MonotonicTime, World};
use serde::{Deserialize, Serialize};

use super::directory::NodeDirectory;
use super::drain::draining_nodes_and_watch;
use super::failure_domain::{Labels, Topology};
use super::load::Load;
use super::paths;
use super::placement::balancing::balancing_change;
use super::placement::{Nodes, first_configuration, next_change};
use super::registration::Registration;
use super::shard_map::{ShardMap, announce_change, change_shard, read_shard_map};

/// How often the Controller looks even if nobody told it to.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// The grace period where nobody says otherwise.
pub const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a shard group's znode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRequirement {
    /// Number of shards.
    pub shards: u32,
    /// Copies of each.
    pub replicas: u32,
}

/// What a Controller is told.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// The name that it campaigns by.
    pub name: String,
    /// Of the coordination session.
    pub session_timeout: Duration,
    /// A Data Node that is away for longer is taken to have lost its copies.
    pub grace_period: Duration,
}

/// Runs the election and, while elected, the assignments.
pub struct Controller;

impl Controller {
    /// Campaigns and serves, again and again, until the node dies. What nodes hold is read from `directory`, which
    /// somebody [observes](super::observer).
    pub async fn run(world: World, settings: ControllerSettings, directory: Arc<NodeDirectory>) {
        let election = Election::new(
            world.coordination.clone(),
            world.clock.clone(),
            &*world.entropy,
            settings.session_timeout,
            paths::CONTROLLER_ELECTION,
            &settings.name,
        );
        loop {
            match election.campaign().await {
                Ok(leadership) => {
                    tracing::info!(epoch = leadership.epoch, "elected as Controller");
                    let assigning = assign_forever(&world, &directory, settings.grace_period);
                    let _ = leadership.while_held(assigning).await;
                    neorunbase_world::sometimes!("controller-deposed");
                    tracing::info!(epoch = leadership.epoch, "no longer the Controller");
                }
                Err(error) => tracing::warn!(%error, "cannot campaign for Controller"),
            }
            world.clock.sleep(RETRY_PAUSE).await;
        }
    }
}

async fn assign_forever(world: &World, directory: &NodeDirectory, grace_period: Duration) {
    let mut attendance = Attendance::new(grace_period);
    loop {
        let (mut groups_changed, mut draining_changed) = (None, None);
        let mut members = directory.members();
        let result = async {
            let (_, watch) = match world.coordination.children_and_watch(paths::GROUPS).await {
                Err(CoordinationError::NoNode(_)) => {
                    ensure_path(&*world.coordination, paths::GROUPS).await?;
                    world.coordination.children_and_watch(paths::GROUPS).await?
                }
                other => other?,
            };
            groups_changed = Some(watch);
            let (draining, watch) = draining_nodes_and_watch(&*world.coordination).await?;
            draining_changed = Some(watch);
            let registered = members.borrow_and_update().clone();
            let registered = registered
                .iter()
                .map(|(name, data)| (name, Registration::decode(data)));
            attendance.look(registered, world.clock.monotonic());
            place_shards(world, directory, draining, &mut attendance).await
        };
        if let Err(error) = result.await {
            tracing::debug!(%error, "shard assignment is tried again");
            world.clock.sleep(RETRY_PAUSE).await;
            continue;
        }
        if buggify("Controller acts twice") {
            continue;
        }
        let wake = async {
            tokio::select! {
                biased;
                _ = async { if let Some(watch) = groups_changed.take() { let _ = watch.await; } } => {}
                _ = async { if let Some(watch) = draining_changed.take() { let _ = watch.await; } } => {}
                _ = members.changed() => {}
            }
        };
        let _ = timeout(&*world.clock, ROUND_INTERVAL, wake).await;
    }
}

/// Which Data Nodes were seen, and when.
struct Attendance {
    grace_period: Duration,
    alive: BTreeSet<String>,
    seen: BTreeMap<String, MonotonicTime>,
    /// As they were registered last.
    labels: BTreeMap<String, Labels>,
}

impl Attendance {
    /// Nobody was seen yet.
    fn new(grace_period: Duration) -> Self {
        Self {
            grace_period,
            alive: BTreeSet::new(),
            seen: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Who is registered now.
    fn look<'a>(&mut self, registered: impl Iterator<Item = (&'a String, Registration)>, now: MonotonicTime) {
        self.alive.clear();
        for (name, registration) in registered {
            self.alive.insert(name.clone());
            self.seen.insert(name.clone(), now);
            self.labels.insert(name.clone(), registration.labels);
        }
    }

    /// The nodes as they are now.
    fn nodes(&mut self, map: &ShardMap, draining: BTreeSet<String>, now: MonotonicTime) -> Nodes {
        let replicas = map.values().flat_map(|configuration| &configuration.replicas);
        for name in replicas {
            // One that this Controller has never seen is given the grace period as well.
            self.seen.entry(name.clone()).or_insert(now);
        }
        let is_gone = |(name, seen): &(&String, &MonotonicTime)| {
            now.since(**seen) > self.grace_period && !self.alive.contains(*name)
        };
        let gone = self.seen.iter().filter(is_gone);
        Nodes {
            gone: gone.map(|(name, _)| name.clone()).collect(),
            alive: self.alive.clone(),
            draining,
            topology: Topology::new(self.labels.iter()),
        }
    }
}

/// One round: every shard that a group asks for gets copies, a living primary, and copies in place of lost ones.
async fn place_shards(
    world: &World,
    directory: &NodeDirectory,
    draining: BTreeSet<String>,
    attendance: &mut Attendance,
) -> Result<(), CoordinationError> {
    let coordination = &*world.coordination;
    let mut map = read_shard_map(coordination).await?;
    dawdle(&*world.clock, "Controller acts late", Duration::from_secs(1)).await;
    let nodes = attendance.nodes(&map, draining, world.clock.monotonic());
    let measured = directory.observations().shard_loads(&map);
    let mut load = Load::of(&map, &nodes, &measured);
    let mut changed = false;
    let mut replicas = BTreeMap::new();
    let mut relieved = BTreeSet::new();
    for name in coordination.children(paths::GROUPS).await? {
        let (Ok(group), Some((data, _))) = (
            name.parse::<u32>(),
            coordination.get(&format!("{}/{name}", paths::GROUPS)).await?,
        ) else {
            continue;
        };
        let Ok(requirement) = serde_json::from_slice::<GroupRequirement>(&data) else {
            tracing::error!(%name, "unreadable shard group requirement");
            continue;
        };
        for index in 0..requirement.shards {
            let shard = shard_id(group, index);
            replicas.insert(shard, requirement.replicas);
            let Some(current) = map.get(&shard) else {
                let Some(first) = first_configuration(requirement.replicas, &nodes, &load) else {
                    continue; // No data node takes copies; membership will wake us.
                };
                create_shard(coordination, shard, &first).await?;
                load.add(shard, &first);
                map.insert(shard, first);
                changed = true;
                continue;
            };
            let Some(next) = next_change(current, requirement.replicas, &nodes, &load) else {
                continue;
            };
            let in_force = change_shard(coordination, shard, &next).await?;
            if in_force == next {
                tracing::info!(shard, ?next, "the Controller has changed who holds a shard");
                let dropped = current.replicas.iter().find(|name| !next.replicas.contains(name));
                relieved.extend(dropped.cloned());
            }
            load.replace(shard, current, &next);
            map.insert(shard, in_force);
            changed = true;
        }
    }
    report_relieved(&relieved, &map, &nodes);
    let replicas_of = |shard| replicas.get(&shard).copied().unwrap_or(1);
    if !changed && let Some((shard, next)) = balancing_change(&map, replicas_of, &nodes, &load) {
        if change_shard(coordination, shard, &next).await? == next {
            neorunbase_world::sometimes!("load-evened-out");
            tracing::info!(shard, ?next, "the Controller evens out the load");
        }
        changed = true;
    }
    if changed || !map.is_empty() && coordination.get(paths::SHARDS_CHANGED).await?.is_none() {
        announce_change(coordination).await?;
    }
    Ok(())
}

/// Says what it means that nodes have lost copies in a round that led to `map`.
fn report_relieved(relieved: &BTreeSet<String>, map: &ShardMap, nodes: &Nodes) {
    for name in relieved {
        if nodes.gone.contains(name) {
            // A copy is dropped only once there are enough others.
            neorunbase_world::sometimes!("gone-node-replaced");
        }
        let holds_none = map
            .values()
            .all(|configuration| !configuration.replicas.contains(name));
        if holds_none && nodes.draining.contains(name) {
            neorunbase_world::sometimes!("drain-finished");
            tracing::info!(name, "the drained data node holds nothing any more");
        }
    }
}

async fn create_shard(
    coordination: &dyn Coordination,
    shard: ShardId,
    first: &Configuration,
) -> Result<(), CoordinationError> {
    let encoded = serde_json::to_vec(first).map_err(|error| CoordinationError::Other(error.to_string()))?;
    let path = paths::shard_path(shard);
    match coordination
        .create(&path, encoded.into(), CreateMode::Persistent)
        .await
    {
        // Another Controller was first, or an answer of ours was lost.
        Ok(_) | Err(CoordinationError::NodeExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks the Controller for a shard group, as the Coordinator leader does when a table needs one.
///
/// # Errors
/// As [`Coordination::create`](neorunbase_world::Coordination::create); calling again is safe.
pub async fn require_group(
    world: &World,
    group: u32,
    requirement: GroupRequirement,
) -> Result<(), CoordinationError> {
    ensure_path(&*world.coordination, paths::GROUPS).await?;
    let encoded =
        serde_json::to_vec(&requirement).map_err(|error| CoordinationError::Other(error.to_string()))?;
    let path = format!("{}/{group}", paths::GROUPS);
    match world
        .coordination
        .create(&path, encoded.into(), CreateMode::Persistent)
        .await
    {
        Ok(_) | Err(CoordinationError::NodeExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
