//! Single decisions, and whole clusters that settle. [`World`] plays the primaries.

use std::collections::{BTreeMap, BTreeSet};

use neorunbase_replication::Configuration;

use super::balancing::balancing_change;
use super::{Nodes, first_configuration, next_change};
use crate::cluster::failure_domain::{Labels, Topology};
use crate::cluster::load::{COPY_BASE_BYTES, Load, ShardLoad, ShardLoads};
use crate::cluster::shard_map::ShardMap;

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn nodes(alive: &[&str], gone: &[&str]) -> Nodes {
    Nodes {
        alive: names(alive),
        gone: names(gone),
        ..Nodes::default()
    }
}

/// Nodes by zone and rack: `a1` is in zone `a`, rack `1`; a third letter tells nodes of a rack apart.
pub(super) fn topology(nodes: &BTreeSet<String>) -> Topology {
    let labels: BTreeMap<String, Labels> = nodes
        .iter()
        .map(|name| {
            let label = |from: usize| name.get(from..=from).unwrap_or_default().to_owned();
            let labels = [("zone".to_owned(), label(0)), ("rack".to_owned(), label(1))];
            (name.clone(), Labels::from(labels))
        })
        .collect();
    Topology::new(labels.iter())
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
    let loads = ShardLoads::new();
    next_change(current, replicas, nodes, &Load::of(&map, nodes, &loads))
}

/// A cluster whose primaries do at once what they are asked to.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub map: ShardMap,
    pub replicas: u32,
    pub nodes: Nodes,
    pub loads: ShardLoads,
}

impl World {
    pub fn new(replicas: u32, alive: &[&str]) -> Self {
        let mut world = Self {
            replicas,
            ..Self::default()
        };
        world.set_nodes(names(alive));
        world
    }

    pub fn set_nodes(&mut self, alive: BTreeSet<String>) {
        self.nodes.topology = topology(&alive);
        self.nodes.alive = alive;
    }

    pub fn load(&self) -> Load<'_> {
        Load::of(&self.map, &self.nodes, &self.loads)
    }

    pub fn create(&mut self, shard: u64, load: ShardLoad) {
        let first = first_configuration(self.replicas, &self.nodes, &self.load()).unwrap();
        self.map.insert(shard, first);
        self.loads.insert(shard, load);
    }

    fn put(&mut self, shard: u64, next: Configuration) {
        let before = &self.map[&shard];
        let may_lack = !self.nodes.alive.contains(&before.primary);
        let needed = before.in_sync.len().min(self.replicas as usize);
        assert!(
            may_lack || next.in_sync.len() >= needed,
            "{before:?} became {next:?}"
        );
        assert!(next.in_sync.iter().all(|name| before.is_in_sync(name)));
        let is_new = |name: &&String| !before.replicas.contains(*name);
        for new in next.replicas.iter().filter(is_new) {
            assert!(self.nodes.takes_copies(new), "{new} takes no copies");
        }
        self.map.insert(shard, next);
    }

    /// One round of the Controller. Returns what it has changed.
    pub fn round(&mut self) -> usize {
        let mut changes = 0;
        for shard in self.map.keys().copied().collect::<Vec<_>>() {
            if let Some(next) = next_change(&self.map[&shard], self.replicas, &self.nodes, &self.load()) {
                self.put(shard, next);
                changes += 1;
            }
        }
        if changes == 0
            && let Some((shard, next)) =
                balancing_change(&self.map, |_| self.replicas, &self.nodes, &self.load())
        {
            self.put(shard, next);
            changes += 1;
        }
        changes
    }

    /// What the primaries do: silent members leave, others are in sync soon, and shards are handed over. Returns whether
    /// anything was done.
    pub fn primaries(&mut self) -> bool {
        let alive = &self.nodes.alive;
        let mut is_changed = false;
        for configuration in self.map.values_mut().filter(|one| alive.contains(&one.primary)) {
            let silent = configuration.in_sync.iter().find(|name| !alive.contains(*name));
            let late = configuration
                .replicas
                .iter()
                .find(|name| alive.contains(*name) && !configuration.is_in_sync(name));
            let next = if let Some(silent) = silent {
                configuration.without(silent)
            } else if let Some(late) = late {
                configuration.with(late)
            } else {
                let next = configuration.handover.clone();
                next.and_then(|next| configuration.handed_over(&next))
            };
            if let Some(next) = next {
                *configuration = next;
                is_changed = true;
            }
        }
        is_changed
    }

    /// Rounds until nothing changes any more. Returns the number of changes that the Controller made.
    pub fn settle(&mut self) -> usize {
        let mut changes = 0;
        for _ in 0..2_000 {
            let changed = self.round();
            changes += changed;
            if !self.primaries() && changed == 0 {
                return changes;
            }
        }
        panic!("it never ends: {:?}", self.map);
    }

    pub fn copies(&self) -> Vec<usize> {
        let load = self.load();
        self.nodes.takers().map(|name| load.held(name).copies).collect()
    }

    pub fn primaries_led(&self) -> Vec<usize> {
        let load = self.load();
        self.nodes
            .takers()
            .map(|name| load.held(name).primaries)
            .collect()
    }

    /// Nothing is left on nodes that take none, nothing lacks copies, and all is spread as well as it can be.
    pub fn check_settled(&self) {
        let takers: BTreeSet<String> = self.nodes.takers().cloned().collect();
        let wanted = (self.replicas as usize).min(takers.len());
        let best = self.nodes.topology.fewest_collisions(wanted, &takers);
        for (shard, configuration) in &self.map {
            assert_eq!(configuration.in_sync.len(), wanted, "{shard}: {configuration:?}");
            assert_eq!(configuration.replicas.len(), wanted, "{shard}: {configuration:?}");
            let is_misplaced = |name: &String| !takers.contains(name);
            assert!(
                !configuration.replicas.iter().any(is_misplaced),
                "{shard}: {configuration:?}"
            );
            let collisions = self.nodes.topology.all_collisions(&configuration.replicas);
            assert_eq!(collisions, best, "{shard}: {configuration:?}");
        }
    }
}

pub(super) fn apart(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

#[test]
fn new_shards_spread_over_the_nodes() {
    let mut world = World::new(2, &["a", "b", "c"]);
    for shard in 0..6 {
        world.create(shard, ShardLoad::default());
    }
    assert_eq!((world.copies(), world.primaries_led()), (vec![4; 3], vec![2; 3]));
    let alone = |shard: &Configuration| shard.in_sync == [shard.primary.clone()];
    assert!(world.map.values().all(alone));
    let nobody = Nodes::default();
    assert_eq!(first_configuration(2, &nobody, &world.load()), None);
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
    let may_come_back = nodes(&["a", "c"], &[]);
    assert_eq!(change(&current, 2, &may_come_back), None);
    let lost = nodes(&["a", "c"], &["b"]);
    let replaced = change(&current, 2, &lost).unwrap();
    assert_eq!(replaced.replicas, ["a", "b", "c"]);
    let not_in_sync = change(&replaced, 2, &lost);
    assert_eq!(not_in_sync, None);
    let in_sync = replaced.with("c").unwrap();
    assert_eq!(change(&in_sync, 2, &lost).unwrap().replicas, ["a", "c"]);
    let no_spare = nodes(&["a"], &["b"]);
    assert_eq!(change(&current, 2, &no_spare), None);
}

#[test]
fn a_drained_node_keeps_its_copies_until_others_have_them() {
    let mut draining = nodes(&["a", "b", "c"], &[]);
    draining.draining = names(&["a"]);
    let current = configuration(&["a", "b"], &["a", "b"]);
    let replaced = change(&current, 2, &draining).unwrap();
    assert_eq!(replaced.replicas, ["a", "b", "c"]);
    let led_by_another = change(&replaced, 2, &draining).unwrap();
    assert_eq!(led_by_another.handover.as_deref(), Some("b"));
    let handed_over = led_by_another.handed_over("b").unwrap();
    assert_eq!(change(&handed_over, 2, &draining), None, "c is not in sync");
    let in_sync = handed_over.with("c").unwrap();
    assert_eq!(change(&in_sync, 2, &draining).unwrap().replicas, ["b", "c"]);
}

#[test]
fn a_drained_node_without_a_substitute_keeps_what_it_must() {
    let mut world = World::new(2, &["a", "b"]);
    for shard in 0..4 {
        world.create(shard, ShardLoad::default());
    }
    world.settle();
    world.nodes.draining = names(&["a"]);
    world.settle();
    let led_by_b = |shard: &Configuration| shard.primary == "b" && shard.in_sync.len() == 2;
    assert!(world.map.values().all(led_by_b), "{:?}", world.map);
    world.set_nodes(names(&["a", "b", "c"]));
    world.settle();
    world.check_settled();
}

#[test]
fn a_node_that_joins_gets_its_share_of_copies_and_of_primaries() {
    for replicas in [1, 2, 3] {
        let mut world = World::new(replicas, &["a", "b", "c"]);
        for shard in 0..12 {
            world.create(shard, ShardLoad::default());
        }
        world.settle();
        world.nodes.alive = names(&["a", "b", "c", "d"]);
        world.nodes.topology = Topology::default();
        world.settle();
        world.check_settled();
        assert!(apart(&world.copies()) <= 1, "{:?}", world.copies());
        assert!(apart(&world.primaries_led()) <= 1, "{:?}", world.primaries_led());
    }
}

#[test]
fn many_empty_shards_are_even_in_number() {
    let mut world = World::new(2, &["a", "b", "c", "d"]);
    for shard in 0..200 {
        world.create(shard, ShardLoad::default());
    }
    world.settle();
    world.nodes.draining = names(&["d"]);
    world.settle();
    world.nodes.draining.clear();
    world.settle();
    assert!(apart(&world.copies()) <= 1, "{:?}", world.copies());
}

#[test]
fn copies_stand_in_different_zones_first_and_then_in_different_racks() {
    let mut world = World::new(3, &["a1x", "a1y", "a2x", "b1x", "b1y"]);
    for shard in 0..10 {
        world.create(shard, ShardLoad::default());
        let holders = &world.map[&shard].replicas;
        let zone = |zone: &str| holders.iter().filter(|name| name.starts_with(zone)).count();
        let (in_a, in_b) = (zone("a"), zone("b"));
        assert_eq!((in_a, in_b), (2, 1), "only zone a has two racks: {holders:?}");
        assert!(holders.contains(&"a2x".to_owned()));
    }
    world.settle();
    world.check_settled();
}

#[test]
fn a_new_zone_is_used_at_once_and_a_lost_one_comes_back() {
    let mut world = World::new(2, &["a1", "a2", "a3"]);
    for shard in 0..9 {
        world.create(shard, ShardLoad::default());
    }
    world.settle();
    world.set_nodes(names(&["a1", "a2", "a3", "b1"]));
    world.settle();
    world.check_settled();
    assert_eq!(world.load().held("b1").copies, 9, "one copy of each stands there");
    world.nodes.alive.remove("b1");
    world.nodes.gone = names(&["b1"]);
    world.settle();
    world.check_settled();
    world.nodes.gone.clear();
    world.nodes.alive.insert("b1".to_owned());
    world.settle();
    world.check_settled();
}

#[test]
fn large_shards_weigh_more_than_small_ones() {
    let mut world = World::new(1, &["a", "b"]);
    for shard in 0..12 {
        let bytes = if shard < 2 { 500 << 20 } else { 100 << 20 };
        world.create(shard, ShardLoad { bytes, operations: 0 });
    }
    world.set_nodes(names(&["a", "b", "c", "d"]));
    world.nodes.topology = Topology::default();
    world.settle();
    let load = world.load();
    for node in world.nodes.takers() {
        let held = load.held(node);
        let bytes = (held.copies_weight - held.copies as u64 * COPY_BASE_BYTES) >> 20;
        assert!((450..=550).contains(&bytes), "{node} holds {bytes} MiB: {load:?}");
    }
}

#[test]
fn busy_shards_are_led_by_different_nodes() {
    let mut world = World::new(2, &["a", "b"]);
    for shard in 0..8 {
        world.create(shard, ShardLoad::default());
    }
    world.settle();
    let led_by_a: Vec<u64> = world
        .map
        .iter()
        .filter(|(_, shard)| shard.primary == "a")
        .map(|(shard, _)| *shard)
        .collect();
    for shard in &led_by_a[..2] {
        world.loads.get_mut(shard).unwrap().operations = 50_000;
    }
    world.settle();
    assert_ne!(world.map[&led_by_a[0]].primary, world.map[&led_by_a[1]].primary);
}

#[test]
fn nothing_moves_for_balance_before_all_sizes_are_known() {
    let mut world = World::new(1, &["a"]);
    for shard in 0..4 {
        world.create(shard, ShardLoad::default());
    }
    world.set_nodes(names(&["a", "b"]));
    world.loads.remove(&2);
    assert_eq!(world.settle(), 0);
    world.loads.insert(2, ShardLoad::default());
    world.settle();
    assert_eq!(world.primaries_led(), [2, 2]);
}
