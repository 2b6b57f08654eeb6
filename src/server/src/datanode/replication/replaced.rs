//! A node that comes back under its name with another disk has nothing of what it had acknowledged. Each disk has an identity, and
//! the coordination service knows the one that each node had last.

use std::time::Duration;

use bytes::Bytes;
use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::coordination::{CoordinationError, CreateMode};
use neorunbase_world::fault::planted;

use super::super::DataNode;
use super::super::log_record::{RegisteredShard, RegistryRecord};
use super::super::registry::ServeError;
use super::super::start::StartError;
use crate::cluster::shard_map::{announce_change, change_shard, confirmed_configuration, read_shard_map};
use crate::cluster::{ShardMap, paths};

const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl DataNode {
    /// Has the coordination service know this node's disk. If it knows another one, the node leaves the in-sync sets of all
    /// shards before. To be done before the node registers, and before it hears of the shard map.
    ///
    /// # Errors
    /// [`StartError::OtherDisk`] if it is the only member of some set; or that of the registry.
    pub async fn claim_disk(&self) -> Result<(), StartError> {
        loop {
            match self.try_to_claim_disk().await {
                Ok(()) => return Ok(()),
                Err(ServeError::Coordination(error)) => {
                    tracing::info!(%error, "waiting for the coordination service: it has to know this disk");
                    self.world.clock.sleep(RETRY_PAUSE).await;
                }
                Err(ServeError::Start(error)) => {
                    tracing::error!(%error, "the data node cannot start on this disk");
                    return Err(error);
                }
            }
        }
    }

    async fn try_to_claim_disk(&self) -> Result<(), ServeError> {
        let coordination = &*self.world.coordination;
        let path = paths::disk_path(&self.config.name);
        let own = Bytes::from(format!("{:016x}", self.registry.lock().await.disk));
        loop {
            let Some((known, version)) = coordination.get(&path).await? else {
                match coordination
                    .create(&path, own.clone(), CreateMode::Persistent)
                    .await
                {
                    Ok(_) => return Ok(()),
                    Err(CoordinationError::NodeExists(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
            };
            // Written again as it was read, since that may be old; what is read after a write is not older than that.
            let version = match coordination.set(&path, known.clone(), version).await {
                Ok(version) => version,
                Err(CoordinationError::BadVersion(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            if known == own {
                return Ok(());
            }
            tracing::warn!(node = %self.config.name, ?known, ?own, "the node has another disk than before");
            if !planted("replaced-disk-trusted") {
                self.leave_sets_of_the_disk_before().await?;
            }
            match coordination.set(&path, own.clone(), version).await {
                Ok(_) => {
                    neorunbase_world::sometimes!("replaced-disk-noticed");
                    return Ok(());
                }
                Err(CoordinationError::BadVersion(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn leave_sets_of_the_disk_before(&self) -> Result<(), ServeError> {
        let coordination = &*self.world.coordination;
        let name = &self.config.name;
        let mut held = read_shard_map(coordination).await?;
        held.retain(|_, configuration| configuration.replicas.contains(name));
        let mut only_here = Vec::new();
        for (shard, configuration) in &mut held {
            *configuration = confirmed_configuration(coordination, *shard).await?;
            if self.not_counting_on_this_node(configuration).is_none() {
                only_here.push(*shard);
            }
        }
        self.refuse_other_disk(only_here)?;
        for (shard, configuration) in &mut held {
            loop {
                let Some(next) = self.not_counting_on_this_node(configuration) else {
                    self.refuse_other_disk(vec![*shard])?;
                    break;
                };
                if change_shard(coordination, *shard, &next).await? == next {
                    tracing::warn!(
                        shard,
                        ?next,
                        "a copy on the disk before is not counted on any more"
                    );
                    *configuration = next;
                    break;
                }
                *configuration = confirmed_configuration(coordination, *shard).await?;
            }
        }
        if !held.is_empty() {
            announce_change(coordination).await?;
        }
        self.know_terms_of_the_disk_before(held).await?;
        Ok(())
    }

    /// What `configuration` becomes when this node has nothing any more. Where it is not in the set, a primary may be about to
    /// take it in for what it had. `None`: nobody else is in the set.
    fn not_counting_on_this_node(&self, configuration: &Configuration) -> Option<Configuration> {
        if configuration.is_in_sync(&self.config.name) {
            self.without_this_node(configuration)
        } else {
            Some(configuration.renumbered())
        }
    }

    fn refuse_other_disk(&self, shards: Vec<ShardId>) -> Result<(), StartError> {
        if shards.is_empty() {
            return Ok(());
        }
        neorunbase_world::sometimes!("replaced-disk-of-an-only-member-refused");
        Err(StartError::OtherDisk {
            node: self.config.name.clone(),
            shards,
        })
    }

    /// The disk before may have begun any term up to now, and no old map may have this one begin it again.
    async fn know_terms_of_the_disk_before(&self, held: ShardMap) -> Result<(), StartError> {
        let mut registry = self.registry.lock().await;
        let mut changed = registry.clone();
        for (shard, configuration) in &held {
            registered(&mut changed, *shard, configuration.term.saturating_sub(1));
        }
        self.replace_registry(&mut registry, changed).await?;
        let mut replicas = self.replicas.lock();
        for (shard, configuration) in held {
            self.configure_shard(&mut replicas, shard, configuration);
        }
        Ok(())
    }
}

/// Notes that terms of `shard` up to `begun` may have begun. (The present one has not: it is another node's, or will be.)
fn registered(registry: &mut RegistryRecord, shard: ShardId, begun: u64) {
    match registry.shards.binary_search_by_key(&shard, |known| known.shard) {
        Ok(place) => {
            let known = &mut registry.shards[place];
            known.begun = known.begun.max(begun);
        }
        Err(place) => {
            let unknown = RegisteredShard {
                shard,
                begun,
                // No engine yet.
                dropped: true,
                ..RegisteredShard::default()
            };
            registry.shards.insert(place, unknown);
        }
    }
}
