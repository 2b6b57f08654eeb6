//! Dependency graphs between transactions, and shortest cycles in them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why one transaction must come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// It wrote the version that the other's write follows.
    WriteWrite,
    /// The other read what it wrote.
    WriteRead,
    /// It read a version that the other's write replaced.
    ReadWrite,
    /// The same client did it before.
    Process,
    /// It was answered before the other was asked.
    RealTime,
}

impl Edge {
    /// As written in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::WriteWrite => "ww",
            Self::WriteRead => "wr",
            Self::ReadWrite => "rw",
            Self::Process => "process",
            Self::RealTime => "real time",
        }
    }
}

/// A set of edge kinds.
#[derive(Clone, Copy, Debug)]
pub struct Kinds(u8);

impl Kinds {
    /// Exactly `edges`.
    pub const fn of(edges: &[Edge]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < edges.len() {
            bits |= 1 << edges[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Whether `edge` is among them.
    pub fn contains(self, edge: Edge) -> bool {
        self.0 & (1 << edge as u8) != 0
    }
}

/// A directed graph whose nodes are transactions by number.
#[derive(Debug, Default)]
pub struct Graph {
    edges: BTreeMap<usize, BTreeSet<(usize, Edge)>>,
}

/// A cycle: each node with the kind of the edge that leaves it towards the next (the last one's leads back).
pub type Cycle = Vec<(usize, Edge)>;

impl Graph {
    /// Adds an edge; from a node to itself nothing happens.
    pub fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to {
            self.edges.entry(from).or_default().insert((to, edge));
        }
    }

    /// All edges of a kind.
    pub fn edges(&self, kind: Edge) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.edges.iter().flat_map(move |(from, targets)| {
            targets
                .iter()
                .filter(move |(_, edge)| *edge == kind)
                .map(move |(to, _)| (*from, *to))
        })
    }

    fn successors(&self, node: usize, kinds: Kinds) -> impl Iterator<Item = (usize, Edge)> + '_ {
        self.edges
            .get(&node)
            .into_iter()
            .flatten()
            .copied()
            .filter(move |(_, edge)| kinds.contains(*edge))
    }

    /// Sets of nodes that reach each other by edges of `kinds`, of two nodes and more (Tarjan, without recursion).
    pub fn strongly_connected(&self, kinds: Kinds) -> Vec<BTreeSet<usize>> {
        #[derive(Clone, Copy)]
        struct State {
            index: usize,
            low: usize,
            on_stack: bool,
        }
        let mut states: BTreeMap<usize, State> = BTreeMap::new();
        let mut stack = Vec::new();
        let mut components = Vec::new();
        let mut next_index = 0;
        for root in self.edges.keys().copied() {
            if states.contains_key(&root) {
                continue;
            }
            let mut work: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut enter = Some(root);
            loop {
                if let Some(node) = enter.take() {
                    states.insert(
                        node,
                        State {
                            index: next_index,
                            low: next_index,
                            on_stack: true,
                        },
                    );
                    next_index += 1;
                    stack.push(node);
                    work.push((node, self.successors(node, kinds).map(|(to, _)| to).collect()));
                }
                let Some((node, targets)) = work.last_mut() else {
                    break;
                };
                let node = *node;
                if let Some(target) = targets.pop() {
                    match states.get(&target).copied() {
                        None => enter = Some(target),
                        Some(state) if state.on_stack => lower(&mut states, node, state.index),
                        Some(_) => {}
                    }
                    continue;
                }
                work.pop();
                let state = states[&node];
                if let Some((parent, _)) = work.last() {
                    lower(&mut states, *parent, state.low);
                }
                if state.low == state.index {
                    let mut component = BTreeSet::new();
                    while let Some(member) = stack.pop() {
                        if let Some(state) = states.get_mut(&member) {
                            state.on_stack = false;
                        }
                        component.insert(member);
                        if member == node {
                            break;
                        }
                    }
                    if component.len() > 1 {
                        components.push(component);
                    }
                }
            }
        }
        return components;

        fn lower(states: &mut BTreeMap<usize, State>, node: usize, low: usize) {
            if let Some(state) = states.get_mut(&node) {
                state.low = state.low.min(low);
            }
        }
    }

    /// The shortest cycle of edges of `kinds` that begins with an edge of kind `first`.
    pub fn shortest_cycle_from(&self, first: Edge, kinds: Kinds, by: impl Fn(Edge) -> bool) -> Option<Cycle> {
        let all = Kinds(kinds.0 | Kinds::of(&[first]).0);
        let mut best: Option<Cycle> = None;
        for component in self.strongly_connected(all) {
            for from in &component {
                for (to, edge) in self.successors(*from, Kinds::of(&[first])) {
                    if !component.contains(&to) || !by(edge) {
                        continue;
                    }
                    if let Some(path) = self.shortest_path(to, *from, kinds, &component)
                        && best.as_ref().is_none_or(|best| path.len() + 1 < best.len())
                    {
                        let mut cycle = vec![(*from, edge)];
                        cycle.extend(path);
                        best = Some(cycle);
                    }
                }
            }
        }
        best
    }

    /// The shortest path by `kinds` within `allowed`: each node on it but the last, with the edge that leaves it.
    fn shortest_path(
        &self,
        from: usize,
        to: usize,
        kinds: Kinds,
        allowed: &BTreeSet<usize>,
    ) -> Option<Vec<(usize, Edge)>> {
        let mut previous: BTreeMap<usize, (usize, Edge)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut path = Vec::new();
                let mut at = to;
                while at != from {
                    let (before, edge) = previous[&at];
                    path.push((before, edge));
                    at = before;
                }
                path.reverse();
                return Some(path);
            }
            for (next, edge) in self.successors(node, kinds) {
                if next != from && allowed.contains(&next) && !previous.contains_key(&next) {
                    previous.insert(next, (node, edge));
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// The shortest cycle with two [`Edge::ReadWrite`] edges or more, no two of them adjacent; the others of `kinds`.
    pub fn shortest_nonadjacent(&self, kinds: Kinds) -> Option<Cycle> {
        let all = Kinds(kinds.0 | Kinds::of(&[Edge::ReadWrite]).0);
        let mut best: Option<Cycle> = None;
        for component in self.strongly_connected(all) {
            for start in &component {
                for (second, _) in self.successors(*start, Kinds::of(&[Edge::ReadWrite])) {
                    if !component.contains(&second) {
                        continue;
                    }
                    let Some(path) = self.alternating_path(second, *start, all, &component) else {
                        continue;
                    };
                    let mut cycle = vec![(*start, Edge::ReadWrite)];
                    cycle.extend(path);
                    let reads = cycle.iter().filter(|(_, edge)| *edge == Edge::ReadWrite).count();
                    if reads >= 2 && best.as_ref().is_none_or(|best| cycle.len() < best.len()) {
                        best = Some(cycle);
                    }
                }
            }
        }
        best
    }

    /// A path that neither begins nor ends with a read-write edge, nor has two in a row.
    fn alternating_path(
        &self,
        from: usize,
        to: usize,
        kinds: Kinds,
        allowed: &BTreeSet<usize>,
    ) -> Option<Vec<(usize, Edge)>> {
        // A state is a node and whether a read-write edge led to it.
        let start = (from, true);
        let mut previous: BTreeMap<(usize, bool), ((usize, bool), Edge)> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some((node, after_read)) = queue.pop_front() {
            if (node, after_read) == (to, false) {
                let mut path = Vec::new();
                let mut at = (to, false);
                while at != start {
                    let (before, edge) = previous[&at];
                    path.push((before.0, edge));
                    at = before;
                }
                path.reverse();
                return Some(path);
            }
            for (next, edge) in self.successors(node, kinds) {
                let is_read = edge == Edge::ReadWrite;
                let state = (next, is_read);
                if is_read && after_read || !allowed.contains(&next) {
                    continue;
                }
                if state != start && !previous.contains_key(&state) {
                    previous.insert(state, ((node, after_read), edge));
                    queue.push_back(state);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Kinds = Kinds::of(&[Edge::WriteWrite, Edge::WriteRead]);

    #[test]
    fn finds_the_shortest_cycle() {
        let mut graph = Graph::default();
        for (from, to) in [(1, 2), (2, 3), (3, 4), (4, 1), (3, 1), (5, 1), (4, 6)] {
            graph.add(from, to, Edge::WriteWrite);
        }
        let components = graph.strongly_connected(ALL);
        assert_eq!(components, [BTreeSet::from([1, 2, 3, 4])]);
        let cycle = graph.shortest_cycle_from(Edge::WriteWrite, ALL, |_| true);
        assert_eq!(cycle.map(|cycle| cycle.len()), Some(3));
    }

    #[test]
    fn no_cycle_in_a_line() {
        let mut graph = Graph::default();
        graph.add(1, 2, Edge::WriteWrite);
        graph.add(2, 3, Edge::WriteRead);
        graph.add(3, 3, Edge::WriteRead);
        assert!(graph.strongly_connected(ALL).is_empty());
        assert!(
            graph
                .shortest_cycle_from(Edge::WriteRead, ALL, |_| true)
                .is_none()
        );
    }

    #[test]
    fn tells_adjacent_reads_from_others() {
        let mut skew = Graph::default();
        skew.add(1, 2, Edge::ReadWrite);
        skew.add(2, 1, Edge::ReadWrite);
        assert!(skew.shortest_nonadjacent(ALL).is_none());
        let mut fork = Graph::default();
        fork.add(1, 2, Edge::ReadWrite);
        fork.add(2, 3, Edge::WriteRead);
        fork.add(3, 4, Edge::ReadWrite);
        fork.add(4, 1, Edge::WriteRead);
        assert_eq!(fork.shortest_nonadjacent(ALL).map(|cycle| cycle.len()), Some(4));
    }
}
