//! Which node serves which shard, under which epoch. The znodes are the truth; a [`ShardMap`] is a copy that may
//! be old, which the epoch in every message makes harmless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, CreateMode, ensure_path};
use neorunbase_world::fault::{dawdle, planted};
use neorunbase_world::{Coordination, TaskHandle, World};
use tokio::sync::watch;

use super::paths;

/// The map is read again this often even if no watch fires.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// All shards.
pub type ShardMap = BTreeMap<ShardId, Configuration>;

/// Keeps a copy of the shard map fresh.
pub struct ShardMapWatcher {
    map: watch::Receiver<Arc<ShardMap>>,
    task: TaskHandle,
}

impl Drop for ShardMapWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ShardMapWatcher {
    /// Reads the map, retrying until that succeeds, and keeps it fresh in the background.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub async fn start(world: &World) -> Result<Self, CoordinationError> {
        let coordination = world.coordination.clone();
        let (first, changed) = loop {
            match read_and_watch(&*coordination).await {
                Ok(read) => break read,
                Err(CoordinationError::Other(reason)) => return Err(CoordinationError::Other(reason)),
                Err(_) => world.clock.sleep(RETRY_PAUSE).await,
            }
        };
        let (sender, map) = watch::channel(Arc::new(first));
        let task = world
            .spawner
            .spawn("shard map", Box::pin(keep_fresh(world.clone(), sender, changed)));
        Ok(Self { map, task })
    }

    /// The map, now and as it changes.
    pub fn map(&self) -> watch::Receiver<Arc<ShardMap>> {
        self.map.clone()
    }
}

async fn keep_fresh(
    world: World,
    sender: watch::Sender<Arc<ShardMap>>,
    changed: neorunbase_world::coordination::Watch,
) {
    let mut changed = Some(changed);
    loop {
        // An elapsed refresh interval and a fired (or lost) watch both mean: read again. A watch fires once; after
        // a failed reading there is none.
        if let Some(changed) = changed.take() {
            let patience = if planted("watch-lost") {
                Duration::MAX
            } else {
                REFRESH_INTERVAL
            };
            let _ = timeout(&*world.clock, patience, changed).await;
        } else {
            neorunbase_world::sometimes!("lost-watch-armed-again");
        }
        dawdle(&*world.clock, "shard map read late", Duration::from_secs(1)).await;
        match read_and_watch(&*world.coordination).await {
            Ok((map, next)) => {
                changed = Some(next);
                sender.send_if_modified(|current| {
                    let different = **current != map;
                    if different {
                        *current = Arc::new(map);
                    }
                    different
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read the shard map; the last one stands");
                world.clock.sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Arms the watch before reading, so that no change falls between the two.
async fn read_and_watch(
    coordination: &dyn Coordination,
) -> Result<(ShardMap, neorunbase_world::coordination::Watch), CoordinationError> {
    if planted("watch-lost") {
        let map = read_shard_map(coordination).await?;
        let (_, watch) = coordination.get_and_watch(paths::SHARDS_CHANGED).await?;
        return Ok((map, watch));
    }
    let (_, watch) = coordination.get_and_watch(paths::SHARDS_CHANGED).await?;
    Ok((read_shard_map(coordination).await?, watch))
}

/// Reads all shards' znodes.
///
/// # Errors
/// As [`Coordination::get`].
pub async fn read_shard_map(coordination: &dyn Coordination) -> Result<ShardMap, CoordinationError> {
    let names = match coordination.children(paths::SHARDS).await {
        Ok(names) => names,
        Err(CoordinationError::NoNode(_)) => {
            ensure_path(coordination, paths::SHARDS).await?;
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let mut map = ShardMap::new();
    for name in names {
        let Some(shard) = paths::shard_of_name(&name) else {
            continue;
        };
        if let Some((data, _)) = coordination.get(&paths::shard_path(shard)).await? {
            match serde_json::from_slice(&data) {
                Ok(entry) => {
                    map.insert(shard, entry);
                }
                Err(error) => tracing::error!(%name, %error, "unreadable shard entry; the shard is left out"),
            }
        }
    }
    Ok(map)
}

/// Replaces a shard's configuration by `next`, if it is still the one before that. Returns the one in force: `next`, or
/// another that stands in its way. Calling again is safe.
///
/// # Errors
/// As [`Coordination::set`]. Whether the change was made is not known then.
pub async fn change_shard(
    coordination: &dyn Coordination,
    shard: ShardId,
    next: &Configuration,
) -> Result<Configuration, CoordinationError> {
    let path = paths::shard_path(shard);
    let unreadable = |error: serde_json::Error| CoordinationError::Other(format!("{path}: {error}"));
    let encoded = Bytes::from(serde_json::to_vec(next).map_err(unreadable)?);
    loop {
        let Some((data, version)) = coordination.get(&path).await? else {
            return Err(CoordinationError::NoNode(path));
        };
        let current: Configuration = serde_json::from_slice(&data).map_err(unreadable)?;
        if current.epoch + 1 != next.epoch && !planted("change-without-version") {
            return Ok(current);
        }
        match coordination.set(&path, encoded.clone(), version).await {
            Ok(_) => return Ok(next.clone()),
            Err(CoordinationError::BadVersion(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A shard's configuration as it certainly is: written again as it was read, since what is just read may be old.
///
/// # Errors
/// As [`Coordination::set`]; calling again is safe.
pub async fn confirmed_configuration(
    coordination: &dyn Coordination,
    shard: ShardId,
) -> Result<Configuration, CoordinationError> {
    let path = paths::shard_path(shard);
    loop {
        let Some((data, version)) = coordination.get(&path).await? else {
            return Err(CoordinationError::NoNode(path));
        };
        match coordination.set(&path, data.clone(), version).await {
            Ok(_) => {
                return serde_json::from_slice(&data)
                    .map_err(|error| CoordinationError::Other(format!("{path}: {error}")));
            }
            Err(CoordinationError::BadVersion(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Wakes everybody who watches the shard map.
///
/// # Errors
/// As [`Coordination::set`]; calling again is safe.
pub async fn announce_change(coordination: &dyn Coordination) -> Result<(), CoordinationError> {
    loop {
        match coordination.get(paths::SHARDS_CHANGED).await? {
            None => match coordination
                .create(paths::SHARDS_CHANGED, Bytes::new(), CreateMode::Persistent)
                .await
            {
                Ok(_) => return Ok(()),
                Err(CoordinationError::NodeExists(_)) => {}
                Err(error) => return Err(error),
            },
            Some((_, version)) => match coordination
                .set(paths::SHARDS_CHANGED, Bytes::new(), version)
                .await
            {
                Ok(_) => return Ok(()),
                Err(CoordinationError::BadVersion(_)) => {}
                Err(error) => return Err(error),
            },
        }
    }
}
