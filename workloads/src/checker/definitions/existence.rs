//! Tables are there from their creation until they are dropped, for everybody.

use super::once::{Window, explained_twice};
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

/// The last before the event that shows that the table was there for everybody: it was created, or served somebody while
/// nobody was creating it. A table that is being created is shown by one Coordinator before the others.
fn last_witness<'a>(event: &Event, events: &[Numbered<'a>]) -> Option<Numbered<'a>> {
    let is_created = events
        .iter()
        .filter(|(_, create)| creates(create) && may_begin_before(create, event))
        .all(|(_, create)| precedes(create, event));
    events
        .iter()
        .copied()
        .filter(|(_, earlier)| {
            (creates(earlier) || is_created && uses(earlier))
                && precedes(earlier, event)
                && !earlier.operation.was_missing
        })
        .max_by_key(|(_, earlier)| earlier.invoked_micros)
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
    check_turns(events, there_at_first, violations);
}

/// Each time that the table was there and then missing took another DROP.
fn check_turns(events: &[Numbered<'_>], there_at_first: bool, violations: &mut Vec<String>) {
    let mut windows = Vec::new();
    let missing = events
        .iter()
        .filter(|(_, event)| uses(event) && event.operation.was_missing);
    for (index, event) in missing {
        let from = match last_witness(event, events) {
            Some((_, earlier)) => earlier.invoked_micros,
            None if there_at_first => 0,
            None => continue,
        };
        if let Some(until) = event.completed_micros {
            windows.push(Window {
                from,
                until,
                witness: *index,
            });
        }
    }
    let dropped: Vec<Numbered<'_>> = events.iter().copied().filter(|(_, drop)| drops(drop)).collect();
    for Window { witness, .. } in explained_twice(windows, &dropped) {
        violations.push(format!(
            "lost definition: T{witness} did not find a table that was there again since each DROP took effect"
        ));
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
    let last = last_witness(event, events);
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
