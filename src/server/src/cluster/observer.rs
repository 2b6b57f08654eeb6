//! What the Data Nodes say of themselves, asked every few seconds: nothing of it is kept in the coordination service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::channel::Channel;
use neorunbase_protocol::message::{RequestBody, ResponseBody, ShardId, StatusReply, StatusRequest};
use neorunbase_world::clock::timeout;
use neorunbase_world::{MonotonicTime, World};

use super::directory::NodeDirectory;
use super::drain::draining_nodes;
use super::load::{ShardLoad, ShardLoads};
use super::shard_map::ShardMap;

/// Between two rounds of asking.
const INTERVAL: Duration = Duration::from_secs(2);
/// A node that does not answer in time is shown as unreachable.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How much of a rate the latest interval makes: what a shard is used for changes by the second, where it is led should not.
const NEWEST_PERCENT: u64 = 25;

/// What one node has said last.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its answer.
    pub status: StatusReply,
    at: MonotonicTime,
    /// By shard: operations a second, smoothed.
    rates: BTreeMap<ShardId, u64>,
}

/// What is known of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// By node: its last report, maybe an old one.
    pub reports: BTreeMap<String, Arc<Report>>,
    /// Those that have answered in the last round.
    pub reachable: BTreeSet<String>,
    /// Nodes that are to be emptied.
    pub draining: BTreeSet<String>,
}

impl Report {
    fn new(status: StatusReply, at: MonotonicTime, before: Option<&Self>) -> Self {
        let mut rates = BTreeMap::new();
        for shard in &status.shards {
            let known = before.and_then(|before| {
                let counted = before
                    .status
                    .shards
                    .iter()
                    .find(|known| known.shard == shard.shard)?;
                // A node that was restarted counts from zero again.
                let operations = shard.operations.checked_sub(counted.operations)?;
                let millis = u64::try_from(at.since(before.at).as_millis()).unwrap_or(u64::MAX);
                let newest = operations.saturating_mul(1_000) / millis.max(1);
                let smooth = before.rates.get(&shard.shard).copied().unwrap_or(newest);
                Some((smooth * (100 - NEWEST_PERCENT) + newest * NEWEST_PERCENT) / 100)
            });
            rates.insert(shard.shard, known.unwrap_or(0));
        }
        Self { status, at, rates }
    }

    /// Operations a second of all its shards.
    pub fn operations(&self) -> u64 {
        self.rates.values().sum()
    }

    fn load_of(&self, shard: ShardId) -> Option<ShardLoad> {
        let status = self.status.shards.iter().find(|known| known.shard == shard)?;
        Some(ShardLoad {
            bytes: status.bytes,
            operations: self.rates.get(&shard).copied().unwrap_or(0),
        })
    }
}

impl Observations {
    /// The load of each shard, as its primary has reported it.
    pub fn shard_loads(&self, map: &ShardMap) -> ShardLoads {
        let load = |shard: ShardId, primary: &str| self.reports.get(primary)?.load_of(shard);
        let loads = map
            .iter()
            .filter_map(|(shard, configuration)| Some((*shard, load(*shard, &configuration.primary)?)));
        loads.collect()
    }
}

/// Asks again and again, for as long as the process runs.
pub async fn observe_forever(world: World, directory: Arc<NodeDirectory>) {
    loop {
        observe(&world, &directory).await;
        world.clock.sleep(INTERVAL).await;
    }
}

/// Asks all nodes once, and returns what is known then.
pub async fn observe(world: &World, directory: &NodeDirectory) -> Arc<Observations> {
    let before = directory.observations();
    let names = directory.data_nodes();
    let known = &before.reports;
    let answers = names.iter().map(|name| async move {
        let channel = directory.channel(name)?;
        let status = node_status(world, &*channel).await?;
        let at = world.clock.monotonic();
        let before = known.get(name).map(|report| &**report);
        Some((name.clone(), Arc::new(Report::new(status, at, before))))
    });
    let answers: Vec<_> = join_all(answers).await.into_iter().flatten().collect();
    let draining = match draining_nodes(&*world.coordination).await {
        Ok(draining) => draining,
        Err(error) => {
            tracing::debug!(%error, "which nodes are to be emptied cannot be read");
            before.draining.clone()
        }
    };
    let mut observations = Observations {
        reports: before.reports.clone(),
        reachable: answers.iter().map(|(name, _)| name.clone()).collect(),
        draining,
    };
    observations.reports.extend(answers);
    // Those that are gone for good take their last words with them.
    let map = directory.shard_map().borrow().clone();
    observations.reports.retain(|name, _| {
        names.contains(name)
            || map
                .values()
                .any(|configuration| configuration.replicas.contains(name))
    });
    let observations = Arc::new(observations);
    directory.set_observations(observations.clone());
    observations
}

async fn node_status(world: &World, channel: &dyn Channel) -> Option<StatusReply> {
    let request = RequestBody::Status(StatusRequest {});
    match timeout(&*world.clock, ANSWER_LIMIT, channel.call(request.into())).await {
        Ok(Ok(response)) => match response.body {
            Some(ResponseBody::Status(status)) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use neorunbase_protocol::message::ShardStatus;

    use super::*;

    fn status(operations: u64) -> StatusReply {
        let shard = ShardStatus {
            shard: 7,
            bytes: 5,
            operations,
            ..ShardStatus::default()
        };
        StatusReply {
            shards: vec![shard],
            ..StatusReply::default()
        }
    }

    #[test]
    fn rates_follow_the_counters_slowly() {
        let second = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let first = Report::new(status(1_000), second(1), None);
        assert_eq!(first.operations(), 0);
        let busy = Report::new(status(3_000), second(3), Some(&first));
        assert_eq!(busy.operations(), 250, "a quarter of 1000 a second");
        let restarted = Report::new(status(10), second(5), Some(&busy));
        assert_eq!(restarted.operations(), 0);
    }
}
