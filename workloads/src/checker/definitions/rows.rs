//! Rows are there from their commit on until they are deleted, or their table is emptied, which removes all that were
//! committed before.

use std::collections::{BTreeMap, BTreeSet};

use super::once::{Window, explained_twice};
use super::{Event, Numbered, certainly_empties, empties, end_of, precedes};
use crate::definitions::{Action, Change};
use crate::history::Outcome;

/// A row that somebody wanted to insert.
pub(super) struct Row<'a> {
    /// Its key.
    pub(super) id: i64,
    /// Who did.
    pub(super) writer: Numbered<'a>,
    /// When it certainly was written to the table, committed or not: a definition that came later would have waited for
    /// the commit, or have the commit refused.
    written_by: Option<u64>,
    /// No commit before.
    commits_from: u64,
}

impl Row<'_> {
    fn is_certain_before(&self, read: &Event) -> bool {
        precedes(self.writer.1, read)
    }
}

/// A row that somebody wanted to delete.
pub(super) struct Removal<'a> {
    /// Its key.
    pub(super) id: i64,
    /// Who did.
    pub(super) writer: Numbered<'a>,
    /// Whether the row was there, so that it is gone if the transaction was committed.
    pub(super) has_met_its_row: bool,
    /// No commit before.
    commits_from: u64,
}

impl Removal<'_> {
    /// Whether the read may have come too late for the row.
    pub(super) fn may_precede(&self, read: &Event) -> bool {
        self.writer.1.outcome != Outcome::Failed && self.commits_from <= end_of(read)
    }
}

/// All rows that the events would delete.
pub(super) fn removals_of<'a>(events: &[Numbered<'a>]) -> Vec<Removal<'a>> {
    let mut removals = Vec::new();
    for (position, event) in events {
        let Action::Transact { transaction } = &event.operation.action else {
            continue;
        };
        for statement in &transaction.statements {
            let Change::Delete { id } = statement.change else {
                continue;
            };
            // Without an answer it may have met the row.
            if statement.answered_micros.is_none() || statement.rows > 0 {
                removals.push(Removal {
                    id,
                    writer: (*position, event),
                    has_met_its_row: statement.rows > 0,
                    commits_from: transaction.commit_micros.unwrap_or(event.invoked_micros),
                });
            }
        }
    }
    removals
}

/// All rows that the events would insert.
pub(super) fn rows_of<'a>(events: &[Numbered<'a>]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (position, event) in events {
        let writer = (*position, *event);
        match &event.operation.action {
            Action::Insert { id } => {
                let is_done = event.outcome == Outcome::Done;
                rows.push(Row {
                    id: *id,
                    writer,
                    written_by: if is_done { event.completed_micros } else { None },
                    commits_from: event.invoked_micros,
                });
            }
            Action::Transact { transaction } => {
                let first = transaction.statements.first();
                let inserted = transaction
                    .statements
                    .iter()
                    .flat_map(|statement| match &statement.change {
                        Change::Insert { ids } => ids.as_slice(),
                        _ => &[],
                    });
                rows.extend(inserted.map(|id| Row {
                    id: *id,
                    writer,
                    // With its first row a transaction keeps definitions out, for all its rows.
                    written_by: first.and_then(|statement| statement.answered_micros),
                    commits_from: transaction.commit_micros.unwrap_or(event.invoked_micros),
                }));
            }
            _ => {}
        }
    }
    rows
}

/// What a read saw.
pub(super) struct Seen<'a> {
    /// The read.
    pub(super) read: Numbered<'a>,
    /// Keys of all rows.
    pub(super) ids: BTreeSet<i64>,
}

impl<'a> Seen<'a> {
    /// `None`: not a read that was done.
    pub(super) fn of((position, event): Numbered<'a>) -> Option<Self> {
        let Action::Read { all, .. } = &event.operation.action else {
            return None;
        };
        (event.outcome == Outcome::Done).then(|| Self {
            read: (position, event),
            ids: all.iter().map(|(id, _)| *id).collect(),
        })
    }
}

/// Rows that were lost, came back, or should not be there.
pub(super) fn check(
    events: &[Numbered<'_>],
    rows: &[Row<'_>],
    removals: &[Removal<'_>],
    reads: &[Seen<'_>],
    violations: &mut Vec<String>,
) {
    let clears: Vec<Numbered<'_>> = events
        .iter()
        .copied()
        .filter(|(_, event)| empties(event) && event.outcome != Outcome::Failed)
        .collect();
    let certain: Vec<Numbered<'_>> = clears
        .iter()
        .copied()
        .filter(|(_, clear)| certainly_empties(clear, events))
        .collect();
    let mut emptied = Vec::new();
    for seen in reads {
        check_aborted(seen, rows, violations);
        check_deleted(seen, removals, violations);
        emptied.extend(check_emptying(
            seen, rows, removals, &clears, &certain, violations,
        ));
    }
    for Window { witness, .. } in explained_twice(emptied, &clears) {
        violations.push(format!(
            "lost row: T{witness} did not see rows that were written since each emptying took effect"
        ));
    }
    check_return(rows, reads, violations);
}

fn check_aborted(seen: &Seen<'_>, rows: &[Row<'_>], violations: &mut Vec<String>) {
    let aborted = rows
        .iter()
        .filter(|row| row.writer.1.outcome == Outcome::Failed && seen.ids.contains(&row.id));
    for row in aborted {
        violations.push(format!(
            "G1a aborted read: T{} saw row {} of T{}",
            seen.read.0, row.id, row.writer.0
        ));
    }
}

fn check_deleted(seen: &Seen<'_>, removals: &[Removal<'_>], violations: &mut Vec<String>) {
    let (index, read) = seen.read;
    let deleted = removals.iter().filter(|removal| {
        removal.has_met_its_row && precedes(removal.writer.1, read) && seen.ids.contains(&removal.id)
    });
    for removal in deleted {
        violations.push(format!(
            "row is back: T{index} saw row {}, which T{} had deleted",
            removal.id, removal.writer.0
        ));
    }
}

/// The moment at which the table was emptied the last time before the read, if ever, lies after the commits of all rows
/// that are missing, and before the others were written. Somebody must have emptied it then: the time is returned.
fn check_emptying(
    seen: &Seen<'_>,
    rows: &[Row<'_>],
    removals: &[Removal<'_>],
    clears: &[Numbered<'_>],
    certain: &[Numbered<'_>],
    violations: &mut Vec<String>,
) -> Option<Window> {
    let (index, read) = seen.read;
    let last_clear = certain
        .iter()
        .filter(|(_, clear)| precedes(clear, read))
        .max_by_key(|(_, clear)| clear.invoked_micros);
    let first_seen = rows
        .iter()
        .filter(|row| seen.ids.contains(&row.id))
        .filter_map(|row| Some((row.written_by?, row)))
        .min_by_key(|(written_by, _)| *written_by);
    let may_be_deleted: BTreeSet<i64> = removals
        .iter()
        .filter(|removal| removal.may_precede(read))
        .map(|removal| removal.id)
        .collect();
    let last_missing = rows
        .iter()
        .filter(|row| row.is_certain_before(read) && !seen.ids.contains(&row.id))
        .filter(|row| !may_be_deleted.contains(&row.id))
        .max_by_key(|row| row.commits_from);
    let mut until = end_of(read);
    if let Some((written_by, row)) = first_seen {
        if let Some((position, clear)) = last_clear
            && written_by < clear.invoked_micros
        {
            violations.push(format!(
                "stale read: T{index} saw row {} of T{}, which T{position} had removed with all others",
                row.id, row.writer.0
            ));
            return None;
        }
        if let Some(missing) = last_missing
            && written_by < missing.commits_from
        {
            violations.push(format!(
                "emptied in part: T{index} did not see row {} of T{} but row {} of T{}, which is older",
                missing.id, missing.writer.0, row.id, row.writer.0
            ));
            return None;
        }
        until = until.min(written_by);
    }
    let missing = last_missing?;
    let from = last_clear.map_or(0, |(_, clear)| clear.invoked_micros);
    let from = from.max(missing.commits_from);
    let is_explained = clears
        .iter()
        .any(|(_, clear)| clear.invoked_micros.max(from) <= end_of(clear).min(until));
    if !is_explained {
        violations.push(format!(
            "lost row: T{index} did not see row {} of T{}",
            missing.id, missing.writer.0
        ));
    }
    Some(Window {
        from,
        until,
        witness: index,
    })
}

/// Keys are used once: a row that was gone is gone for ever.
fn check_return(rows: &[Row<'_>], reads: &[Seen<'_>], violations: &mut Vec<String>) {
    let mut gone: BTreeMap<i64, Numbered<'_>> = BTreeMap::new();
    for row in rows {
        let missed = reads
            .iter()
            .filter(|seen| row.is_certain_before(seen.read.1) && !seen.ids.contains(&row.id))
            .min_by_key(|seen| end_of(seen.read.1));
        if let Some(seen) = missed {
            gone.insert(row.id, seen.read);
        }
    }
    for seen in reads {
        let (index, read) = seen.read;
        for id in &seen.ids {
            if let Some((position, before)) = gone.get(id)
                && precedes(before, read)
            {
                violations.push(format!(
                    "row is back: T{index} saw row {id}, which was gone when T{position} read"
                ));
            }
        }
    }
}
