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
    violations.extend(skews(records));
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

/// Pairs of transactions that both committed although each had read the team as it was before the other's change: neither
/// can come before the other.
fn skews(records: &[Record<Visit>]) -> Vec<String> {
    // One that got no answer has committed if anybody else saw the member that it added.
    let mut seen_by_others: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    // What may have been removed, and since when.
    let mut may_be_gone_since: BTreeMap<i64, u64> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        for member in record.operation.members.iter().flatten() {
            seen_by_others.entry(*member).or_default().insert(index);
        }
        if let Some(member) = record.operation.removed
            && record.outcome != Outcome::Failed
        {
            let since = may_be_gone_since.entry(member).or_insert(u64::MAX);
            *since = record.invoked_micros.min(*since);
        }
    }
    let committed = |index: usize, record: &Record<Visit>| match record.outcome {
        Outcome::Done => true,
        Outcome::Failed => false,
        Outcome::Unknown => record.operation.added.is_some_and(|member| {
            seen_by_others
                .get(&member)
                .is_some_and(|readers| readers.iter().any(|reader| *reader != index))
        }),
    };
    // Whether the reader certainly read before the writer's change, and not only after somebody else undid it.
    let read_before = |reader: &Record<Visit>, writer: &Record<Visit>| {
        let Some(members) = &reader.operation.members else {
            return false;
        };
        let removal = writer
            .operation
            .removed
            .is_some_and(|member| members.contains(&member));
        let addition = writer.operation.added.is_some_and(|member| {
            let is_gone_later = may_be_gone_since.get(&member).is_none_or(|since| {
                reader
                    .completed_micros
                    .is_some_and(|completed| completed < *since)
            });
            !members.contains(&member) && is_gone_later
        });
        removal || addition
    };
    let writers: Vec<(usize, &Record<Visit>)> = records
        .iter()
        .enumerate()
        .filter(|(index, record)| {
            let visit = &record.operation;
            (visit.added.is_some() || visit.removed.is_some()) && committed(*index, record)
        })
        .collect();
    let mut violations = Vec::new();
    for (place, (first_index, first)) in writers.iter().enumerate() {
        for (second_index, second) in &writers[place + 1..] {
            let of_one_team = first.operation.team == second.operation.team;
            // Both removed the same: that is a lost update, and told as one.
            let removed_the_same =
                first.operation.removed.is_some() && first.operation.removed == second.operation.removed;
            if of_one_team && !removed_the_same && read_before(first, second) && read_before(second, first) {
                violations.push(format!(
                    "G2 (predicate write skew): neither saw the other's change: T{first_index} {:?}, T{second_index} {:?}",
                    first.operation, second.operation
                ));
            }
        }
    }
    violations
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

    fn without_answer(mut record: Record<Visit>) -> Record<Visit> {
        record.outcome = Outcome::Unknown;
        record.completed_micros = None;
        record
    }

    #[test]
    fn rejects_changes_that_did_not_see_each_other() {
        let both_added = [visit(0, &[], Some(1), None), visit(5, &[], Some(2), None)];
        assert!(complaint(&both_added).contains("neither saw the other's change"));
        let both_removed = [
            visit(0, &[1, 2, 3], None, Some(1)),
            visit(5, &[1, 2, 3], None, Some(2)),
        ];
        assert!(complaint(&both_removed).contains("neither saw the other's change"));
        let one_each = [visit(0, &[1, 2], Some(3), None), visit(5, &[1, 2], None, Some(1))];
        assert!(complaint(&one_each).contains("neither saw the other's change"));
        // One of them got no answer, but was seen.
        let mut proven = both_added.to_vec();
        proven[0] = without_answer(proven[0].clone());
        assert_eq!(complaint(&proven), "");
        proven.push(visit(30, &[1, 2], None, None));
        assert!(complaint(&proven).contains("neither saw the other's change"));
        // It was there at the time, whoever removed it much later.
        let mut removed_later = both_added.to_vec();
        removed_later.push(visit(30, &[1, 2], None, Some(1)));
        assert!(complaint(&removed_later).contains("neither saw the other's change"));
    }

    #[test]
    fn accepts_changes_that_did_not_meet() {
        let mut other_team = [visit(0, &[], Some(1), None), visit(5, &[], Some(2), None)];
        other_team[1].operation.team = 2;
        assert_eq!(complaint(&other_team), "");
        let mut failed = [visit(0, &[], Some(1), None), visit(5, &[], Some(2), None)];
        failed[1].outcome = Outcome::Failed;
        assert_eq!(complaint(&failed), "");
        // The second saw neither the first's member nor its absence: a third may have removed it in between.
        let removed_between = [
            visit(0, &[], Some(1), None),
            visit(3, &[1], None, Some(1)),
            visit(5, &[], Some(2), None),
        ];
        assert_eq!(complaint(&removed_between), "");
        let perhaps_removed = [
            visit(0, &[], Some(1), None),
            without_answer(visit(3, &[1], None, Some(1))),
            visit(5, &[], Some(2), None),
        ];
        assert_eq!(complaint(&perhaps_removed), "");
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
