//! The Controller: the elected process that decides which node serves which shard.
//!
//! Its session is a hint, never a lock: two of them may believe to be elected for a while. Each change of a
//! shard is therefore a versioned set of that shard's znode, read by the same Controller; the loser of a race
//! reads again.

use std::collections::BTreeMap;
use std::time::Duration;

use neorunbase_coordination::{Election, MemberList};
use neorunbase_protocol::message::shard_id;
use neorunbase_world::World;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, CreateMode, ensure_path};
use serde::{Deserialize, Serialize};

use super::paths;
use super::shard_map::{ShardMap, announce_change, read_shard_map};
use neorunbase_replication::Configuration;

/// How often the Controller looks even if nobody told it to.
const ROUND_INTERVAL: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a shard group's znode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRequirement {
    /// Number of shards.
    pub shards: u32,
    /// Copies of each.
    pub replicas: u32,
}

/// Runs the election and, while elected, the assignments.
pub struct Controller;

impl Controller {
    /// Campaigns and serves, again and again, until the node dies.
    pub async fn run(world: World, name: String, session_timeout: Duration) {
        let election = Election::new(
            world.coordination.clone(),
            world.clock.clone(),
            &*world.entropy,
            session_timeout,
            paths::CONTROLLER_ELECTION,
            &name,
        );
        loop {
            match election.campaign().await {
                Ok(leadership) => {
                    tracing::info!(epoch = leadership.epoch, "elected as Controller");
                    let _ = leadership.while_held(assign_forever(&world)).await;
                    tracing::info!(epoch = leadership.epoch, "no longer the Controller");
                }
                Err(error) => tracing::warn!(%error, "cannot campaign for Controller"),
            }
            world.clock.sleep(RETRY_PAUSE).await;
        }
    }
}

async fn assign_forever(world: &World) {
    let data_nodes = loop {
        let started = MemberList::start(
            world.coordination.clone(),
            world.clock.clone(),
            &*world.spawner,
            paths::DATA_NODES,
        );
        match started.await {
            Ok(list) => break list,
            Err(error) => {
                tracing::warn!(%error, "cannot list the data nodes");
                world.clock.sleep(RETRY_PAUSE).await;
            }
        }
    };
    let members = data_nodes.members();
    loop {
        let mut groups_changed = None;
        let result = async {
            let (_, watch) = match world.coordination.children_and_watch(paths::GROUPS).await {
                Err(CoordinationError::NoNode(_)) => {
                    ensure_path(&*world.coordination, paths::GROUPS).await?;
                    world.coordination.children_and_watch(paths::GROUPS).await?
                }
                other => other?,
            };
            groups_changed = Some(watch);
            let alive: Vec<String> = members.borrow().keys().cloned().collect();
            assign_once(world, &alive).await
        };
        if let Err(error) = result.await {
            tracing::debug!(%error, "shard assignment is tried again");
            world.clock.sleep(RETRY_PAUSE).await;
            continue;
        }
        let mut members = members.clone();
        members.mark_unchanged();
        let wake = async {
            tokio::select! {
                biased;
                _ = async { if let Some(watch) = groups_changed.take() { let _ = watch.await; } } => {}
                _ = members.changed() => {}
            }
        };
        let _ = timeout(&*world.clock, ROUND_INTERVAL, wake).await;
    }
}

/// Gives every shard that a group asks for a primary. A shard that has one keeps it: its data are there.
async fn assign_once(world: &World, alive: &[String]) -> Result<(), CoordinationError> {
    let coordination = &*world.coordination;
    let map = read_shard_map(coordination).await?;
    let mut changed = false;
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
        let mut load = primaries_by_node(&map, alive);
        for index in 0..requirement.shards {
            let shard = shard_id(group, index);
            if map.contains_key(&shard) {
                continue;
            }
            let Some(primary) = least_loaded(&load) else {
                return Ok(()); // No data node is alive; membership will wake us.
            };
            *load.entry(primary.clone()).or_default() += 1;
            let entry = Configuration::new(vec![primary]);
            let encoded =
                serde_json::to_vec(&entry).map_err(|error| CoordinationError::Other(error.to_string()))?;
            match coordination
                .create(&paths::shard_path(shard), encoded.into(), CreateMode::Persistent)
                .await
            {
                Ok(_) => changed = true,
                // Another Controller was first, or an answer of ours was lost.
                Err(CoordinationError::NodeExists(_)) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }
    if changed || !map.is_empty() && coordination.get(paths::SHARDS_CHANGED).await?.is_none() {
        announce_change(coordination).await?;
    }
    Ok(())
}

fn primaries_by_node(map: &ShardMap, alive: &[String]) -> BTreeMap<String, u32> {
    let mut load: BTreeMap<String, u32> = alive.iter().map(|name| (name.clone(), 0)).collect();
    for entry in map.values() {
        if let Some(count) = load.get_mut(&entry.primary) {
            *count += 1;
        }
    }
    load
}

fn least_loaded(load: &BTreeMap<String, u32>) -> Option<String> {
    load.iter()
        .min_by_key(|(_, count)| **count)
        .map(|(name, _)| name.clone())
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
