//! The cluster as SQL and the admin API show it.

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_sql::cluster_view::{ClusterView, JobSummary, NodeSummary, ShardPlacement};

use super::directory::NodeDirectory;
use super::failure_domain::Labels;
use super::load::Held;
use super::observer::Observations;
use super::shard_map::ShardMap;

/// Number of the group and of the shard in it.
fn numbers(shard: ShardId) -> (u32, u32) {
    ((shard >> 32) as u32, (shard & u64::from(u32::MAX)) as u32)
}

fn labels_text(labels: &Labels) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(", ")
}

/// What the shard map gives to `node`.
fn held(map: &ShardMap, node: &str) -> Held {
    let mut held = Held::default();
    for configuration in map.values() {
        held.copies += usize::from(configuration.replicas.iter().any(|name| name == node));
        held.primaries += usize::from(configuration.primary == node);
    }
    held
}

impl ClusterView for NodeDirectory {
    fn shards(&self) -> Vec<ShardPlacement> {
        let map = self.shard_map().borrow().clone();
        let loads = self.observations().shard_loads(&map);
        let placement = |(shard, configuration): (&ShardId, &Configuration)| {
            let (group, number) = numbers(*shard);
            ShardPlacement {
                group,
                shard: number,
                primary: configuration.primary.clone(),
                term: configuration.term,
                epoch: configuration.epoch,
                in_sync: configuration.in_sync.clone(),
                replicas: configuration.replicas.clone(),
                bytes: loads.get(shard).map(|load| load.bytes),
                operations_per_second: loads.get(shard).map(|load| load.operations),
            }
        };
        map.iter().map(placement).collect()
    }

    fn nodes(&self) -> Vec<NodeSummary> {
        let map = self.shard_map().borrow().clone();
        let observations = self.observations();
        let registered = self.registrations();
        let mut names: Vec<&String> = registered.keys().collect();
        let holders = map.values().flat_map(|configuration| &configuration.replicas);
        names.extend(holders.chain(&observations.draining));
        names.sort_unstable();
        names.dedup();
        let summary = |name: &String| {
            let registration = registered.get(name);
            let report = observations.reports.get(name);
            let held = held(&map, name);
            let state = match registration {
                None => "gone",
                Some(_) if !observations.draining.contains(name) => "alive",
                Some(_) if held.copies == 0 => "drained",
                Some(_) => "draining",
            };
            NodeSummary {
                name: name.clone(),
                address: registration.map(|one| one.address.clone()).unwrap_or_default(),
                labels: registration
                    .map(|one| labels_text(&one.labels))
                    .unwrap_or_default(),
                state: state.to_owned(),
                copies: held.copies as u64,
                primaries: held.primaries as u64,
                bytes: report.map_or(0, |report| {
                    report.status.shards.iter().map(|shard| shard.bytes).sum()
                }),
                operations_per_second: report.map_or(0, |report| report.operations()),
            }
        };
        names.into_iter().map(summary).collect()
    }

    fn jobs(&self) -> Vec<JobSummary> {
        let map = self.shard_map().borrow().clone();
        let observations = self.observations();
        let is_alive = |name: &String| observations.reachable.contains(name);
        let reason = |shard: ShardId| match map.get(&shard) {
            None => "the shard is gone".to_owned(),
            Some(configuration) => {
                let replicas = &configuration.replicas;
                if let Some(drained) = replicas.iter().find(|name| observations.draining.contains(*name)) {
                    format!("drain of {drained}")
                } else if let Some(away) = replicas.iter().find(|name| !is_alive(name)) {
                    format!("repair: {away} is away")
                } else {
                    "placement".to_owned()
                }
            }
        };
        let mut jobs = drains(&map, &observations);
        for (shard, configuration) in &*map {
            if let Some(next) = &configuration.handover {
                let (group, number) = numbers(*shard);
                jobs.push(JobSummary {
                    kind: "handover".to_owned(),
                    group: Some(group),
                    shard: Some(number),
                    from: configuration.primary.clone(),
                    to: Some(next.clone()),
                    state: "waits for transactions to end".to_owned(),
                    reason: reason(*shard),
                    ..JobSummary::default()
                });
            }
        }
        for (from, report) in observations.reports.iter().filter(|(name, _)| is_alive(name)) {
            for copy in &report.status.copies {
                let (group, number) = numbers(copy.shard);
                jobs.push(JobSummary {
                    kind: "copy".to_owned(),
                    group: Some(group),
                    shard: Some(number),
                    from: from.clone(),
                    to: Some(copy.to.clone()),
                    bytes_done: Some(copy.bytes_sent),
                    bytes_total: Some(copy.bytes_total.max(copy.bytes_sent)),
                    started_unix_micros: Some(copy.started_unix_micros),
                    state: if copy.is_interrupted {
                        "interrupted"
                    } else {
                        "running"
                    }
                    .to_owned(),
                    reason: reason(copy.shard),
                });
            }
        }
        jobs
    }
}

fn drains(map: &ShardMap, observations: &Observations) -> Vec<JobSummary> {
    let job = |node: &String| {
        let left = held(map, node);
        let state = if left.copies == 0 {
            "done".to_owned()
        } else {
            format!(
                "{} copies left, {} of them primaries",
                left.copies, left.primaries
            )
        };
        JobSummary {
            kind: "drain".to_owned(),
            from: node.clone(),
            state,
            reason: "asked for".to_owned(),
            ..JobSummary::default()
        }
    };
    observations.draining.iter().map(job).collect()
}
