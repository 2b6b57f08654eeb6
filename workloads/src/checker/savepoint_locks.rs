//! Judges what a second connection was told about the locks of a transaction that went back to a savepoint.

use crate::history::{Outcome, Record};
use crate::savepoint_locks::{Observation, Probe};
use crate::workload::Report;

/// Judges a history.
pub fn check(records: &[Record<Observation>]) -> Report {
    let mut violations = Vec::new();
    let mut probed = 0;
    for record in records {
        let seen = &record.operation;
        if seen.freed.is_some() {
            probed += 1;
        }
        // It had the lock until it went back, and nobody else asks for it, so nobody else can have it now.
        if seen.freed == Some(Probe::Locked) {
            violations.push(format!(
                "lock outlives its savepoint: row {} of client {}, {} µs",
                seen.freed_row, record.client, record.invoked_micros
            ));
        }
        // A node that lost the transaction may let go of its locks, but then it cannot commit.
        if seen.held == Some(Probe::Free) && record.outcome == Outcome::Done {
            violations.push(format!(
                "lock from before the savepoint was let go: row {} of client {}, {} µs",
                seen.held_row, record.client, record.invoked_micros
            ));
        }
    }
    Report {
        workload: "savepoint-locks".to_owned(),
        // There is no state to read at the end, but who never got to ask has seen nothing.
        is_complete: probed > 0,
        summary: format!("{probed} rollbacks to a savepoint looked at"),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(freed: Option<Probe>, held: Option<Probe>, outcome: Outcome) -> Report {
        let operation = Observation {
            held_row: 1,
            freed_row: 2,
            held,
            freed,
        };
        let record = Record {
            client: 0,
            invoked_micros: 0,
            completed_micros: Some(1),
            outcome,
            error: None,
            operation,
        };
        check(&[record])
    }

    fn violations(freed: Option<Probe>, held: Option<Probe>, outcome: Outcome) -> usize {
        report(freed, held, outcome).violations.len()
    }

    #[test]
    fn acquits_nobody_of_whom_nothing_was_asked() {
        assert!(!check(&[]).is_complete);
        assert!(!report(None, None, Outcome::Failed).is_complete);
        assert!(report(Some(Probe::Free), Some(Probe::Locked), Outcome::Done).is_acquittal());
    }

    #[test]
    fn accepts_what_must_be_and_what_nobody_knows() {
        assert_eq!(
            violations(Some(Probe::Free), Some(Probe::Locked), Outcome::Done),
            0
        );
        assert_eq!(violations(None, None, Outcome::Failed), 0);
        assert_eq!(
            violations(Some(Probe::Free), Some(Probe::Free), Outcome::Failed),
            0
        );
        assert_eq!(
            violations(Some(Probe::Free), Some(Probe::Free), Outcome::Unknown),
            0
        );
    }

    #[test]
    fn rejects_locks_that_stay_or_go_too_soon() {
        assert_eq!(violations(Some(Probe::Locked), None, Outcome::Failed), 1);
        assert_eq!(
            violations(Some(Probe::Locked), Some(Probe::Locked), Outcome::Done),
            1
        );
        assert_eq!(violations(Some(Probe::Free), Some(Probe::Free), Outcome::Done), 1);
    }
}
