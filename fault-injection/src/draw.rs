//! A plan is drawn: a seed's own subset of faults, with its own intensity.

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::plan::{CutSilence, DiskCrash, Fault, FaultPlan, NodeName, ScheduledFault, Swizzled, Topology};

/// The kinds that a seed turns on or off.
const KINDS: [&str; 24] = [
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
    "disconnect",
    "lag",
    "lonely",
    "zombie",
    "swizzle",
    "rolling-restart",
    "bit-rot",
    "lossy-link",
    "reset",
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
        if topology.servers().is_empty() || random.random_bool(0.1) {
            return Self {
                faults: Vec::new(),
                final_power_loss,
            };
        }
        // One in five only crashes machines, often, at the worst moment: logs must survive torn tails in any number. One in
        // six only leaves nodes behind that do not know that their time is over.
        let (kinds, mean_gap_ms) = match random.random_range(0..30) {
            0..6 => (vec!["crash-in-sync"], 800),
            6..11 => (vec!["lonely", "lonely", "zombie", "lag"], 5_000),
            _ => {
                let share = *[0.1, 0.25, 0.5].choose(&mut random).unwrap_or(&0.25);
                let kinds = KINDS.into_iter().filter(|_| random.random_bool(share));
                let kinds: Vec<&str> = kinds
                    .filter(|kind| topology.is_replicated || *kind != "bit-rot")
                    .collect();
                let kinds = if kinds.is_empty() { vec!["crash"] } else { kinds };
                let gap = *[1_500, 4_000, 9_000].choose(&mut random).unwrap_or(&4_000);
                (kinds, gap)
            }
        };
        let mut faults = Vec::new();
        let mut at_ms = random.random_range(500..=mean_gap_ms.max(1_000));
        while at_ms < length_ms {
            let kind = kinds.choose(&mut random).copied().unwrap_or("crash");
            let fault = draw_fault(kind, topology, &mut random);
            faults.push(ScheduledFault { at_ms, fault });
            at_ms += random.random_range(100..=2 * mean_gap_ms);
        }
        let apart = [draw_long_death, draw_replaced_disk, draw_hung_disk];
        let apart = apart.iter().filter_map(|draw| draw(seed, topology, length_ms));
        for fault in apart.chain(draw_estranged_coordinators(seed, topology, length_ms)) {
            let place = faults.partition_point(|before| before.at_ms <= fault.at_ms);
            faults.insert(place, fault);
        }
        Self {
            faults,
            final_power_loss,
        }
    }
}

/// One seed in four whose shards have several copies loses a node for long enough that it is replaced, beside all else.
/// (Drawn apart: the rest of a seed's plan stays the same with and without it.)
fn draw_long_death(seed: u64, topology: &Topology, length_ms: u64) -> Option<ScheduledFault> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6c6f_6e67_6465_6174);
    if !topology.is_replicated || !random.random_bool(0.25) {
        return None;
    }
    let fault = Fault::LongDeath {
        node: topology.data_nodes.choose(&mut random).cloned()?,
        down_ms: topology.given_up_after_ms + random.random_range(2_000..=15_000),
        disk: *[DiskCrash::Kept, DiskCrash::Lost, DiskCrash::Torn].choose(&mut random)?,
        is_replaced: random.random_bool(0.5),
    };
    // Where there is time for that, it comes back before everything heals.
    let latest_ms = length_ms.saturating_sub(fault.lasts_ms()).max(1_000);
    let at_ms = random.random_range(500..=latest_ms);
    (at_ms < length_ms).then_some(ScheduledFault { at_ms, fault })
}

/// One seed in four whose shards have several copies replaces a disk, so quickly that nobody has missed the node yet.
fn draw_replaced_disk(seed: u64, topology: &Topology, length_ms: u64) -> Option<ScheduledFault> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x7265_706c_6469_736b);
    if !topology.is_replicated || !random.random_bool(0.25) {
        return None;
    }
    let fault = Fault::ReplacedDisk {
        // The one whose bits rot: the others' copies stay good.
        node: topology.data_nodes.first().cloned()?,
        down_ms: *[2, 100, 1_000, 4_000].choose(&mut random)?,
    };
    let at_ms = random.random_range(500..=length_ms.max(1_000));
    (at_ms < length_ms).then_some(ScheduledFault { at_ms, fault })
}

/// One seed in six has a disk that hangs for longer than its node puts up with.
fn draw_hung_disk(seed: u64, topology: &Topology, length_ms: u64) -> Option<ScheduledFault> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6875_6e67_6469_736b);
    if !random.random_bool(1.0 / 6.0) {
        return None;
    }
    let fault = Fault::HungDisk {
        node: topology.data_nodes.choose(&mut random).cloned()?,
        hangs_ms: random.random_range(5_000..=15_000),
        for_ms: random.random_range(1_000..=5_000),
    };
    let at_ms = random.random_range(500..=length_ms.max(1_000));
    (at_ms < length_ms).then_some(ScheduledFault { at_ms, fault })
}

/// In one seed in three with several Coordinators these lose sight of each other again and again, while all else can reach
/// both: a definition that waits for the other's transactions goes on without it, and so do they. In half of those seeds they
/// are far apart all the time: one shows a definition long before the other.
fn draw_estranged_coordinators(seed: u64, topology: &Topology, length_ms: u64) -> Vec<ScheduledFault> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6573_7472_616e_6765);
    let mut names = topology.coordinators.clone();
    if names.len() < 2 || !random.random_bool(1.0 / 3.0) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut at_ms = random.random_range(500..=1_000);
    if random.random_bool(0.5) {
        let fault = Fault::SlowLink {
            one: names[0].clone(),
            other: names[1].clone(),
            delay_ms: random.random_range(30..=150),
            for_ms: length_ms,
        };
        faults.push(ScheduledFault { at_ms: 0, fault });
    }
    while at_ms < length_ms {
        names.shuffle(&mut random);
        // Mostly no longer than it takes to break connections: what waits on them breaks off.
        let for_ms = *[2, 2, 20, 300, 4_000].choose(&mut random).unwrap_or(&2);
        let fault = Fault::Cut {
            from: names[0].clone(),
            to: names[1].clone(),
            both_ways: true,
            for_ms,
            silence: CutSilence::Resets,
        };
        faults.push(ScheduledFault { at_ms, fault });
        at_ms += for_ms + random.random_range(500..=4_000);
    }
    faults
}

/// A side, and the links to the rest that hold. The coordination service is never on it.
fn draw_split(topology: &Topology, random: &mut SmallRng) -> (Vec<NodeName>, Vec<(NodeName, NodeName)>) {
    let servers = topology.servers();
    let mut side: Vec<NodeName> = Vec::new();
    side.extend(servers.iter().filter(|_| random.random_bool(0.35)).cloned());
    side.extend(
        topology
            .clients
            .iter()
            .filter(|_| random.random_bool(0.5))
            .cloned(),
    );
    if side.is_empty() {
        side.extend(servers.choose(random).cloned());
    }
    let share = *[0.0, 0.1, 0.3].choose(random).unwrap_or(&0.0);
    let all = servers.iter().chain(&topology.clients);
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

/// Who has a disk that faults can break: what a Coordinator keeps is in its engine, below which there is none here. It is not
/// drawn: whoever is meant anyway, if it has one.
fn with_disk(topology: &Topology, server: &NodeName) -> NodeName {
    let place = topology.coordinators.iter().position(|name| name == server);
    let Some(place) = place.filter(|_| !topology.data_nodes.is_empty()) else {
        return server.clone();
    };
    topology.data_nodes[place % topology.data_nodes.len()].clone()
}

fn draw_fault(kind: &str, topology: &Topology, random: &mut SmallRng) -> Fault {
    let server = topology.servers().choose(random).cloned().unwrap_or_default();
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
            node: with_disk(topology, &server),
            delay_ms: random.random_range(5..=300),
            for_ms: 2 * for_ms,
        },
        "full-disk" => Fault::FullDisk {
            node: with_disk(topology, &server),
            for_ms,
        },
        "sync-error" => Fault::SyncError {
            node: with_disk(topology, &server),
        },
        "crash-in-sync" => Fault::CrashInSync {
            node: with_disk(topology, &server),
            after_syncs: random.random_range(0..10),
            down_ms: random.random_range(2..=800),
            disk,
        },
        "pause" => Fault::Pause { node: server, for_ms },
        "drain" => Fault::Drain {
            node: topology.data_nodes.choose(random).cloned().unwrap_or(server),
            for_ms: for_ms + random.random_range(1_000..=30_000),
        },
        "disconnect" => Fault::Disconnect {
            node: server,
            times: random.random_range(1..=4),
            apart_ms: random.random_range(200..=3_000),
            for_ms: random.random_range(1..=1_500),
        },
        "lag" => Fault::Lag {
            node: server,
            lag_ms: random.random_range(20..=4_000),
            is_stale: random.random_bool(0.3),
            for_ms: 2 * for_ms,
        },
        "lonely" => draw_lonely(topology, silence, random),
        "zombie" => Fault::Zombie {
            node: topology.data_nodes.choose(random).cloned().unwrap_or_default(),
            blind: draw_blind_coordinators(topology, random),
            // Some leases and sessions end within this, others do not.
            for_ms: random.random_range(600..=8_000),
        },
        "swizzle" => draw_swizzle(topology, silence, random),
        "rolling-restart" => {
            let mut nodes = topology.servers();
            nodes.shuffle(random);
            Fault::RollingRestart {
                nodes,
                is_graceful: random.random_bool(0.7),
                down_ms: random.random_range(2..=1_500),
            }
        }
        "bit-rot" => Fault::BitRot {
            // Always the same one: the others' copies stay good.
            node: topology.data_nodes.first().cloned().unwrap_or_default(),
            down_ms: random.random_range(2..=3_000),
        },
        "lossy-link" => {
            let (one, other) = link(topology, random);
            Fault::LossyLink {
                one,
                other,
                one_in: *[5, 50, 500].choose(random).unwrap_or(&50),
                for_ms: 2 * for_ms,
            }
        }
        "reset" => Fault::Reset {
            node: server,
            connections: random.random_range(1..=4),
        },
        _ => Fault::ExpireSession { node: server },
    }
}

/// A primary or a leader that hears of nothing, and maybe some who go on asking it.
fn draw_lonely(topology: &Topology, silence: CutSilence, random: &mut SmallRng) -> Fault {
    let is_data_node = topology.coordinators.is_empty() || random.random_bool(0.6);
    let kind = if is_data_node {
        &topology.data_nodes
    } else {
        &topology.coordinators
    };
    let node = kind.choose(random).cloned().unwrap_or_default();
    let peers = kind.iter().filter(|peer| **peer != node).cloned().collect();
    let blind = if is_data_node {
        draw_blind_coordinators(topology, random)
    } else {
        let share = *[0.0, 0.5, 1.0].choose(random).unwrap_or(&0.0);
        let data_nodes = topology.data_nodes.iter();
        data_nodes
            .filter(|_| random.random_bool(share))
            .cloned()
            .collect()
    };
    Fault::Lonely {
        node,
        peers,
        blind,
        // Mostly longer than sessions and leases together.
        for_ms: random.random_range(4_000..=16_000),
        silence,
    }
}

fn draw_blind_coordinators(topology: &Topology, random: &mut SmallRng) -> Vec<NodeName> {
    let blind = topology.coordinators.choose(random).cloned();
    blind.into_iter().filter(|_| random.random_bool(0.8)).collect()
}

fn draw_swizzle(topology: &Topology, silence: CutSilence, random: &mut SmallRng) -> Fault {
    let all = topology
        .servers()
        .into_iter()
        .chain(topology.clients.iter().cloned());
    let mut nodes: Vec<NodeName> = all.filter(|_| random.random_bool(0.5)).collect();
    if nodes.is_empty() {
        nodes.extend(topology.data_nodes.first().cloned());
    }
    nodes.shuffle(random);
    let span_ms = random.random_range(500..=6_000);
    let mut moments = |from: u64, until: u64| -> Vec<u64> {
        let mut moments: Vec<u64> = nodes.iter().map(|_| random.random_range(from..=until)).collect();
        moments.sort_unstable();
        moments
    };
    let cuts = moments(0, span_ms);
    let mut heals = moments(span_ms, 2 * span_ms);
    heals.shuffle(random);
    let nodes = nodes.into_iter().zip(cuts).zip(heals);
    let nodes = nodes.map(|((node, from_ms), until_ms)| Swizzled {
        node,
        from_ms,
        until_ms,
    });
    Fault::Swizzle {
        nodes: nodes.collect(),
        silence,
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
    let servers = topology.servers();
    let one = servers.choose(random).cloned().unwrap_or_default();
    let others: Vec<&NodeName> = servers
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
            coordinators: vec!["coordinator-1".into(), "coordinator-2".into()],
            data_nodes: vec!["data-1".into(), "data-2".into(), "data-3".into()],
            is_replicated: true,
            coordination: vec!["coordination".into()],
            clients: vec!["client-1".into()],
            given_up_after_ms: 10_000,
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
    fn bits_rot_only_where_there_are_copies() {
        let alone = Topology {
            is_replicated: false,
            ..topology()
        };
        let rots = |scheduled: &ScheduledFault| matches!(scheduled.fault, Fault::BitRot { .. });
        let plans = (0..300).map(|seed| FaultPlan::draw(seed, &alone, 60_000));
        assert!(
            !plans
                .flat_map(|plan| plan.faults)
                .any(|scheduled| rots(&scheduled))
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
                match &scheduled.fault {
                    Fault::Lonely {
                        node, peers, blind, ..
                    } => {
                        assert!(!peers.is_empty() && !peers.contains(node) && !blind.contains(node));
                    }
                    Fault::Swizzle { nodes, .. } => {
                        assert!(nodes.is_sorted_by_key(|swizzled| swizzled.from_ms));
                        assert!(nodes.iter().all(|swizzled| swizzled.from_ms <= swizzled.until_ms));
                        let last_cut = nodes.iter().map(|swizzled| swizzled.from_ms).max();
                        assert!(nodes.iter().all(|swizzled| Some(swizzled.until_ms) >= last_cut));
                    }
                    Fault::SlowDisk { node, .. }
                    | Fault::FullDisk { node, .. }
                    | Fault::SyncError { node }
                    | Fault::CrashInSync { node, .. } => assert!(topology().data_nodes.contains(node)),
                    Fault::BitRot { node, .. } | Fault::ReplacedDisk { node, .. } => {
                        assert_eq!(node, "data-1", "the others stay good");
                    }
                    Fault::RollingRestart { nodes, .. } => assert_eq!(nodes.len(), 5),
                    Fault::LongDeath { down_ms, .. } => assert!(*down_ms > topology().given_up_after_ms),
                    _ => {}
                }
            }
        }
        // Long deaths, with and without a new disk, and disks that are replaced or hang are drawn apart.
        assert_eq!(kinds.len(), KINDS.len() + 4, "{kinds:?}");
        assert!((5..60).contains(&quiet), "{quiet} seeds without a fault");
    }
}
