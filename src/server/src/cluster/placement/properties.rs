//! What holds whatever the cluster looks like and whatever becomes of its nodes.

use proptest::prelude::*;

use super::tests::{World, apart, names};
use crate::cluster::failure_domain::Topology;
use crate::cluster::load::ShardLoad;

/// What becomes of a node.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It is registered (again).
    Joins(usize),
    /// It dies for good.
    Dies(usize),
    Drains(usize),
    Undrains(usize),
    /// A shard is of another size now.
    Grows(u64, u64),
}

const ALL: [&str; 9] = ["a1x", "a1y", "a2x", "b1x", "b1y", "b2x", "c1x", "c2x", "c2y"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..ALL.len()).prop_map(Event::Joins),
        2 => (0..ALL.len()).prop_map(Event::Dies),
        2 => (0..ALL.len()).prop_map(Event::Drains),
        1 => (0..ALL.len()).prop_map(Event::Undrains),
        1 => (0..12_u64, 0..(4_u64 << 30)).prop_map(|(shard, bytes)| Event::Grows(shard, bytes)),
    ]
}

fn shard_load() -> impl Strategy<Value = ShardLoad> {
    let bytes = prop_oneof![Just(0), 0..(64_u64 << 20), 0..(4_u64 << 30)];
    let operations = prop_oneof![Just(0), 0..100_u64, 0..50_000_u64];
    (bytes, operations).prop_map(|(bytes, operations)| ShardLoad { bytes, operations })
}

fn world(has_labels: bool) -> impl Strategy<Value = World> {
    let loads = prop::collection::vec(shard_load(), 1..13);
    (1..=3_u32, 1..=ALL.len(), loads).prop_map(move |(replicas, alive, loads)| {
        let mut world = World::new(replicas, &ALL[..alive]);
        if !has_labels {
            world.nodes.topology = Topology::default();
        }
        for (shard, load) in loads.into_iter().enumerate() {
            world.create(shard as u64, load);
        }
        world
    })
}

/// Whether every shard has a member of its set on a node that lives.
fn nothing_is_lost(world: &World) -> bool {
    let lives = |name: &String| world.nodes.alive.contains(name);
    world.map.values().all(|shard| shard.in_sync.iter().any(lives))
}

fn happens(world: &mut World, event: Event) {
    let before = world.clone();
    match event {
        Event::Joins(node) => {
            world.nodes.gone.remove(ALL[node]);
            world.nodes.alive.insert(ALL[node].to_owned());
        }
        Event::Dies(node) => {
            world.nodes.alive.remove(ALL[node]);
            world.nodes.gone.insert(ALL[node].to_owned());
        }
        Event::Drains(node) => {
            world.nodes.draining.insert(ALL[node].to_owned());
        }
        Event::Undrains(node) => {
            world.nodes.draining.remove(ALL[node]);
        }
        Event::Grows(shard, bytes) => {
            if let Some(load) = world.loads.get_mut(&shard) {
                load.bytes = bytes;
            }
        }
    }
    // What takes all copies away at once has nothing to do with placement.
    if !nothing_is_lost(world) || world.nodes.takers().count() < world.replicas as usize {
        *world = before;
    }
}

proptest! {
    #[test]
    fn everything_settles_complete_and_well_spread(
        mut world in world(true),
        events in prop::collection::vec((event(), 0..4_usize), 0..12),
    ) {
        world.nodes.topology = super::tests::topology(&names(&ALL));
        for (event, rounds) in events {
            happens(&mut world, event);
            // The next event may come while the last one's changes are under way.
            for _ in 0..rounds {
                world.round();
                world.primaries();
            }
        }
        world.settle();
        if world.nodes.takers().count() >= world.replicas as usize {
            world.check_settled();
        }
        prop_assert_eq!(world.settle(), 0, "what has settled rests");
    }

    #[test]
    fn bytes_end_even_as_far_as_shards_allow(mut world in world(false), joining in 0..3_usize) {
        for name in ALL.iter().rev().take(joining) {
            world.nodes.alive.insert((*name).to_owned());
        }
        world.settle();
        let load = world.load();
        let weights: Vec<u64> = world.nodes.takers().map(|name| load.held(name).copies_weight).collect();
        let mean = weights.iter().sum::<u64>() / weights.len() as u64;
        let largest = world.loads.values().map(|load| load.copy_weight()).max().unwrap_or(0);
        let difference = weights.iter().max().unwrap_or(&0) - weights.iter().min().unwrap_or(&0);
        let bound = (mean / 10).max(largest * 10 / 9) + 1;
        prop_assert!(difference <= bound, "{weights:?}, largest {largest}");
    }

    #[test]
    fn empty_shards_end_even_in_number(replicas in 1..=3_u32, shards in 1..40_u64, before in 1..6_usize, after in 3..9_usize) {
        let mut world = World::new(replicas, &ALL[..before]);
        world.nodes.topology = Topology::default();
        for shard in 0..shards {
            world.create(shard, ShardLoad::default());
        }
        world.settle();
        world.nodes.alive = names(&ALL[..before.max(after)]);
        world.settle();
        prop_assert!(apart(&world.copies()) <= 1, "{:?}", world.copies());
    }

    #[test]
    fn sizes_that_waver_move_next_to_nothing(mut world in world(true), noise in prop::collection::vec(0..1_000_u64, 200)) {
        world.settle();
        let sizes = world.loads.clone();
        let mut moves = 0;
        for (round, noise) in noise.iter().enumerate() {
            let shard = round as u64 % sizes.len() as u64;
            // Up to one percent up or down.
            let wavering = |size: u64| size * 99 / 100 + size / 50 * noise / 1_000;
            let load = ShardLoad { bytes: wavering(sizes[&shard].bytes), operations: wavering(sizes[&shard].operations) };
            world.loads.insert(shard, load);
            moves += world.round();
            world.primaries();
        }
        prop_assert!(moves <= 2 * sizes.len() + 4, "{moves} changes");
    }
}
