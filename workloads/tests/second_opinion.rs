//! The list-append checker and the `adya` crate judge the same histories, of a store in memory that keeps each
//! isolation level or fails to: they must agree.

use std::collections::BTreeMap;

use adya::sim::{Isolation, SimOpts};
use adya::{Opts, Valid};
use neorunbase_workloads::checker::list_append::check;
use neorunbase_workloads::history::{Outcome, Record};
use neorunbase_workloads::list_append::{Action, Level, Transaction};
use serde_json::Value;

const SEEDS: u64 = 8;

/// A history as JSON lines, as Jepsen writes them.
fn generate(isolation: Isolation, seed: u64) -> String {
    adya::sim::run(&SimOpts {
        isolation,
        txns: 400,
        info_rate: 0.03,
        seed,
        ..SimOpts::default()
    })
}

/// Elements are unique for each key there, for the whole history here.
fn element(key: i64, value: i64) -> i64 {
    key * 1_000_000 + value
}

fn actions(operation: &Value) -> Vec<Action> {
    let actions = operation["value"].as_array().expect("a transaction");
    let action = |action: &Value| {
        let key = action[1].as_i64().expect("a key");
        match action[0].as_str() {
            Some("append") => Action::Append {
                key,
                element: element(key, action[2].as_i64().expect("an element")),
            },
            _ => Action::Read {
                key,
                list: action[2]
                    .as_array()
                    .map(|list| list.iter().filter_map(Value::as_i64))
                    .map(|list| list.map(|value| element(key, value)).collect()),
            },
        }
    };
    actions.iter().map(action).collect()
}

fn translate(history: &str) -> Vec<Record<Transaction>> {
    let mut records: Vec<Record<Transaction>> = Vec::new();
    let mut running = BTreeMap::new();
    for line in history.lines() {
        let operation: Value = serde_json::from_str(line).expect("JSON");
        let process = operation["process"].as_u64().expect("a process");
        let micros = operation["time"].as_u64().expect("a time") / 1_000;
        let transaction = Transaction {
            actions: actions(&operation),
        };
        let outcome = match operation["type"].as_str() {
            Some("invoke") => {
                running.insert(process, records.len());
                records.push(Record {
                    client: u32::try_from(process).expect("a small number"),
                    invoked_micros: micros,
                    completed_micros: None,
                    outcome: Outcome::Unknown,
                    error: None,
                    operation: transaction,
                });
                continue;
            }
            Some("ok") => Outcome::Done,
            Some("fail") => Outcome::Failed,
            _ => Outcome::Unknown,
        };
        let record = &mut records[running[&process]];
        record.outcome = outcome;
        record.completed_micros = (outcome != Outcome::Unknown).then_some(micros);
        record.operation = transaction;
    }
    records
}

#[test]
fn both_judges_agree() {
    let levels = [
        (Level::ReadCommitted, "strong-read-committed"),
        (Level::RepeatableRead, "strong-snapshot-isolation"),
        (Level::Serializable, "strict-serializable"),
    ];
    let mut verdicts: BTreeMap<(String, &str), (u64, u64)> = BTreeMap::new();
    for isolation in [
        Isolation::Serializable,
        Isolation::SnapshotIsolation,
        Isolation::ReadCommitted,
        Isolation::ReadUncommitted,
        Isolation::LostUpdate,
    ] {
        for seed in 0..SEEDS {
            let text = generate(isolation, seed);
            let theirs = adya::History::from_json(&text).expect("a history");
            let ours = translate(&text);
            for (level, model) in levels {
                let opts = Opts {
                    models: vec![model.to_owned()],
                    ..Opts::default()
                };
                let their_report = adya::check(&theirs, adya::Workload::ListAppend, &opts);
                let our_report = check("second opinion", &ours, level);
                assert_eq!(
                    our_report.violations.is_empty(),
                    their_report.valid == Valid::True,
                    "{isolation:?}, seed {seed}, {model}: {:?} there, here {:#?}",
                    their_report.anomaly_types,
                    our_report.violations
                );
                let verdict = verdicts.entry((format!("{isolation:?}"), model)).or_default();
                match our_report.violations.is_empty() {
                    true => verdict.0 += 1,
                    false => verdict.1 += 1,
                }
            }
        }
    }
    // Both say yes and no: agreement tells something.
    let all = |isolation: &str, model| verdicts[&(isolation.to_owned(), model)];
    assert_eq!(all("Serializable", "strict-serializable"), (SEEDS, 0));
    assert_eq!(all("SnapshotIsolation", "strong-snapshot-isolation"), (SEEDS, 0));
    assert!(all("SnapshotIsolation", "strict-serializable").1 > 0);
    assert_eq!(all("ReadCommitted", "strong-read-committed"), (SEEDS, 0));
    assert!(all("ReadCommitted", "strong-snapshot-isolation").1 > 0);
    assert!(all("ReadUncommitted", "strong-read-committed").1 > 0);
    assert_eq!(all("LostUpdate", "strong-snapshot-isolation"), (0, SEEDS));
}
