//! Primaries change their in-sync sets: without followers that are silent, with those that have caught up.

use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::fault::dawdle;

use super::super::DataNode;
use super::replica::Role;
use crate::cluster::shard_map::change_shard;

impl DataNode {
    /// One round of changes that are due.
    pub(in crate::datanode) async fn change_in_sync_sets(&self) {
        let proposals = self.proposals();
        let coordination = &*self.world.coordination;
        if !proposals.is_empty() {
            dawdle(
                &*self.world.clock,
                "in-sync set changed late",
                Duration::from_millis(500),
            )
            .await;
        }
        let changes = proposals.into_iter().map(|(shard, proposed)| async move {
            match change_shard(coordination, shard, &proposed).await {
                Ok(current) => {
                    neorunbase_world::sometimes!("in-sync-set-changed");
                    tracing::info!(shard, ?current, "the in-sync set has changed");
                    Some((shard, current))
                }
                Err(error) => {
                    tracing::debug!(shard, %error, "the in-sync set cannot change yet");
                    None
                }
            }
        });
        let changed = join_all(changes).await;
        let mut replicas = self.replicas.lock();
        for (shard, current) in changed.into_iter().flatten() {
            self.configure_shard(&mut replicas, shard, current);
        }
    }

    fn proposals(&self) -> Vec<(ShardId, Configuration)> {
        let now = self.world.clock.monotonic();
        let mut replicas = self.replicas.lock();
        let mut proposals = Vec::new();
        for (shard, replica) in &mut replicas.shards {
            // A frame that is atomic only on this disk must be in the log before anybody else has to have it.
            let may_grow = replica.shard.may_have_copies();
            let Role::Primary(primary) = &mut replica.role else {
                replica.copies.clear();
                continue;
            };
            // What follows a copy is kept until its follower is in sync.
            replica.copies.retain(|follower, floor| {
                *floor = primary.matched_by(follower).max(*floor);
                let configuration = primary.configuration();
                configuration.replicas.contains(follower) && !configuration.is_in_sync(follower)
            });
            if let Some(proposed) = primary.propose(now, may_grow) {
                proposals.push((*shard, proposed));
                // A proposed member counts at once.
                replica.refresh_lease();
            }
        }
        proposals
    }
}
