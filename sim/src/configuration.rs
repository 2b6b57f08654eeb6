//! What a seed decides before anything runs.

use std::collections::BTreeMap;
use std::time::Duration;

use neorunbase_fault_injection::{FaultPlan, Topology};
use neorunbase_server::cluster::DEFAULT_GRACE_PERIOD;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::simulation::workload_names;
use crate::world::clock::ClockError;
use crate::world::disk::DiskSpeed;
use crate::world::network::LinkSpeed;

/// The node of the coordination service.
pub const COORDINATION: &str = "coordination";

/// One simulation, fully decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// The seed.
    pub seed: u64,
    /// How long clients run, in simulated milliseconds.
    pub length_ms: u64,
    /// Number of Coordinators.
    pub coordinators: u32,
    /// Number of Data Nodes.
    pub data_nodes: u32,
    /// Zones that these stand in; 0: they have no labels.
    pub zones: u32,
    /// When one more Data Node joins, in milliseconds; 0: never.
    pub late_data_node_ms: u64,
    /// SHARDS of each table.
    pub shards: u32,
    /// REPLICAS of each table.
    pub replicas: u32,
    /// The workloads that run, by name.
    pub workloads: Vec<String>,
    /// Clients of each workload.
    pub clients: u32,
    /// The longest pause between two operations of a client, in milliseconds.
    pub pause_ms: u64,
    /// How long a client waits for an answer, in milliseconds.
    pub call_deadline_ms: u64,
    /// Accounts of the bank.
    pub accounts: i64,
    /// Lists open for appending at a time.
    pub lists: i64,
    /// Appends a list gets.
    pub longest_list: i64,
    /// Coordination sessions, in milliseconds.
    pub session_timeout_ms: u64,
    /// Links, in microseconds: shortest, longest.
    pub link_micros: (u64, u64),
    /// One delivery in so many is lost at first; 0: none.
    pub link_one_lost_in: u32,
    /// Whether rare turns of events are forced in the roles.
    pub buggify: bool,
    /// Syncs, in microseconds: shortest, longest.
    pub sync_micros: (u64, u64),
    /// Drift of each server's clock, in parts per million.
    pub drift_ppm: Vec<i32>,
    /// How far each server's wall clock is off, in microseconds.
    pub wall_skew_micros: Vec<i64>,
    /// Settings of Data Nodes that a user would leave alone.
    pub knobs: Knobs,
    /// What breaks.
    pub plan: FaultPlan,
}

/// Settings that decide how often rare things happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knobs {
    /// Between checkpoints of a Data Node, in milliseconds.
    pub checkpoint_interval_ms: u64,
    /// Log bytes that make a checkpoint due.
    pub checkpoint_wal_bytes: u64,
    /// Bytes of a log segment.
    pub wal_segment_bytes: u64,
    /// Between two rounds of collecting old versions, in milliseconds.
    pub garbage_interval_ms: u64,
    /// How long old versions stay readable, in milliseconds.
    pub history_retention_ms: u64,
    /// A longer lock wait is looked at for a deadlock across nodes, in milliseconds.
    pub deadlock_timeout_ms: u64,
    /// Silence of a Coordinator that rolls its transactions back, in milliseconds.
    pub abandon_after_ms: u64,
    /// How long a reader waits before it asks about a prepared transaction, in milliseconds.
    pub in_doubt_patience_ms: u64,
    /// Rows of a scan's batch, at most.
    pub scan_batch_visits: usize,
    /// Bytes of a shard's log that are kept for followers that lag.
    pub kept_log_bytes: usize,
    /// Leases of primaries, in milliseconds.
    pub lease_ms: u64,
    /// Silence that takes a follower out of the in-sync set, in milliseconds.
    pub silence_ms: u64,
    /// Bytes a second that a Data Node sends in copies of shards.
    pub copy_bytes_per_second: u64,
    /// Bytes of one piece of such a copy.
    pub copy_piece_bytes: usize,
    /// How long an interrupted copy may go on, in milliseconds.
    pub copy_kept_ms: u64,
    /// How long a Data Node may be away before its copies are made elsewhere, in milliseconds.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
}

/// What it was before it could be drawn: plans from then do not tell.
fn default_grace_ms() -> u64 {
    u64::try_from(DEFAULT_GRACE_PERIOD.as_millis()).unwrap_or(u64::MAX)
}

/// Drawn apart, so that everything else of a seed stays what it was without it.
fn draw_grace_ms(seed: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6772_6163_6570_6572);
    pick(&mut random, &[3_000, 5_000, 10_000, 30_000])
}

impl Knobs {
    fn draw(seed: u64, random: &mut SmallRng) -> Self {
        Self {
            checkpoint_interval_ms: pick(random, &[1_000, 5_000, 20_000, 180_000]),
            checkpoint_wal_bytes: pick(random, &[16 << 10, 256 << 10, 64 << 20]),
            wal_segment_bytes: pick(random, &[16 << 10, 128 << 10, 16 << 20]),
            garbage_interval_ms: pick(random, &[500, 2_000, 10_000]),
            history_retention_ms: pick(random, &[5_000, 15_000, 60_000, 300_000]),
            deadlock_timeout_ms: pick(random, &[500, 1_000, 3_000]),
            abandon_after_ms: pick(random, &[1_500, 3_000, 5_000]),
            in_doubt_patience_ms: pick(random, &[50, 300, 1_000]),
            scan_batch_visits: pick(random, &[8, 100, 100_000]),
            kept_log_bytes: pick(random, &[1 << 10, 16 << 10, 16 << 20]),
            lease_ms: pick(random, &[600, 1_500, 2_000]),
            silence_ms: pick(random, &[500, 1_500, 3_000]),
            // The largest shards of a run have some 8 MiB: slower than this, no copy ends within the limit for repairs.
            copy_bytes_per_second: pick(random, &[256 << 10, 1 << 20, 64 << 20]),
            copy_piece_bytes: pick(random, &[256, 4 << 10, 256 << 10]),
            copy_kept_ms: pick(random, &[500, 10_000, 120_000]),
            grace_ms: draw_grace_ms(seed),
        }
    }
}

fn pick<T: Copy>(random: &mut SmallRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

/// Some of `all`, in their order: now and then all, or just one, which then has the cluster to itself.
fn draw_workloads(seed: u64, mut all: Vec<String>) -> Vec<String> {
    let unique_index = all.iter().position(|name| name == "unique-index");
    let unique_index = unique_index.map(|position| all.remove(position));
    let mut random = SmallRng::seed_from_u64(seed ^ 0x776f_726b_6c6f_6164);
    let count = match random.random_range(0..10) {
        0 => 1,
        1..=3 => all.len(),
        _ => random.random_range(3.min(all.len())..=all.len()),
    };
    while all.len() > count {
        all.remove(random.random_range(0..all.len()));
    }
    // Drawn apart, so that seeds without it run as they did before it came.
    let mut random = SmallRng::seed_from_u64(seed ^ 0x756e_6971_7565_2d69);
    if all.len() > 1 && random.random_range(0..4) == 0 {
        all.extend(unique_index);
    }
    all
}

impl Configuration {
    /// Draws everything from `seed`.
    pub fn draw(seed: u64, length: Duration) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x636f_6e66_6967_7572);
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let data_nodes = 3;
        let sync_min = random.random_range(100..=3_000);
        let link_min = random.random_range(50..=1_000);
        let mut configuration = Self {
            seed,
            length_ms,
            coordinators: pick(&mut random, &[1, 2, 2, 3]),
            data_nodes,
            zones: 0,
            late_data_node_ms: 0,
            shards: pick(&mut random, &[1, 2, 3, 4, 6, 8, 12]),
            replicas: pick(&mut random, &[1, 2, 2, 3]),
            workloads: Vec::new(),
            clients: pick(&mut random, &[2, 3, 5]),
            pause_ms: pick(&mut random, &[5, 20, 50, 150]),
            call_deadline_ms: pick(&mut random, &[3_000, 6_000, 10_000]),
            accounts: pick(&mut random, &[4, 8, 16]),
            lists: random.random_range(3..=6),
            longest_list: pick(&mut random, &[10, 20, 40]),
            session_timeout_ms: pick(&mut random, &[2_000, 4_000, 6_000]),
            link_micros: (link_min, link_min + random.random_range(100..=3_000)),
            link_one_lost_in: 0,
            buggify: false,
            sync_micros: (sync_min, sync_min + random.random_range(100..=5_000)),
            drift_ppm: Vec::new(),
            wall_skew_micros: Vec::new(),
            knobs: Knobs::draw(seed, &mut random),
            plan: FaultPlan::default(),
        };
        if random.random_bool(0.4) {
            configuration.data_nodes += 1;
            configuration.late_data_node_ms = random.random_range(5_000..=length_ms.max(10_000) / 2);
        }
        configuration.zones = pick(&mut random, &[0, 0, 1, 2, 3]);
        let servers = configuration.data_nodes + configuration.coordinators + 1;
        let worst_drift = pick(&mut random, &[0, 200, 20_000]);
        let worst_skew = pick(&mut random, &[0, 1_000_000, 3_600_000_000]);
        for _ in 0..servers {
            configuration
                .drift_ppm
                .push(random.random_range(-worst_drift..=worst_drift));
            configuration
                .wall_skew_micros
                .push(random.random_range(-worst_skew..=worst_skew));
        }
        configuration.link_one_lost_in = pick(&mut random, &[0, 0, 2_000, 20_000]);
        configuration.buggify = random.random_bool(0.8);
        configuration.plan = FaultPlan::draw(seed, &configuration.topology(), length_ms);
        configuration.workloads = draw_workloads(seed, workload_names(&configuration));
        configuration
    }

    /// Names of the Coordinators.
    pub fn coordinator_names(&self) -> Vec<String> {
        (1..=self.coordinators)
            .map(|number| format!("coordinator-{number}"))
            .collect()
    }

    /// Names of the Data Nodes.
    pub fn data_node_names(&self) -> Vec<String> {
        (1..=self.data_nodes)
            .map(|number| format!("data-{number}"))
            .collect()
    }

    /// What is said of where a Data Node stands: zones in turn, racks of two.
    pub fn labels_of(&self, name: &str) -> BTreeMap<String, String> {
        let names = self.data_node_names();
        let number = names.iter().position(|known| known == name).unwrap_or(0) as u32;
        if self.zones == 0 {
            return BTreeMap::new();
        }
        BTreeMap::from([
            ("zone".to_owned(), format!("zone-{}", number % self.zones)),
            ("rack".to_owned(), format!("rack-{}", number / self.zones / 2)),
        ])
    }

    /// The Data Node that joins late.
    pub fn late_data_node(&self) -> Option<String> {
        (self.late_data_node_ms > 0).then(|| format!("data-{}", self.data_nodes))
    }

    /// Names of the machines that clients run on.
    pub fn client_names(&self) -> Vec<String> {
        (1..=2).map(|number| format!("client-{number}")).collect()
    }

    /// All servers: the coordination service first, then in order of start.
    pub fn server_names(&self) -> Vec<String> {
        let mut names = vec![COORDINATION.to_owned()];
        names.extend(self.coordinator_names());
        names.extend(self.data_node_names());
        names
    }

    /// What may break.
    pub fn topology(&self) -> Topology {
        Topology {
            coordinators: self.coordinator_names(),
            data_nodes: self.data_node_names(),
            is_replicated: self.replicas > 1,
            coordination: vec![COORDINATION.to_owned()],
            clients: self.client_names(),
            given_up_after_ms: self.session_timeout_ms + self.knobs.grace_ms,
        }
    }

    /// How fast links are.
    pub fn link_speed(&self) -> LinkSpeed {
        LinkSpeed {
            min_micros: self.link_micros.0,
            max_micros: self.link_micros.1,
            one_slow_in: 2_000,
            one_lost_in: self.link_one_lost_in,
        }
    }

    /// How fast disks are.
    pub fn disk_speed(&self) -> DiskSpeed {
        DiskSpeed {
            sync_min_micros: self.sync_micros.0,
            sync_max_micros: self.sync_micros.1,
        }
    }

    /// By how much the wall clocks of two servers differ at most.
    pub fn clocks_apart_ms(&self) -> u64 {
        let (least, most) = (
            self.wall_skew_micros.iter().min(),
            self.wall_skew_micros.iter().max(),
        );
        least.zip(most).map_or(0, |(least, most)| most.abs_diff(*least)) / 1_000
    }

    /// How far the clock of server number `index` is off.
    pub fn clock_error(&self, index: usize) -> ClockError {
        ClockError {
            offset_nanos: (index as u64 + 1) * 3_600_000_000_000,
            drift_ppm: self.drift_ppm.get(index).copied().unwrap_or_default(),
            wall_skew_micros: self.wall_skew_micros.get(index).copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        for seed in 0..50 {
            let drawn = Configuration::draw(seed, Duration::from_secs(60));
            let written = serde_json::to_string(&drawn).unwrap();
            assert_eq!(serde_json::from_str::<Configuration>(&written).unwrap(), drawn);
        }
    }

    #[test]
    fn plans_from_before_the_grace_period_was_drawn_are_read() {
        let drawn = Configuration::draw(1, Duration::from_secs(60));
        let mut written = serde_json::to_value(&drawn).unwrap();
        written["knobs"].as_object_mut().unwrap().remove("grace_ms");
        let read: Configuration = serde_json::from_value(written).unwrap();
        assert_eq!(read.knobs.grace_ms, 30_000);
    }

    #[test]
    fn seeds_are_swarms_over_workloads() {
        let mut counts = BTreeSet::new();
        let mut drawn = BTreeSet::new();
        for seed in 0..200 {
            let configuration = Configuration::draw(seed, Duration::from_secs(60));
            counts.insert(configuration.workloads.len());
            drawn.extend(configuration.workloads);
        }
        let all = workload_names(&Configuration::draw(0, Duration::from_secs(60)));
        assert_eq!(drawn, all.iter().cloned().collect());
        assert!(counts.contains(&1) && counts.contains(&3) && counts.contains(&all.len()));
        assert!(!counts.contains(&0) && !counts.contains(&2));
    }
}
