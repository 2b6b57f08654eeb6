//! A counter shows at least what was acknowledged before it was read, at most what was asked for until then, and never
//! less than it showed before.

use std::collections::{BTreeMap, BTreeSet};

use crate::counters::{CounterOperation, PAIR, SINGLES};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::workload::Report;

/// A value that somebody was shown.
struct Shown {
    record: usize,
    value: i64,
    /// The value that an increase returned: its own effect is in it, and nobody else gets the same.
    is_own: bool,
}

/// What happened to a counter.
#[derive(Default)]
struct Counter {
    /// When the acknowledged increases were acknowledged.
    acknowledged: Vec<u64>,
    /// When those were asked for that took effect, or may have.
    possible: Vec<u64>,
    shown: Vec<Shown>,
}

/// Judges a history.
pub fn check(records: &[Record<CounterOperation>]) -> Report {
    let mut judge = Judge {
        records,
        violations: Vec::new(),
    };
    let counters = judge.gather();
    for (counter, events) in &counters {
        judge.bounds(*counter, events);
        judge.order(*counter, events);
        judge.returned(*counter, events);
    }
    judge.pairs();
    judge.rows();
    let finals = records
        .iter()
        .filter(|record| record.client == FINAL_READER && record.outcome == Outcome::Done)
        .count();
    let sum = |of: fn(&Counter) -> usize| counters.values().map(of).sum::<usize>();
    Report {
        workload: "counters".to_owned(),
        is_complete: finals >= 2,
        violations: judge.violations,
        summary: format!(
            "{} increases of {} counters, {} of them without an answer; {} values read",
            sum(|counter| counter.possible.len()),
            counters.len(),
            sum(|counter| counter.possible.len() - counter.acknowledged.len()),
            sum(|counter| counter.shown.len())
        ),
    }
}

struct Judge<'a> {
    records: &'a [Record<CounterOperation>],
    violations: Vec<String>,
}

impl Judge<'_> {
    fn complain(&mut self, what: &str, record: usize) {
        let record = &self.records[record];
        let completed = record
            .completed_micros
            .map_or_else(|| "…".to_owned(), |micros| micros.to_string());
        self.violations.push(format!(
            "{what}: client {}, {}-{completed} µs, {:?}",
            record.client, record.invoked_micros, record.operation
        ));
    }

    /// Sorts the records by counter; complains about statements that changed another number of rows than they must.
    fn gather(&mut self) -> BTreeMap<i64, Counter> {
        let mut counters: BTreeMap<i64, Counter> = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            let increased: &[i64] = match &record.operation {
                CounterOperation::Increase { counter, .. }
                | CounterOperation::IncreaseReturning { counter, .. } => std::slice::from_ref(counter),
                CounterOperation::IncreasePair { .. } => &PAIR,
                _ => &[],
            };
            for counter in increased {
                let counter = counters.entry(*counter).or_default();
                if record.outcome != Outcome::Failed {
                    counter.possible.push(record.invoked_micros);
                }
                if record.outcome == Outcome::Done {
                    counter.acknowledged.extend(record.completed_micros);
                }
            }
            if record.outcome != Outcome::Done {
                continue;
            }
            let (rows, expected) = match &record.operation {
                CounterOperation::Increase { rows, .. } => (*rows, 1),
                CounterOperation::IncreaseReturning { values, .. }
                | CounterOperation::Read { values, .. } => (values.len() as u64, 1),
                CounterOperation::IncreasePair { rows } => (*rows, PAIR.len() as u64),
                CounterOperation::ReadAll { values } => {
                    let counters: BTreeSet<i64> = values.iter().map(|(counter, _)| *counter).collect();
                    let all = SINGLES as u64 + PAIR.len() as u64;
                    // Once each, and all of them.
                    let right = values.len() == counters.len() && counters.iter().copied().eq(0..all as i64);
                    (if right { all } else { 0 }, all)
                }
                CounterOperation::Insert { .. } | CounterOperation::Rows { .. } => (0, 0),
            };
            if rows != expected {
                self.complain("a counter is missing or there twice", index);
                continue;
            }
            let (shown, is_own) = match &record.operation {
                CounterOperation::IncreaseReturning { counter, values } => {
                    (vec![(*counter, values[0])], true)
                }
                CounterOperation::Read { counter, values } => (vec![(*counter, values[0])], false),
                CounterOperation::ReadAll { values } => (values.clone(), false),
                _ => (Vec::new(), false),
            };
            for (counter, value) in shown {
                counters.entry(counter).or_default().shown.push(Shown {
                    record: index,
                    value,
                    is_own,
                });
            }
        }
        for counter in counters.values_mut() {
            counter.acknowledged.sort_unstable();
            counter.possible.sort_unstable();
        }
        counters
    }

    fn bounds(&mut self, counter: i64, events: &Counter) {
        for shown in &events.shown {
            let record = &self.records[shown.record];
            let Some(completed) = record.completed_micros else {
                continue;
            };
            let before = |times: &[u64], limit: u64| times.partition_point(|time| *time < limit) as i64;
            let least = before(&events.acknowledged, record.invoked_micros) + i64::from(shown.is_own);
            let most = before(&events.possible, completed + 1);
            if shown.value < least {
                let lost = least - shown.value;
                let what =
                    format!("counter {counter} lost {lost} acknowledged increases, {least} must be there");
                self.complain(&what, shown.record);
            }
            if shown.value > most {
                let more = shown.value - most;
                let what =
                    format!("counter {counter} was increased {more} times too often, {most} were asked for");
                self.complain(&what, shown.record);
            }
        }
    }

    /// Whoever asks after somebody was answered sees no less; an increase returns more.
    fn order(&mut self, counter: i64, events: &Counter) {
        let records = self.records;
        let mut by_end: Vec<&Shown> = events.shown.iter().collect();
        by_end.sort_by_key(|shown| records[shown.record].completed_micros);
        let mut by_begin: Vec<&Shown> = events.shown.iter().collect();
        by_begin.sort_by_key(|shown| records[shown.record].invoked_micros);
        let mut ended = by_end.into_iter().peekable();
        let mut highest: Option<&Shown> = None;
        for shown in by_begin {
            let record = &records[shown.record];
            while let Some(before) = ended.next_if(|before| records[before.record].ended_before(record)) {
                if highest.is_none_or(|highest| highest.value < before.value) {
                    highest = Some(before);
                }
            }
            if let Some(highest) = highest
                && shown.value < highest.value + i64::from(shown.is_own)
            {
                let what = format!("counter {counter} was at {} before", highest.value);
                self.complain(&what, shown.record);
            }
        }
    }

    fn returned(&mut self, counter: i64, events: &Counter) {
        let mut values = BTreeSet::new();
        for shown in events.shown.iter().filter(|shown| shown.is_own) {
            if !values.insert(shown.value) {
                let what = format!("two increases of counter {counter} both made it {}", shown.value);
                self.complain(&what, shown.record);
            }
        }
    }

    /// One statement increases both, so one statement sees both alike.
    fn pairs(&mut self) {
        for index in 0..self.records.len() {
            let record = &self.records[index];
            let CounterOperation::ReadAll { values } = &record.operation else {
                continue;
            };
            let pair: BTreeSet<i64> = values
                .iter()
                .filter(|(counter, _)| PAIR.contains(counter))
                .map(|(_, value)| *value)
                .collect();
            if record.outcome == Outcome::Done && pair.len() > 1 {
                self.complain("half of a statement is seen", index);
            }
        }
    }

    fn rows(&mut self) {
        for index in 0..self.records.len() {
            if let CounterOperation::Insert { was_there: true, .. } = self.records[index].operation {
                self.complain("a row that nobody else inserts was there already", index);
            }
        }
        let last = self
            .records
            .iter()
            .rev()
            .find_map(|record| match &record.operation {
                CounterOperation::Rows { keys } if record.outcome == Outcome::Done => Some((record, keys)),
                _ => None,
            });
        let Some((reader, keys)) = last else { return };
        let present: BTreeSet<i64> = keys.iter().copied().collect();
        if present.len() != keys.len() {
            self.violations.push(format!("rows are there twice: {keys:?}"));
        }
        let mut possible = BTreeSet::new();
        for (index, record) in self.records.iter().enumerate() {
            let CounterOperation::Insert { key, .. } = record.operation else {
                continue;
            };
            if record.outcome != Outcome::Failed {
                possible.insert(key);
            }
            if record.outcome == Outcome::Done && record.ended_before(reader) && !present.contains(&key) {
                self.complain("an acknowledged row is lost", index);
            }
        }
        if let Some(key) = present.difference(&possible).next() {
            self.violations.push(format!(
                "row {key} is there, whose insertion failed or was never asked for"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(invoked: u64, completed: u64, operation: CounterOperation) -> Record<CounterOperation> {
        Record::done(0, invoked, completed, operation)
    }

    fn with(mut record: Record<CounterOperation>, outcome: Outcome) -> Record<CounterOperation> {
        record.outcome = outcome;
        if outcome == Outcome::Unknown {
            record.completed_micros = None;
        }
        record
    }

    fn increase(invoked: u64, completed: u64) -> Record<CounterOperation> {
        done(
            invoked,
            completed,
            CounterOperation::Increase { counter: 1, rows: 1 },
        )
    }

    fn returning(invoked: u64, completed: u64, value: i64) -> Record<CounterOperation> {
        let values = vec![value];
        done(
            invoked,
            completed,
            CounterOperation::IncreaseReturning { counter: 1, values },
        )
    }

    fn read(invoked: u64, completed: u64, value: i64) -> Record<CounterOperation> {
        let values = vec![value];
        done(invoked, completed, CounterOperation::Read { counter: 1, values })
    }

    fn all(invoked: u64, values: [i64; 5]) -> Record<CounterOperation> {
        let values = (0..).zip(values).collect();
        done(invoked, invoked + 1, CounterOperation::ReadAll { values })
    }

    fn insert(key: i64, was_there: bool) -> Record<CounterOperation> {
        done(0, 1, CounterOperation::Insert { key, was_there })
    }

    fn rows(keys: &[i64]) -> Record<CounterOperation> {
        done(90, 91, CounterOperation::Rows { keys: keys.to_vec() })
    }

    #[track_caller]
    fn expect(history: &[Record<CounterOperation>], expected: &[&str]) {
        let violations = check(history).violations;
        assert_eq!(violations.len(), expected.len(), "{violations:#?}");
        for (violation, part) in violations.iter().zip(expected) {
            assert!(violation.contains(part), "{violation}");
        }
    }

    #[test]
    fn accepts_what_adds_up() {
        let mut history = vec![
            increase(0, 1),
            with(increase(0, 0), Outcome::Unknown),
            with(increase(0, 1), Outcome::Failed),
            read(2, 3, 1),
            read(2, 9, 2),
            returning(4, 8, 3),
            read(5, 9, 3),
            done(0, 1, CounterOperation::IncreasePair { rows: 2 }),
            all(10, [0, 3, 0, 1, 1]),
            insert(1_000, false),
            with(insert(1_001, false), Outcome::Unknown),
            with(insert(1_002, false), Outcome::Unknown),
            with(insert(1_003, false), Outcome::Failed),
            all(80, [0, 3, 0, 1, 1]),
            rows(&[1_000, 1_002]),
        ];
        for last in 13..=14 {
            assert!(!check(&history).is_complete);
            history[last].client = FINAL_READER;
        }
        let report = check(&history);
        assert!(report.is_acquittal(), "{:#?}", report.violations);
    }

    #[test]
    fn rejects_lost_and_repeated_increases() {
        expect(&[increase(0, 1), read(2, 3, 0)], &["lost 1 acknowledged"]);
        expect(&[increase(0, 1), read(2, 3, 2)], &["1 times too often"]);
        let unknown = with(increase(0, 0), Outcome::Unknown);
        expect(&[unknown, read(2, 3, 2)], &["1 times too often"]);
        let failed = with(increase(0, 1), Outcome::Failed);
        expect(&[failed, read(2, 3, 1)], &["1 times too often"]);
        expect(&[read(0, 1, 1), increase(2, 3)], &["1 times too often"]);
        expect(&[increase(0, 1), returning(2, 3, 1)], &["lost 1 acknowledged"]);
        expect(&[returning(0, 1, 2)], &["1 times too often"]);
    }

    #[test]
    fn rejects_values_that_go_back_or_come_twice() {
        let unknown = || with(increase(0, 0), Outcome::Unknown);
        expect(&[unknown(), read(1, 2, 1), read(3, 4, 0)], &["was at 1 before"]);
        expect(&[unknown(), read(1, 3, 1), read(3, 4, 0)], &[]);
        let both = [returning(0, 9, 1), returning(0, 9, 1)];
        expect(&both, &["both made it 1"]);
    }

    #[test]
    fn rejects_halves_and_missing_rows() {
        let pair = || {
            with(
                done(0, 0, CounterOperation::IncreasePair { rows: 0 }),
                Outcome::Unknown,
            )
        };
        expect(&[pair(), all(5, [0, 0, 0, 1, 0])], &["half of a statement"]);
        expect(&[pair(), all(5, [0, 0, 0, 1, 1])], &[]);
        let one = done(0, 1, CounterOperation::IncreasePair { rows: 1 });
        expect(&[one], &["missing or there twice"]);
        let none = done(
            0,
            1,
            CounterOperation::Read {
                counter: 1,
                values: Vec::new(),
            },
        );
        expect(&[none], &["missing or there twice"]);
        let values = vec![(0, 0), (1, 0), (2, 0), (3, 0), (3, 0)];
        expect(
            &[done(0, 1, CounterOperation::ReadAll { values })],
            &["missing or there twice"],
        );
    }

    #[test]
    fn rejects_rows_that_meet_themselves_get_lost_or_come_back() {
        expect(&[insert(1_000, true), rows(&[1_000])], &["was there already"]);
        expect(
            &[insert(1_000, false), rows(&[])],
            &["an acknowledged row is lost"],
        );
        let failed = with(insert(1_000, false), Outcome::Failed);
        expect(&[failed, rows(&[1_000])], &["insertion failed"]);
        expect(&[insert(1_000, false), rows(&[1_000, 1_000])], &["twice"]);
    }
}
