//! Storages that the catalog no longer names are dropped from the shards by whoever leads, once nobody can be reading them,
//! and are not forgotten before every shard has dropped them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use neorunbase_catalog::snapshot::DroppedStorage;
use neorunbase_protocol::message::{ChangeStorage, RequestBody, StorageId, shard_id};
use neorunbase_world::MonotonicTime;
use neorunbase_world::fault::planted;

use super::Coordinator;
use super::router::RouteError;

/// Statements that began before a definition may still read what it replaced.
const DROP_DELAY: Duration = Duration::from_secs(30);
/// How often it is looked at what there is to drop.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Drops storages for as long as this Coordinator leads.
pub async fn drop_forever(coordinator: &Coordinator) -> Infallible {
    let clock = &*coordinator.world.clock;
    let mut known_since: BTreeMap<StorageId, MonotonicTime> = BTreeMap::new();
    loop {
        clock.sleep(LOOK_INTERVAL).await;
        let dropped = coordinator.metadata.snapshot().dropped.clone();
        let now = clock.monotonic();
        known_since.retain(|storage, _| dropped.iter().any(|dropped| dropped.storage == *storage));
        let is_due = |dropped: &&DroppedStorage| {
            let since = *known_since.entry(dropped.storage).or_insert(now);
            now.since(since) >= DROP_DELAY
        };
        let due: Vec<_> = dropped.iter().filter(is_due).copied().collect();
        let mut gone = Vec::new();
        for storage in due {
            match drop_everywhere(coordinator, storage).await {
                Ok(()) => gone.push(storage),
                Err(_) if planted("storage-dropped-somewhere") => gone.push(storage),
                Err(error) => {
                    tracing::debug!(
                        storage = storage.storage,
                        ?error,
                        "a dropped storage stays for now"
                    );
                }
            }
        }
        if gone.is_empty() {
            continue;
        }
        let forgotten = coordinator.metadata.change(|catalog| {
            catalog.dropped.retain(|dropped| !gone.contains(dropped));
            Ok(())
        });
        if let Err(error) = forgotten.await {
            tracing::debug!(%error, "storages that are gone are dropped once more");
        }
    }
}

async fn drop_everywhere(coordinator: &Coordinator, dropped: DroppedStorage) -> Result<(), RouteError> {
    let catalog = coordinator.metadata.snapshot();
    let shards = catalog.groups.get(&dropped.group).map_or(0, |group| group.shards);
    for index in 0..shards {
        let build = |shard| {
            RequestBody::ChangeStorage(ChangeStorage {
                shard,
                create: Vec::new(),
                drop: vec![dropped.storage],
            })
        };
        let shard = shard_id(dropped.group, index);
        coordinator.router.call_repeatable(shard, build).await?;
    }
    Ok(())
}
