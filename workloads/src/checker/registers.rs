//! Each register's statements can be put in one order that agrees with real time and with all answers.

use std::collections::{BTreeMap, BTreeSet};

use super::linearizability::{Call, Finding, search};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::registers::{RegisterOperation, Request};
use crate::workload::Report;

/// Configurations that are visited for one register before the search is given up.
const LIMIT: usize = 1_000_000;
/// Operations of the order found that are told.
const CONTEXT: usize = 4;

/// An operation with its outcome: what got no answer has none that could be wrong.
type Answered = (Request, Outcome);

/// Judges a history.
pub fn check(records: &[Record<RegisterOperation>]) -> Report {
    let mut registers: BTreeMap<i64, Vec<&Record<RegisterOperation>>> = BTreeMap::new();
    for record in records {
        let happened = match record.outcome {
            Outcome::Done => true,
            Outcome::Failed => false,
            Outcome::Unknown => !record.operation.request.is_read(),
        };
        if happened {
            registers.entry(record.operation.key).or_default().push(record);
        }
    }
    let mut violations = Vec::new();
    let (mut operations, mut undecided) = (0, 0);
    for (key, records) in &registers {
        operations += records.len();
        match judge(records) {
            Finding::Linearizable => {}
            Finding::Undecided => undecided += 1,
            Finding::Impossible {
                longest,
                state,
                stuck,
            } => violations.push(tell(*key, records, &longest, state, stuck)),
        }
    }
    let finals = records
        .iter()
        .any(|record| record.client == FINAL_READER && record.outcome == Outcome::Done);
    let mut summary = format!("{operations} operations on {} registers", registers.len());
    if undecided > 0 {
        summary.push_str(&format!(", {undecided} of them undecided"));
    }
    Report {
        workload: "registers".to_owned(),
        // What could not be decided is no acquittal either.
        is_complete: finals && undecided == 0,
        violations,
        summary,
    }
}

fn judge(records: &[&Record<RegisterOperation>]) -> Finding<Option<i64>> {
    let seen: BTreeSet<i64> = records.iter().filter_map(|record| proves(record)).collect();
    // An order without what nobody ever saw is an order, and is found much sooner.
    let likely = |record: &Record<RegisterOperation>| {
        record.outcome == Outcome::Done || written(record).is_some_and(|value| seen.contains(&value))
    };
    let calls = |keep: &dyn Fn(&Record<RegisterOperation>) -> bool| -> Vec<Call<Option<Answered>>> {
        records
            .iter()
            .map(|record| Call {
                invoked: record.invoked_micros,
                returned: record.completed_micros,
                operation: keep(record).then_some((record.operation.request, record.outcome)),
            })
            .collect()
    };
    match search(None, &calls(&likely), apply, LIMIT) {
        Finding::Linearizable => Finding::Linearizable,
        _ => search(None, &calls(&|_| true), apply, LIMIT),
    }
}

/// The value that an operation shows to have been written.
fn proves(record: &Record<RegisterOperation>) -> Option<i64> {
    match (record.outcome, record.operation.request) {
        (Outcome::Done, Request::Read { value }) => value,
        (
            Outcome::Done,
            Request::Replace {
                from, replaced: true, ..
            },
        ) => Some(from),
        _ => None,
    }
}

/// The value that it writes.
fn written(record: &Record<RegisterOperation>) -> Option<i64> {
    match record.operation.request {
        Request::Insert { value, .. } | Request::Update { value, .. } => Some(value),
        Request::Replace { to, .. } => Some(to),
        Request::Read { .. } | Request::Delete { .. } => None,
    }
}

/// The value (none: no row) after an operation, unless its answer contradicts the value before. Nothing is what is left out.
fn apply(state: &Option<i64>, operation: &Option<Answered>) -> Option<Option<i64>> {
    let (request, outcome) = (*operation)?;
    let (after, answer_fits) = match request {
        Request::Read { value } => (*state, value == *state),
        Request::Insert { value, inserted } => (state.or(Some(value)), inserted == state.is_none()),
        Request::Update { value, updated } => (state.map(|_| value), updated == state.is_some()),
        Request::Replace { from, to, replaced } => {
            let fits = *state == Some(from);
            (if fits { Some(to) } else { *state }, replaced == fits)
        }
        Request::Delete { deleted } => (None, deleted == state.is_some()),
    };
    (answer_fits || outcome == Outcome::Unknown).then_some(after)
}

fn tell(
    key: i64,
    records: &[&Record<RegisterOperation>],
    longest: &[usize],
    state: Option<i64>,
    stuck: usize,
) -> String {
    let describe = |index: usize| {
        let record = records[index];
        let completed = record
            .completed_micros
            .map_or_else(|| "…".to_owned(), |micros| micros.to_string());
        format!(
            "\n    {:?} (client {}, {}-{completed} µs, {:?})",
            record.operation.request, record.client, record.invoked_micros, record.outcome
        )
    };
    let mut text = format!("not linearizable: register {key}: after");
    for index in &longest[longest.len().saturating_sub(CONTEXT)..] {
        text.push_str(&describe(*index));
    }
    let value = state.map_or_else(|| "no row".to_owned(), |value| format!("the value {value}"));
    text.push_str(&format!("\n  there is {value}, and no order explains"));
    text.push_str(&describe(stuck));
    let pending: Vec<usize> = (0..records.len())
        .filter(|index| {
            *index != stuck
                && !longest.contains(index)
                && records[*index].invoked_micros <= records[stuck].completed_micros.unwrap_or(u64::MAX)
        })
        .collect();
    if !pending.is_empty() {
        text.push_str("\n  nor do those at the same time help:");
    }
    for index in pending {
        text.push_str(&describe(index));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: u32, invoked: u64, completed: u64, request: Request) -> Record<RegisterOperation> {
        Record::done(client, invoked, completed, RegisterOperation { key: 1, request })
    }

    fn unknown(mut record: Record<RegisterOperation>) -> Record<RegisterOperation> {
        record.outcome = Outcome::Unknown;
        record.completed_micros = None;
        record
    }

    fn read(client: u32, invoked: u64, value: Option<i64>) -> Record<RegisterOperation> {
        record(client, invoked, invoked + 1, Request::Read { value })
    }

    fn insert(invoked: u64, value: i64, inserted: bool) -> Record<RegisterOperation> {
        record(0, invoked, invoked + 1, Request::Insert { value, inserted })
    }

    fn update(invoked: u64, value: i64, updated: bool) -> Record<RegisterOperation> {
        record(0, invoked, invoked + 1, Request::Update { value, updated })
    }

    fn replace(invoked: u64, from: i64, to: i64, replaced: bool) -> Record<RegisterOperation> {
        record(0, invoked, invoked + 1, Request::Replace { from, to, replaced })
    }

    fn delete(invoked: u64, deleted: bool) -> Record<RegisterOperation> {
        record(0, invoked, invoked + 1, Request::Delete { deleted })
    }

    fn violations(history: &[Record<RegisterOperation>]) -> usize {
        check(history).violations.len()
    }

    #[test]
    fn accepts_a_life_of_a_register() {
        let history = [
            read(0, 0, None),
            update(2, 1, false),
            insert(4, 2, true),
            insert(6, 3, false),
            replace(8, 3, 4, false),
            replace(10, 2, 5, true),
            read(1, 12, Some(5)),
            unknown(update(14, 6, false)),
            read(1, 16, Some(5)),
            unknown(delete(18, false)),
            read(1, 20, Some(6)),
            delete(22, true),
            delete(24, false),
            read(FINAL_READER, 26, None),
        ];
        let report = check(&history);
        assert!(report.is_acquittal(), "{:#?}", report.violations);
        assert!(!check(&history[..5]).is_complete, "nobody looked at the end");
    }

    #[test]
    fn what_nobody_saw_may_still_explain() {
        // Only the update without an answer explains why the replacement found another value.
        let history = [
            insert(0, 1, true),
            unknown(update(2, 2, false)),
            replace(4, 1, 3, false),
            update(6, 4, true),
            read(1, 8, Some(4)),
        ];
        assert_eq!(violations(&history), 0);
        let mut without = history.to_vec();
        without.remove(1);
        assert_eq!(violations(&without), 1);
    }

    #[test]
    fn rejects_answers_that_no_order_explains() {
        let first = insert(0, 1, true);
        for bad in [
            // A primary that does not know that it was replaced.
            vec![update(2, 2, true), read(1, 4, Some(1))],
            vec![update(2, 2, true), replace(4, 1, 3, true)],
            vec![delete(2, true), read(1, 4, Some(1))],
            vec![delete(2, true), update(4, 2, true)],
            // Lost.
            vec![read(1, 2, None)],
            vec![insert(2, 2, true)],
            vec![update(2, 2, false)],
            vec![replace(2, 1, 2, false)],
            vec![delete(2, false)],
            // Twice.
            vec![replace(2, 1, 2, true), read(1, 4, Some(1))],
            vec![delete(2, true), delete(4, true)],
            // Seen, then gone again.
            vec![
                unknown(update(2, 2, false)),
                read(1, 4, Some(2)),
                read(2, 6, Some(1)),
            ],
            // Seen before it was asked for.
            vec![read(1, 2, Some(2)), unknown(update(4, 2, false))],
        ] {
            let history = [vec![first.clone()], bad].concat();
            assert_eq!(violations(&history), 1, "{history:#?}");
        }
    }

    #[test]
    fn failures_never_happened() {
        let mut failed = update(2, 2, false);
        failed.outcome = Outcome::Failed;
        assert_eq!(
            violations(&[insert(0, 1, true), failed.clone(), read(1, 4, Some(1))]),
            0
        );
        assert_eq!(violations(&[insert(0, 1, true), failed, read(1, 4, Some(2))]), 1);
    }

    #[test]
    fn registers_are_judged_apart_and_reported_with_their_operations() {
        let mut other = read(1, 2, None);
        other.operation.key = 2;
        let history = [insert(0, 1, true), other, update(4, 2, true), read(1, 6, Some(1))];
        let report = check(&history);
        assert_eq!(report.violations.len(), 1);
        for part in ["register 1", "the value 2", "Read { value: Some(1) }", "6-7 µs"] {
            assert!(report.violations[0].contains(part), "{}", report.violations[0]);
        }
    }
}
