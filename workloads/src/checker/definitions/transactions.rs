//! A transaction's writes are there together, and by one definition of the table: who redefines a table waits for those
//! that have written it, or their commits are refused.

use std::collections::BTreeMap;

use super::rows::{Removal, Row, Seen};
use super::{Event, Numbered, certainly_empties, may_lie_between};
use crate::definitions::{Action, Transaction};
use crate::history::Outcome;

/// Transactions of which a read saw a part, and those that were committed across a definition.
pub(super) fn check(
    events: &[Numbered<'_>],
    rows: &[Row<'_>],
    removals: &[Removal<'_>],
    reads: &[Seen<'_>],
    violations: &mut Vec<String>,
) {
    for seen in reads {
        check_whole(seen, rows, removals, violations);
    }
    for (index, event) in events {
        let Action::Transact { transaction } = &event.operation.action else {
            continue;
        };
        let was_seen = || {
            rows.iter()
                .filter(|row| row.writer.0 == *index)
                .any(|row| reads.iter().any(|seen| seen.ids.contains(&row.id)))
        };
        if event.outcome == Outcome::Done || was_seen() {
            check_definitions(*index, transaction, events, violations);
        }
    }
}

fn check_whole(seen: &Seen<'_>, rows: &[Row<'_>], removals: &[Removal<'_>], violations: &mut Vec<String>) {
    let (index, read) = seen.read;
    let mut writers: BTreeMap<usize, i64> = BTreeMap::new();
    for row in rows.iter().filter(|row| seen.ids.contains(&row.id)) {
        writers.insert(row.writer.0, row.id);
    }
    for row in rows.iter().filter(|row| !seen.ids.contains(&row.id)) {
        let may_be_deleted = removals
            .iter()
            .any(|removal| removal.id == row.id && removal.may_precede(read));
        if let Some(other) = writers.get(&row.writer.0)
            && !may_be_deleted
        {
            violations.push(format!(
                "torn transaction: T{index} saw row {other} of T{}, and not row {}",
                row.writer.0, row.id
            ));
        }
    }
    for removal in removals.iter().filter(|removal| removal.has_met_its_row) {
        if let Some(other) = writers.get(&removal.writer.0)
            && seen.ids.contains(&removal.id)
        {
            violations.push(format!(
                "torn transaction: T{index} saw row {other} of T{}, and row {}, which that had deleted",
                removal.writer.0, removal.id
            ));
        }
    }
}

fn check_definitions(
    index: usize,
    transaction: &Transaction,
    events: &[Numbered<'_>],
    violations: &mut Vec<String>,
) {
    let first = transaction.statements.first();
    let (Some(written), Some(committing)) = (
        first.and_then(|statement| statement.answered_micros),
        transaction.commit_micros,
    ) else {
        return;
    };
    for (position, definition) in events {
        let lies_within = written < definition.invoked_micros
            && definition
                .completed_micros
                .is_some_and(|completed| completed < committing);
        if lies_within && certainly_redefines(*position, definition, events) {
            violations.push(format!(
                "commit across a definition: T{index} wrote table {} before T{position} redefined it, and committed after",
                definition.operation.table
            ));
        }
    }
}

/// Whether the table certainly was redefined. Of two that drop an index at a time, one may find it gone.
fn certainly_redefines(position: usize, definition: &Event, events: &[Numbered<'_>]) -> bool {
    let drops_index = |event: &Event| event.operation.action == Action::Index { wanted: false };
    match definition.operation.action {
        Action::Index { wanted: false } => {
            definition.outcome == Outcome::Done
                && !events.iter().any(|(other_position, other)| {
                    *other_position != position
                        && drops_index(other)
                        && may_lie_between(other, definition, definition)
                })
        }
        Action::Index { wanted: true } | Action::Column { .. } => definition.outcome == Outcome::Done,
        _ => certainly_empties(definition, events),
    }
}
