//! At most one row of a place has a name, by whichever way one looks; and who was refused met a row that can have been there.
//!
//! Ids are used once, so that the life of each row is known: from the one that claimed it over those that gave it other names
//! to the one that deleted it. When each of these took effect is known between two moments only, and of what got no answer not
//! even whether. So a row *may* have a name from the first moment at which somebody may have given it until the last one at
//! which somebody else certainly took it away; it *certainly* has it from when it was acknowledged until the first moment at
//! which somebody may have taken it away.
//!
//! No rule asks for more than PostgreSQL promises at READ COMMITTED, with snapshots no older than the question. Answers inside
//! transactions that failed are not looked at, but for refusals, which are what made most of them fail.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{FINAL_READER, Outcome, Record};
use crate::unique_index::{Action, Answer, NameOperation, Reply, Row, Statement, View, Way, kept};
use crate::workload::Report;

/// More of a kind are not told.
const EXAMPLES: usize = 3;

/// Place and id.
type Key = (i64, i64);
/// Place and name.
type Slot = (i64, i64);

/// Judges a history.
pub fn check(records: &[Record<NameOperation>]) -> Report {
    let mut judge = Judge::new(records);
    // What broke comes before what came of it.
    judge.holders();
    judge.lives();
    judge.answers();
    judge.rows_seen();
    judge.rows_missing();
    judge.ways();
    let done = |record: &&Record<NameOperation>| record.outcome == Outcome::Done;
    let (mut changes, mut looks, mut finals) = (0, 0, 0);
    for record in records.iter().filter(done) {
        match &record.operation {
            NameOperation::Change(_) => changes += 1,
            NameOperation::Look { views } => {
                looks += 1;
                let is_last = record.client == FINAL_READER && views.iter().any(|view| view.way == Way::All);
                finals += usize::from(is_last);
            }
        }
    }
    Report {
        workload: "unique-index".to_owned(),
        is_complete: finals > 0,
        violations: judge.violations,
        summary: format!(
            "{} rows, {changes} changes, {} refusals, {looks} looks",
            judge.lives.len(),
            judge.refusals
        ),
    }
}

/// What a record that took effect, or may have, made of a row.
#[derive(Clone, Copy)]
struct Turn {
    record: usize,
    /// The name that the row had then; none: it was gone.
    name: Option<i64>,
    /// The row came to be.
    is_claim: bool,
    /// It took effect no earlier than this,
    since: u64,
    /// and, if it did for certain, no later than this.
    until: Option<u64>,
}

impl Turn {
    /// Whether this came before `later`, which took effect for certain, if it ever did. Who changed a row came after the one
    /// who claimed it, and nothing comes after its end.
    fn is_before(&self, later: &Self) -> bool {
        self.is_claim || later.name.is_none() || self.until.is_some_and(|until| until < later.since)
    }
}

/// A time for which a row may have had a name.
#[derive(Clone, Copy)]
struct Stay {
    key: Key,
    name: i64,
    record: usize,
    /// It began no earlier than this,
    since: u64,
    /// and, if it did for certain, no later than this.
    until: Option<u64>,
    /// It cannot have ended before.
    holds_to: u64,
    /// It had ended by then.
    over: u64,
}

impl Stay {
    fn new(key: Key, turn: &Turn, turns: &[Turn]) -> Option<Self> {
        let name = turn.name?;
        let others = || turns.iter().filter(|other| other.name != turn.name);
        let ends = others().filter(|other| turn.is_before(other));
        let may_end = others().filter(|other| !other.is_before(turn));
        Some(Self {
            key,
            name,
            record: turn.record,
            since: turn.since,
            until: turn.until,
            holds_to: may_end.map(|other| other.since).min().unwrap_or(u64::MAX),
            over: ends.filter_map(|other| other.until).min().unwrap_or(u64::MAX),
        })
    }
}

/// A time for which a row was there for certain; with the name, if that is certain too.
struct Certainty {
    key: Key,
    name: Option<i64>,
    from: u64,
    to: u64,
}

impl Certainty {
    /// Whether a view must show it.
    fn concerns(&self, view: &View) -> bool {
        let (place, id) = self.key;
        match (self.name, view.way) {
            (Some(name), way) => way.finds((place, id, name)),
            (None, Way::Name(_)) => false,
            (None, way) => way.finds((place, id, 0)),
        }
    }

    fn is_shown_by(&self, view: &View) -> bool {
        let mut rows = view.rows.iter();
        rows.any(|(place, id, name)| {
            (*place, *id) == self.key && self.name.is_none_or(|certain| certain == *name)
        })
    }
}

/// What a record that did not fail made of rows.
fn turns(index: usize, record: &Record<NameOperation>) -> Vec<(Key, Turn)> {
    let mut turns: Vec<(Key, Turn)> = Vec::new();
    let NameOperation::Change(change) = &record.operation else {
        return turns;
    };
    if record.outcome == Outcome::Failed {
        return turns;
    }
    let is_done = record.outcome == Outcome::Done;
    let statements = kept(&change.statements);
    let all_answered = statements.iter().all(|statement| statement.reply.is_some());
    for statement in statements {
        let Some(key) = statement.action.key() else {
            continue;
        };
        match statement.reply.map(|reply| reply.answer) {
            Some(Answer::Changed) => {}
            None if !is_done => {}
            _ => continue,
        }
        let turn = Turn {
            record: index,
            name: statement.action.name(),
            is_claim: matches!(statement.action, Action::Claim { .. }),
            since: change.commit_asked_micros.unwrap_or(record.invoked_micros),
            until: record.completed_micros.filter(|_| is_done),
        };
        match turns.iter_mut().find(|(known, _)| *known == key) {
            // Only what a transaction leaves behind is ever to be seen. Without all answers nobody knows what that is.
            Some((_, known)) if all_answered => known.name = turn.name,
            _ => turns.push((key, turn)),
        }
    }
    turns
}

/// What a transaction has made of rows by these statements of it, which only itself knows.
fn own_rows(statements: &[Statement]) -> BTreeMap<Key, Option<i64>> {
    let mut own = BTreeMap::new();
    for statement in kept(statements) {
        let is_changed = statement
            .reply
            .is_some_and(|reply| reply.answer == Answer::Changed);
        if let Some(key) = statement.action.key().filter(|_| is_changed) {
            own.insert(key, statement.action.name());
        }
    }
    own
}

struct Judge<'a> {
    records: &'a [Record<NameOperation>],
    lives: BTreeMap<Key, Vec<Turn>>,
    /// Of each row.
    stays: BTreeMap<Key, Vec<Stay>>,
    /// Of all rows that may have had the name, in the order in which they may have begun.
    slots: BTreeMap<Slot, Vec<Stay>>,
    refusals: usize,
    violations: Vec<String>,
    /// How many of each kind there are.
    kinds: BTreeMap<&'static str, usize>,
}

impl<'a> Judge<'a> {
    fn new(records: &'a [Record<NameOperation>]) -> Self {
        let mut lives: BTreeMap<Key, Vec<Turn>> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            for (key, turn) in turns(index, record) {
                lives.entry(key).or_default().push(turn);
            }
        }
        let mut stays: BTreeMap<Key, Vec<Stay>> = BTreeMap::new();
        let mut slots: BTreeMap<Slot, Vec<Stay>> = BTreeMap::new();
        for (key, turns) in &lives {
            for stay in turns.iter().filter_map(|turn| Stay::new(*key, turn, turns)) {
                stays.entry(*key).or_default().push(stay);
                slots.entry((key.0, stay.name)).or_default().push(stay);
            }
        }
        for stays in slots.values_mut() {
            stays.sort_by_key(|stay| stay.since);
        }
        Self {
            records,
            lives,
            stays,
            slots,
            refusals: 0,
            violations: Vec::new(),
            kinds: BTreeMap::new(),
        }
    }

    fn complain(&mut self, kind: &'static str, what: String) {
        let known = self.kinds.entry(kind).or_default();
        *known += 1;
        if *known <= EXAMPLES {
            self.violations.push(format!("{kind}: {what}"));
        }
    }

    fn named(&self, index: usize) -> String {
        let record = &self.records[index];
        format!(
            "T{index} (client {}, invoked at {} µs)",
            record.client, record.invoked_micros
        )
    }

    /// Nobody has a name from its acknowledgement on, nor got it in the first place, while another certainly has it.
    fn holders(&mut self) {
        let mut found = Vec::new();
        for ((place, name), stays) in &self.slots {
            let mut certain: Vec<(u64, &Stay)> = stays
                .iter()
                .filter_map(|stay| Some((stay.until?, stay)))
                .collect();
            certain.sort_by_key(|(until, _)| *until);
            // The one that goes on for longest. If others overlap with it, they were told of before.
            let mut before: Option<(u64, &Stay)> = None;
            for (until, stay) in certain {
                if let Some((held_from, other)) = before.filter(|(_, other)| other.key != stay.key)
                    && other.holds_to > until
                    && (stay.holds_to > until || held_from < stay.since)
                {
                    found.push(format!(
                        "name {name} of place {place} is given to row {} by {} and to row {} by {}",
                        other.key.1,
                        self.named(other.record),
                        stay.key.1,
                        self.named(stay.record)
                    ));
                }
                if stay.holds_to > until && before.is_none_or(|(_, other)| other.holds_to < stay.holds_to) {
                    before = Some((until, stay));
                }
            }
        }
        for what in found {
            self.complain("two rows have one name", what);
        }
    }

    /// No row is deleted twice.
    fn lives(&mut self) {
        let mut found = Vec::new();
        for ((place, id), turns) in &self.lives {
            let mut ends = turns
                .iter()
                .filter(|turn| turn.name.is_none() && turn.until.is_some());
            if let (Some(one), Some(other)) = (ends.next(), ends.next()) {
                found.push(format!(
                    "row {id} of place {place} by {} and by {}",
                    self.named(one.record),
                    self.named(other.record)
                ));
            }
        }
        for what in found {
            self.complain("row is deleted twice", what);
        }
    }

    fn answers(&mut self) {
        let records = self.records;
        for (index, record) in records.iter().enumerate() {
            let NameOperation::Change(change) = &record.operation else {
                continue;
            };
            for (position, statement) in change.statements.iter().enumerate() {
                let (Some(reply), Some(key)) = (&statement.reply, statement.action.key()) else {
                    continue;
                };
                let own = own_rows(&change.statements[..position]);
                let fault = match (statement.action, reply.answer) {
                    (_, Answer::WasThere) => Some("row was there before it was made"),
                    (_, Answer::WasTaken) | (Action::Claim { .. }, Answer::Nothing) => {
                        self.refusals += 1;
                        let is_explained = self.explains(index, statement.action, reply, &own);
                        (!is_explained).then_some("refused without a row that has the name")
                    }
                    (Action::Claim { .. }, Answer::Changed) => None,
                    _ if record.outcome != Outcome::Done => None,
                    (_, Answer::Nothing) => self
                        .is_there(key, reply, &own)
                        .then_some("row that is there was not found"),
                    (_, Answer::Changed) => (!self.can_be_there(index, key, reply, &own))
                        .then_some("row that is not there was found"),
                };
                if let Some(fault) = fault {
                    let what = format!(
                        "{:?} in {}, {}-{} µs",
                        statement.action,
                        self.named(index),
                        reply.asked_micros,
                        reply.answered_micros
                    );
                    self.complain(fault, what);
                }
            }
        }
    }

    /// Whether another row can have had the name while it was refused. A transaction that failed can only have made others
    /// wait; one that is refused may have given the name away itself, and has not what it has given up.
    fn explains(
        &self,
        index: usize,
        action: Action,
        reply: &Reply,
        own: &BTreeMap<Key, Option<i64>>,
    ) -> bool {
        let (Some(key), Some(name)) = (action.key(), action.name()) else {
            return false;
        };
        let mut mine = own.iter();
        if mine.any(|(other, has)| *other != key && other.0 == key.0 && *has == Some(name)) {
            return true;
        }
        let Some(stays) = self.slots.get(&(key.0, name)) else {
            return false;
        };
        let begun = stays.partition_point(|stay| stay.since <= reply.answered_micros);
        // The latest first: mostly it is that one.
        stays[..begun].iter().rev().any(|stay| {
            stay.key != key
                && stay.record != index
                && stay.over >= reply.asked_micros
                && !own.contains_key(&stay.key)
        })
    }

    /// From when to when the row was there for certain, whatever its name.
    fn certain_life(&self, key: Key) -> Option<(u64, u64)> {
        let turns = self.lives.get(&key)?;
        let named = turns.iter().filter(|turn| turn.name.is_some());
        let from = named.filter_map(|turn| turn.until).min()?;
        let ends = turns.iter().filter(|turn| turn.name.is_none());
        let to = ends.map(|turn| turn.since).min().unwrap_or(u64::MAX);
        (from < to).then_some((from, to))
    }

    /// Whether a statement must have found the row.
    fn is_there(&self, key: Key, reply: &Reply, own: &BTreeMap<Key, Option<i64>>) -> bool {
        match own.get(&key) {
            Some(has) => has.is_some(),
            None => self
                .certain_life(key)
                .is_some_and(|(from, to)| from < reply.asked_micros && to > reply.answered_micros),
        }
    }

    /// Whether a statement can have found the row.
    fn can_be_there(&self, index: usize, key: Key, reply: &Reply, own: &BTreeMap<Key, Option<i64>>) -> bool {
        if let Some(has) = own.get(&key) {
            return has.is_some();
        }
        let others = || {
            let turns = self.lives.get(&key).into_iter().flatten();
            turns.filter(|turn| turn.record != index)
        };
        let is_claimed = others().any(|turn| turn.is_claim && turn.since <= reply.answered_micros);
        let is_gone =
            |turn: &Turn| turn.name.is_none() && turn.until.is_some_and(|at| at < reply.asked_micros);
        is_claimed && !others().any(is_gone)
    }

    /// All looks that were answered, with their times.
    fn looks(&self) -> Vec<(usize, u64, u64, &'a [View])> {
        let records = self.records;
        let answered = |(index, record): (usize, &'a Record<NameOperation>)| {
            let NameOperation::Look { views } = &record.operation else {
                return None;
            };
            let completed = record
                .completed_micros
                .filter(|_| record.outcome == Outcome::Done)?;
            Some((index, record.invoked_micros, completed, views.as_slice()))
        };
        records.iter().enumerate().filter_map(answered).collect()
    }

    /// What is seen was asked for, is not gone, and shares neither its id nor its name.
    fn rows_seen(&mut self) {
        for (index, asked, answered, views) in self.looks() {
            for view in views {
                let (mut ids, mut names) = (BTreeSet::new(), BTreeMap::new());
                for row in &view.rows {
                    let (place, id, name) = *row;
                    let reader = self.named(index);
                    let what = format!("{reader} saw row {id} of place {place} by {:?}", view.way);
                    if !ids.insert((place, id)) {
                        self.complain("row is seen twice", what);
                        continue;
                    }
                    if !view.way.finds(*row) {
                        self.complain("row is seen where it is not", format!("{what} with name {name}"));
                    }
                    if let Some(other) = names.insert((place, name), id) {
                        let what = format!("{what} with name {name}, as row {other}");
                        self.complain("two rows are seen with one name", what);
                    }
                    let stays = self.stays.get(&(place, id)).into_iter().flatten();
                    let stays: Vec<&Stay> = stays
                        .filter(|stay| stay.name == name && stay.since <= answered)
                        .collect();
                    let (kind, what) = match stays.last() {
                        None => ("row out of nowhere", format!("{what} with name {name}")),
                        Some(stay) if stays.iter().all(|stay| stay.over < asked) => (
                            "row is seen as it was before",
                            format!(
                                "{what} with name {name}, which it had by {}",
                                self.named(stay.record)
                            ),
                        ),
                        Some(_) => continue,
                    };
                    self.complain(kind, what);
                }
            }
        }
    }

    /// What is certainly there is seen.
    fn rows_missing(&mut self) {
        let mut certain: Vec<Certainty> = Vec::new();
        for (key, stays) in &self.stays {
            certain.extend(stays.iter().filter_map(|stay| {
                Some(Certainty {
                    key: *key,
                    name: Some(stay.name),
                    from: stay.until?,
                    to: stay.holds_to,
                })
            }));
            certain.extend(self.certain_life(*key).map(|(from, to)| Certainty {
                key: *key,
                name: None,
                from,
                to,
            }));
        }
        certain.retain(|certainty| certainty.from < certainty.to);
        certain.sort_by_key(|certainty| certainty.from);
        let mut looks = self.looks();
        looks.sort_by_key(|(_, asked, ..)| *asked);
        let mut coming = certain.into_iter().peekable();
        let mut current: Vec<Certainty> = Vec::new();
        for (index, asked, answered, views) in looks {
            while let Some(certainty) = coming.next_if(|certainty| certainty.from < asked) {
                current.push(certainty);
            }
            current.retain(|certainty| certainty.to > asked);
            // One that is certain with its name is mostly certain without, too.
            let mut told = BTreeSet::new();
            for certainty in current.iter().filter(|certainty| certainty.to > answered) {
                for (position, view) in views.iter().enumerate() {
                    let is_missing = certainty.concerns(view) && !certainty.is_shown_by(view);
                    if !is_missing || !told.insert((position, certainty.key)) {
                        continue;
                    }
                    let (place, id) = certainty.key;
                    let name = certainty
                        .name
                        .map_or_else(String::new, |name| format!(" with name {name}"));
                    let what = format!(
                        "row {id} of place {place}{name}, there since {} µs, by {:?} in {}",
                        certainty.from,
                        view.way,
                        self.named(index)
                    );
                    self.complain("acknowledged row is missing", what);
                }
            }
        }
    }

    /// All ways show the same in one snapshot.
    fn ways(&mut self) {
        for (index, _, _, views) in self.looks() {
            for (position, one) in views.iter().enumerate() {
                for other in &views[position + 1..] {
                    let common = |rows: &[Row], way: Way| {
                        let rows = rows.iter().copied().filter(|row| way.finds(*row));
                        let mut common: Vec<Row> = rows.collect();
                        common.sort_unstable();
                        common
                    };
                    if common(&one.rows, other.way) != common(&other.rows, one.way) {
                        let what = format!(
                            "{:?} and {:?} in {}: {:?} and {:?}",
                            one.way,
                            other.way,
                            self.named(index),
                            one.rows,
                            other.rows
                        );
                        self.complain("two ways do not agree", what);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
