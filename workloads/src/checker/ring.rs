//! Every snapshot of the ring is one ring of all its rows.

use std::collections::BTreeMap;

use crate::history::{FINAL_READER, Outcome, Record};
use crate::ring::RingOperation;
use crate::workload::Report;

/// Judges the history of a ring of `length` rows.
pub fn check(records: &[Record<RingOperation>], length: i64) -> Report {
    let mut violations = Vec::new();
    let (mut rotations, mut walks, mut finals) = (0, 0, 0);
    for record in records.iter().filter(|record| record.outcome == Outcome::Done) {
        match &record.operation {
            RingOperation::Rotate { .. } => rotations += 1,
            RingOperation::Walk { kind, next } => {
                walks += 1;
                finals += usize::from(record.client == FINAL_READER);
                if let Err(what) = one_ring(next, length) {
                    violations.push(format!(
                        "{what}: {next:?} (client {}, invoked at {} µs, {kind:?})",
                        record.client, record.invoked_micros
                    ));
                }
            }
        }
    }
    Report {
        workload: "ring".to_owned(),
        is_complete: finals > 0,
        violations,
        summary: format!("{rotations} rotations, {walks} readings of the ring"),
    }
}

fn one_ring(pointers: &[(i64, i64)], length: i64) -> Result<(), String> {
    let mut next = BTreeMap::new();
    for (row, after) in pointers {
        if next.insert(*row, *after).is_some() {
            return Err(format!("row {row} is there twice"));
        }
    }
    if let Some(row) = next.keys().find(|row| !(0..length).contains(*row)) {
        return Err(format!("row {row} was never there"));
    }
    let Some(start) = next.keys().next().copied() else {
        return Err("the ring is gone".to_owned());
    };
    let mut row = start;
    // Pointers that miss the start run in a smaller ring for ever: no more than `length` steps.
    for steps in 1..=length {
        match next.get(&row) {
            None => return Err(format!("the ring leads to row {row}, which is not there")),
            Some(after) => row = *after,
        }
        if row == start {
            return if steps == length {
                Ok(())
            } else {
                Err(format!(
                    "a ring of {steps} rows instead of {length} goes through {start}"
                ))
            };
        }
    }
    Err(format!("the pointers never come back to row {start}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{RotationKind, WalkKind};

    fn walk(client: u32, outcome: Outcome, next: &[(i64, i64)]) -> Record<RingOperation> {
        Record {
            outcome,
            ..Record::done(
                client,
                1,
                2,
                RingOperation::Walk {
                    kind: WalkKind::OneStatement,
                    next: next.to_vec(),
                },
            )
        }
    }

    const WHOLE: [(i64, i64); 4] = [(0, 2), (2, 1), (1, 3), (3, 0)];

    #[test]
    fn accepts_one_ring_in_any_order() {
        let mut rotation = walk(0, Outcome::Unknown, &[]);
        rotation.operation = RingOperation::Rotate {
            kind: RotationKind::Snapshot,
            rows: vec![0, 1],
        };
        let history = [
            rotation,
            walk(1, Outcome::Failed, &[]),
            walk(0, Outcome::Done, &[(0, 1), (1, 2), (2, 3), (3, 0)]),
            walk(FINAL_READER, Outcome::Done, &WHOLE),
        ];
        let report = check(&history, 4);
        assert!(report.is_acquittal(), "{:?}", report.violations);
    }

    #[test]
    fn rejects_rings_that_are_broken_split_or_short() {
        for bad in [
            &[][..],
            &[(0, 1), (1, 0), (2, 3), (3, 2)],
            &[(0, 1), (1, 2), (2, 0), (3, 3)],
            &[(0, 1), (1, 2), (2, 1), (3, 0)],
            &[(0, 1), (1, 2), (2, 3)],
            &[(0, 2), (2, 0)],
            &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)],
            &[(0, 1), (1, 2), (2, 3), (3, 0), (3, 0)],
        ] {
            let history = [
                walk(0, Outcome::Done, bad),
                walk(FINAL_READER, Outcome::Done, &WHOLE),
            ];
            assert_eq!(check(&history, 4).violations.len(), 1, "{bad:?}");
        }
        assert!(
            !check(&[walk(0, Outcome::Done, &WHOLE)], 4).is_complete,
            "nobody looked at the end"
        );
    }
}
