//! Whoever holds an account's row has its ledger to itself, until what it entered is there for all to see.
//!
//! Each transaction that changes a ledger enters something, so that no state of it comes twice: what a transaction saw
//! tells after whom it came. Those that have committed must form a chain, each statement must have seen one of its links,
//! and no older one than somebody knew of before. Of a transaction that failed, only what it saw counts: its lock may have
//! been lost, but what is committed is committed.

use std::collections::{BTreeMap, BTreeSet};

use crate::guarded_budget::{ACCOUNTS, ALLOWANCE, Entry, Lock, Reading, Visit};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::workload::Report;

/// More of a kind are counted, not told.
const EXAMPLES: usize = 3;

/// Judges a history.
pub fn check(records: &[Record<Visit>]) -> Report {
    let mut anomalies = Anomalies::default();
    let accounts: Vec<Account<'_>> = (0..ACCOUNTS)
        .map(|account| Account::new(records, account))
        .collect();
    // What broke comes before what came of it.
    let judgements = [
        Account::judge_forks,
        Account::judge_locks,
        Account::judge_allowances,
        Account::judge_entries,
        Account::judge_chain,
    ];
    for judge in judgements {
        for account in &accounts {
            judge(account, &mut anomalies);
        }
    }
    let done = |record: &&Record<Visit>| record.outcome == Outcome::Done;
    let count = |is_it: &dyn Fn(&Visit) -> bool| {
        let records = records.iter().filter(done);
        records.filter(|record| is_it(&record.operation)).count()
    };
    let spent = count(&|visit| visit.entered.is_some_and(|(_, amount)| amount > 0));
    let taken_back = count(&|visit| visit.entered.is_some_and(|(_, amount)| amount == 0));
    let shared = count(&|visit| visit.lock == Lock::Share);
    let finally_read: BTreeSet<i64> = records
        .iter()
        .filter(done)
        .filter(|record| record.client == FINAL_READER && record.operation.lock == Lock::None)
        .map(|record| record.operation.account)
        .collect();
    Report {
        workload: "guarded-budget".to_owned(),
        is_complete: spent > 0 && (0..ACCOUNTS).all(|account| finally_read.contains(&account)),
        violations: anomalies.told(),
        summary: format!("{spent} spent, {taken_back} took back, {shared} looked FOR SHARE"),
    }
}

/// Examples of each kind, in the order in which kinds were found.
#[derive(Default)]
struct Anomalies(Vec<(&'static str, Vec<String>)>);

impl Anomalies {
    fn add(&mut self, anomaly: &'static str, what: String) {
        match self.0.iter_mut().find(|(known, _)| *known == anomaly) {
            Some((_, examples)) => examples.push(what),
            None => self.0.push((anomaly, vec![what])),
        }
    }

    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (anomaly, examples) in &self.0 {
            let first = examples.iter().take(EXAMPLES);
            told.extend(first.map(|example| format!("{anomaly}: {example}")));
            if examples.len() > EXAMPLES {
                told.push(format!("{anomaly}: and {} more", examples.len() - EXAMPLES));
            }
        }
        told
    }
}

/// What one account's visitors saw and did. Visits are named by their places among all records.
struct Account<'a> {
    account: i64,
    records: &'a [Record<Visit>],
    visits: Vec<usize>,
    /// By entry: who entered it, or was about to.
    writers: BTreeMap<i64, usize>,
    /// Entries that somebody has seen.
    seen: BTreeSet<i64>,
    /// Somebody has not come back yet, whose entries nobody knows.
    is_open: bool,
}

/// What was known from some time on: that a ledger was at least so new.
struct Known {
    since_micros: u64,
    version: usize,
    by: usize,
}

impl<'a> Account<'a> {
    fn new(records: &'a [Record<Visit>], account: i64) -> Self {
        let mut this = Self {
            account,
            records,
            visits: Vec::new(),
            writers: BTreeMap::new(),
            seen: BTreeSet::new(),
            is_open: false,
        };
        for (index, record) in records.iter().enumerate() {
            let visit = &record.operation;
            if visit.account != account {
                continue;
            }
            this.visits.push(index);
            this.is_open |= record.outcome == Outcome::Unknown && record.error.is_none();
            if let Some((id, _)) = visit.entered {
                this.writers.insert(id, index);
            }
            let entries = visit.readings.iter().flat_map(|reading| &reading.entries);
            this.seen.extend(entries.map(|(id, _)| *id));
        }
        this
    }

    fn visit(&self, index: usize) -> &'a Visit {
        &self.records[index].operation
    }

    fn named(&self, index: usize) -> String {
        let record = &self.records[index];
        let lock = match record.operation.lock {
            Lock::None => "no lock",
            lock => lock.clause(),
        };
        format!(
            "T{index} (client {}, invoked at {} µs, {lock})",
            record.client, record.invoked_micros
        )
    }

    /// All that was read, by whom.
    fn readings(&self) -> impl Iterator<Item = (usize, &'a Reading)> {
        let of_visit = |index: &usize| {
            let index = *index;
            let readings = &self.records[index].operation.readings;
            readings.iter().map(move |reading| (index, reading))
        };
        self.visits.iter().flat_map(of_visit)
    }

    /// Visits that have changed the ledger for certain. One of unknown outcome has if somebody saw what it entered; if
    /// nobody did, nobody came after it.
    fn changes(&self) -> impl Iterator<Item = (usize, Entry)> {
        self.visits.iter().filter_map(|index| {
            let record = &self.records[*index];
            let entry = record.operation.entered?;
            let has_committed = match record.outcome {
                Outcome::Done => true,
                Outcome::Failed => false,
                Outcome::Unknown => self.seen.contains(&entry.0),
            };
            has_committed.then_some((*index, entry))
        })
    }

    /// The ledger that a change was made to.
    fn before(&self, index: usize) -> &'a [Entry] {
        let last = self.visit(index).readings.last();
        last.map_or(&[], |reading| &reading.entries)
    }

    /// What is seen was entered, as it is seen, by somebody who did not fail.
    fn judge_entries(&self, anomalies: &mut Anomalies) {
        let mut told = BTreeSet::new();
        for (reader, reading) in self.readings() {
            for entry in &reading.entries {
                if !told.insert(*entry) {
                    continue;
                }
                let reader = self.named(reader);
                let what = format!("account {}: {reader} saw {entry:?}", self.account);
                let Some(writer) = self.writers.get(&entry.0) else {
                    if !self.is_open {
                        anomalies.add("entry out of nowhere", what);
                    }
                    continue;
                };
                let what = format!("{what}, which {} entered", self.named(*writer));
                if self.records[*writer].outcome == Outcome::Failed {
                    anomalies.add("entry of a transaction that failed", what);
                } else if self.visit(*writer).entered != Some(*entry) {
                    anomalies.add("entry was changed", what);
                }
            }
        }
    }

    fn judge_allowances(&self, anomalies: &mut Anomalies) {
        for index in &self.visits {
            let allowance = self.visit(*index).allowance;
            if allowance.is_some_and(|allowance| allowance != ALLOWANCE) {
                anomalies.add(
                    "allowance was changed",
                    format!(
                        "account {}: {} saw {allowance:?}",
                        self.account,
                        self.named(*index)
                    ),
                );
            }
        }
        for (reader, reading) in self.readings() {
            let spent: i64 = reading.entries.iter().map(|(_, amount)| amount).sum();
            if spent <= ALLOWANCE {
                continue;
            }
            let spenders = reading.entries.iter().filter(|(_, amount)| *amount > 0);
            let spenders: Vec<String> = spenders
                .filter_map(|(id, amount)| Some((amount, self.writers.get(id)?)))
                .map(|(amount, writer)| format!("{amount} by {}", self.named(*writer)))
                .collect();
            anomalies.add(
                "allowance exceeded",
                format!(
                    "account {}: {} saw that {spent} are spent, not {ALLOWANCE} at most: {}",
                    self.account,
                    self.named(reader),
                    spenders.join(", ")
                ),
            );
        }
    }

    /// Whoever held a lock until it committed saw one ledger, and could delete all of it. Somebody else's deletion is seen
    /// by what it entered instead.
    fn judge_locks(&self, anomalies: &mut Anomalies) {
        for index in &self.visits {
            let (record, visit) = (&self.records[*index], self.visit(*index));
            if record.outcome != Outcome::Done || visit.lock == Lock::None {
                continue;
            }
            let place = format!("account {}: {}", self.account, self.named(*index));
            let pairs = visit.readings.iter().zip(visit.readings.iter().skip(1));
            for (one, other) in pairs.filter(|(one, other)| one.entries != other.entries) {
                let new = other.entries.iter().filter(|entry| !one.entries.contains(entry));
                let by: Vec<String> = new
                    .filter_map(|(id, _)| self.writers.get(id))
                    .map(|writer| self.named(*writer))
                    .collect();
                let by = if by.is_empty() {
                    "nobody".to_owned()
                } else {
                    by.join(", ")
                };
                anomalies.add(
                    "ledger changed under a lock",
                    format!(
                        "{place} saw {:?}, then {:?}: changed by {by}",
                        one.entries, other.entries
                    ),
                );
            }
            if visit.removed_rows != visit.removed.len() as u64 {
                anomalies.add(
                    "entries vanished under a lock",
                    format!(
                        "{place} deleted {} of {:?}, all of which it had seen",
                        visit.removed_rows, visit.removed
                    ),
                );
            }
        }
    }

    /// Who has changed which state of the ledger.
    fn heirs(&self) -> BTreeMap<&'a [Entry], Vec<(usize, Entry)>> {
        let mut heirs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, entry) in self.changes() {
            heirs.entry(self.before(index)).or_default().push((index, entry));
        }
        heirs
    }

    /// No two have changed one state of the ledger.
    fn judge_forks(&self, anomalies: &mut Anomalies) {
        for (state, heirs) in self.heirs() {
            let [(one, _), (other, _), ..] = heirs.as_slice() else {
                continue;
            };
            // If one of them had been answered before the other looked, no lock would have helped.
            let (missed, by) = match (self.was_known_to(*one, *other), self.was_known_to(*other, *one)) {
                (true, _) => (Some(one), other),
                (_, true) => (Some(other), one),
                _ => (None, one),
            };
            match missed {
                Some(missed) => anomalies.add(
                    "acknowledged entry is missing",
                    format!(
                        "account {}: {} was answered before {} saw only {state:?}",
                        self.account,
                        self.named(*missed),
                        self.named(*by)
                    ),
                ),
                None => anomalies.add(
                    "two holders of one lock",
                    format!(
                        "account {}: {} and {} have both committed and both saw {state:?}",
                        self.account,
                        self.named(*one),
                        self.named(*other)
                    ),
                ),
            }
        }
    }

    /// Whether `one` had been answered before `other` looked for the last time.
    fn was_known_to(&self, one: usize, other: usize) -> bool {
        let looked = self
            .visit(other)
            .readings
            .last()
            .map(|reading| reading.asked_micros);
        let answered = self.records[one]
            .completed_micros
            .filter(|_| self.records[one].outcome == Outcome::Done);
        answered
            .zip(looked)
            .is_some_and(|(answered, looked)| answered < looked)
    }

    /// Every reading shows a state that the changes, one after the other, have brought about, and none that is older than
    /// what was known before.
    fn judge_chain(&self, anomalies: &mut Anomalies) {
        let heirs = self.heirs();
        // There is no chain, or one with links that nobody knows.
        if self.is_open || heirs.values().any(|heirs| heirs.len() > 1) {
            return;
        }
        let mut state: Vec<Entry> = Vec::new();
        let mut versions = BTreeMap::from([(state.clone(), 0)]);
        let mut known = Vec::new();
        while let Some((index, entry)) = heirs.get(state.as_slice()).and_then(|heirs| heirs.first()) {
            let removed = &self.visit(*index).removed;
            state.retain(|(id, _)| !removed.contains(id));
            state.push(*entry);
            state.sort_unstable();
            let version = versions.len();
            if versions.insert(state.clone(), version).is_some() {
                break; // cannot be: what was entered was in no state before
            }
            let record = &self.records[*index];
            if let Some(since_micros) = record
                .completed_micros
                .filter(|_| record.outcome == Outcome::Done)
            {
                known.push(Known {
                    since_micros,
                    version,
                    by: *index,
                });
            }
        }
        let mut looks = Vec::new();
        for (reader, reading) in self.readings() {
            let Some(version) = versions.get(&reading.entries) else {
                self.tell_of_impossible(reader, reading, &versions, anomalies);
                continue;
            };
            looks.push((reader, reading, *version));
            known.push(Known {
                since_micros: reading.answered_micros,
                version: *version,
                by: reader,
            });
        }
        looks.sort_by_key(|(_, reading, _)| reading.asked_micros);
        known.sort_by_key(|known| known.since_micros);
        let mut known = known.into_iter().peekable();
        let mut newest: Option<Known> = None;
        for (reader, reading, version) in looks {
            while let Some(next) = known.next_if(|known| known.since_micros < reading.asked_micros) {
                if newest.as_ref().is_none_or(|newest| newest.version < next.version) {
                    newest = Some(next);
                }
            }
            let Some(newest) = newest.as_ref().filter(|newest| newest.version > version) else {
                continue;
            };
            anomalies.add(
                "acknowledged entry is missing",
                format!(
                    "account {}: {} saw {:?}, which is older than what {} had seen or made by then",
                    self.account,
                    self.named(reader),
                    reading.entries,
                    self.named(newest.by)
                ),
            );
        }
    }

    /// Names the change that led to the most similar state.
    fn tell_of_impossible(
        &self,
        reader: usize,
        reading: &Reading,
        versions: &BTreeMap<Vec<Entry>, usize>,
        anomalies: &mut Anomalies,
    ) {
        let seen: BTreeSet<&Entry> = reading.entries.iter().collect();
        let differences = |state: &Vec<Entry>| seen.symmetric_difference(&state.iter().collect()).count();
        let nearest = versions.keys().min_by_key(|state| differences(state));
        let nearest = nearest.map_or(&[][..], Vec::as_slice);
        let newest = nearest.iter().filter_map(|(id, _)| self.writers.get(id)).max();
        anomalies.add(
            "ledger that never was",
            format!(
                "account {}: {} saw {:?}; next to it is {nearest:?} of {}",
                self.account,
                self.named(reader),
                reading.entries,
                newest.map_or("the beginning".to_owned(), |writer| self.named(*writer))
            ),
        );
    }
}

#[cfg(test)]
mod tests;
