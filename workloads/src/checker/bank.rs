//! No snapshot may lack money or show more than there is.

use crate::bank::{BankOperation, ReadKind};
use crate::history::{Outcome, Record};
use crate::workload::Report;

/// Judges a bank's history.
pub fn check(records: &[Record<BankOperation>], accounts: i64, initial_balance: i64) -> Report {
    let total = accounts * initial_balance;
    let mut violations = Vec::new();
    let (mut reads, mut transfers, mut finals) = (0, 0, 0);
    for record in records.iter().filter(|record| record.outcome == Outcome::Done) {
        let complain = |what: String| {
            format!(
                "{what} (client {}, invoked at {} µs, {:?})",
                record.client,
                record.invoked_micros,
                read_kind(&record.operation)
            )
        };
        match &record.operation {
            BankOperation::Transfer { .. } => transfers += 1,
            BankOperation::Sum {
                accounts: seen,
                total: sum,
            } => {
                reads += 1;
                if *seen != accounts || *sum != total {
                    violations.push(complain(format!(
                        "the server counts {seen} accounts with {sum} in them, there are {accounts} with {total}"
                    )));
                }
            }
            BankOperation::Read { kind, balances } => {
                reads += 1;
                finals += usize::from(*kind == ReadKind::Final);
                let missing: Vec<i64> = (0..accounts).filter(|id| !balances.contains_key(id)).collect();
                if !missing.is_empty() || balances.len() as i64 != accounts {
                    violations.push(complain(format!(
                        "accounts {missing:?} are missing from {balances:?}"
                    )));
                    continue;
                }
                let sum: i64 = balances.values().sum();
                if sum != total {
                    violations.push(complain(format!(
                        "the balances sum up to {sum} instead of {total}: {balances:?}"
                    )));
                }
                if let Some((id, balance)) = balances.iter().find(|(_, balance)| **balance < 0) {
                    violations.push(complain(format!("account {id} is overdrawn: {balance}")));
                }
            }
        }
    }
    Report {
        workload: "bank".into(),
        is_complete: finals > 0,
        violations,
        summary: format!("{transfers} transfers, {reads} readings of all balances"),
    }
}

fn read_kind(operation: &BankOperation) -> Option<ReadKind> {
    match operation {
        BankOperation::Read { kind, .. } => Some(*kind),
        BankOperation::Sum { .. } => Some(ReadKind::ServerSum),
        BankOperation::Transfer { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: ReadKind, balances: &[(i64, i64)]) -> Record<BankOperation> {
        let balances = balances.iter().copied().collect();
        done(BankOperation::Read { kind, balances })
    }

    fn done(operation: BankOperation) -> Record<BankOperation> {
        Record {
            client: 0,
            invoked_micros: 1,
            completed_micros: Some(2),
            outcome: Outcome::Done,
            error: None,
            operation,
        }
    }

    #[test]
    fn accepts_full_sums() {
        let history = [
            read(ReadKind::OneStatement, &[(0, 7), (1, 13)]),
            done(BankOperation::Sum {
                accounts: 2,
                total: 20,
            }),
            read(ReadKind::Final, &[(0, 0), (1, 20)]),
        ];
        assert!(check(&history, 2, 10).violations.is_empty());
    }

    #[test]
    fn rejects_lost_made_missing_and_overdrawn_money() {
        let good = read(ReadKind::Final, &[(0, 10), (1, 10)]);
        for bad in [
            read(ReadKind::OneStatement, &[(0, 7), (1, 10)]),
            read(ReadKind::OneTransaction, &[(0, 10), (1, 13)]),
            read(ReadKind::OneStatement, &[(0, 20)]),
            read(ReadKind::OneStatement, &[(0, 10), (1, 10), (2, 0)]),
            read(ReadKind::OneStatement, &[(0, -1), (1, 21)]),
            done(BankOperation::Sum {
                accounts: 2,
                total: 19,
            }),
            done(BankOperation::Sum {
                accounts: 3,
                total: 20,
            }),
        ] {
            assert_eq!(check(&[bad, good.clone()], 2, 10).violations.len(), 1);
        }
        assert!(!check(&[], 2, 10).is_complete, "nobody looked at the end");
    }

    #[test]
    fn ignores_readings_that_failed() {
        let mut failed = read(ReadKind::OneStatement, &[]);
        failed.outcome = Outcome::Failed;
        let good = read(ReadKind::Final, &[(0, 10), (1, 10)]);
        assert!(check(&[failed, good], 2, 10).violations.is_empty());
    }
}
