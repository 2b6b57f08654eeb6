//! Where a node stands, as its labels say: what may fail together with it.

use std::collections::{BTreeMap, BTreeSet};

/// What a data node's configuration says of it, by name. `zone` and `rack` decide where copies of shards go.
pub type Labels = BTreeMap<String, String>;

/// The zone of a node, and its rack there. Nodes without a label share the one without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureDomain {
    zone: String,
    rack: String,
}

impl FailureDomain {
    /// The one that `labels` tell of.
    pub fn of(labels: &Labels) -> Self {
        let label = |name| labels.get(name).cloned().unwrap_or_default();
        Self {
            zone: label("zone"),
            rack: label("rack"),
        }
    }

    /// Whether the two share the zone, and whether they share the rack.
    fn collides(&self, other: &Self) -> Collisions {
        let zones = usize::from(self.zone == other.zone);
        Collisions {
            zones,
            racks: zones & usize::from(self.rack == other.rack),
        }
    }
}

/// How many pairs of copies share a zone, and how many a rack: the fewer, the better they are spread. Zones come first.
///
/// The fewest pairs are those of copies that stand in as many domains as there are, as evenly as they can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collisions {
    zones: usize,
    racks: usize,
}

impl Collisions {
    fn and(self, other: Self) -> Self {
        Self {
            zones: self.zones + other.zones,
            racks: self.racks + other.racks,
        }
    }
}

/// The failure domain of each node.
#[derive(Clone, Debug, Default)]
pub struct Topology(BTreeMap<String, FailureDomain>);

impl Topology {
    /// From the nodes' labels.
    pub fn new<'a>(labels: impl Iterator<Item = (&'a String, &'a Labels)>) -> Self {
        let domain = |(name, labels): (&String, &Labels)| (name.clone(), FailureDomain::of(labels));
        Self(labels.map(domain).collect())
    }

    /// Whether all nodes stand in one domain, so that nothing can be spread.
    pub fn is_flat(&self) -> bool {
        self.0.values().collect::<BTreeSet<_>>().len() <= 1
    }

    /// How many of `others` share zone or rack with `node`.
    pub fn collisions<'a>(&self, node: &str, others: impl Iterator<Item = &'a String>) -> Collisions {
        let unknown = FailureDomain::default();
        let domain_of = |name: &str| self.0.get(name).unwrap_or(&unknown);
        let own = domain_of(node);
        let others = others.filter(|other| *other != node);
        others.fold(Collisions::default(), |sum, other| {
            sum.and(own.collides(domain_of(other)))
        })
    }

    /// The pairs among `nodes`.
    pub fn all_collisions(&self, nodes: &[String]) -> Collisions {
        let before = |(index, node): (usize, &String)| self.collisions(node, nodes[..index].iter());
        nodes
            .iter()
            .enumerate()
            .map(before)
            .fold(Collisions::default(), Collisions::and)
    }

    /// The fewest pairs that `count` copies on `nodes` can have.
    pub fn fewest_collisions(&self, count: usize, nodes: &BTreeSet<String>) -> Collisions {
        let mut chosen: Vec<String> = Vec::new();
        // Zones and racks are nested: whoever always takes the best next one ends with the best.
        for _ in 0..count {
            let free = nodes.iter().filter(|node| !chosen.contains(*node));
            let Some(best) = free.min_by_key(|node| self.collisions(node, chosen.iter())) else {
                break;
            };
            chosen.push(best.clone());
        }
        self.all_collisions(&chosen)
    }
}
