//! Indexes and columns come and go in turn: what was added twice was taken away in between, and the other way round.

use super::{Event, Numbered, certainly_empties, drops, may_begin_before, may_lie_between, precedes};
use crate::definitions::Action;
use crate::history::Outcome;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    Index,
    Column,
}

/// The feature that the event adds (`true`) or takes away.
fn change_of(event: &Event) -> Option<(Feature, bool)> {
    match event.operation.action {
        Action::Index { wanted } => Some((Feature::Index, wanted)),
        Action::Column { wanted } => Some((Feature::Column, wanted)),
        _ => None,
    }
}

/// Acknowledged changes that had nothing to change, as all of them fail then.
pub(super) fn check(events: &[Numbered<'_>], violations: &mut Vec<String>) {
    for (index, event) in events {
        let Some((feature, wanted)) = change_of(event) else {
            continue;
        };
        if event.outcome != Outcome::Done {
            continue;
        }
        // A dropped table takes what it has with it.
        let leads_to =
            |other: &Event, state: bool| change_of(other) == Some((feature, state)) || !state && drops(other);
        let last = events
            .iter()
            .filter(|(_, earlier)| leads_to(earlier, wanted) && precedes(earlier, event))
            .filter(|(_, earlier)| !drops(earlier) || certainly_empties(earlier, events))
            .max_by_key(|(_, earlier)| earlier.invoked_micros);
        let mut reversals = events
            .iter()
            .filter(|(_, other)| leads_to(other, !wanted))
            .map(|(_, other)| *other);
        let is_explained = match last {
            Some((_, earlier)) => reversals.any(|other| may_lie_between(other, earlier, event)),
            // Tables begin with neither.
            None => wanted || reversals.any(|other| may_begin_before(other, event)),
        };
        if !is_explained {
            let name = match feature {
                Feature::Index => "index",
                Feature::Column => "column",
            };
            let did = if wanted { "added" } else { "dropped" };
            let history = last.map_or_else(
                || "nobody had added".to_owned(),
                |(position, _)| format!("T{position} had {did} before"),
            );
            violations.push(format!(
                "definition without effect: T{index} {did} the {name} of table {}, which {history}",
                event.operation.table
            ));
        }
    }
}
