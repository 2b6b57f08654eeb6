//! In one snapshot the index, the primary key and a full scan tell the same, and all rows are there.

use std::collections::BTreeMap;

use crate::history::{FINAL_READER, Outcome, Record};
use crate::secondary_index::{IndexOperation, Snapshot};
use crate::workload::Report;

/// Judges the history of `rows` rows with keys from 0 on.
pub fn check(records: &[Record<IndexOperation>], rows: i64) -> Report {
    let mut violations = Vec::new();
    let (mut moves, mut looks, mut finals) = (0, 0, 0);
    for record in records.iter().filter(|record| record.outcome == Outcome::Done) {
        match &record.operation {
            IndexOperation::Move { .. } => moves += 1,
            IndexOperation::Look { snapshot } => {
                looks += 1;
                finals += usize::from(record.client == FINAL_READER);
                if let Some(what) = contradiction(snapshot, rows) {
                    violations.push(format!(
                        "{what} (client {}, {}-{} µs, {snapshot:?})",
                        record.client,
                        record.invoked_micros,
                        record.completed_micros.unwrap_or_default()
                    ));
                }
            }
        }
    }
    Report {
        workload: "secondary-index".to_owned(),
        is_complete: finals > 0,
        violations,
        summary: format!("{moves} moves, {looks} snapshots compared"),
    }
}

/// Each row with its category, unless a row is there twice.
fn by_row(pairs: &[(i64, i64)]) -> Result<BTreeMap<i64, i64>, String> {
    let mut rows = BTreeMap::new();
    for (row, category) in pairs {
        if rows.insert(*row, *category).is_some() {
            return Err(format!("row {row} is found twice"));
        }
    }
    Ok(rows)
}

fn contradiction(snapshot: &Snapshot, rows: i64) -> Option<String> {
    look(snapshot, rows).err()
}

fn look(snapshot: &Snapshot, rows: i64) -> Result<(), String> {
    let scanned = snapshot.by_scan.as_deref().map(by_row).transpose()?;
    if let Some(scanned) = &scanned
        && !scanned.keys().copied().eq(0..rows)
    {
        return Err("the scan misses rows, or finds some that were never there".to_owned());
    }
    for (category, found) in &snapshot.by_index {
        let found = by_row(found)?;
        if let Some((row, other)) = found.iter().find(|(_, other)| *other != category) {
            return Err(format!(
                "the index finds row {row} of category {other} under {category}"
            ));
        }
        if let Some(row) = found.keys().find(|row| !(0..rows).contains(*row)) {
            return Err(format!("the index finds row {row}, which was never there"));
        }
        let Some(scanned) = &scanned else { continue };
        let expected = scanned.iter().filter(|(_, of)| *of == category);
        if !expected.eq(found.iter()) {
            return Err(format!(
                "the index and the scan do not agree about category {category}"
            ));
        }
    }
    for (row, found) in &snapshot.by_key {
        let expected = match &scanned {
            Some(scanned) => scanned.get(row),
            None => None,
        };
        let agrees = match (found.as_slice(), expected) {
            ([found], Some(expected)) => found == expected,
            ([_], None) => scanned.is_none(),
            _ => false,
        };
        if !agrees {
            return Err(format!(
                "the primary key and the scan do not agree about row {row}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secondary_index::Move;

    fn record(client: u32, outcome: Outcome, operation: IndexOperation) -> Record<IndexOperation> {
        Record {
            outcome,
            ..Record::done(client, 0, 1, operation)
        }
    }

    fn snapshot(scan: &[(i64, i64)], index: &[(i64, i64)], key: (i64, &[i64])) -> Snapshot {
        Snapshot {
            by_scan: Some(scan.to_vec()),
            by_index: BTreeMap::from([(5, index.to_vec())]),
            by_key: BTreeMap::from([(key.0, key.1.to_vec())]),
        }
    }

    const ALL: [(i64, i64); 3] = [(0, 5), (1, 6), (2, 5)];

    fn violations(snapshot: Snapshot) -> usize {
        let look = record(0, Outcome::Done, IndexOperation::Look { snapshot });
        check(&[look], 3).violations.len()
    }

    #[test]
    fn accepts_three_ways_that_agree() {
        let good = snapshot(&ALL, &[(0, 5), (2, 5)], (1, &[6]));
        let history = [
            record(0, Outcome::Done, IndexOperation::Move { kind: Move::Two }),
            record(
                0,
                Outcome::Failed,
                IndexOperation::Look {
                    snapshot: snapshot(&[], &[], (1, &[])),
                },
            ),
            record(
                FINAL_READER,
                Outcome::Done,
                IndexOperation::Look {
                    snapshot: good.clone(),
                },
            ),
        ];
        assert!(check(&history, 3).is_acquittal());
        assert!(!check(&history[..2], 3).is_complete, "nobody looked at the end");
        // A statement of its own, with nothing to compare it to.
        let alone = Snapshot {
            by_scan: None,
            by_index: BTreeMap::from([(5, vec![(1, 5)])]),
            by_key: BTreeMap::new(),
        };
        assert_eq!(violations(alone), 0);
    }

    #[test]
    fn rejects_ways_that_do_not_agree() {
        for bad in [
            // The index lost a row, kept one, or has one twice.
            snapshot(&ALL, &[(0, 5)], (1, &[6])),
            snapshot(&ALL, &[(0, 5), (1, 5), (2, 5)], (1, &[6])),
            snapshot(&ALL, &[(0, 5), (1, 6), (2, 5)], (1, &[6])),
            snapshot(&ALL, &[(0, 5), (0, 5), (2, 5)], (1, &[6])),
            // The primary key finds another version, nothing, or two rows.
            snapshot(&ALL, &[(0, 5), (2, 5)], (1, &[5])),
            snapshot(&ALL, &[(0, 5), (2, 5)], (1, &[])),
            snapshot(&ALL, &[(0, 5), (2, 5)], (1, &[6, 6])),
            // The scan misses a row, has one twice, or one too many.
            snapshot(&ALL[..2], &[(0, 5)], (1, &[6])),
            snapshot(&[(0, 5), (0, 5), (1, 6), (2, 5)], &[(0, 5), (2, 5)], (1, &[6])),
            snapshot(&[(0, 5), (1, 6), (2, 5), (3, 1)], &[(0, 5), (2, 5)], (1, &[6])),
            Snapshot {
                by_scan: None,
                by_index: BTreeMap::from([(5, vec![(9, 5)])]),
                by_key: BTreeMap::new(),
            },
        ] {
            assert_eq!(violations(bad.clone()), 1, "{bad:?}");
        }
    }
}
