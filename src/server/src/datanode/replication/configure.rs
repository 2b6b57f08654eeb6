//! The shard map comes in: copies are made, terms end, configurations are taken over.

use std::sync::Arc;

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::{Configuration, Follower, LogPosition, ShardLog};

use super::super::DataNode;
use super::super::log_record::{RegisteredShard, RegistryRecord};
use super::super::registry::ServeError;
use super::super::shard::{Shard, engine_path};
use super::super::start::StartError;
use super::replica::{Replica, Replicas, Role};
use crate::cluster::ShardMap;

impl DataNode {
    /// Takes note of who holds the shards. Terms that are to begin here do so in the background.
    ///
    /// # Errors
    /// [`ServeError`]; copies that could be made are there.
    pub async fn configure(self: &Arc<Self>, map: &ShardMap) -> Result<(), ServeError> {
        self.make_copies(map).await?;
        {
            let mut replicas = self.replicas.lock();
            for (shard, configuration) in map {
                self.configure_shard(&mut replicas, *shard, configuration.clone());
            }
        }
        self.terms_due.notify_one();
        self.start_shippers();
        self.drop_copies(map).await
    }

    /// Opens empty copies of shards that the map newly wants here.
    async fn make_copies(&self, map: &ShardMap) -> Result<(), ServeError> {
        let wanted = |configuration: &Configuration| configuration.replicas.contains(&self.config.name);
        let mut registry = self.registry.lock().await;
        let mut changed = registry.clone();
        let mut opened = Vec::new();
        for (shard, configuration) in map {
            if !wanted(configuration) || self.open_shard(*shard).is_ok() {
                continue;
            }
            let place = changed.shards.binary_search_by_key(shard, |known| known.shard);
            if place.is_ok_and(|place| changed.shards[place].dropped) {
                // Files may be left of it.
                self.world
                    .engines
                    .destroy(&engine_path(*shard))
                    .await
                    .map_err(StartError::from)?;
            }
            tracing::info!(node = %self.config.name, shard, ?configuration, "gets a copy of the shard");
            let copy = self.open_new_shard(*shard).await?;
            copy.begin_term(begun_before(&registry, *shard));
            opened.push(copy);
            match place {
                Ok(place) => {
                    let known = &mut changed.shards[place];
                    known.dropped = false;
                    known.log_from = self.wal.next_lsn();
                }
                Err(place) => {
                    let registered = RegisteredShard {
                        shard: *shard,
                        ..RegisteredShard::default()
                    };
                    changed.shards.insert(place, registered);
                }
            }
        }
        if opened.is_empty() {
            return Ok(());
        }
        self.replace_registry(&mut registry, changed).await?;
        let timing = self.config.replication.timing;
        for shard in opened {
            let log = ShardLog::starting_at(LogPosition::default());
            let follower = Follower::new(&self.config.name, timing, log, shard.term());
            let replica = Replica::new(shard.clone(), follower, self.config.replication.kept_log_bytes);
            self.replicas.lock().shards.insert(shard.id, replica);
            self.shards.write().insert(shard.id, shard);
        }
        Ok(())
    }

    /// One shard's configuration, maybe an old one.
    pub(super) fn configure_shard(
        &self,
        replicas: &mut Replicas,
        shard: ShardId,
        configuration: Configuration,
    ) {
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return;
        };
        if replica
            .configuration
            .as_ref()
            .is_some_and(|known| known.epoch >= configuration.epoch)
        {
            return;
        }
        replica.configuration = Some(configuration.clone());
        let now = self.world.clock.monotonic();
        match &mut replica.role {
            Role::Follower(follower) => follower.learn(&configuration),
            Role::Primary(primary) => match primary.configured(configuration.clone(), now) {
                Ok(_) => self.advance(replicas, [shard]),
                Err(_) => {
                    self.depose(replicas, shard);
                    if let Some(Replica {
                        role: Role::Follower(follower),
                        ..
                    }) = replicas.shards.get_mut(&shard)
                    {
                        follower.learn(&configuration);
                    }
                }
            },
        }
    }

    /// The shards that have a copy here, with the highest term that this node has begun for each.
    pub fn known_shards(&self) -> Vec<(ShardId, u64)> {
        let shards = self.shards.read();
        shards.values().map(|shard| (shard.id, shard.term())).collect()
    }

    /// The shards that this node is primary of, with their terms.
    pub fn served_shards(&self) -> Vec<(ShardId, u64)> {
        let shards = self.shards.read();
        let served = |shard: &Arc<Shard>| shard.serving().map(|term| (shard.id, term));
        shards.values().filter_map(served).collect()
    }
}

/// The highest term that this node has begun for `shard`, with a copy that it has now or had before.
fn begun_before(registry: &RegistryRecord, shard: ShardId) -> u64 {
    let known = registry.shards.binary_search_by_key(&shard, |known| known.shard);
    known.map_or(0, |place| registry.shards[place].begun)
}
