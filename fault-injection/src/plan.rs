//! What breaks, when, and for how long.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// A process, by the name of its machine.
pub type NodeName = String;

/// What becomes of writes that were not synced when a machine went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskCrash {
    /// All there: only the process died, the page cache lived on.
    Kept,
    /// None of them reached the platter.
    Lost,
    /// Some did, in any order, some of them in part.
    Torn,
}

/// How a cut shows to those who have connections over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutSilence {
    /// Connections hang; what was sent arrives once the link heals.
    Hangs,
    /// Connections are reset at once.
    Resets,
}

/// One thing that breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// A node goes down and comes back.
    Kill {
        /// Which.
        node: NodeName,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
        /// What its disk keeps.
        disk: DiskCrash,
        /// Peers hear nothing, as if the machine lost power, instead of seeing connections close.
        silent: bool,
    },
    /// All nodes lose power at the same instant and come back.
    PowerLoss {
        /// How long they stay down, in milliseconds.
        down_ms: u64,
        /// What their disks keep.
        disk: DiskCrash,
    },
    /// Nothing passes from one node to another.
    Cut {
        /// From whom.
        from: NodeName,
        /// To whom.
        to: NodeName,
        /// The other direction too.
        both_ways: bool,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// A node is cut off from everybody.
    Isolate {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// Some nodes hear nothing from the others, nor the others from them: both sides have something to say.
    Split {
        /// One side; clients may be on it, too.
        side: Vec<NodeName>,
        /// Links between the sides that hold.
        spared: Vec<(NodeName, NodeName)>,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// Everything between two nodes takes longer.
    SlowLink {
        /// One end.
        one: NodeName,
        /// The other end.
        other: NodeName,
        /// Added to each delivery, in milliseconds.
        delay_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Syncs of a node's disk take longer.
    SlowDisk {
        /// Which.
        node: NodeName,
        /// Added to each sync, in milliseconds.
        delay_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// No file of a node can grow.
    FullDisk {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// A node's next sync fails; its process restarts after it has noticed.
    SyncError {
        /// Which.
        node: NodeName,
    },
    /// A machine crashes in the middle of one of its next syncs, when what is at stake is between memory and platter.
    CrashInSync {
        /// Which.
        node: NodeName,
        /// How many syncs it still completes.
        after_syncs: u32,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
        /// What its disk keeps.
        disk: DiskCrash,
    },
    /// A node stands still, as in a long garbage collection or a migration, and goes on as if nothing was.
    Pause {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// An operator has a Data Node emptied, and changes his mind later.
    Drain {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The coordination service declares a node's session dead.
    ExpireSession {
        /// Whose.
        node: NodeName,
    },
}

impl Fault {
    /// Names the kind in summaries.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill {
                disk: DiskCrash::Kept,
                ..
            } => "process kill",
            Self::Kill { .. } => "machine crash",
            Self::PowerLoss { .. } => "power loss of all",
            Self::Cut { both_ways: true, .. } => "cut link",
            Self::Cut { .. } => "cut one way",
            Self::Isolate { .. } => "isolated node",
            Self::Split { .. } => "split network",
            Self::SlowLink { .. } => "slow link",
            Self::SlowDisk { .. } => "slow disk",
            Self::FullDisk { .. } => "full disk",
            Self::SyncError { .. } => "failed sync",
            Self::CrashInSync { .. } => "crash in a sync",
            Self::Pause { .. } => "pause",
            Self::Drain { .. } => "drain",
            Self::ExpireSession { .. } => "expired session",
        }
    }

    /// How long the fault lasts, in milliseconds.
    pub fn lasts_ms(&self) -> u64 {
        match self {
            Self::Kill { down_ms, .. } | Self::PowerLoss { down_ms, .. } => *down_ms,
            Self::Cut { for_ms, .. }
            | Self::Isolate { for_ms, .. }
            | Self::Split { for_ms, .. }
            | Self::SlowLink { for_ms, .. }
            | Self::SlowDisk { for_ms, .. }
            | Self::FullDisk { for_ms, .. }
            | Self::Drain { for_ms, .. }
            | Self::Pause { for_ms, .. } => *for_ms,
            Self::SyncError { .. } | Self::CrashInSync { .. } | Self::ExpireSession { .. } => 0,
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledFault {
    /// Milliseconds after the clients have started.
    pub at_ms: u64,
    /// What breaks then.
    pub fault: Fault,
}

/// Everything that will break, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// In order of time.
    pub faults: Vec<ScheduledFault>,
    /// At the end, before the last reading, everything loses power once more.
    pub final_power_loss: Option<DiskCrash>,
}

/// What there is to break.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Nodes with a disk and a session that may be killed.
    pub servers: Vec<NodeName>,
    /// The node of the coordination service: crashed rarely, as it is a quorum in the real world.
    pub coordination: Vec<NodeName>,
    /// Nodes of clients: only their links break.
    pub clients: Vec<NodeName>,
    /// Servers that hold shards.
    pub data_nodes: Vec<NodeName>,
}

/// The kinds that a seed turns on or off.
const KINDS: [&str; 15] = [
    "kill",
    "crash",
    "power",
    "cut",
    "one-way",
    "isolate",
    "split",
    "slow-link",
    "slow-disk",
    "full-disk",
    "sync-error",
    "crash-in-sync",
    "pause",
    "expire",
    "drain",
];

impl FaultPlan {
    /// Draws a plan for `length_ms` of running clients: a random subset of kinds, each seed with its own intensity.
    pub fn draw(seed: u64, topology: &Topology, length_ms: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x6e65_6d65_7369_7321);
        let final_power_loss = match random.random_range(0..4) {
            0 => None,
            1 => Some(DiskCrash::Lost),
            _ => Some(DiskCrash::Torn),
        };
        // One seed in ten breaks nothing: what fails there fails without an excuse.
        if topology.servers.is_empty() || random.random_bool(0.1) {
            return Self {
                faults: Vec::new(),
                final_power_loss,
            };
        }
        // One in five only crashes machines, often, at the worst moment: logs must survive torn tails in any number.
        let (kinds, mean_gap_ms) = if random.random_bool(0.2) {
            (vec!["crash-in-sync"], 800)
        } else {
            let share = *[0.2, 0.4, 0.7].choose(&mut random).unwrap_or(&0.4);
            let kinds: Vec<&str> = KINDS.into_iter().filter(|_| random.random_bool(share)).collect();
            let kinds = if kinds.is_empty() { vec!["crash"] } else { kinds };
            let gap = *[1_500, 4_000, 9_000].choose(&mut random).unwrap_or(&4_000);
            (kinds, gap)
        };
        let mut faults = Vec::new();
        let mut at_ms = random.random_range(500..=mean_gap_ms.max(1_000));
        while at_ms < length_ms {
            let kind = kinds.choose(&mut random).copied().unwrap_or("crash");
            let fault = draw_fault(kind, topology, &mut random);
            faults.push(ScheduledFault { at_ms, fault });
            at_ms += random.random_range(100..=2 * mean_gap_ms);
        }
        Self {
            faults,
            final_power_loss,
        }
    }
}

/// A side, and the links to the rest that hold. The coordination service is never on it.
fn draw_split(topology: &Topology, random: &mut SmallRng) -> (Vec<NodeName>, Vec<(NodeName, NodeName)>) {
    let mut side: Vec<NodeName> = Vec::new();
    side.extend(
        topology
            .servers
            .iter()
            .filter(|_| random.random_bool(0.35))
            .cloned(),
    );
    side.extend(
        topology
            .clients
            .iter()
            .filter(|_| random.random_bool(0.5))
            .cloned(),
    );
    if side.is_empty() {
        side.extend(topology.servers.choose(random).cloned());
    }
    let share = *[0.0, 0.1, 0.3].choose(random).unwrap_or(&0.0);
    let all = topology.servers.iter().chain(&topology.clients);
    let others: Vec<&NodeName> = all.filter(|node| !side.contains(node)).collect();
    let mut spared = Vec::new();
    for one in &side {
        for other in &others {
            if random.random_bool(share) {
                spared.push((one.clone(), (*other).clone()));
            }
        }
    }
    (side, spared)
}

fn draw_fault(kind: &str, topology: &Topology, random: &mut SmallRng) -> Fault {
    let server = topology.servers.choose(random).cloned().unwrap_or_default();
    let for_ms = duration(random);
    let disk = if random.random_bool(0.7) {
        DiskCrash::Torn
    } else {
        DiskCrash::Lost
    };
    let silence = if random.random_bool(0.5) {
        CutSilence::Hangs
    } else {
        CutSilence::Resets
    };
    match kind {
        "kill" | "crash" => {
            let coordination = (random.random_range(0..8) == 0)
                .then(|| topology.coordination.choose(random).cloned())
                .flatten();
            Fault::Kill {
                node: coordination.unwrap_or(server),
                down_ms: random.random_range(1..=3_000),
                disk: if kind == "kill" { DiskCrash::Kept } else { disk },
                silent: kind == "crash" && random.random_bool(0.5),
            }
        }
        "power" => Fault::PowerLoss {
            down_ms: random.random_range(1..=2_000),
            disk,
        },
        "cut" | "one-way" => {
            let (one, other) = link(topology, random);
            Fault::Cut {
                from: one,
                to: other,
                both_ways: kind == "cut",
                for_ms,
                silence,
            }
        }
        "split" => {
            let (side, spared) = draw_split(topology, random);
            Fault::Split {
                side,
                spared,
                for_ms,
                silence,
            }
        }
        "isolate" => Fault::Isolate {
            node: server,
            for_ms,
            silence,
        },
        "slow-link" => {
            let (one, other) = link(topology, random);
            Fault::SlowLink {
                one,
                other,
                delay_ms: random.random_range(5..=400),
                for_ms: 2 * for_ms,
            }
        }
        "slow-disk" => Fault::SlowDisk {
            node: server,
            delay_ms: random.random_range(5..=300),
            for_ms: 2 * for_ms,
        },
        "full-disk" => Fault::FullDisk { node: server, for_ms },
        "sync-error" => Fault::SyncError { node: server },
        "crash-in-sync" => Fault::CrashInSync {
            node: server,
            after_syncs: random.random_range(0..10),
            down_ms: random.random_range(2..=800),
            disk,
        },
        "pause" => Fault::Pause { node: server, for_ms },
        // Long enough for some copies to move, mostly.
        "drain" => Fault::Drain {
            node: topology.data_nodes.choose(random).cloned().unwrap_or(server),
            for_ms: for_ms + random.random_range(1_000..=30_000),
        },
        _ => Fault::ExpireSession { node: server },
    }
}

/// Mostly blips, sometimes longer than deadlines and sessions.
fn duration(random: &mut SmallRng) -> u64 {
    match random.random_range(0..3) {
        0 => random.random_range(5..=300),
        1 => random.random_range(300..=3_000),
        _ => random.random_range(3_000..=9_000),
    }
}

/// Two different nodes, at least one of them a server.
fn link(topology: &Topology, random: &mut SmallRng) -> (NodeName, NodeName) {
    let one = topology.servers.choose(random).cloned().unwrap_or_default();
    let others: Vec<&NodeName> = topology
        .servers
        .iter()
        .chain(&topology.coordination)
        .chain(&topology.clients)
        .filter(|name| **name != one)
        .collect();
    let other = others
        .choose(random)
        .map_or_else(String::new, |name| (*name).clone());
    if random.random_bool(0.5) {
        (one, other)
    } else {
        (other, one)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn topology() -> Topology {
        Topology {
            servers: vec!["coordinator-1".into(), "data-1".into(), "data-2".into()],
            coordination: vec!["coordination".into()],
            clients: vec!["client-1".into()],
            data_nodes: vec!["data-1".into(), "data-2".into()],
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_plan() {
        for seed in 0..50 {
            assert_eq!(
                FaultPlan::draw(seed, &topology(), 60_000),
                FaultPlan::draw(seed, &topology(), 60_000)
            );
        }
        assert_ne!(
            FaultPlan::draw(2, &topology(), 60_000),
            FaultPlan::draw(3, &topology(), 60_000)
        );
    }

    #[test]
    fn all_kinds_come_up_and_all_seeds_differ_in_them() {
        let mut kinds = BTreeSet::new();
        let mut quiet = 0;
        for seed in 0..200 {
            let plan = FaultPlan::draw(seed, &topology(), 60_000);
            quiet += usize::from(plan.faults.is_empty());
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at_ms));
            for scheduled in &plan.faults {
                assert!(scheduled.at_ms < 60_000);
                kinds.insert(scheduled.fault.kind());
                if let Fault::Cut { from, to, .. } = &scheduled.fault {
                    assert_ne!(from, to);
                }
                if let Fault::Split { side, spared, .. } = &scheduled.fault {
                    assert!(!side.is_empty() && !side.contains(&"coordination".to_owned()));
                    let crosses =
                        |(one, other): &(NodeName, NodeName)| side.contains(one) && !side.contains(other);
                    assert!(spared.iter().all(crosses));
                }
            }
        }
        assert_eq!(kinds.len(), KINDS.len(), "{kinds:?}");
        assert!((5..60).contains(&quiet), "{quiet} seeds without a fault");
    }
}
