//! Copies that the shard map does not want here any more.

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::fault::planted;

use super::super::DataNode;
use super::super::registry::ServeError;
use super::super::shard::engine_path;
use crate::cluster::ShardMap;
use crate::cluster::shard_map::confirmed_configuration;

impl DataNode {
    /// Gives up the copies of shards whose latest configuration does not name this node. What is on disk goes at once, or
    /// with the next start if somebody still reads it.
    pub(super) async fn drop_copies(&self, map: &ShardMap) -> Result<(), ServeError> {
        self.take_back_copies(map).await?;
        let unwanted = |configuration: &Configuration| !configuration.replicas.contains(&self.config.name);
        let dropped: Vec<ShardId> = {
            let replicas = self.replicas.lock();
            let is_latest = |shard: &ShardId, configuration: &Configuration| {
                let known = replicas
                    .shards
                    .get(shard)
                    .and_then(|replica| replica.configuration.as_ref());
                known.is_some_and(|known| known.epoch <= configuration.epoch)
            };
            map.iter()
                .filter(|(shard, configuration)| unwanted(configuration) && is_latest(shard, configuration))
                .map(|(shard, _)| *shard)
                .collect()
        };
        if dropped.is_empty() {
            return Ok(());
        }
        let certain = self.certainly_unwanted(&dropped).await;
        let is_certain = |shard: &&ShardId| certain.as_ref().is_ok_and(|certain| certain.contains(shard));
        self.give_up(dropped.iter().filter(|shard| !is_certain(shard)), false);
        let dropped = certain?;
        // Nothing of them comes into the log any more while the registry is written. (In this order, as a copy that comes
        // in: otherwise the two wait for each other.)
        let (mut registry, _one_at_a_time);
        if planted("registry-locked-first") {
            registry = self.registry.lock().await;
            _one_at_a_time = self.receiving.lock().await;
        } else {
            _one_at_a_time = self.receiving.lock().await;
            registry = self.registry.lock().await;
        }
        let mut changed = registry.clone();
        for shard in &dropped {
            if let Ok(place) = changed.shards.binary_search_by_key(shard, |known| known.shard) {
                changed.shards[place].dropped = true;
                changed.shards[place].installing = false;
            }
        }
        self.replace_registry(&mut registry, changed).await?;
        for shard in dropped {
            neorunbase_world::sometimes!("unwanted-copy-dropped");
            tracing::info!(node = %self.config.name, shard, "the copy of the shard is not wanted here any more");
            let replica = {
                let mut replicas = self.replicas.lock();
                self.depose(&mut replicas, shard);
                replicas.shards.remove(&shard)
            };
            self.incoming.lock().remove(&shard);
            self.shards.write().remove(&shard);
            if let Some(replica) = replica
                && let Err(error) = replica.shard.store.engine().close().await
            {
                tracing::debug!(shard, %error, "the engine of a dropped copy did not close");
            }
            if let Err(error) = self.world.engines.destroy(&engine_path(shard)).await {
                tracing::debug!(shard, %error, "the files of a dropped copy go with the next start");
            }
        }
        Ok(())
    }

    /// Those of `shards` whose configuration does not name this node. A map may be old, and the copy one that is counted on
    /// since: until that is certain nobody is told what they hold.
    async fn certainly_unwanted(&self, shards: &[ShardId]) -> Result<Vec<ShardId>, ServeError> {
        {
            // Whoever was told before is not told later.
            let _one_at_a_time = self.receiving.lock().await;
            self.give_up(shards, true);
        }
        let mut unwanted = Vec::new();
        for shard in shards {
            let confirmed = confirmed_configuration(&*self.world.coordination, *shard).await?;
            if !confirmed.replicas.contains(&self.config.name) {
                unwanted.push(*shard);
            }
        }
        Ok(unwanted)
    }

    /// Has copies go on that could not be dropped (the disk was full), and that the shard map names here again.
    async fn take_back_copies(&self, map: &ShardMap) -> Result<(), ServeError> {
        let is_wanted = |shard: &ShardId| {
            map.get(shard)
                .is_some_and(|configuration| configuration.replicas.contains(&self.config.name))
        };
        let wanted: Vec<ShardId> = {
            let replicas = self.replicas.lock();
            let given_up = replicas.shards.iter().filter(|(_, replica)| replica.is_given_up);
            given_up.map(|(shard, _)| *shard).filter(is_wanted).collect()
        };
        if wanted.is_empty() || planted("given-up-copy-not-taken-back") {
            return Ok(());
        }
        let _one_at_a_time = self.receiving.lock().await;
        let registry = self.registry.lock().await;
        // That they are gone may have come into the file, whatever was answered.
        self.write_down(&registry).await?;
        tracing::info!(node = %self.config.name, ?wanted, "copies that were to be dropped are wanted again");
        self.give_up(&wanted, false);
        Ok(())
    }

    fn give_up<'a>(&self, shards: impl IntoIterator<Item = &'a ShardId>, is_given_up: bool) {
        let mut replicas = self.replicas.lock();
        for shard in shards {
            if let Some(replica) = replicas.shards.get_mut(shard) {
                replica.is_given_up = is_given_up;
            }
        }
    }
}
