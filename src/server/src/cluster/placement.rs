//! Who is to hold a shard: the Controller's decisions, as plain functions of what it sees.
//!
//! A shard's copies stand in as many zones, and racks there, as they can; then bytes are even, then what nodes lead.
//! [`balancing`] is for shards that lack nothing.

pub mod balancing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::fault::planted;

use super::failure_domain::Topology;
use super::load::Load;

/// The Data Nodes as the Controller sees them.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Registered now.
    pub alive: BTreeSet<String>,
    /// Not registered for longer than the grace period.
    pub gone: BTreeSet<String>,
    /// To be emptied.
    pub draining: BTreeSet<String>,
    /// Where they stand.
    pub topology: Topology,
}

impl Nodes {
    /// Whether copies of shards may be put there.
    pub fn takes_copies(&self, name: &str) -> bool {
        self.alive.contains(name) && !self.draining.contains(name)
    }

    /// Whether a copy there counts for the time to come.
    fn is_kept(&self, name: &str) -> bool {
        !self.gone.contains(name) && !self.draining.contains(name)
    }

    /// The nodes that copies may be put on.
    pub fn takers(&self) -> impl Iterator<Item = &String> {
        self.alive.iter().filter(|name| !self.draining.contains(*name))
    }

    /// Where another copy goes best, beside those on `kept` and not on `taken`.
    fn spare(&self, load: &Load, kept: &[String], taken: &[String]) -> Option<String> {
        let free = self.takers().filter(|name| !taken.contains(name));
        let best = free.min_by_key(|name| {
            let held = load.held(name);
            (
                self.topology.collisions(name, kept.iter()),
                held.copies_weight,
                held.copies,
                held.primaries,
            )
        });
        best.cloned()
    }
}

/// The first configuration of a shard that is to have `replicas` copies, or as many as there are nodes. `None`: no node
/// takes any.
pub fn first_configuration(replicas: u32, nodes: &Nodes, load: &Load) -> Option<Configuration> {
    let mut holders: Vec<String> = Vec::new();
    while holders.len() < replicas.max(1) as usize {
        let Some(next) = nodes.spare(load, &holders, &holders) else {
            break;
        };
        holders.push(next);
    }
    let primary = load.least_leading(holders.iter())?;
    holders.retain(|holder| *holder != primary);
    holders.insert(0, primary);
    Some(Configuration::new(holders))
}

/// The next change that a shard needs, if any: one at a time.
pub fn next_change(
    current: &Configuration,
    replicas: u32,
    nodes: &Nodes,
    load: &Load,
) -> Option<Configuration> {
    let wanted = replicas.max(1) as usize;
    if !nodes.alive.contains(&current.primary) {
        return promotion(current, nodes, load);
    }
    let kept = current.replicas.iter().filter(|name| nodes.is_kept(name));
    let kept: Vec<String> = kept.cloned().collect();
    if kept.len() < wanted
        && let Some(spare) = nodes.spare(load, &kept, &current.replicas)
    {
        return current.with_replica(&spare);
    }
    if current.handover.is_some() {
        return None;
    }
    if nodes.draining.contains(&current.primary)
        && let Some(next) = relief(current, nodes, load)
    {
        return Some(next);
    }
    surplus_change(current, wanted, nodes, load)
}

/// Another primary, in place of one that is away.
fn promotion(current: &Configuration, nodes: &Nodes, load: &Load) -> Option<Configuration> {
    let is_alive = |name: &&String| nodes.alive.contains(*name);
    // Nobody else has everything that was acknowledged.
    if planted("promotion-outside-set") {
        let next = load.least_leading(current.replicas.iter().filter(is_alive))?;
        let everybody = Configuration {
            in_sync: current.replicas.clone(),
            ..current.clone()
        };
        return everybody.promoted(&next);
    }
    let candidates = || current.in_sync.iter().filter(is_alive);
    let next = load
        .least_leading(candidates().filter(|name| nodes.is_kept(name)))
        .or_else(|| load.least_leading(candidates()))?;
    neorunbase_world::sometimes!("member-of-the-set-promoted");
    current.promoted(&next)
}

/// Another primary, in place of one that is well and to be emptied.
fn relief(current: &Configuration, nodes: &Nodes, load: &Load) -> Option<Configuration> {
    let mut current = current.clone();
    if planted("drain-drops-before-copied") {
        current.in_sync.clone_from(&current.replicas);
    }
    let members = current.in_sync.iter();
    let heir = load.least_leading(members.filter(|name| nodes.takes_copies(name)))?;
    current.handing_over(&heir)
}

/// A copy goes, only when there are enough in sync without it.
fn surplus_change(
    current: &Configuration,
    wanted: usize,
    nodes: &Nodes,
    load: &Load,
) -> Option<Configuration> {
    if current.replicas.len() <= wanted || current.in_sync.len() < wanted {
        return None;
    }
    let outsiders = current.replicas.iter().filter(|name| !current.is_in_sync(name));
    let useless = outsiders.min_by_key(|name| (nodes.is_kept(name), nodes.alive.contains(*name)));
    if let Some(useless) = useless {
        // One that is catching up was added for a reason, if there are not too many others.
        let is_coming = current.in_sync.len() <= wanted && nodes.takes_copies(useless);
        return if is_coming {
            None
        } else {
            current.dropping(useless)
        };
    }
    let least_wanted = current.in_sync.iter().max_by_key(|name| {
        (
            !nodes.is_kept(name),
            !nodes.alive.contains(*name),
            nodes.topology.collisions(name, current.in_sync.iter()),
            load.held(name).copies_weight,
            **name != current.primary,
            Reverse(*name),
        )
    })?;
    if *least_wanted != current.primary {
        return current.dropping(least_wanted);
    }
    // The primary's own copy goes once another member leads.
    let heirs = current.in_sync.iter().filter(|name| **name != current.primary);
    current.handing_over(&load.least_leading(heirs)?)
}

/// Whether `shard` has all that it can get, and all of that is in sync.
fn is_settled(shard: ShardId, current: &Configuration, replicas: u32, nodes: &Nodes, load: &Load) -> bool {
    load.measured(shard).is_some()
        && current.handover.is_none()
        && current.in_sync.len() == current.replicas.len()
        && current.replicas.iter().all(|name| nodes.alive.contains(name))
        && next_change(current, replicas, nodes, load).is_none()
}
