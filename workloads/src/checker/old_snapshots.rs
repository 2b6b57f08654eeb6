//! Judges what was seen of snapshots over time, and the counters that statements with an outcome of their own counted up.

use std::collections::BTreeMap;

use crate::history::{FINAL_READER, Outcome, Record};
use crate::old_snapshots::{COUNTERS, INITIAL, MOVED, Operation, Row, View, Way};
use crate::workload::Report;

/// What a snapshot that holds `all` shows by `way`.
fn expected(all: &BTreeMap<i64, Row>, way: Way) -> BTreeMap<i64, Row> {
    let shows = |(key, row): &(&i64, &Row)| match way {
        Way::All => true,
        Way::Key(wanted) => **key == wanted,
        Way::Tag(tag) => row.1 == tag,
    };
    let shown = all.iter().filter(shows);
    shown.map(|(key, row)| (*key, *row)).collect()
}

fn check_views(record: &Record<Operation>, views: &[View], as_of: bool, violations: &mut Vec<String>) {
    let Some((first, later)) = views.split_first() else {
        return;
    };
    let place = format!("client {}, {} µs", record.client, record.invoked_micros);
    let moved = COUNTERS..COUNTERS + MOVED;
    let total: i64 = first.rows.range(moved).map(|(_, row)| row.0).sum();
    if total != MOVED * INITIAL {
        violations.push(format!(
            "snapshot is torn: the moved rows hold {total}, not {}: {place}",
            MOVED * INITIAL
        ));
    }
    for (index, view) in later.iter().enumerate() {
        let expected = expected(&first.rows, view.way);
        if view.rows != expected {
            let kind = if as_of {
                "AS OF SYSTEM TIME"
            } else {
                "in one transaction"
            };
            violations.push(format!(
                "snapshot has changed ({kind}): look {} by {:?} shows {:?}, not {expected:?}: {place}",
                index + 1,
                view.way,
                view.rows,
            ));
        }
    }
}

/// Judges a history.
pub fn check(records: &[Record<Operation>]) -> Report {
    let mut violations = Vec::new();
    let mut looks = 0;
    let mut refused = 0;
    let mut counted: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut last = None;
    for record in records {
        match &record.operation {
            Operation::Look { as_of, views } => {
                // Whatever became of its transaction, what it was shown it was shown.
                check_views(record, views, *as_of, &mut violations);
                looks += views.len().saturating_sub(1);
                let error = record.error.as_deref().unwrap_or_default();
                refused += usize::from(error.starts_with("72000"));
                if record.client == FINAL_READER && record.outcome == Outcome::Done {
                    last = views.first();
                }
            }
            Operation::Count { row } => {
                let (done, unknown) = counted.entry(*row).or_default();
                match record.outcome {
                    Outcome::Done => *done += 1,
                    Outcome::Unknown => *unknown += 1,
                    Outcome::Failed => {}
                }
            }
            Operation::Move | Operation::Toggle => {}
        }
    }
    if let Some(last) = last {
        for row in 0..COUNTERS {
            let (done, unknown) = counted.get(&row).copied().unwrap_or_default();
            let found = last.rows.get(&row).map_or(0, |row| row.0);
            if found < done {
                violations.push(format!(
                    "lost update: counter {row} stands at {found} after {done} increments"
                ));
            }
            if found > done + unknown {
                violations.push(format!(
                    "duplicate update: counter {row} stands at {found} after {done} increments and {unknown} of unknown outcome"
                ));
            }
        }
    }
    Report {
        workload: "old-snapshots".to_owned(),
        is_complete: last.is_some(),
        summary: format!("{looks} looks back, {refused} refused as too old"),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: u32, outcome: Outcome, operation: Operation) -> Record<Operation> {
        Record {
            outcome,
            ..Record::done(client, 0, 1, operation)
        }
    }

    fn rows() -> BTreeMap<i64, Row> {
        (0..COUNTERS + MOVED)
            .map(|id| (id, (if id < COUNTERS { 0 } else { INITIAL }, id % 2)))
            .collect()
    }

    fn look(client: u32, outcome: Outcome, views: Vec<(Way, BTreeMap<i64, Row>)>) -> Record<Operation> {
        let views = views.into_iter().map(|(way, rows)| View { way, rows }).collect();
        record(client, outcome, Operation::Look { as_of: false, views })
    }

    fn end(change: impl FnOnce(&mut BTreeMap<i64, Row>)) -> Record<Operation> {
        let mut rows = rows();
        change(&mut rows);
        look(FINAL_READER, Outcome::Done, vec![(Way::All, rows)])
    }

    fn count(outcome: Outcome) -> Record<Operation> {
        record(1, outcome, Operation::Count { row: 0 })
    }

    #[test]
    fn accepts_what_stays_as_it_was() {
        let views = vec![
            (Way::All, rows()),
            (Way::Key(2), expected(&rows(), Way::Key(2))),
            (Way::Key(99), BTreeMap::new()),
            (Way::Tag(1), expected(&rows(), Way::Tag(1))),
            (Way::All, rows()),
        ];
        let report = check(&[
            look(1, Outcome::Failed, views),
            count(Outcome::Done),
            count(Outcome::Unknown),
            count(Outcome::Failed),
            end(|rows| rows.get_mut(&0).into_iter().for_each(|row| row.0 = 2)),
        ]);
        assert!(report.is_acquittal(), "{:?}", report.violations);
    }

    #[test]
    fn rejects_what_changes() {
        let mut later = rows();
        later.insert(0, (1, 0));
        let changed = vec![(Way::All, rows()), (Way::All, later)];
        assert_eq!(check(&[look(1, Outcome::Failed, changed)]).violations.len(), 1);
        let vanished = vec![(Way::All, rows()), (Way::Tag(0), BTreeMap::new())];
        assert_eq!(check(&[look(1, Outcome::Done, vanished)]).violations.len(), 1);
        let mut torn = rows();
        torn.insert(COUNTERS, (INITIAL - 1, 0));
        assert_eq!(
            check(&[look(1, Outcome::Done, vec![(Way::All, torn)])])
                .violations
                .len(),
            1
        );
    }

    #[test]
    fn rejects_counters_that_are_off() {
        let lost = [count(Outcome::Done), end(|_| {})];
        assert_eq!(check(&lost).violations.len(), 1);
        let duplicate = [
            count(Outcome::Done),
            end(|rows| rows.get_mut(&0).into_iter().for_each(|row| row.0 = 2)),
        ];
        assert_eq!(check(&duplicate).violations.len(), 1);
    }

    #[test]
    fn without_the_final_state_nobody_is_acquitted() {
        assert!(!check(&[count(Outcome::Done)]).is_acquittal());
    }
}
