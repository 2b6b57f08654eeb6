//! Tables are there from their creation until they are dropped, for everybody.

use super::{Event, Numbered, creates, drops, may_begin_before, may_lie_between, precedes};
use crate::definitions::Action;
use crate::history::Outcome;

/// Whether it cannot have been done without the table.
fn uses(event: &Event) -> bool {
    matches!(
        event.operation.action,
        Action::Insert { .. }
            | Action::Transact { .. }
            | Action::Read { .. }
            | Action::Truncate
            | Action::Index { wanted: true }
            | Action::Column { .. }
    )
}

/// Who found a table, or missed it, although an acknowledged definition says otherwise. Whether it was `there_at_first`.
pub(super) fn check(events: &[Numbered<'_>], there_at_first: bool, violations: &mut Vec<String>) {
    for (index, event) in events.iter().filter(|(_, event)| uses(event)) {
        if event.operation.was_missing {
            missed(*index, event, events, there_at_first, violations);
        } else if event.outcome == Outcome::Done {
            found(*index, event, events, violations);
        }
    }
}

fn missed(
    index: usize,
    event: &Event,
    events: &[Numbered<'_>],
    there_at_first: bool,
    violations: &mut Vec<String>,
) {
    let table = event.operation.table;
    // The last that shows that the table was there: it was created, or served somebody.
    let last = events
        .iter()
        .filter(|(_, earlier)| {
            (creates(earlier) || uses(earlier)) && precedes(earlier, event) && !earlier.operation.was_missing
        })
        .max_by_key(|(_, earlier)| earlier.invoked_micros);
    let mut dropped = events.iter().filter(|(_, drop)| drops(drop));
    let is_explained = match last {
        Some((_, earlier)) => dropped.any(|(_, drop)| may_lie_between(drop, earlier, event)),
        None => !there_at_first || dropped.any(|(_, drop)| may_begin_before(drop, event)),
    };
    if is_explained {
        return;
    }
    let history = match last {
        Some((witness, earlier)) if creates(earlier) => format!("T{witness} had created"),
        Some((witness, _)) => format!("T{witness} had used"),
        None => "nobody has dropped".to_owned(),
    };
    violations.push(format!(
        "lost definition: T{index} did not find table {table}, which {history}"
    ));
}

fn found(index: usize, event: &Event, events: &[Numbered<'_>], violations: &mut Vec<String>) {
    let dropped = events
        .iter()
        .filter(|(_, drop)| drops(drop) && precedes(drop, event));
    for (position, drop) in dropped {
        let is_back = events
            .iter()
            .any(|(_, create)| creates(create) && may_lie_between(create, drop, event));
        if !is_back {
            violations.push(format!(
                "stale definition: T{index} used table {}, which T{position} had dropped",
                event.operation.table
            ));
        }
    }
}
