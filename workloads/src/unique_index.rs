//! Names that one row of a place may have at a time, guarded by a unique index. Rows claim names, change them, hand them over
//! in one transaction and give them up, and clients contend for few of them. Who is refused must have met a row that can have
//! been there, and nobody ever sees two rows of a place with one name, by whichever way.
//!
//! After a change the client mostly looks at once by a second connection, which leads to another Coordinator.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, UNIQUE_VIOLATION};
use crate::history::{FINAL_READER, History, Outcome};
use crate::second_connection::SecondConnections;
use crate::workload::{Failure, Report, Step, Workload, conclude, judge};

/// Places: each is on one shard.
const PLACES: i64 = 3;
/// Names that a row of a place can have.
const NAMES: i64 = 4;
/// Rows that are remembered after they were made, whatever became of them.
const LATELY: usize = 12;
/// The longest pause within a transaction.
const LONGEST_HESITATION_MS: u64 = 20;

/// A row: its place, its id (in no other place, and used once) and its name.
pub type Row = (i64, i64, i64);

/// What is asked for by one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `INSERT`
    Claim {
        /// Where.
        place: i64,
        /// The new row.
        id: i64,
        /// Its name.
        name: i64,
        /// `ON CONFLICT DO NOTHING`
        skips: bool,
    },
    /// `UPDATE`
    Move {
        /// Where.
        place: i64,
        /// The row.
        id: i64,
        /// Its new name.
        name: i64,
    },
    /// `DELETE`
    GiveUp {
        /// Where.
        place: i64,
        /// The row.
        id: i64,
    },
    /// SAVEPOINT; they do not nest.
    Savepoint,
    /// ROLLBACK TO the savepoint.
    RollbackTo,
}

impl Action {
    /// Place and id of the row that it is about.
    pub fn key(self) -> Option<(i64, i64)> {
        match self {
            Self::Claim { place, id, .. } | Self::Move { place, id, .. } | Self::GiveUp { place, id } => {
                Some((place, id))
            }
            Self::Savepoint | Self::RollbackTo => None,
        }
    }

    /// The name that it gives the row.
    pub fn name(self) -> Option<i64> {
        match self {
            Self::Claim { name, .. } | Self::Move { name, .. } => Some(name),
            Self::GiveUp { .. } | Self::Savepoint | Self::RollbackTo => None,
        }
    }
}

/// How a statement was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The row was inserted, changed or deleted.
    Changed,
    /// The row was not there; or another one has the name, and nothing was to be done then.
    Nothing,
    /// Refused: another row has the name.
    WasTaken,
    /// Refused: there is a row with the id already.
    WasThere,
}

/// An answer and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// When the statement was sent.
    pub asked_micros: u64,
    /// When the answer was there.
    pub answered_micros: u64,
    /// The answer.
    pub answer: Answer,
}

/// A statement and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What was asked for.
    pub action: Action,
    /// Nothing if it was not sent, got no answer, or met an error that tells nothing about names.
    pub reply: Option<Reply>,
}

/// Statements that take effect together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// In BEGIN and COMMIT; else one statement that commits by itself.
    pub in_transaction: bool,
    /// In order; all of them are known before the first is sent.
    pub statements: Vec<Statement>,
    /// When COMMIT was sent.
    pub commit_asked_micros: Option<u64>,
}

impl Change {
    fn new(in_transaction: bool, actions: impl IntoIterator<Item = Action>) -> Self {
        let statements = actions
            .into_iter()
            .map(|action| Statement { action, reply: None });
        Self {
            in_transaction,
            statements: statements.collect(),
            commit_asked_micros: None,
        }
    }
}

/// The statements about rows that were not taken back to a savepoint.
pub fn kept(statements: &[Statement]) -> Vec<&Statement> {
    let mut kept = Vec::new();
    let mut savepoint = 0;
    for statement in statements {
        match statement.action {
            Action::Savepoint => savepoint = kept.len(),
            Action::RollbackTo => kept.truncate(savepoint),
            _ => kept.push(statement),
        }
    }
    kept
}

/// By which way rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// All of the table.
    All,
    /// Those of a place, on its shard.
    Place(i64),
    /// Those of all places with this name, by the index.
    Name(i64),
    /// The row with this place and id, by the primary key.
    Key(i64, i64),
}

impl Way {
    /// Whether a row is found by it.
    pub fn finds(self, (place, id, name): Row) -> bool {
        match self {
            Self::All => true,
            Self::Place(wanted) => place == wanted,
            Self::Name(wanted) => name == wanted,
            Self::Key(wanted_place, wanted_id) => place == wanted_place && id == wanted_id,
        }
    }

    fn condition(self) -> String {
        match self {
            Self::All => String::new(),
            Self::Place(place) => format!(" WHERE place = {place}"),
            Self::Name(name) => format!(" WHERE name = {name}"),
            Self::Key(place, id) => format!(" WHERE place = {place} AND id = {id}"),
        }
    }
}

/// What one statement showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// How.
    pub way: Way,
    /// In order; what came twice is there twice.
    pub rows: Vec<Row>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameOperation {
    /// Names are claimed, changed and given up.
    Change(Change),
    /// Rows are looked at.
    Look {
        /// More than one: all of one snapshot. None until answered.
        views: Vec<View>,
    },
}

/// What clients believe, to ask for what is there.
#[derive(Default)]
struct Known {
    /// By place and name, the row that has it.
    holders: BTreeMap<(i64, i64), i64>,
    /// Places and ids of the latest rows that somebody asked for.
    lately: Vec<(i64, i64)>,
}

/// The unique-index workload.
pub struct UniqueIndex {
    table: String,
    shards: Option<u32>,
    next_id: AtomicI64,
    known: Mutex<Known>,
    seconds: SecondConnections,
    history: History<NameOperation>,
}

impl UniqueIndex {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_id: AtomicI64::new(1),
            known: Mutex::default(),
            seconds: SecondConnections::default(),
            history: History::default(),
        }
    }

    fn claim(&self, (place, name): (i64, i64), skips: bool) -> Action {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        if known.lately.len() == LATELY {
            known.lately.remove(0);
        }
        known.lately.push((place, id));
        Action::Claim {
            place,
            id,
            name,
            skips,
        }
    }

    /// Place, name and id of a row that is believed to be there.
    fn holder(&self, random: &mut SmallRng) -> Option<Row> {
        let known = self.known.lock();
        let nth = random.random_range(0..known.holders.len().max(1));
        let holder = known.holders.iter().nth(nth);
        holder.map(|((place, name), id)| (*place, *id, *name))
    }

    /// Place and id of a row that is mostly there.
    fn row(&self, random: &mut SmallRng) -> Option<(i64, i64)> {
        if random.random_bool(0.85) {
            return self.holder(random).map(|(place, id, _)| (place, id));
        }
        let known = self.known.lock();
        let nth = random.random_range(0..known.lately.len().max(1));
        known.lately.get(nth).copied()
    }

    fn draw_action(&self, random: &mut SmallRng) -> Action {
        let (place, name) = draw_slot(random);
        match (random.random_range(0..100), self.row(random)) {
            (40..=69, Some((place, id))) => Action::Move { place, id, name },
            (70..=99, Some((place, id))) => Action::GiveUp { place, id },
            (0..=9, _) => self.claim((place, name), true),
            _ => self.claim((place, name), false),
        }
    }

    /// A name passes from the row that has it to another one, within one transaction.
    fn draw_handover(&self, random: &mut SmallRng) -> Vec<Action> {
        let Some((place, id, name)) = self.holder(random) else {
            return vec![self.claim(draw_slot(random), false)];
        };
        let heir = self.row(random).filter(|heir| heir.0 == place && heir.1 != id);
        let heir = match heir.filter(|_| random.random_bool(0.5)) {
            Some((place, id)) => Action::Move { place, id, name },
            None => self.claim((place, name), false),
        };
        let mut actions = vec![Action::GiveUp { place, id }, heir];
        if random.random_bool(0.1) {
            // Too early: to be refused, unless the row has no such name any more.
            actions.reverse();
        }
        actions
    }

    fn draw_in_transaction(&self, random: &mut SmallRng) -> Vec<Action> {
        let mut actions = match random.random_range(0..10) {
            0..=4 => self.draw_handover(random),
            5..=6 => {
                let (place, name) = draw_slot(random);
                let elsewhere = (place + random.random_range(1..PLACES)) % PLACES;
                let other_name = draw_slot(random).1;
                let slots = [(place, name), (elsewhere, other_name)];
                slots.map(|slot| self.claim(slot, false)).to_vec()
            }
            _ => (0..random.random_range(2..=3))
                .map(|_| self.draw_action(random))
                .collect(),
        };
        if random.random_bool(0.8) {
            // In one order for all, so that deadlocks stay rare enough for the others to get on. What belongs together is of
            // one place, and keeps its order.
            actions.sort_by_key(|action| action.key().map(|(place, _)| place));
        }
        if random.random_bool(0.3) {
            let first = random.random_range(0..actions.len());
            let after_last = random.random_range(first + 1..=actions.len());
            let taken_back = &actions[first..after_last];
            let slot = taken_back
                .iter()
                .find_map(|action| Some((action.key()?.0, action.name()?)));
            actions.insert(after_last, Action::RollbackTo);
            actions.insert(first, Action::Savepoint);
            if let Some(slot) = slot.filter(|_| random.random_bool(0.5)) {
                // What was taken back is in nobody's way, and makes way for nobody.
                actions.push(self.claim(slot, false));
            }
        }
        actions
    }

    fn draw(&self, random: &mut SmallRng) -> Change {
        if random.random_bool(0.5) {
            Change::new(false, [self.draw_action(random)])
        } else {
            Change::new(true, self.draw_in_transaction(random))
        }
    }

    fn sql(&self, action: Action) -> String {
        let table = &self.table;
        match action {
            Action::Claim {
                place,
                id,
                name,
                skips,
            } => {
                let clause = if skips { " ON CONFLICT DO NOTHING" } else { "" };
                format!("INSERT INTO {table} (place, id, name) VALUES ({place}, {id}, {name}){clause}")
            }
            Action::Move { place, id, name } => {
                format!("UPDATE {table} SET name = {name} WHERE place = {place} AND id = {id}")
            }
            Action::GiveUp { place, id } => {
                format!("DELETE FROM {table} WHERE place = {place} AND id = {id}")
            }
            Action::Savepoint => "SAVEPOINT here".to_owned(),
            Action::RollbackTo => "ROLLBACK TO SAVEPOINT here".to_owned(),
        }
    }

    /// Sends a statement about a row and writes its answer down. A refusal because of the name is an answer, too.
    async fn ask(&self, client: &Client, statement: &mut Statement) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let asked_micros = clock.monotonic().0 / 1000;
        let result = client.run(&self.sql(statement.action)).await;
        let answer = answer(statement.action, &result);
        statement.reply = answer.map(|answer| Reply {
            asked_micros,
            answered_micros: clock.monotonic().0 / 1000,
            answer,
        });
        match result {
            Ok(rows) if answer.is_none() => Err(CallError::Nonsense(format!(
                "{:?} affected {rows} rows",
                statement.action
            ))),
            result => result.map(|_| ()),
        }
    }

    /// Fills in the answers; the flag of an error tells whether it may have had an effect.
    async fn execute(
        &self,
        client: &Client,
        change: &mut Change,
        random: &mut SmallRng,
    ) -> Result<(), Failure> {
        if !change.in_transaction {
            for statement in &mut change.statements {
                match self.ask(client, statement).await {
                    Err(_) if statement.reply.is_some() => {}
                    result => result.map_err(|error| (error, true))?,
                }
            }
            return Ok(());
        }
        let clock = client.world().clock.clone();
        let before = |error| (error, false);
        client
            .run("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(before)?;
        let mut in_savepoint = false;
        // An error since the savepoint is taken back with everything else.
        let mut failed = false;
        for statement in &mut change.statements {
            let done = match statement.action {
                Action::Savepoint => {
                    in_savepoint = true;
                    client.run(&self.sql(statement.action)).await.map(|_| ())
                }
                Action::RollbackTo => {
                    in_savepoint = false;
                    failed = false;
                    client.run(&self.sql(statement.action)).await.map(|_| ())
                }
                _ if failed => Ok(()),
                _ => self.ask(client, statement).await,
            };
            match done {
                Ok(()) => {}
                Err(error) if in_savepoint && error.connection_survives() && !error.is_internal() => {
                    failed = true
                }
                Err(error) => return Err(before(error)),
            }
            if random.random_bool(0.1) {
                let pause = random.random_range(0..=LONGEST_HESITATION_MS);
                clock.sleep(Duration::from_millis(pause)).await;
            }
        }
        change.commit_asked_micros = Some(clock.monotonic().0 / 1000);
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    /// Remembers what a change that took effect has made of rows.
    fn note_change(&self, change: &Change) {
        let mut known = self.known.lock();
        for statement in kept(&change.statements) {
            let is_changed = statement
                .reply
                .is_some_and(|reply| reply.answer == Answer::Changed);
            let Some((place, id)) = statement.action.key().filter(|_| is_changed) else {
                continue;
            };
            known.holders.retain(|_, holder| *holder != id);
            if let Some(name) = statement.action.name() {
                known.holders.insert((place, name), id);
            }
        }
    }

    fn note_view(&self, view: &View) {
        let mut known = self.known.lock();
        known
            .holders
            .retain(|(place, name), id| !view.way.finds((*place, *id, *name)));
        for (place, id, name) in &view.rows {
            known.holders.insert((*place, *name), *id);
        }
    }

    async fn view(&self, client: &Client, way: Way) -> CallResult<View> {
        let query = format!("SELECT place, id, name FROM {}{}", self.table, way.condition());
        let found = client.numbers(&query).await?;
        let mut rows = found
            .iter()
            .map(|row| match row.as_slice() {
                [place, id, name] => Ok((*place, *id, *name)),
                row => Err(CallError::Nonsense(format!(
                    "expected three columns, got {row:?}"
                ))),
            })
            .collect::<CallResult<Vec<Row>>>()?;
        rows.sort_unstable();
        Ok(View { way, rows })
    }

    /// Looks by one way, or by several in one snapshot.
    async fn views(&self, client: &Client, ways: &[Way]) -> CallResult<Vec<View>> {
        if let [way] = ways {
            return Ok(vec![self.view(client, *way).await?]);
        }
        client
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let mut views = Vec::new();
        for way in ways {
            views.push(self.view(client, *way).await?);
        }
        client.run("COMMIT").await?;
        Ok(views)
    }

    /// Looks, and writes it down.
    async fn look(&self, client: &Client, index: u32, ways: &[Way]) -> Step {
        let clock = client.world().clock.clone();
        let nothing = NameOperation::Look { views: Vec::new() };
        let invocation = self.history.invoke(&*clock, index, nothing);
        let mut views = Vec::new();
        let result = self.views(client, ways).await;
        let result = result.map(|seen| views = seen).map_err(|error| (error, false));
        for view in &views {
            self.note_view(view);
        }
        let operation = NameOperation::Look { views };
        conclude(client, &self.history, invocation, operation, result).await
    }
}

/// A place and a name. Few clients have to meet often: the lower ones are asked for more.
fn draw_slot(random: &mut SmallRng) -> (i64, i64) {
    let place = random.random_range(0..PLACES);
    let name = random.random_range(0..NAMES).min(random.random_range(0..NAMES));
    (place, name)
}

/// Ways of a look of its own: one statement, or several in one snapshot.
fn draw_ways(random: &mut SmallRng) -> Vec<Way> {
    let (place, name) = draw_slot(random);
    match random.random_range(0..10) {
        0 | 1 => vec![Way::Name(name)],
        2 => vec![Way::Place(place)],
        3..=5 => vec![Way::Name(name), Way::Place(place)],
        _ => {
            let names = (0..NAMES).filter(|_| random.random_bool(0.5)).map(Way::Name);
            let mut ways: Vec<Way> = names.collect();
            ways.insert(random.random_range(0..=ways.len()), Way::All);
            ways
        }
    }
}

/// A way by which one of the rows that a change was about should be found, if they are there.
fn draw_way_after(change: &Change, random: &mut SmallRng) -> Option<Way> {
    let actions: Vec<Action> = change
        .statements
        .iter()
        .map(|statement| statement.action)
        .filter(|action| action.key().is_some())
        .collect();
    let action = actions.get(random.random_range(0..actions.len().max(1)))?;
    let (place, id) = action.key()?;
    Some(match (random.random_range(0..10), action.name()) {
        (0..=3, _) => Way::Key(place, id),
        (4..=6, Some(name)) => Way::Name(name),
        _ => Way::Place(place),
    })
}

/// What an answer says of rows and names, if anything.
fn answer(action: Action, result: &CallResult<u64>) -> Option<Answer> {
    match result {
        Ok(0) if matches!(action, Action::Claim { skips: false, .. }) => None,
        Ok(0) => Some(Answer::Nothing),
        Ok(1) => Some(Answer::Changed),
        // The primary key's name, which both servers make of the table's.
        Err(CallError::Refused { code, message })
            if code == UNIQUE_VIOLATION && message.contains("_pkey\"") =>
        {
            Some(Answer::WasThere)
        }
        Err(CallError::Refused { code, .. }) if code == UNIQUE_VIOLATION => Some(Answer::WasTaken),
        _ => None,
    }
}

#[async_trait]
impl Workload for UniqueIndex {
    fn name(&self) -> &str {
        "unique-index"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        client.run(&format!("DROP TABLE IF EXISTS {table}")).await?;
        let clause = self.shards.map_or_else(String::new, |shards| {
            format!(" SHARD KEY (place) SHARDS {shards}")
        });
        client
            .run(&format!(
                "CREATE TABLE {table} (place bigint NOT NULL, id bigint NOT NULL, name bigint NOT NULL, \
                 PRIMARY KEY (place, id)){clause}"
            ))
            .await?;
        // The name comes first: who knows the place is led to its shard, and reads its rows there without the index.
        client
            .run(&format!("CREATE UNIQUE INDEX ON {table} (name, place)"))
            .await?;
        Ok(())
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        if random.random_bool(0.2) {
            let ways = draw_ways(random);
            return self.look(client, index, &ways).await;
        }
        let mut change = self.draw(random);
        let operation = NameOperation::Change(change.clone());
        let invocation = self.history.invoke(&*client.world().clock, index, operation);
        let result = self.execute(client, &mut change, random).await;
        if result.is_ok() {
            self.note_change(&change);
        }
        let way = draw_way_after(&change, random);
        let operation = NameOperation::Change(change);
        let step = conclude(client, &self.history, invocation, operation, result).await;
        let Some(way) = way.filter(|_| random.random_bool(0.6)) else {
            return step;
        };
        if !matches!(step, Step::Served) {
            return step;
        }
        let Ok(second) = self.seconds.take(client, index).await else {
            return step;
        };
        let again = self.look(&second, index, &[way]).await;
        // Now and then a new one, perhaps to yet another Coordinator.
        if !matches!(again, Step::Broken(_)) && random.random_bool(0.95) {
            self.seconds.give_back(index, second);
        }
        step
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let ways: Vec<Way> = [Way::All].into_iter().chain((0..NAMES).map(Way::Name)).collect();
        let nothing = NameOperation::Look { views: Vec::new() };
        let invocation = self.history.invoke(&*clock, FINAL_READER, nothing);
        let views = self.views(client, &ways).await?;
        let operation = NameOperation::Look { views };
        self.history
            .complete(&*clock, invocation, operation, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::unique_index::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
