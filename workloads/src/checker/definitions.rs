//! Acknowledged definitions hold for everything that begins later; rows are there until their table is emptied; an index
//! finds what a scan finds.

use std::collections::BTreeSet;

use crate::definitions::{Action, Use, mark_of};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::workload::Report;

type Event = Record<Use>;

/// Whether it certainly was in force before `other` was begun.
fn precedes(event: &Event, other: &Event) -> bool {
    event.outcome == Outcome::Done && event.ended_before(other)
}

/// Whether it may have taken effect after `earlier` did and before `later` saw it.
fn may_lie_between(event: &Event, earlier: &Event, later: &Event) -> bool {
    // One whose outcome is unknown may take effect at any time.
    let may_have_happened = event.outcome != Outcome::Failed;
    let ends = if event.outcome == Outcome::Done {
        event.completed_micros
    } else {
        None
    };
    let begins_in_time = later
        .completed_micros
        .is_none_or(|completed| event.invoked_micros < completed);
    may_have_happened && begins_in_time && ends.is_none_or(|ends| ends > earlier.invoked_micros)
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

/// Judges a history; it is complete if `tables` tables were read at the end.
pub fn check(records: &[Event], tables: usize) -> Report {
    let mut violations = Vec::new();
    for table in 0..tables {
        let events: Vec<(usize, &Event)> = records
            .iter()
            .enumerate()
            .filter(|(_, record)| record.operation.table == table)
            .collect();
        check_existence(&events, &mut violations);
        check_rows(&events, &mut violations);
    }
    let final_reads = records.iter().filter(|record| record.client == FINAL_READER);
    let read: BTreeSet<usize> = final_reads.map(|record| record.operation.table).collect();
    let done = records
        .iter()
        .filter(|record| record.outcome == Outcome::Done)
        .count();
    Report {
        workload: "definitions".to_owned(),
        violations,
        is_complete: read.len() == tables,
        summary: format!("{done} of {} uses of tables done", records.len()),
    }
}

/// Who found a table, or missed it, although an acknowledged definition says otherwise.
fn check_existence(events: &[(usize, &Event)], violations: &mut Vec<String>) {
    for (index, event) in events {
        let uses = matches!(
            event.operation.action,
            Action::Insert { .. } | Action::Read { .. } | Action::Truncate
        );
        if !uses {
            continue;
        }
        if event.operation.was_missing {
            // Tables exist from the beginning.
            let undone = |earlier: Option<&Event>| {
                events.iter().any(|(_, drop)| {
                    drops(drop)
                        && earlier.is_none_or(|earlier| may_lie_between(drop, earlier, event))
                        && (earlier.is_some() || drop.outcome != Outcome::Failed)
                })
            };
            let created = events
                .iter()
                .filter(|(_, create)| creates(create) && precedes(create, event));
            for (creation, create) in created {
                if !undone(Some(create)) {
                    violations.push(format!(
                        "lost definition: T{index} did not find table {}, which T{creation} had created",
                        event.operation.table
                    ));
                }
            }
            if !undone(None) {
                violations.push(format!(
                    "lost definition: T{index} did not find table {}, which nobody has dropped",
                    event.operation.table
                ));
            }
        } else if event.outcome == Outcome::Done {
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
    }
}

/// Rows that came back, were lost, or that an index does not find.
fn check_rows(events: &[(usize, &Event)], violations: &mut Vec<String>) {
    for (index, event) in events {
        let Action::Read { mark, all, by_index } = &event.operation.action else {
            continue;
        };
        if event.outcome != Outcome::Done {
            continue;
        }
        let with_mark: BTreeSet<i64> = all.iter().copied().filter(|id| mark_of(*id) == *mark).collect();
        // Readers do not keep TRUNCATE out: the second statement of a snapshot may meet the emptied table.
        let was_disturbed = events
            .iter()
            .any(|(_, clear)| empties(clear) && may_lie_between(clear, event, event));
        if with_mark != *by_index && !was_disturbed {
            violations.push(format!(
                "index and table differ: T{index} found {by_index:?} with mark {mark} one way and {with_mark:?} the other"
            ));
        }
        for (position, insertion) in events {
            let Action::Insert { id } = insertion.operation.action else {
                continue;
            };
            if all.contains(&id) {
                if insertion.outcome == Outcome::Failed {
                    violations.push(format!("G1a aborted read: T{index} saw row {id} of T{position}"));
                }
                let emptied = events.iter().find(|(_, clear)| {
                    empties(clear) && precedes(insertion, clear) && precedes(clear, event)
                });
                if let Some((clear, _)) = emptied {
                    violations.push(format!(
                        "stale read: T{index} saw row {id} of T{position}, which T{clear} had removed with all others"
                    ));
                }
            } else if precedes(insertion, event) {
                let emptied = events
                    .iter()
                    .any(|(_, clear)| empties(clear) && may_lie_between(clear, insertion, event));
                if !emptied {
                    violations.push(format!("lost row: T{index} did not see row {id} of T{position}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: Action, begins: u64, ends: u64) -> Event {
        Record {
            client: FINAL_READER,
            operation: Use {
                table: 0,
                action,
                was_missing: false,
            },
            invoked_micros: begins,
            completed_micros: Some(ends),
            outcome: Outcome::Done,
            error: None,
        }
    }

    fn read(ids: &[i64], by_index: &[i64], begins: u64) -> Event {
        let action = Action::Read {
            mark: 0,
            all: ids.iter().copied().collect(),
            by_index: by_index.iter().copied().collect(),
        };
        event(action, begins, begins + 5)
    }

    fn violations(records: &[Event]) -> Vec<String> {
        check(records, 1).violations
    }

    #[test]
    fn accepts_what_an_emptied_table_shows() {
        let records = [
            event(Action::Insert { id: 3 }, 0, 10),
            read(&[3], &[3], 20),
            event(Action::Truncate, 30, 40),
            read(&[], &[], 50),
        ];
        assert!(violations(&records).is_empty(), "{:?}", violations(&records));
    }

    #[test]
    fn rejects_rows_that_were_truncated() {
        let records = [
            event(Action::Insert { id: 3 }, 0, 10),
            event(Action::Truncate, 30, 40),
            read(&[3], &[3], 50),
        ];
        assert!(violations(&records)[0].starts_with("stale read"));
    }

    #[test]
    fn rejects_rows_that_vanish_without_anybody_emptying_the_table() {
        let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[], &[], 50)];
        assert!(violations(&records)[0].starts_with("lost row"));
    }

    #[test]
    fn rejects_an_index_without_a_row() {
        let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[3], &[], 50)];
        assert!(violations(&records)[0].starts_with("index and table differ"));
    }

    #[test]
    fn rejects_a_dropped_table_that_is_used() {
        let records = [event(Action::Drop, 0, 10), read(&[], &[], 50)];
        assert!(violations(&records)[0].starts_with("stale definition"));
    }

    #[test]
    fn rejects_a_table_that_nobody_dropped_and_is_missing() {
        let mut missing = read(&[], &[], 50);
        missing.operation.was_missing = true;
        missing.outcome = Outcome::Failed;
        assert!(violations(&[missing])[0].starts_with("lost definition"));
    }
}
