//! Acknowledged rows are there, failed ones are not, and a transaction's rows share one fate.

use std::collections::{BTreeMap, BTreeSet};

use crate::durability::Insertion;
use crate::history::{Outcome, Record};
use crate::workload::Report;

/// Judges insertions by the ids of all rows that were there at the end, in order.
pub fn check(records: &[Record<Insertion>], present: Option<&[i64]>) -> Report {
    let mut violations = Vec::new();
    let mut acknowledged = 0;
    if let Some(ids) = present {
        let twice: BTreeSet<i64> = ids
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
            .collect();
        if !twice.is_empty() {
            violations.push(format!("rows {twice:?} are there more than once"));
        }
        let present: BTreeSet<i64> = ids.iter().copied().collect();
        let mut known = BTreeMap::new();
        for record in records {
            let ids = &record.operation.ids;
            let (there, missing): (Vec<i64>, Vec<i64>) = ids.iter().partition(|id| present.contains(id));
            known.extend(ids.iter().map(|id| (*id, record)));
            let when = format!(
                "client {}, invoked at {} µs",
                record.client, record.invoked_micros
            );
            match record.outcome {
                Outcome::Done => {
                    acknowledged += ids.len();
                    if !missing.is_empty() {
                        violations.push(format!(
                            "acknowledged rows {missing:?} of {ids:?} are lost ({when}, acknowledged at {} µs)",
                            record.completed_micros.unwrap_or_default()
                        ));
                    }
                }
                Outcome::Failed if !there.is_empty() => violations.push(format!(
                    "rows {there:?} are there, though their transaction failed: {} ({when})",
                    record.error.as_deref().unwrap_or("")
                )),
                Outcome::Unknown if !there.is_empty() && !missing.is_empty() => violations.push(format!(
                    "of one transaction of unknown outcome rows {there:?} are there and {missing:?} are not ({when})"
                )),
                Outcome::Failed | Outcome::Unknown => {}
            }
        }
        let strangers: Vec<&i64> = present.iter().filter(|id| !known.contains_key(id)).collect();
        if !strangers.is_empty() {
            violations.push(format!("rows {strangers:?} were never inserted"));
        }
    }
    Report {
        workload: "durability".into(),
        is_complete: present.is_some(),
        violations,
        summary: format!("{acknowledged} rows acknowledged"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insertion(ids: &[i64], outcome: Outcome) -> Record<Insertion> {
        Record {
            client: 0,
            invoked_micros: 1,
            completed_micros: Some(2),
            outcome,
            error: None,
            operation: Insertion { ids: ids.to_vec() },
        }
    }

    #[test]
    fn judges() {
        let history = [
            insertion(&[1, 2], Outcome::Done),
            insertion(&[3, 4], Outcome::Failed),
            insertion(&[5, 6], Outcome::Unknown),
        ];
        let violations = |ids: &[i64]| check(&history, Some(ids)).violations.len();
        assert_eq!(violations(&[1, 2]), 0);
        assert_eq!(violations(&[1, 2, 5, 6]), 0);
        assert_eq!(violations(&[1]), 1, "lost");
        assert_eq!(violations(&[1, 2, 4]), 1, "failed and there");
        assert_eq!(violations(&[1, 2, 5]), 1, "torn");
        assert_eq!(violations(&[1, 2, 7]), 1, "from nowhere");
        assert_eq!(violations(&[1, 1, 2]), 1, "twice");
        assert!(!check(&history, None).is_complete, "nobody looked");
    }
}
