//! Finds cycles in the waits-for graph. The graph is never stored: edges are read off the lock queues, so that
//! they cannot go stale.

use std::collections::BTreeSet;

use neorunbase_protocol::message::TransactionId;

/// Whether `start` (transitively) waits for itself, where `blockers` yields whom a transaction waits for now.
pub(crate) fn waits_for_itself(
    start: TransactionId,
    mut blockers: impl FnMut(TransactionId, &mut Vec<TransactionId>),
) -> bool {
    let mut visited = BTreeSet::new();
    let mut stack = Vec::new();
    blockers(start, &mut stack);
    while let Some(transaction) = stack.pop() {
        if transaction == start {
            return true;
        }
        if visited.insert(transaction) {
            blockers(transaction, &mut stack);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cyclic(start: TransactionId, edges: &[(TransactionId, TransactionId)]) -> bool {
        waits_for_itself(start, |from, into| {
            into.extend(edges.iter().filter(|edge| edge.0 == from).map(|edge| edge.1));
        })
    }

    #[test]
    fn finds_only_cycles_through_the_start() {
        assert!(cyclic(1, &[(1, 2), (2, 3), (3, 1)]));
        assert!(!cyclic(1, &[(1, 2), (2, 3), (3, 2)]));
        assert!(!cyclic(1, &[(1, 2), (1, 3), (2, 4), (3, 4)]));
        assert!(!cyclic(1, &[]));
    }
}
