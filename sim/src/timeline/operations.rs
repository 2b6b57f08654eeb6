//! The lanes of clients, and the transactions among them that a checker names.

use std::collections::{BTreeMap, BTreeSet};

use neorunbase_workloads::history::FINAL_READER;
use neorunbase_workloads::{Outcome, Record};
use serde::Serialize;
use serde_json::Value;

use super::{Lane, Suspect};

const GROUP: &str = "clients";
/// Longer descriptions are cut, unless a checker names the operation.
const LONGEST_TEXT: usize = 160;
/// Beyond, what succeeded and is not named is left out: a page must open.
const MOST_OPERATIONS: usize = 80_000;

/// Of more, the page shows the first.
const MOST_SUSPECTS: usize = 100;

/// From, to (microseconds), outcome (0 done, 1 failed, 2 unknown), text, whether a checker names it.
#[derive(Serialize)]
pub struct Operation(u64, u64, u8, String, bool);

/// Adds a lane for each client, and returns what complaints name.
pub fn add(
    lanes: &mut Vec<Lane>,
    histories: &[(String, String)],
    complaints: &[String],
    end: u64,
) -> Vec<Suspect> {
    let mut suspects = Vec::new();
    let mut left: usize = MOST_OPERATIONS;
    for (workload, lines) in histories {
        // Some histories begin with what is not an operation.
        let records: Vec<Record<Value>> = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let mut named = named_in(complaints, workload);
        let invoked = invoked_in(complaints, workload);
        named.extend(
            records
                .iter()
                .enumerate()
                .filter(|(_, record)| invoked.contains(&(record.client, record.invoked_micros)))
                .map(|(index, _)| index),
        );
        let mut clients: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            clients.entry(record.client).or_default().push(index);
        }
        for (client, indexes) in clients {
            let name = match client {
                FINAL_READER => format!("{workload} (final reading)"),
                client => format!("{workload}/{client}"),
            };
            let mut lane = Lane::new(GROUP, &name);
            for (place, index) in indexes.iter().enumerate() {
                let record = &records[*index];
                let is_named = named.contains(index);
                if !is_named && record.outcome == Outcome::Done {
                    if left == 0 {
                        continue;
                    }
                    left -= 1;
                }
                // Who got no answer goes on with the next operation.
                let next = indexes
                    .get(place + 1)
                    .map_or(end, |next| records[*next].invoked_micros);
                let to = record.completed_micros.unwrap_or(next).max(record.invoked_micros);
                let text = describe(*index, record, is_named);
                if is_named && suspects.len() < MOST_SUSPECTS {
                    suspects.push(Suspect {
                        label: format!("{workload} T{index}"),
                        lane: lanes.len(),
                        from: record.invoked_micros,
                        to,
                        text: text.clone(),
                    });
                }
                let outcome = match record.outcome {
                    Outcome::Done => 0,
                    Outcome::Failed => 1,
                    Outcome::Unknown => 2,
                };
                lane.operations
                    .push(Operation(record.invoked_micros, to, outcome, text, is_named));
            }
            lanes.push(lane);
        }
    }
    suspects
}

fn describe(index: usize, record: &Record<Value>, is_named: bool) -> String {
    let outcome = match record.outcome {
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
    };
    let mut operation = record.operation.to_string();
    let cut = operation
        .char_indices()
        .nth(if is_named { 20 * LONGEST_TEXT } else { LONGEST_TEXT });
    if let Some((cut, _)) = cut {
        operation.truncate(cut);
        operation.push('…');
    }
    let error = record
        .error
        .as_ref()
        .map_or_else(String::new, |error| format!(": {error}"));
    format!("T{index} {outcome}{error}\n{operation}")
}

/// What is said of `workload`.
fn about<'a>(complaints: &'a [String], workload: &str) -> impl Iterator<Item = &'a str> {
    let said = move |complaint: &'a String| complaint.strip_prefix(workload)?.strip_prefix(": ");
    complaints.iter().filter_map(said)
}

fn number_at(text: &str) -> Option<u64> {
    let digits = text.split(|letter: char| !letter.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok())
}

/// Records of `workload` that complaints call T12 and so on.
fn named_in(complaints: &[String], workload: &str) -> BTreeSet<usize> {
    let mut named = BTreeSet::new();
    for complaint in about(complaints, workload) {
        let mut before = ' ';
        for (place, letter) in complaint.char_indices() {
            if letter == 'T' && !before.is_alphanumeric() {
                named
                    .extend(number_at(&complaint[place + 1..]).and_then(|index| usize::try_from(index).ok()));
            }
            before = letter;
        }
    }
    named
}

/// Clients and times, where complaints say "client 2, invoked at 1462386 µs".
fn invoked_in(complaints: &[String], workload: &str) -> BTreeSet<(u32, u64)> {
    let mut invoked = BTreeSet::new();
    for complaint in about(complaints, workload) {
        for part in complaint.split("client ").skip(1) {
            let time = part.split_once(", invoked at ");
            let time = time.filter(|(client, _)| client.chars().all(|letter| letter.is_ascii_digit()));
            let found = time.and_then(|(client, at)| Some((client.parse().ok()?, number_at(at)?)));
            invoked.extend(found);
        }
    }
    invoked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_transactions_of_their_workload() {
        let complaints = [
            "lists: G1c: T12 (client 3: append 1 2) -wr-> T7, AT9 T-shirt".to_owned(),
            "lists_more: G0: T5".to_owned(),
        ];
        assert_eq!(named_in(&complaints, "lists"), BTreeSet::from([7, 12]));
        assert_eq!(named_in(&complaints, "lists_more"), BTreeSet::from([5]));
        assert!(named_in(&complaints, "bank").is_empty());
        let complaints = ["bank: 798 instead of 800 (client 2, invoked at 1462386 µs, Some(x))".to_owned()];
        assert_eq!(invoked_in(&complaints, "bank"), BTreeSet::from([(2, 1_462_386)]));
        assert!(invoked_in(&complaints, "ban").is_empty());
    }
}
