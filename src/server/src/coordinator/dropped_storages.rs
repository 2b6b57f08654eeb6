//! Storages that the catalog no longer names are dropped from the shards by whoever leads, once nobody can be reading them,
//! and are not forgotten before every shard has dropped them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use neorunbase_catalog::snapshot::DroppedStorage;
use neorunbase_protocol::message::{ChangeStorage, RequestBody, StorageId};
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
        let mut due: BTreeMap<u32, Vec<StorageId>> = BTreeMap::new();
        for DroppedStorage { group, storage } in dropped {
            let since = *known_since.entry(storage).or_insert(now);
            if now.since(since) >= DROP_DELAY {
                due.entry(group).or_default().push(storage);
            }
        }
        let mut gone = Vec::new();
        for (group, storages) in due {
            match drop_everywhere(coordinator, group, &storages).await {
                Err(error) if !planted("storage-dropped-somewhere") => {
                    tracing::debug!(?storages, ?error, "dropped storages stay for now");
                }
                _ => gone.extend(storages),
            }
        }
        if gone.is_empty() {
            continue;
        }
        let forgotten = coordinator.metadata.change(|catalog| {
            catalog.dropped.retain(|dropped| !gone.contains(&dropped.storage));
            Ok(())
        });
        if let Err(error) = forgotten.await {
            tracing::debug!(%error, "storages that are gone are dropped once more");
        }
    }
}

async fn drop_everywhere(
    coordinator: &Coordinator,
    group: u32,
    storages: &[StorageId],
) -> Result<(), RouteError> {
    for shard in coordinator.shards_of_group(group) {
        let build = |shard| {
            RequestBody::ChangeStorage(ChangeStorage {
                shard,
                create: Vec::new(),
                drop: storages.to_vec(),
            })
        };
        coordinator.router.call_repeatable(shard, build).await?;
    }
    Ok(())
}
