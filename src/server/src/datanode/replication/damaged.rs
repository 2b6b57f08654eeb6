//! Damaged copies leave their in-sync sets, so that nobody counts on them; their primaries send them whole copies then.

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::coordination::CoordinationError;

use super::super::DataNode;
use super::replica::Replica;
use crate::cluster::shard_map::{announce_change, change_shard, confirmed_configuration};

impl DataNode {
    /// Leaves the in-sync sets of all shards whose copy here is damaged. To be done before the node registers: until then
    /// nobody makes it a primary. Where it is the only member nothing can be done: the shard stays halted.
    ///
    /// # Errors
    /// If the coordination service cannot be reached; calling again is safe.
    pub async fn leave_sets_of_damaged(&self) -> Result<(), CoordinationError> {
        let coordination = &*self.world.coordination;
        let mut has_left = false;
        for shard in self.damaged_shards() {
            let configuration = match confirmed_configuration(coordination, shard).await {
                // It was never assigned.
                Err(CoordinationError::NoNode(_)) => continue,
                configuration => configuration?,
            };
            let Some(next) = self.without_this_node(&configuration) else {
                let mut replicas = self.replicas.lock();
                self.configure_shard(&mut replicas, shard, configuration);
                continue;
            };
            let current = change_shard(coordination, shard, &next).await?;
            tracing::warn!(shard, ?current, "a damaged copy is not counted on any more");
            has_left = true;
            let mut replicas = self.replicas.lock();
            self.configure_shard(&mut replicas, shard, current);
        }
        if has_left {
            announce_change(coordination).await?;
        }
        Ok(())
    }

    fn damaged_shards(&self) -> Vec<ShardId> {
        let replicas = self.replicas.lock();
        let may_leave = |replica: &Replica| {
            let known = replica.configuration.as_ref();
            known.is_none_or(|known| self.without_this_node(known).is_some())
        };
        let damaged = replicas.shards.values();
        let damaged = damaged.filter(|replica| replica.shard.is_damaged() && may_leave(replica));
        damaged.map(|replica| replica.shard.id).collect()
    }

    /// `configuration` without this node in the in-sync set; as its primary it hands on to another member. `None`: there is no
    /// other one, or it is not in the set.
    pub(super) fn without_this_node(&self, configuration: &Configuration) -> Option<Configuration> {
        let name = &self.config.name;
        if configuration.primary != *name {
            return configuration.without(name);
        }
        let others = configuration.in_sync.iter().filter(|member| *member != name);
        let others: Vec<_> = others.collect();
        // The one chosen may be down: then the Controller chooses another.
        configuration.promoted(others.first()?)
    }
}
