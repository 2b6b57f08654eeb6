//! No team was ever seen larger than any serial order of the transactions could have made it, and every member that
//! was acknowledged is there until somebody removes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{FINAL_READER, Outcome, Record};
use crate::predicate_skew::{LARGEST_TEAM, Visit};
use crate::workload::Report;

/// Judges a history; it is complete if `teams` teams were read at the end.
pub fn check(records: &[Record<Visit>], teams: usize) -> Report {
    let mut violations = Vec::new();
    let mut removed: BTreeMap<i64, usize> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    let mut maybe_removed = BTreeSet::new();
    for (index, record) in records.iter().enumerate() {
        let visit = &record.operation;
        if record.outcome == Outcome::Failed {
            failed.extend(visit.added);
            continue;
        }
        maybe_removed.extend(visit.removed);
        if record.outcome == Outcome::Done
            && let Some(member) = visit.removed
            && let Some(other) = removed.insert(member, index)
        {
            violations.push(format!(
                "lost update: T{other} and T{index} both removed member {member}"
            ));
        }
    }
    for (index, record) in records.iter().enumerate() {
        // Whatever became of a transaction, what it read was committed.
        let Some(members) = &record.operation.members else {
            continue;
        };
        if members.len() as i64 > LARGEST_TEAM {
            violations.push(format!(
                "G2 (predicate write skew): T{index} saw team {} with {} members, {LARGEST_TEAM} are allowed: {members:?}",
                record.operation.team,
                members.len()
            ));
        }
        for member in members {
            if failed.contains(member) {
                violations.push(format!("G1a aborted read: T{index} saw member {member}"));
            }
            let gone = removed.get(member);
            if gone.is_some_and(|by| records[*by].ended_before(record)) {
                violations.push(format!(
                    "stale read: T{index} saw member {member}, which was removed before it began"
                ));
            }
        }
        for (other, addition) in records.iter().enumerate() {
            if addition.outcome == Outcome::Done
                && addition.operation.team == record.operation.team
                && addition.ended_before(record)
                && let Some(member) = addition.operation.added
                && !maybe_removed.contains(&member)
                && !members.contains(&member)
            {
                violations.push(format!(
                    "lost write: T{index} did not see member {member}, which T{other} had added before and nobody removed"
                ));
            }
        }
    }
    let finals = records
        .iter()
        .filter(|record| record.client == FINAL_READER && record.outcome == Outcome::Done)
        .count();
    let done = records
        .iter()
        .filter(|record| record.outcome == Outcome::Done)
        .count();
    Report {
        workload: "predicate-skew".to_owned(),
        is_complete: finals >= teams,
        summary: format!("{done} visits, {} members removed", removed.len()),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(invoked: u64, members: &[i64], added: Option<i64>, removed: Option<i64>) -> Record<Visit> {
        Record {
            client: 0,
            invoked_micros: invoked,
            completed_micros: Some(invoked + 10),
            outcome: Outcome::Done,
            error: None,
            operation: Visit {
                team: 1,
                members: Some(members.to_vec()),
                added,
                removed,
            },
        }
    }

    fn complaint(records: &[Record<Visit>]) -> String {
        check(records, 0).violations.join("\n")
    }

    #[test]
    fn accepts_teams_that_stay_small() {
        let mut history = vec![
            visit(0, &[], Some(1), None),
            visit(20, &[1], Some(2), None),
            visit(40, &[1, 2], Some(3), None),
            visit(60, &[1, 2, 3], None, Some(2)),
            visit(80, &[1, 3], None, None),
        ];
        assert_eq!(complaint(&history), "");
        assert!(!check(&history, 1).is_complete);
        history[4].client = FINAL_READER;
        assert!(check(&history, 1).is_acquittal());
    }

    #[test]
    fn rejects_a_team_that_outgrew_its_bound() {
        let history = [visit(0, &[1, 2, 3, 4], None, None)];
        assert!(complaint(&history).contains("G2 (predicate write skew)"));
    }

    #[test]
    fn rejects_lost_and_resurrected_members() {
        let lost = [visit(0, &[], Some(1), None), visit(20, &[], None, None)];
        assert!(complaint(&lost).contains("lost write"));
        let resurrected = [
            visit(0, &[], Some(1), None),
            visit(20, &[1], None, Some(1)),
            visit(40, &[1], None, None),
        ];
        assert!(complaint(&resurrected).contains("stale read"));
        let twice = [visit(20, &[1], None, Some(1)), visit(20, &[1], None, Some(1))];
        assert!(complaint(&twice).contains("lost update"));
        let mut aborted = [visit(0, &[], Some(1), None), visit(20, &[1], None, None)];
        aborted[0].outcome = Outcome::Failed;
        assert!(complaint(&aborted).contains("G1a aborted read"));
    }
}
