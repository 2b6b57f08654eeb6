//! All readings of a group of rows that are written once lie on one line, which agrees with real time.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{FINAL_READER, Outcome, Record};
use crate::long_fork::{ForkOperation, GroupRead, group_of};
use crate::workload::Report;

/// A reading that was answered.
struct Reading<'a> {
    record: &'a Record<ForkOperation>,
    kind: GroupRead,
    seen: &'a BTreeSet<i64>,
}

impl Reading<'_> {
    fn describe(&self) -> String {
        format!(
            "client {} saw {:?} ({:?}, {}-{} µs)",
            self.record.client,
            self.seen,
            self.kind,
            self.record.invoked_micros,
            self.record.completed_micros.unwrap_or_default()
        )
    }
}

/// What happened to one group.
#[derive(Default)]
struct Group<'a> {
    writes: BTreeMap<i64, &'a Record<ForkOperation>>,
    readings: Vec<Reading<'a>>,
}

/// Judges a history.
pub fn check(records: &[Record<ForkOperation>]) -> Report {
    let mut groups: BTreeMap<i64, Group> = BTreeMap::new();
    let (mut writes, mut readings, mut finals) = (0, 0, 0);
    for record in records {
        match &record.operation {
            ForkOperation::Write { key } => {
                writes += usize::from(record.outcome == Outcome::Done);
                let group = groups.entry(group_of(*key)).or_default();
                group.writes.insert(*key, record);
            }
            ForkOperation::Read { kind, group, seen } if record.outcome == Outcome::Done => {
                readings += 1;
                finals += usize::from(record.client == FINAL_READER);
                let reading = Reading {
                    record,
                    kind: *kind,
                    seen,
                };
                groups.entry(*group).or_default().readings.push(reading);
            }
            ForkOperation::Read { .. } => {}
        }
    }
    let mut violations = Vec::new();
    for (number, group) in &groups {
        let found = [
            unwritten(group),
            long_fork(group),
            lost_or_stale(group),
            causal_reverse(group),
            backwards(group),
        ];
        let found = found.into_iter().flatten();
        violations.extend(found.map(|what| format!("group {number}: {what}")));
    }
    Report {
        workload: "long-fork".to_owned(),
        is_complete: finals > 0,
        violations,
        summary: format!("{writes} writes, {readings} readings of {} groups", groups.len()),
    }
}

/// A row that nobody wrote, whose write failed, or was asked for after the reader had seen it.
fn unwritten(group: &Group) -> Option<String> {
    for reading in &group.readings {
        for key in reading.seen {
            let why = match group.writes.get(key) {
                None => "which nobody wrote",
                Some(write) if write.outcome == Outcome::Failed => "whose write failed",
                Some(write) if reading.record.ended_before(write) => "before it was asked for",
                Some(_) => continue,
            };
            return Some(format!("garbage read: {} with {key}, {why}", reading.describe()));
        }
    }
    None
}

/// Two readings, neither of which is part of the other.
fn long_fork(group: &Group) -> Option<String> {
    let mut line: Vec<&Reading> = group.readings.iter().collect();
    line.sort_by_key(|reading| reading.seen.len());
    // If each is part of the next larger one, it is part of all larger ones.
    line.windows(2)
        .find(|pair| !pair[0].seen.is_subset(pair[1].seen))
        .map(|pair| format!("long fork: {}, {}", pair[0].describe(), pair[1].describe()))
}

/// A row that is not seen although its write was acknowledged before the reader began.
fn lost_or_stale(group: &Group) -> Option<String> {
    for (key, write) in &group.writes {
        if write.outcome != Outcome::Done {
            continue;
        }
        let missed = |reading: &&Reading| write.ended_before(reading.record) && !reading.seen.contains(key);
        if let Some(reading) = group.readings.iter().find(missed) {
            return Some(format!(
                "stale read or lost write: {} without {key} of client {} ({}-{} µs)",
                reading.describe(),
                write.client,
                write.invoked_micros,
                write.completed_micros.unwrap_or_default()
            ));
        }
    }
    None
}

/// A row is seen but not another one that was acknowledged before the first was asked for.
fn causal_reverse(group: &Group) -> Option<String> {
    for reading in &group.readings {
        for (missed, write) in &group.writes {
            if write.outcome != Outcome::Done || reading.seen.contains(missed) {
                continue;
            }
            let later = reading.seen.iter().find(|key| {
                group
                    .writes
                    .get(*key)
                    .is_some_and(|later| write.ended_before(later))
            });
            if let Some(later) = later {
                return Some(format!(
                    "causal reverse: {} with {later}, which was asked for after {missed} was acknowledged",
                    reading.describe()
                ));
            }
        }
    }
    None
}

/// A reading that lacks what another one had seen that was answered before it began.
fn backwards(group: &Group) -> Option<String> {
    let mut by_end: Vec<&Reading> = group.readings.iter().collect();
    by_end.sort_by_key(|reading| reading.record.completed_micros);
    let mut by_begin: Vec<&Reading> = group.readings.iter().collect();
    by_begin.sort_by_key(|reading| reading.record.invoked_micros);
    let mut ended = by_end.into_iter().peekable();
    let mut fullest: Option<&Reading> = None;
    for reading in by_begin {
        while let Some(before) = ended.next_if(|before| before.record.ended_before(reading.record)) {
            if fullest.is_none_or(|fullest| fullest.seen.len() < before.seen.len()) {
                fullest = Some(before);
            }
        }
        if let Some(fullest) = fullest
            && !fullest.seen.is_subset(reading.seen)
        {
            return Some(format!(
                "backwards: {}, later {}",
                fullest.describe(),
                reading.describe()
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(invoked: u64, completed: u64, operation: ForkOperation) -> Record<ForkOperation> {
        Record::done(0, invoked, completed, operation)
    }

    fn write(invoked: u64, completed: u64, key: i64) -> Record<ForkOperation> {
        record(invoked, completed, ForkOperation::Write { key })
    }

    fn unknown(invoked: u64, key: i64) -> Record<ForkOperation> {
        let mut write = write(invoked, 0, key);
        write.outcome = Outcome::Unknown;
        write.completed_micros = None;
        write
    }

    fn read(invoked: u64, completed: u64, seen: &[i64]) -> Record<ForkOperation> {
        let operation = ForkOperation::Read {
            kind: GroupRead::Range,
            group: 0,
            seen: seen.iter().copied().collect(),
        };
        record(invoked, completed, operation)
    }

    #[track_caller]
    fn expect(history: &[Record<ForkOperation>], expected: &[&str]) {
        let violations = check(history).violations;
        assert_eq!(violations.len(), expected.len(), "{violations:#?}");
        for (violation, name) in violations.iter().zip(expected) {
            assert!(violation.starts_with(&format!("group 0: {name}")), "{violation}");
        }
    }

    #[test]
    fn accepts_one_line() {
        let mut last = read(30, 31, &[1, 2, 3]);
        last.client = FINAL_READER;
        let history = [
            write(0, 10, 1),
            write(0, 10, 2),
            unknown(0, 3),
            read(1, 9, &[]),
            read(2, 8, &[2]),
            read(3, 9, &[1, 2]),
            read(11, 20, &[1, 2]),
            last,
        ];
        let report = check(&history);
        assert!(report.is_acquittal(), "{:#?}", report.violations);
        assert!(!check(&history[..7]).is_complete, "nobody looked at the end");
    }

    #[test]
    fn rejects_long_forks() {
        let history = [
            write(0, 10, 1),
            write(0, 10, 2),
            read(1, 9, &[1]),
            read(1, 9, &[2]),
        ];
        expect(&history, &["long fork"]);
        // As good when nobody knows whether the writes were done.
        let history = [unknown(0, 1), unknown(0, 2), read(1, 9, &[1]), read(1, 9, &[2])];
        expect(&history, &["long fork"]);
    }

    #[test]
    fn rejects_causal_reverses() {
        let history = [write(0, 1, 1), write(2, 10, 2), read(0, 9, &[2])];
        expect(&history, &["causal reverse"]);
        let history = [write(0, 1, 1), unknown(2, 2), read(0, 9, &[2])];
        expect(&history, &["causal reverse"]);
        let fine = [write(0, 2, 1), write(2, 10, 2), read(0, 9, &[2])];
        expect(&fine, &[]);
    }

    #[test]
    fn rejects_stale_and_lost_and_backwards_readings() {
        expect(&[write(0, 1, 1), read(2, 3, &[])], &["stale read or lost write"]);
        let history = [unknown(0, 1), read(2, 3, &[1]), read(4, 5, &[])];
        expect(&history, &["backwards"]);
        // They overlap: either order will do.
        expect(&[unknown(0, 1), read(2, 4, &[1]), read(4, 5, &[])], &[]);
    }

    #[test]
    fn rejects_what_was_not_written() {
        expect(&[read(0, 1, &[1])], &["garbage read"]);
        let mut failed = write(0, 1, 1);
        failed.outcome = Outcome::Failed;
        expect(&[failed.clone(), read(2, 3, &[1])], &["garbage read"]);
        expect(&[failed, read(2, 3, &[])], &[]);
        expect(&[read(0, 1, &[1]), unknown(2, 1)], &["garbage read"]);
    }
}
