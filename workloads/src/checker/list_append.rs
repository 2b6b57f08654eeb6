//! Infers from list-append histories who must have come before whom, and names what is impossible at a level.
//!
//! Anomalies bear the names of Adya and of Elle. G0, G1a, G1b, G1c are forbidden at READ COMMITTED already;
//! G-single, G-nonadjacent and lost updates at REPEATABLE READ, which is snapshot isolation here. Real time
//! counts everywhere: a transaction that was answered before another one began is seen by it. Write skew (G2-item: two
//! adjacent read-write edges) is forbidden at SERIALIZABLE, allowed and only counted below.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Edge, Graph, Kinds};
use crate::history::{FINAL_READER, Outcome, Record};
use crate::list_append::{Action, Level, Transaction};
use crate::workload::Report;

/// More of a kind are counted, not told.
const EXAMPLES: usize = 3;

/// Judges a history at `level`.
pub fn check(workload: &str, records: &[Record<Transaction>], level: Level) -> Report {
    let mut judge = Judge::new(records, level);
    judge.prove();
    judge.single_transactions();
    judge.future_reads();
    judge.versions();
    judge.readings();
    judge.missing_appends();
    if level.has_one_snapshot() {
        judge.lost_updates();
    }
    let graph = judge.graph();
    judge.stale_reads();
    let write_skews = judge.cycles(&graph);
    let committed = records
        .iter()
        .filter(|record| record.outcome == Outcome::Done)
        .count();
    Report {
        workload: workload.to_owned(),
        is_complete: records
            .iter()
            .any(|record| record.client == FINAL_READER && record.outcome == Outcome::Done),
        summary: format!(
            "{committed} transactions, {} lists, {write_skews}",
            judge.versions.len()
        ),
        violations: judge.violations(),
    }
}

struct Judge<'a> {
    records: &'a [Record<Transaction>],
    level: Level,
    /// Element to the transaction that appended it, and its key.
    writers: BTreeMap<i64, (usize, i64)>,
    /// Elements whose transaction went back to a savepoint before them: whatever becomes of it, they are not there.
    revoked: BTreeSet<i64>,
    /// Key to its list, as far as anybody saw it.
    versions: BTreeMap<i64, Vec<i64>>,
    /// Unknown transactions of which others saw something: they did commit.
    proven: BTreeSet<usize>,
    anomalies: BTreeMap<&'static str, Vec<String>>,
}

/// A read of a transaction before its own first append to the key: what the outside looked like.
struct ExternalRead<'a> {
    transaction: usize,
    key: i64,
    list: &'a [i64],
}

impl<'a> Judge<'a> {
    fn new(records: &'a [Record<Transaction>], level: Level) -> Self {
        let mut writers = BTreeMap::new();
        let mut revoked = BTreeSet::new();
        for (index, record) in records.iter().enumerate() {
            let mut since_savepoint = Vec::new();
            for action in &record.operation.actions {
                match action {
                    Action::Append { key, element } => {
                        writers.insert(*element, (index, *key));
                        since_savepoint.push(*element);
                    }
                    Action::Savepoint => since_savepoint.clear(),
                    Action::RollbackTo => revoked.extend(since_savepoint.drain(..)),
                    Action::Read { .. } => {}
                }
            }
        }
        Self {
            records,
            level,
            writers,
            revoked,
            versions: BTreeMap::new(),
            proven: BTreeSet::new(),
            anomalies: BTreeMap::new(),
        }
    }

    fn report(&mut self, anomaly: &'static str, what: String) {
        self.anomalies.entry(anomaly).or_default().push(what);
    }

    fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (anomaly, examples) in &self.anomalies {
            for example in examples.iter().take(EXAMPLES) {
                violations.push(format!("{anomaly}: {example}"));
            }
            if examples.len() > EXAMPLES {
                violations.push(format!("{anomaly}: and {} more", examples.len() - EXAMPLES));
            }
        }
        violations
    }

    fn committed(&self, index: usize) -> bool {
        match self.records[index].outcome {
            Outcome::Done => true,
            Outcome::Failed => false,
            Outcome::Unknown => self.proven.contains(&index),
        }
    }

    /// Whether the transaction itself appended `element` and went back to a savepoint before that.
    fn took_back(&self, transaction: usize, element: i64) -> bool {
        self.revoked.contains(&element) && self.wrote(transaction, element)
    }

    fn wrote(&self, transaction: usize, element: i64) -> bool {
        self.writers
            .get(&element)
            .is_some_and(|(writer, _)| *writer == transaction)
    }

    /// Whoever is seen by others has committed, whatever becomes of those who see it.
    fn prove(&mut self) {
        for (reader, record) in self.records.iter().enumerate() {
            for action in &record.operation.actions {
                let Action::Read {
                    key,
                    list: Some(list),
                } = action
                else {
                    continue;
                };
                for element in list {
                    // Its own appends are there before anybody decides about them.
                    if let Some((writer, written_to)) = self.writers.get(element)
                        && *writer != reader
                        && written_to == key
                        && self.records[*writer].outcome == Outcome::Unknown
                    {
                        self.proven.insert(*writer);
                    }
                }
            }
        }
    }

    /// What took effect, as far as anybody knows. All that such a transaction read, it read before its COMMIT was sent,
    /// so an answer to that which never came takes nothing from it.
    fn took_effect(&self) -> Vec<(usize, &'a Record<Transaction>)> {
        self.records
            .iter()
            .enumerate()
            .filter(|(index, _)| self.committed(*index))
            .collect()
    }

    /// Internal: a transaction sees its own appends, and at REPEATABLE READ nothing new besides them.
    fn single_transactions(&mut self) {
        for (index, record) in self.took_effect() {
            let mut own: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            let mut at_savepoint = (own.clone(), seen.clone());
            for action in &record.operation.actions {
                match action {
                    Action::Savepoint => at_savepoint = (own.clone(), seen.clone()),
                    Action::RollbackTo => (own, seen) = at_savepoint.clone(),
                    Action::Append { key, element } => {
                        own.entry(*key).or_default().push(*element);
                        if let Some(seen) = seen.get_mut(key) {
                            seen.push(*element);
                        }
                    }
                    Action::Read {
                        key,
                        list: Some(list),
                    } => {
                        let own = own.get(key).map_or(&[][..], Vec::as_slice);
                        let repeatable = self.level.has_one_snapshot() || !own.is_empty();
                        let revoked = list
                            .iter()
                            .find(|element| self.took_back(index, **element) && !own.contains(element));
                        if let Some(revoked) = revoked {
                            self.report(
                                "internal",
                                format!(
                                    "{revoked} was taken back and is seen in the list of {key}: {}",
                                    self.describe(index)
                                ),
                            );
                        } else if !list.ends_with(own) {
                            self.report(
                                "internal",
                                format!(
                                    "its own appends {own:?} to {key} are missing: {}",
                                    self.describe(index)
                                ),
                            );
                        } else if let Some(expected) = seen.get(key)
                            && self.level.has_one_snapshot()
                            && repeatable
                            && expected != list
                        {
                            self.report(
                                "internal",
                                format!("the list of {key} changed under it: {}", self.describe(index)),
                            );
                        }
                        seen.insert(*key, list.clone());
                    }
                    Action::Read { list: None, .. } => {}
                }
            }
        }
    }

    /// Internal, whatever becomes of it: no transaction sees its own appends before it makes them.
    fn future_reads(&mut self) {
        for (index, record) in self.records.iter().enumerate() {
            let mut made = BTreeSet::new();
            for action in &record.operation.actions {
                match action {
                    Action::Append { element, .. } => {
                        made.insert(*element);
                    }
                    Action::Read {
                        key,
                        list: Some(list),
                    } => {
                        let future = list
                            .iter()
                            .find(|element| self.wrote(index, **element) && !made.contains(*element));
                        if let Some(future) = future {
                            let what = format!(
                                "{future} is seen in the list of {key} before it is appended: {}",
                                self.describe(index)
                            );
                            self.report("future read", what);
                        }
                    }
                    Action::Read { list: None, .. } | Action::Savepoint | Action::RollbackTo => {}
                }
            }
        }
    }

    /// What was read, also by transactions that failed: that too had been committed.
    fn all_reads(&self) -> Vec<ExternalRead<'a>> {
        let mut reads = Vec::new();
        for (transaction, record) in self.records.iter().enumerate() {
            let committed = self.committed(transaction);
            for action in &record.operation.actions {
                if let Action::Read {
                    key,
                    list: Some(list),
                } = action
                {
                    // What the reader itself took back later, or never committed, was never a version.
                    let unmade = list.iter().rev().take_while(|element| {
                        if committed {
                            self.took_back(transaction, **element)
                        } else {
                            self.wrote(transaction, **element)
                        }
                    });
                    reads.push(ExternalRead {
                        transaction,
                        key: *key,
                        list: &list[..list.len() - unmade.count()],
                    });
                }
            }
        }
        reads
    }

    /// The reads of transactions that took effect: what they saw of others is what they depend on.
    fn external_reads(&self) -> Vec<ExternalRead<'a>> {
        let mut reads = Vec::new();
        for (transaction, record) in self.took_effect() {
            let mut appended = BTreeSet::new();
            let mut at_savepoint = BTreeSet::new();
            for action in &record.operation.actions {
                match action {
                    Action::Savepoint => at_savepoint.clone_from(&appended),
                    Action::RollbackTo => appended.clone_from(&at_savepoint),
                    Action::Append { key, .. } => {
                        appended.insert(*key);
                    }
                    Action::Read {
                        key,
                        list: Some(list),
                    } if !appended.contains(key) => {
                        reads.push(ExternalRead {
                            transaction,
                            key: *key,
                            list,
                        });
                    }
                    Action::Read { .. } => {}
                }
            }
        }
        reads
    }

    /// Each key's order of versions: the longest list read. All other readings must be prefixes of it.
    fn versions(&mut self) {
        let reads = self.all_reads();
        for read in &reads {
            let mut seen = BTreeSet::new();
            if let Some(twice) = read.list.iter().find(|element| !seen.insert(**element)) {
                self.report(
                    "duplicate",
                    format!(
                        "{twice} is twice in the list of {}: {}",
                        read.key,
                        self.describe(read.transaction)
                    ),
                );
            }
            let longest = self.versions.entry(read.key).or_default();
            if read.list.len() > longest.len() {
                *longest = read.list.to_vec();
            }
        }
        for read in &reads {
            let longest = &self.versions[&read.key];
            if !longest.starts_with(read.list) {
                let what = format!(
                    "a list of {} is no prefix of {longest:?}: {}",
                    read.key,
                    self.describe(read.transaction)
                );
                self.report("incompatible-order", what);
            }
        }
    }

    /// What was read must have been committed, and as a whole.
    fn readings(&mut self) {
        let finals = self.final_appends();
        for read in self.all_reads() {
            for element in read.list {
                match self.writers.get(element).copied() {
                    Some((writer, key)) if key == read.key && self.revoked.contains(element) => {
                        let what = format!(
                            "{} read {element}, which was taken back, of {}",
                            self.describe(read.transaction),
                            self.describe(writer)
                        );
                        self.report("G1a aborted read", what);
                    }
                    Some((writer, key)) if key == read.key => match self.records[writer].outcome {
                        Outcome::Failed => {
                            let what = format!(
                                "{} read {element} of {}",
                                self.describe(read.transaction),
                                self.describe(writer)
                            );
                            self.report("G1a aborted read", what);
                        }
                        Outcome::Unknown | Outcome::Done => {}
                    },
                    _ => {
                        let what = format!(
                            "{element} was never appended to {}: {}",
                            read.key,
                            self.describe(read.transaction)
                        );
                        self.report("garbage read", what);
                    }
                }
            }
            let Some(last) = read.list.last() else { continue };
            if let Some((writer, _)) = self.writers.get(last)
                && *writer != read.transaction
                && !self.revoked.contains(last)
                && finals.get(&(*writer, read.key)) != Some(last)
            {
                let what = format!(
                    "{} read {last} of {}",
                    self.describe(read.transaction),
                    self.describe(*writer)
                );
                self.report("G1b intermediate read", what);
            }
        }
    }

    /// The last element that each transaction appended to each key.
    fn final_appends(&self) -> BTreeMap<(usize, i64), i64> {
        let mut finals = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            for action in &record.operation.actions {
                if let Action::Append { key, element } = action
                    && !self.revoked.contains(element)
                {
                    finals.insert((index, *key), *element);
                }
            }
        }
        finals
    }

    /// Whoever reads after an append was acknowledged sees it: above all the last reading of everything.
    fn missing_appends(&mut self) {
        let mut last_reads: BTreeMap<i64, ExternalRead<'a>> = BTreeMap::new();
        let reads = self.all_reads();
        for read in reads.into_iter().filter(|read| self.committed(read.transaction)) {
            let invoked = self.records[read.transaction].invoked_micros;
            match last_reads.get(&read.key) {
                Some(other) if self.records[other.transaction].invoked_micros >= invoked => {}
                _ => {
                    last_reads.insert(read.key, read);
                }
            }
        }
        for (index, record) in self.took_effect() {
            for action in &record.operation.actions {
                let Action::Append { key, element } = action else {
                    continue;
                };
                if self.revoked.contains(element) {
                    continue;
                }
                let Some(read) = last_reads.get(key) else { continue };
                let reader = &self.records[read.transaction];
                if record.ended_before(reader) && !read.list.contains(element) {
                    let what = format!(
                        "{element} is not in the list of {key} that {} saw: {}",
                        self.describe(read.transaction),
                        self.describe(index)
                    );
                    self.report("lost append", what);
                }
            }
        }
    }

    /// Two transactions read the same version of a key and then both append to it.
    fn lost_updates(&mut self) {
        let mut readers: BTreeMap<(i64, Option<i64>), Vec<usize>> = BTreeMap::new();
        for read in self.external_reads() {
            let appends = self.records[read.transaction]
                .operation
                .actions
                .iter()
                .any(|action| {
                    matches!(action, Action::Append { key, element }
                        if *key == read.key && !self.revoked.contains(element))
                });
            if appends {
                let readers = readers.entry((read.key, read.list.last().copied())).or_default();
                if readers.last() != Some(&read.transaction) {
                    readers.push(read.transaction);
                }
            }
        }
        for ((key, _), readers) in readers {
            if let [first, second, ..] = readers.as_slice() {
                let what = format!(
                    "of {key}: {} and {}",
                    self.describe(*first),
                    self.describe(*second)
                );
                self.report("lost update", what);
            }
        }
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        // Order of writes: the elements of a list follow each other.
        for list in self.versions.values() {
            for pair in list.windows(2) {
                if let (Some((before, _)), Some((after, _))) =
                    (self.writers.get(&pair[0]), self.writers.get(&pair[1]))
                {
                    graph.add(*before, *after, Edge::WriteWrite);
                }
            }
        }
        for read in self.external_reads() {
            let Some(list) = self.versions.get(&read.key) else {
                continue;
            };
            if !list.starts_with(read.list) {
                continue;
            }
            if let Some((writer, _)) = read.list.last().and_then(|last| self.writers.get(last)) {
                graph.add(*writer, read.transaction, Edge::WriteRead);
            }
            if let Some((overwriter, _)) = list.get(read.list.len()).and_then(|next| self.writers.get(next)) {
                graph.add(read.transaction, *overwriter, Edge::ReadWrite);
            }
        }
        self.time_edges(&mut graph);
        graph
    }

    /// Real-time edges, without those that others imply; and each client's own order.
    fn time_edges(&self, graph: &mut Graph) {
        let mut events = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            if self.committed(index) {
                // At equal times an invocation comes before a completion: then there is no order.
                events.push((record.invoked_micros, 0, index));
                if let Some(completed) = record.completed_micros {
                    events.push((completed, 1, index));
                }
            }
        }
        events.sort_unstable();
        let mut frontier: BTreeSet<usize> = BTreeSet::new();
        let mut predecessors: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut last_of_client: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, is_completion, index) in events {
            if is_completion == 0 {
                for before in &frontier {
                    graph.add(*before, index, Edge::RealTime);
                }
                predecessors.insert(index, frontier.clone());
                let record = &self.records[index];
                if let Some(before) = last_of_client.get(&record.client) {
                    graph.add(*before, index, Edge::Process);
                }
                // What got no answer may happen at any later time, also after what its client did next.
                if record.completed_micros.is_some() {
                    last_of_client.insert(record.client, index);
                }
            } else {
                if let Some(implied) = predecessors.remove(&index) {
                    frontier.retain(|before| !implied.contains(before));
                }
                frontier.insert(index);
            }
        }
    }

    /// When each transaction was known to have committed: acknowledged, or told to a reader that was answered.
    fn known_micros(&self) -> BTreeMap<usize, u64> {
        let mut known = BTreeMap::new();
        let mut note = |writer, told: Option<u64>| {
            if let Some(told) = told {
                let first = known.entry(writer).or_insert(told);
                *first = told.min(*first);
            }
        };
        for (writer, record) in self.took_effect() {
            note(writer, record.completed_micros);
        }
        for read in self.all_reads() {
            let told = self.records[read.transaction].completed_micros;
            for element in read.list {
                if let Some((writer, _)) = self.writers.get(element)
                    && self.committed(*writer)
                {
                    note(*writer, told);
                }
            }
        }
        known
    }

    /// A read that misses a write which was acknowledged, or told to another reader, before the reader began; or which
    /// stands before such a write, as what follows it was committed no sooner. Illegal at every level.
    fn stale_reads(&mut self) {
        let known = self.known_micros();
        let mut missed = BTreeSet::new();
        for read in self.external_reads() {
            let Some(later) = self
                .versions
                .get(&read.key)
                .and_then(|list| list.strip_prefix(read.list))
            else {
                continue;
            };
            let writers = later
                .iter()
                .filter_map(|element| self.writers.get(element).map(|(writer, _)| *writer))
                .filter(|writer| *writer != read.transaction);
            let first = writers.min_by_key(|writer| known.get(writer).copied().unwrap_or(u64::MAX));
            if let Some(writer) = first
                && known
                    .get(&writer)
                    .is_some_and(|micros| *micros < self.records[read.transaction].invoked_micros)
            {
                missed.insert((read.transaction, writer));
            }
        }
        for (reader, writer) in missed {
            let what = format!("{} missed {}", self.describe(reader), self.describe(writer));
            self.report("stale read", what);
        }
    }

    /// Reports the shortest cycle of each forbidden kind; says which allowed ones there are.
    fn cycles(&mut self, graph: &Graph) -> &'static str {
        use Edge::{Process, ReadWrite, RealTime, WriteRead, WriteWrite};
        const WRITES: Kinds = Kinds::of(&[WriteWrite]);
        const READS: Kinds = Kinds::of(&[WriteWrite, WriteRead]);
        const WRITES_PROCESS: Kinds = Kinds::of(&[WriteWrite, Process]);
        const READS_PROCESS: Kinds = Kinds::of(&[WriteWrite, WriteRead, Process]);
        const WRITES_TIME: Kinds = Kinds::of(&[WriteWrite, Process, RealTime]);
        const READS_TIME: Kinds = Kinds::of(&[WriteWrite, WriteRead, Process, RealTime]);
        let snapshot = self.level.has_one_snapshot();
        let mut anti_dependency_found = false;
        // A cycle by fewer kinds of edges is the stronger accusation: stop at the first of each family.
        let families: [(&[(&'static str, Edge, Kinds)], bool); 3] = [
            (
                &[
                    ("G0", WriteWrite, WRITES),
                    ("G0-process", WriteWrite, WRITES_PROCESS),
                    ("G0-realtime", WriteWrite, WRITES_TIME),
                ],
                true,
            ),
            (
                &[
                    ("G1c", WriteRead, READS),
                    ("G1c-process", WriteRead, READS_PROCESS),
                    ("G1c-realtime", WriteRead, READS_TIME),
                ],
                true,
            ),
            (
                &[
                    ("G-single", ReadWrite, READS),
                    ("G-single-process", ReadWrite, READS_PROCESS),
                    ("G-single-realtime", ReadWrite, READS_TIME),
                ],
                snapshot,
            ),
        ];
        for (family, forbidden) in families {
            if !forbidden {
                continue;
            }
            for (name, first, kinds) in family {
                if let Some(cycle) = graph.shortest_cycle_from(*first, *kinds, |_| true) {
                    let what = self.tell(&cycle);
                    self.report(name, what);
                    anti_dependency_found |= *first == ReadWrite;
                    break;
                }
            }
        }
        if snapshot {
            let nonadjacent = [
                ("G-nonadjacent", READS),
                ("G-nonadjacent-process", READS_PROCESS),
                ("G-nonadjacent-realtime", READS_TIME),
            ];
            for (name, kinds) in nonadjacent {
                if let Some(cycle) = graph.shortest_nonadjacent(kinds) {
                    let what = self.tell(&cycle);
                    self.report(name, what);
                    anti_dependency_found = true;
                    break;
                }
            }
        }
        if self.level == Level::Serializable && !anti_dependency_found {
            let any = [
                ("G2-item", Kinds::of(&[WriteWrite, WriteRead, ReadWrite])),
                (
                    "G2-item-process",
                    Kinds::of(&[WriteWrite, WriteRead, ReadWrite, Process]),
                ),
                (
                    "G2-item-realtime",
                    Kinds::of(&[WriteWrite, WriteRead, ReadWrite, Process, RealTime]),
                ),
            ];
            for (name, kinds) in any {
                if let Some(cycle) = graph.shortest_cycle_from(ReadWrite, kinds, |_| true) {
                    let what = self.tell(&cycle);
                    self.report(name, what);
                    break;
                }
            }
        }
        let everything = Kinds::of(&[WriteWrite, WriteRead, ReadWrite]);
        if graph.strongly_connected(everything).is_empty() {
            "serializable"
        } else {
            "with anomalies that the level allows"
        }
    }
}

mod explain;
#[cfg(test)]
mod tests;
