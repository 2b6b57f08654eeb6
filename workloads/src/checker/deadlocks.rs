//! Transactions that wait for each other: one of them gets out, for a reason that tells to try again, and without a trace.

use std::collections::BTreeMap;

use crate::deadlocks::{DEADLOCK_DETECTED, LockingOperation};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::workload::Report;

use super::refusal::may_be_tried_again;

/// Judges the history of `rows` rows with keys from 0 on.
pub fn check(records: &[Record<LockingOperation>], rows: i64, is_damage_expected: bool) -> Report {
    let may_be_tried_again = |code: &str| may_be_tried_again(code, is_damage_expected);
    let mut violations = Vec::new();
    let (mut changes, mut deadlocks, mut finals) = (0, 0, 0);
    let (mut crossings, mut both_refused) = (0, 0);
    for record in records {
        let complain = |what: String| {
            format!(
                "{what} (client {}, {} µs, {:?}, {})",
                record.client,
                record.invoked_micros,
                record.operation,
                record.error.as_deref().unwrap_or("no error")
            )
        };
        match &record.operation {
            LockingOperation::Change { refusal, .. } => {
                changes += usize::from(record.outcome == Outcome::Done);
                deadlocks += usize::from(refusal.as_deref() == Some(DEADLOCK_DETECTED));
                if let Some(code) = refusal.as_deref().filter(|code| !may_be_tried_again(code)) {
                    violations.push(complain(format!(
                        "refused with {code}, which does not tell to try again"
                    )));
                }
            }
            LockingOperation::Read { values } if record.outcome == Outcome::Done => {
                finals += usize::from(record.client == FINAL_READER);
                let by_row: BTreeMap<i64, i64> = values.iter().copied().collect();
                if by_row.len() != values.len() || !by_row.keys().copied().eq(0..rows) {
                    violations.push(complain("rows are missing or there twice".to_owned()));
                } else if by_row.values().sum::<i64>() != 0 {
                    violations.push(complain("part of a transaction is seen".to_owned()));
                }
            }
            LockingOperation::Cross(crossing) if record.outcome == Outcome::Done => {
                let refused: Vec<&str> = crossing.refusals.iter().flatten().map(String::as_str).collect();
                crossings += usize::from(crossing.met());
                both_refused += usize::from(refused.len() == 2);
                if refused.is_empty() {
                    violations.push(complain(
                        "two transactions each had the lock that the other one held".to_owned(),
                    ));
                }
                if let Some(code) = refused.iter().find(|code| !may_be_tried_again(code)) {
                    violations.push(complain(format!(
                        "refused with {code}, which does not tell to try again"
                    )));
                }
            }
            LockingOperation::Read { .. } | LockingOperation::Cross(_) => {}
        }
    }
    Report {
        workload: "deadlocks".to_owned(),
        is_complete: finals > 0 && crossings > 0,
        violations,
        summary: format!(
            "{changes} transactions, {deadlocks} deadlocks; {crossings} crossings at rest, in {both_refused} both were refused"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadlocks::{Crossing, Lock};

    fn record(client: u32, outcome: Outcome, operation: LockingOperation) -> Record<LockingOperation> {
        Record {
            outcome,
            ..Record::done(client, 0, 1, operation)
        }
    }

    fn change(outcome: Outcome, refusal: Option<&str>) -> Record<LockingOperation> {
        let operation = LockingOperation::Change {
            lock: Lock::Mixed,
            rows: vec![1, 0],
            refusal: refusal.map(str::to_owned),
        };
        record(0, outcome, operation)
    }

    fn read(client: u32, values: &[(i64, i64)]) -> Record<LockingOperation> {
        let values = values.to_vec();
        record(client, Outcome::Done, LockingOperation::Read { values })
    }

    fn cross(refusals: [Option<&str>; 2]) -> Record<LockingOperation> {
        let refusals = refusals.map(|code| code.map(str::to_owned)).to_vec();
        record(
            FINAL_READER,
            Outcome::Done,
            LockingOperation::Cross(Crossing { refusals }),
        )
    }

    #[test]
    fn accepts_refusals_that_tell_to_try_again() {
        let mut failed = read(0, &[]);
        failed.outcome = Outcome::Failed;
        let history = [
            change(Outcome::Done, None),
            change(Outcome::Failed, Some("40P01")),
            change(Outcome::Failed, Some("40001")),
            change(Outcome::Unknown, Some("08007")),
            change(Outcome::Failed, None),
            failed,
            read(0, &[(0, 1), (1, -1)]),
            cross([Some("40P01"), None]),
            cross([Some("40P01"), Some("40P01")]),
            read(FINAL_READER, &[(0, 3), (1, -3)]),
        ];
        let report = check(&history, 2, false);
        assert!(report.is_acquittal(), "{:#?}", report.violations);
        assert!(
            !check(&history[..9], 2, false).is_complete,
            "nobody looked at the end"
        );
        assert!(
            !check(&history[9..], 2, false).is_complete,
            "nobody had two cross"
        );
        let disturbed = [
            cross([Some("40001"), None]),
            read(FINAL_READER, &[(0, 0), (1, 0)]),
        ];
        let report = check(&disturbed, 2, false);
        assert!(
            report.violations.is_empty() && !report.is_complete,
            "they did not meet"
        );
    }

    #[test]
    fn rejects_other_refusals_halves_and_locks_that_two_have() {
        for bad in [
            change(Outcome::Failed, Some("XX000")),
            change(Outcome::Failed, Some("42P01")),
            read(0, &[(0, 1), (1, 0)]),
            read(0, &[(0, 0)]),
            read(0, &[(0, 0), (1, 0), (1, 0)]),
            read(0, &[(0, 0), (1, 0), (2, 0)]),
            cross([None, None]),
            cross([Some("XX000"), None]),
        ] {
            let history = [bad];
            assert_eq!(check(&history, 2, false).violations.len(), 1, "{history:?}");
        }
    }
}
