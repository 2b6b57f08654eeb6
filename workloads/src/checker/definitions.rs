//! Acknowledged definitions hold for everything that begins later; rows are there until they are deleted or their table is
//! emptied, all of a transaction or none; an index finds what a scan finds.

mod existence;
mod features;
mod index;
mod once;
mod rows;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};

use crate::definitions::{Action, Use};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::workload::Report;
use rows::Seen;

type Event = Record<Use>;
/// An event and its place in the history.
type Numbered<'a> = (usize, &'a Event);

/// Whether it certainly was in force before `other` was begun.
fn precedes(event: &Event, other: &Event) -> bool {
    event.outcome == Outcome::Done && event.ended_before(other)
}

/// When it certainly had taken effect. One whose outcome is unknown may do so at any time.
fn end_of(event: &Event) -> u64 {
    match event.completed_micros {
        Some(completed) if event.outcome == Outcome::Done => completed,
        _ => u64::MAX,
    }
}

/// Whether it may have taken effect before `later` was over.
fn may_begin_before(event: &Event, later: &Event) -> bool {
    let begins_in_time = later
        .completed_micros
        .is_none_or(|completed| event.invoked_micros <= completed);
    event.outcome != Outcome::Failed && begins_in_time
}

/// Whether it may have taken effect after `earlier` did and before `later` saw it.
fn may_lie_between(event: &Event, earlier: &Event, later: &Event) -> bool {
    may_begin_before(event, later) && end_of(event) >= earlier.invoked_micros
}

fn creates(event: &Event) -> bool {
    event.operation.action == Action::Create && !event.operation.was_missing
}

fn drops(event: &Event) -> bool {
    event.operation.action == Action::Drop
}

fn empties(event: &Event) -> bool {
    matches!(event.operation.action, Action::Drop | Action::Truncate) && !event.operation.was_missing
}

/// Whether the table certainly was emptied. A Coordinator that was not yet told of a table that is being created has
/// nothing to drop, and says so while others use the table already.
fn certainly_empties(event: &Event, events: &[Numbered<'_>]) -> bool {
    let is_being_created = || {
        events
            .iter()
            .any(|(_, create)| creates(create) && may_lie_between(create, event, event))
    };
    event.outcome == Outcome::Done && empties(event) && !(drops(event) && is_being_created())
}

/// Judges a history, at whose beginning there were `tables` tables; it is complete if all that were ever used were read at
/// the end.
pub fn check(records: &[Event], tables: usize) -> Report {
    let mut by_table: BTreeMap<usize, Vec<Numbered<'_>>> =
        (0..tables).map(|table| (table, Vec::new())).collect();
    for (position, record) in records.iter().enumerate() {
        let events = by_table.entry(record.operation.table).or_default();
        events.push((position, record));
    }
    let mut violations = Vec::new();
    for (table, events) in &by_table {
        existence::check(events, *table < tables, &mut violations);
        features::check(events, &mut violations);
        let reads: Vec<Seen<'_>> = events.iter().copied().filter_map(Seen::of).collect();
        for seen in &reads {
            index::check(seen.read, events, &mut violations);
        }
        let (rows, removals) = (rows::rows_of(events), rows::removals_of(events));
        rows::check(events, &rows, &removals, &reads, &mut violations);
        transactions::check(events, &rows, &removals, &reads, &mut violations);
    }
    let read: BTreeSet<usize> = records
        .iter()
        .filter(|record| record.client == FINAL_READER && record.outcome != Outcome::Unknown)
        .map(|record| record.operation.table)
        .collect();
    let done = records
        .iter()
        .filter(|record| record.outcome == Outcome::Done)
        .count();
    Report {
        workload: "definitions".to_owned(),
        violations,
        is_complete: by_table.keys().all(|table| read.contains(table)),
        summary: format!(
            "{done} of {} uses of {} tables done",
            records.len(),
            by_table.len()
        ),
    }
}

#[cfg(test)]
mod tests;
