//! Steps towards copies that are well spread and nodes that are evenly loaded, once every shard has what it needs.
//!
//! Each step lessens either the pairs of copies that share a zone or rack, or, these being the same, the squares of what
//! the nodes hold, and by a good part of what it moves. So there is an end, and sizes that waver move nothing to and fro.

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;

use super::{Nodes, is_settled};
use crate::cluster::load::{Held, Load};
use crate::cluster::shard_map::ShardMap;

/// Nodes whose copies differ by no more than this share of the mean are even.
const COPIES_TOLERANCE_PERCENT: u64 = 10;
/// What moves for the sake of numbers must leave them more even than that.
const COUNTS_TOLERANCE_PERCENT: u64 = 8;
/// The same for what nodes lead, which changes by the minute.
const PRIMARIES_TOLERANCE_PERCENT: u64 = 20;
/// What moves is at most this share of the difference of the two nodes: the larger, the less is gained.
const LARGEST_COPY_PERCENT: u64 = 90;
const LARGEST_PRIMARY_PERCENT: u64 = 75;
/// A copy that does not lead is preferred if its move gains at least this share of what the best one would.
const GOOD_ENOUGH_PERCENT: u128 = 80;

/// One step, if any is worth it.
pub fn balancing_change(
    map: &ShardMap,
    replicas_of: impl Fn(ShardId) -> u32,
    nodes: &Nodes,
    load: &Load,
) -> Option<(ShardId, Configuration)> {
    let settled = |(shard, current): (&ShardId, &Configuration)| {
        is_settled(*shard, current, replicas_of(*shard), nodes, load)
    };
    if !map.iter().all(settled) {
        return None;
    }
    let takers: Vec<(&String, Held)> = nodes.takers().map(|name| (name, load.held(name))).collect();
    better_spread(map, nodes, &takers)
        .or_else(|| even_bytes(map, nodes, load, &takers))
        .or_else(|| even_counts(map, nodes, load, &takers))
        .or_else(|| even_primaries(map, load, &takers))
}

fn mean(takers: &[(&String, Held)], measure: impl Fn(&Held) -> u64) -> u64 {
    let sum: u64 = takers.iter().map(|(_, held)| measure(held)).sum();
    sum / (takers.len() as u64).max(1)
}

fn percent(value: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// The copy whose move to another node betters the spread the most.
fn better_spread(
    map: &ShardMap,
    nodes: &Nodes,
    takers: &[(&String, Held)],
) -> Option<(ShardId, Configuration)> {
    if nodes.topology.is_flat() {
        return None;
    }
    let mut best: Option<(ShardId, Configuration)> = None;
    let mut best_rank = None;
    for (shard, current) in map {
        for from in &current.replicas {
            let others: Vec<&String> = current.replicas.iter().filter(|name| *name != from).collect();
            let collisions = |name: &str| nodes.topology.collisions(name, others.iter().copied());
            let before = collisions(from);
            for (to, held) in takers.iter().filter(|(name, _)| !current.replicas.contains(name)) {
                let after = collisions(to);
                if after >= before {
                    continue;
                }
                let rank = (after, held.copies_weight);
                if best_rank.is_none_or(|best_rank| rank < best_rank) {
                    best = Some((*shard, current.with_replica(to)?));
                    best_rank = Some(rank);
                }
            }
        }
    }
    best
}

/// Moves of single copies between nodes that take copies, the spread no worse: `(shard, from, to)`.
fn possible_moves<'a>(
    map: &'a ShardMap,
    nodes: &'a Nodes,
    takers: &'a [(&'a String, Held)],
) -> impl Iterator<
    Item = (
        ShardId,
        &'a Configuration,
        &'a (&'a String, Held),
        &'a (&'a String, Held),
    ),
> {
    let is_flat = nodes.topology.is_flat();
    map.iter().flat_map(move |(shard, current)| {
        let is_holder = move |name: &String| current.replicas.contains(name);
        let holders = takers.iter().filter(move |(name, _)| is_holder(name));
        holders.flat_map(move |from| {
            let targets = takers.iter().filter(move |(name, _)| !is_holder(name));
            let is_as_well_spread = move |to: &str| {
                let others = || current.replicas.iter().filter(|name| *name != from.0);
                is_flat
                    || nodes.topology.collisions(to, others()) <= nodes.topology.collisions(from.0, others())
            };
            targets
                .filter(move |(to, _)| is_as_well_spread(to))
                .map(move |to| (*shard, current, from, to))
        })
    })
}

/// The copy whose move lessens the differences in bytes the most.
fn even_bytes(
    map: &ShardMap,
    nodes: &Nodes,
    load: &Load,
    takers: &[(&String, Held)],
) -> Option<(ShardId, Configuration)> {
    let tolerance = percent(mean(takers, |held| held.copies_weight), COPIES_TOLERANCE_PERCENT);
    let mut best: Option<(u128, ShardId, Configuration)> = None;
    // Nothing stands still while a copy moves that does not lead.
    let mut best_follower = best.clone();
    for (shard, current, (from, full), (to, empty)) in possible_moves(map, nodes, takers) {
        let difference = full.copies_weight.saturating_sub(empty.copies_weight);
        let weight = load.measured(shard)?.copy_weight();
        if difference <= tolerance || weight > percent(difference, LARGEST_COPY_PERCENT) {
            continue;
        }
        let gain = u128::from(weight) * u128::from(difference - weight);
        let is_better = |best: &Option<(u128, ShardId, Configuration)>| {
            best.as_ref().is_none_or(|(best_gain, _, _)| gain > *best_gain)
        };
        let candidate = Some((gain, shard, current.with_replica(to)?));
        if current.primary != **from && is_better(&best_follower) {
            best_follower.clone_from(&candidate);
        }
        if is_better(&best) {
            best = candidate;
        }
    }
    let (best_gain, shard, next) = best?;
    match best_follower {
        Some((gain, shard, next)) if gain * 100 >= best_gain * GOOD_ENOUGH_PERCENT => Some((shard, next)),
        _ => Some((shard, next)),
    }
}

/// A copy whose move evens out the numbers of copies, bytes staying even.
fn even_counts(
    map: &ShardMap,
    nodes: &Nodes,
    load: &Load,
    takers: &[(&String, Held)],
) -> Option<(ShardId, Configuration)> {
    let weights = || takers.iter().map(|(_, held)| held.copies_weight);
    let (least, most) = (weights().min()?, weights().max()?);
    let tolerance = percent(mean(takers, |held| held.copies_weight), COUNTS_TOLERANCE_PERCENT);
    let stays_even = |full: &Held, empty: &Held, weight: u64| {
        (empty.copies_weight + weight).saturating_sub(least) <= tolerance
            && most.saturating_sub(full.copies_weight.saturating_sub(weight)) <= tolerance
    };
    let moves = possible_moves(map, nodes, takers).filter(|(shard, _, (_, full), (_, empty))| {
        let weight = load.measured(*shard).unwrap_or_default().copy_weight();
        // The fuller copy goes in the end, and that must not be the new one.
        let is_kept = full.copies_weight > empty.copies_weight + weight;
        is_kept && full.copies > empty.copies + 1 && stays_even(full, empty, weight)
    });
    let best = moves.max_by_key(|(_, current, (from, full), (_, empty))| {
        (full.copies - empty.copies, current.primary != **from)
    });
    let (shard, current, _, (to, _)) = best?;
    Some((shard, current.with_replica(to)?))
}

/// The shard whose handover evens out the most of what nodes lead.
fn even_primaries(
    map: &ShardMap,
    load: &Load,
    takers: &[(&String, Held)],
) -> Option<(ShardId, Configuration)> {
    let tolerance = percent(
        mean(takers, |held| held.primaries_weight),
        PRIMARIES_TOLERANCE_PERCENT,
    );
    let mut best: Option<(u128, ShardId, Configuration)> = None;
    for (shard, current) in map {
        let full = load.held(&current.primary).primaries_weight;
        let weight = load.measured(*shard)?.primary_weight();
        for (to, empty) in takers.iter().filter(|(name, _)| current.is_in_sync(name)) {
            let difference = full.saturating_sub(empty.primaries_weight);
            if difference <= tolerance || weight > percent(difference, LARGEST_PRIMARY_PERCENT) {
                continue;
            }
            let gain = u128::from(weight) * u128::from(difference - weight);
            if best.as_ref().is_none_or(|(best_gain, _, _)| gain > *best_gain) {
                best = Some((gain, *shard, current.handing_over(to)?));
            }
        }
    }
    best.map(|(_, shard, next)| (shard, next))
}
