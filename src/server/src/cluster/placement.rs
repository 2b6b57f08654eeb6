//! Who is to hold a shard: the Controller's decisions, as plain functions of what it sees.

use std::collections::{BTreeMap, BTreeSet};

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::Configuration;
use neorunbase_world::fault::planted;

use super::shard_map::ShardMap;

/// The Data Nodes as the Controller sees them.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Registered now.
    pub alive: BTreeSet<String>,
    /// Not registered for longer than the grace period.
    pub gone: BTreeSet<String>,
}

/// How many shards each living node leads and holds.
#[derive(Clone, Debug)]
pub struct Load(BTreeMap<String, Held>);

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    copies: usize,
    primaries: usize,
}

impl Load {
    /// The load of the living nodes.
    pub fn of(map: &ShardMap, nodes: &Nodes) -> Self {
        let none = |name: &String| (name.clone(), Held::default());
        let mut load = Self(nodes.alive.iter().map(none).collect());
        for configuration in map.values() {
            load.add(configuration);
        }
        load
    }

    /// Counts one more shard in.
    pub fn add(&mut self, configuration: &Configuration) {
        for replica in &configuration.replicas {
            if let Some(held) = self.0.get_mut(replica) {
                held.copies += 1;
            }
        }
        if let Some(held) = self.0.get_mut(&configuration.primary) {
            held.primaries += 1;
        }
    }

    /// The node among `candidates` that leads the fewest shards.
    fn fewest_primaries<'a>(&self, candidates: impl Iterator<Item = &'a String>) -> Option<String> {
        let led = |name: &&String| self.0.get(*name).map_or(0, |held| held.primaries);
        candidates.min_by_key(led).cloned()
    }

    /// The node among `candidates` that holds the most copies.
    fn most_copies<'a>(&self, candidates: impl Iterator<Item = &'a String>) -> Option<String> {
        let held = |name: &&String| self.0.get(*name).map_or(0, |held| held.copies);
        candidates.max_by_key(held).cloned()
    }

    /// The nodes with the most and the least, if they are more than one apart.
    fn extremes(&self, measure: impl Fn(&Held) -> usize) -> Option<(String, String)> {
        let (full, most) = self.0.iter().max_by_key(|(_, held)| measure(held))?;
        let (empty, least) = self.0.iter().min_by_key(|(_, held)| measure(held))?;
        (measure(most) > measure(least) + 1).then(|| (full.clone(), empty.clone()))
    }

    /// The `count` nodes that hold the fewest copies, those of `without` left out.
    fn fewest_copies(&self, count: usize, without: &[String]) -> Vec<String> {
        let mut candidates: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| !without.contains(name))
            .map(|(name, held)| (held.copies, held.primaries, name.clone()))
            .collect();
        candidates.sort();
        candidates.truncate(count);
        candidates.into_iter().map(|(_, _, name)| name).collect()
    }
}

/// The first configuration of a shard that is to have `replicas` copies, or as many as there are nodes. `None`: no node is
/// alive.
pub fn first_configuration(replicas: u32, load: &Load) -> Option<Configuration> {
    let mut holders = load.fewest_copies(replicas.max(1) as usize, &[]);
    let primary = load.fewest_primaries(holders.iter())?;
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
    let replicas = replicas.max(1) as usize;
    let is_alive = |name: &&String| nodes.alive.contains(*name);
    if !nodes.alive.contains(&current.primary) {
        // Nobody else has everything that was acknowledged.
        if planted("promotion-outside-set") {
            let next = load.fewest_primaries(current.replicas.iter().filter(is_alive))?;
            let everybody = Configuration {
                in_sync: current.replicas.clone(),
                ..current.clone()
            };
            return everybody.promoted(&next);
        }
        let candidates = current.in_sync.iter().filter(is_alive);
        let next = load.fewest_primaries(candidates)?;
        neorunbase_world::sometimes!("member-of-the-set-promoted");
        return current.promoted(&next);
    }
    let usable = |name: &&String| !nodes.gone.contains(*name);
    if current.replicas.iter().filter(usable).count() < replicas
        && let Some(spare) = load.fewest_copies(1, &current.replicas).first()
    {
        return current.with_replica(spare);
    }
    // A copy goes only when there are enough without it.
    if current.replicas.len() <= replicas || current.in_sync.len() < replicas || current.handover.is_some() {
        return None;
    }
    let outsiders = || current.replicas.iter().filter(|name| !current.is_in_sync(name));
    if let Some(gone) = outsiders()
        .find(|name| nodes.gone.contains(*name))
        .or_else(|| outsiders().next())
    {
        // One that is catching up was added for a reason, if there are not too many others.
        let is_wanted =
            current.in_sync.len() <= replicas && !nodes.gone.contains(gone) && nodes.alive.contains(gone);
        return if is_wanted { None } else { current.dropping(gone) };
    }
    let fullest = load.most_copies(current.in_sync.iter())?;
    if fullest != current.primary {
        return current.dropping(&fullest);
    }
    neorunbase_world::sometimes!("surplus-primary-hands-over");
    // The primary's own copy goes once another member leads.
    let others = current.in_sync.iter().filter(|name| **name != current.primary);
    current.handing_over(&load.fewest_primaries(others)?)
}

/// One step towards an even load, once every shard has what it needs. Copies come first, then who leads.
pub fn balancing_change(
    map: &ShardMap,
    replicas_of: impl Fn(ShardId) -> u32,
    nodes: &Nodes,
    load: &Load,
) -> Option<(ShardId, Configuration)> {
    let is_settled = |shard: ShardId, configuration: &Configuration| {
        let replicas = replicas_of(shard).max(1) as usize;
        configuration.replicas.len() == replicas
            && configuration.in_sync.len() == replicas
            && configuration.handover.is_none()
            && configuration
                .replicas
                .iter()
                .all(|name| nodes.alive.contains(name))
    };
    if !map
        .iter()
        .all(|(shard, configuration)| is_settled(*shard, configuration))
    {
        return None;
    }
    if let Some((full, empty)) = load.extremes(|held| held.copies) {
        let can_move = |configuration: &&Configuration| {
            configuration.replicas.contains(&full) && !configuration.replicas.contains(&empty)
        };
        // Nothing stands still while a copy moves that does not lead.
        let (shard, configuration) = map
            .iter()
            .filter(|(_, configuration)| can_move(configuration))
            .min_by_key(|(_, configuration)| configuration.primary == full)?;
        return Some((*shard, configuration.with_replica(&empty)?));
    }
    let (full, empty) = load.extremes(|held| held.primaries)?;
    let (shard, configuration) = map
        .iter()
        .find(|(_, configuration)| configuration.primary == full && configuration.is_in_sync(&empty))?;
    Some((*shard, configuration.handing_over(&empty)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn nodes(alive: &[&str], gone: &[&str]) -> Nodes {
        Nodes {
            alive: names(alive),
            gone: names(gone),
        }
    }

    fn configuration(replicas: &[&str], in_sync: &[&str]) -> Configuration {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Configuration {
            in_sync: owned(in_sync),
            ..Configuration::new(owned(replicas))
        }
    }

    fn change(current: &Configuration, replicas: u32, nodes: &Nodes) -> Option<Configuration> {
        let map = ShardMap::from([(1, current.clone())]);
        next_change(current, replicas, nodes, &Load::of(&map, nodes))
    }

    #[test]
    fn new_shards_spread_over_the_nodes() {
        let nodes = nodes(&["a", "b", "c"], &[]);
        let mut map = ShardMap::new();
        for shard in 0..6 {
            let load = Load::of(&map, &nodes);
            map.insert(shard, first_configuration(2, &load).unwrap());
        }
        for held in Load::of(&map, &nodes).0.values() {
            assert_eq!((held.copies, held.primaries), (4, 2));
        }
        assert!(map.values().all(|shard| shard.in_sync == [shard.primary.clone()]));
        assert_eq!(first_configuration(2, &Load::of(&map, &Nodes::default())), None);
    }

    #[test]
    fn only_a_living_member_of_the_set_is_promoted() {
        let current = configuration(&["a", "b", "c"], &["a", "c"]);
        let promoted = change(&current, 3, &nodes(&["b", "c"], &[])).unwrap();
        assert_eq!((promoted.primary.as_str(), promoted.term), ("c", 2));
        assert_eq!(promoted.in_sync, ["c"]);
        assert_eq!(change(&current, 3, &nodes(&["b"], &["a", "c"])), None);
    }

    #[test]
    fn a_lost_copy_is_replaced_before_it_is_given_up() {
        let current = configuration(&["a", "b"], &["a"]);
        assert_eq!(
            change(&current, 2, &nodes(&["a", "c"], &[])),
            None,
            "it may come back"
        );
        let lost = nodes(&["a", "c"], &["b"]);
        let replaced = change(&current, 2, &lost).unwrap();
        assert_eq!(replaced.replicas, ["a", "b", "c"]);
        assert_eq!(
            change(&replaced, 2, &lost),
            None,
            "the new copy is not in sync yet"
        );
        let in_sync = replaced.with("c").unwrap();
        assert_eq!(change(&in_sync, 2, &lost).unwrap().replicas, ["a", "c"]);
        assert_eq!(
            change(&current, 2, &nodes(&["a"], &["b"])),
            None,
            "there is no spare node"
        );
    }

    /// Makes all changes that are asked for, as a cluster would, until there are none.
    fn settle(map: &mut ShardMap, replicas: u32, nodes: &Nodes) -> usize {
        for round in 0..1_000 {
            let mut changed = false;
            for shard in map.keys().copied().collect::<Vec<_>>() {
                let load = Load::of(map, nodes);
                if let Some(next) = next_change(&map[&shard], replicas, nodes, &load) {
                    map.insert(shard, next);
                    changed = true;
                }
            }
            let load = Load::of(map, nodes);
            if let Some((shard, next)) = balancing_change(map, |_| replicas, nodes, &load) {
                map.insert(shard, next);
                changed = true;
            }
            // What the primaries do.
            for configuration in map.values_mut() {
                let late = configuration
                    .replicas
                    .iter()
                    .find(|name| nodes.alive.contains(*name) && !configuration.is_in_sync(name));
                if let Some(next) = late.and_then(|late| configuration.with(late)) {
                    *configuration = next;
                    changed = true;
                } else if let Some(next) = configuration.handover.clone() {
                    *configuration = configuration.handed_over(&next).unwrap();
                    changed = true;
                }
            }
            if !changed {
                return round;
            }
        }
        panic!("it never ends: {map:?}");
    }

    #[test]
    fn a_node_that_joins_gets_its_share_of_copies_and_of_primaries() {
        for replicas in [1, 2, 3] {
            let three = nodes(&["a", "b", "c"], &[]);
            let mut map = ShardMap::new();
            for shard in 0..12 {
                let load = Load::of(&map, &three);
                map.insert(shard, first_configuration(replicas, &load).unwrap());
            }
            settle(&mut map, replicas, &three);
            let four = nodes(&["a", "b", "c", "d"], &[]);
            settle(&mut map, replicas, &four);
            let load = Load::of(&map, &four);
            assert_eq!(load.extremes(|held| held.copies), None, "{load:?}");
            assert_eq!(load.extremes(|held| held.primaries), None, "{load:?}");
            assert!(map.values().all(|shard| shard.in_sync.len() == replicas as usize));
        }
    }
}
