//! An index finds what the table shows, each row once.

use std::collections::BTreeSet;

use super::{Numbered, empties, may_lie_between};
use crate::definitions::Action;

/// Compares both ways of one read.
pub(super) fn check((index, read): Numbered<'_>, events: &[Numbered<'_>], violations: &mut Vec<String>) {
    let Action::Read { mark, all, by_index } = &read.operation.action else {
        return;
    };
    report_twice(index, "in the table", all.iter().map(|(id, _)| *id), violations);
    report_twice(index, "by its mark", by_index.iter().copied(), violations);
    let found: BTreeSet<i64> = by_index.iter().copied().collect();
    let with_mark: BTreeSet<i64> = all
        .iter()
        .filter(|(_, marked)| marked == mark)
        .map(|(id, _)| *id)
        .collect();
    if found == with_mark {
        return;
    }
    // Readers do not keep TRUNCATE out: the second statement of a snapshot may meet the emptied table. It sees nothing at
    // all then, as whatever comes later is not in the snapshot.
    let was_emptied = all.is_empty()
        && events
            .iter()
            .any(|(_, clear)| empties(clear) && may_lie_between(clear, read, read));
    if !was_emptied {
        violations.push(format!(
            "index and table differ: T{index} found {found:?} with mark {mark} one way and {with_mark:?} the other"
        ));
    }
}

fn report_twice(index: usize, place: &str, ids: impl Iterator<Item = i64>, violations: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<i64> = ids.filter(|id| !seen.insert(*id)).collect();
    if !twice.is_empty() {
        violations.push(format!(
            "row twice: T{index} found rows {twice:?} more than once {place}"
        ));
    }
}
