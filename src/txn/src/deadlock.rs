//! Finds cycles in the waits-for graph. The graph is never stored: edges are read off the lock queues.
//!
//! Within one node that is done at once, under a lock, so no edge can be stale. Edges of several nodes are read one after
//! the other: a cycle of them may never have existed at any one time. So they are read twice: an edge that was there both
//! times, of the same wait, was there all the time in between, since whoever gives a lock back can get in front of
//! a waiter no more. All edges of a cycle that is found in both have then existed together.

use std::collections::{BTreeMap, BTreeSet};

use neorunbase_protocol::message::TransactionId;

/// One transaction waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitEdge {
    /// Who waits.
    pub waiter: TransactionId,
    /// Names the wait.
    pub wait: u64,
    /// For whom.
    pub blocker: TransactionId,
}

/// Whether `start` (transitively) waits for itself, where `blockers` yields whom a transaction waits for now.
pub(crate) fn waits_for_itself(
    start: TransactionId,
    blockers: impl FnMut(TransactionId, &mut Vec<TransactionId>),
) -> bool {
    reachable(start, blockers).contains(&start)
}

/// Whom `start` waits for, transitively.
fn reachable(
    start: TransactionId,
    mut blockers: impl FnMut(TransactionId, &mut Vec<TransactionId>),
) -> BTreeSet<TransactionId> {
    let mut visited = BTreeSet::new();
    let mut stack = Vec::new();
    blockers(start, &mut stack);
    while let Some(transaction) = stack.pop() {
        if visited.insert(transaction) {
            blockers(transaction, &mut stack);
        }
    }
    visited
}

/// Whom to roll back: of each set of transactions that wait for each other, the youngest. Whoever looks at the same edges
/// comes to the same answer.
pub fn victims(edges: &BTreeSet<WaitEdge>) -> Vec<TransactionId> {
    let mut graph: BTreeMap<TransactionId, Vec<TransactionId>> = BTreeMap::new();
    for edge in edges {
        graph.entry(edge.waiter).or_default().push(edge.blocker);
    }
    let waits_for = |transaction| {
        reachable(transaction, |from, into| {
            into.extend(graph.get(&from).into_iter().flatten());
        })
    };
    let mut victims = Vec::new();
    let mut settled = BTreeSet::new();
    for transaction in graph.keys().rev() {
        if settled.contains(transaction) {
            continue;
        }
        let reached = waits_for(*transaction);
        if reached.contains(transaction) {
            // Those in its cycles are younger by none: they would have come first.
            let members = reached
                .iter()
                .filter(|member| waits_for(**member).contains(transaction));
            settled.extend(members.copied());
            victims.push(*transaction);
        }
    }
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cyclic(start: TransactionId, edges: &[(TransactionId, TransactionId)]) -> bool {
        waits_for_itself(start, |from, into| {
            into.extend(edges.iter().filter(|edge| edge.0 == from).map(|edge| edge.1));
        })
    }

    fn victims_of(edges: &[(TransactionId, TransactionId)]) -> Vec<TransactionId> {
        let edge = |(waiter, blocker): &(TransactionId, TransactionId)| WaitEdge {
            waiter: *waiter,
            wait: 1,
            blocker: *blocker,
        };
        victims(&edges.iter().map(edge).collect())
    }

    #[test]
    fn finds_only_cycles_through_the_start() {
        assert!(cyclic(1, &[(1, 2), (2, 3), (3, 1)]));
        assert!(!cyclic(1, &[(1, 2), (2, 3), (3, 2)]));
        assert!(!cyclic(1, &[(1, 2), (1, 3), (2, 4), (3, 4)]));
        assert!(!cyclic(1, &[]));
    }

    #[test]
    fn the_youngest_of_each_cycle_has_to_go() {
        assert_eq!(victims_of(&[(1, 2), (2, 3), (3, 1)]), [3]);
        assert_eq!(victims_of(&[(1, 2), (2, 3), (4, 1)]), Vec::<u64>::new());
        // 9 waits for a cycle, and is not in it.
        assert_eq!(victims_of(&[(9, 1), (1, 2), (2, 1)]), [2]);
        assert_eq!(victims_of(&[(1, 2), (2, 1), (5, 6), (6, 5)]), [6, 2]);
        // Two cycles through 1: one victim breaks only one, the next look finds the other.
        assert_eq!(victims_of(&[(1, 2), (2, 1), (1, 3), (3, 1)]), [3]);
        assert_eq!(victims_of(&[(1, 2), (2, 1), (1, 3)]), [2]);
    }
}
