//! Tables that come, go, are emptied and get indexes and columns while others use them, through any Coordinator: a
//! definition that was acknowledged counts for every statement that begins later, and no row slips through between.

mod names;
mod transaction;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, number};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, after_error, create_table, judge, outcome_of};
use names::Names;
pub use transaction::{Change, Statement, Transaction};

const TABLES: usize = 2;
const MARKS: i64 = 3;
const UNDEFINED_TABLE: &str = "42P01";
/// Of a definition it tells of the leader's store, which may come up again with it.
const IO_ERROR: &str = "58030";

/// What is done to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// CREATE TABLE IF NOT EXISTS
    Create,
    /// DROP TABLE IF EXISTS
    Drop,
    /// TRUNCATE
    Truncate,
    /// CREATE INDEX, or DROP INDEX: either fails where it has nothing to do.
    Index {
        /// Whether it is to be there.
        wanted: bool,
    },
    /// ALTER TABLE ADD COLUMN, or DROP COLUMN, of a column that nobody else names: either fails where it has nothing to do.
    Column {
        /// Whether it is to be there.
        wanted: bool,
    },
    /// INSERT of a row that was never there.
    Insert {
        /// Its key.
        id: i64,
    },
    /// Rows that are written in several statements.
    Transact {
        /// What was done.
        transaction: Transaction,
    },
    /// All rows, and those with one mark once with and once without the help of an index, in one snapshot.
    Read {
        /// The mark.
        mark: i64,
        /// Keys and marks of all rows.
        all: Vec<(i64, i64)>,
        /// Keys as found by the index, if there was one.
        by_index: Vec<i64>,
    },
}

impl Action {
    fn is_definition(&self) -> bool {
        match self {
            Self::Create | Self::Drop | Self::Truncate | Self::Index { .. } | Self::Column { .. } => true,
            Self::Insert { .. } | Self::Transact { .. } | Self::Read { .. } => false,
        }
    }
}

/// An action and what it met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Number of the table.
    pub table: usize,
    /// What was done.
    pub action: Action,
    /// The table was not there.
    pub was_missing: bool,
}

/// The definitions workload.
pub struct Definitions {
    prefix: String,
    shards: Option<u32>,
    next_id: AtomicI64,
    names: Names,
    /// How many definitions of each table were acknowledged.
    redefined: Mutex<BTreeMap<usize, u64>>,
    history: History<Use>,
    /// Whether there may be tables of an earlier run.
    is_repeated: bool,
}

/// The mark that a row is inserted with.
pub fn mark_of(id: i64) -> i64 {
    id % MARKS
}

impl Definitions {
    /// Tables whose names begin with `prefix`, over `shards` shards where the server knows them.
    pub fn new(prefix: &str, shards: Option<u32>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards,
            next_id: AtomicI64::new(1),
            names: Names::new(TABLES),
            redefined: Mutex::default(),
            history: History::default(),
            is_repeated: false,
        }
    }

    /// Earlier runs may have left tables of higher numbers, too, which this one is to find missing.
    pub fn after_earlier_runs(mut self) -> Self {
        self.is_repeated = true;
        self
    }

    async fn drop_left_tables(&self, client: &Client) -> CallResult<()> {
        let all = client
            .rows("SELECT relname FROM pg_catalog.pg_class WHERE relkind = 'r'")
            .await?;
        let prefix = format!("{}_", self.prefix);
        for name in all.into_iter().flatten().flatten() {
            if name.starts_with(&prefix) {
                client.run(&format!("DROP TABLE IF EXISTS {name}")).await?;
            }
        }
        Ok(())
    }

    fn name_of(&self, table: usize) -> String {
        format!("{}_{table}", self.prefix)
    }

    async fn read(&self, client: &Client, table: usize, mark: i64) -> CallResult<Action> {
        let name = self.name_of(table);
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let found = client
            .rows(&format!("SELECT id FROM {name} WHERE mark = {mark}"))
            .await?;
        let by_index = found
            .iter()
            .map(|row| number(row.first()))
            .collect::<CallResult<_>>()?;
        let all = client
            .pairs(&format!("SELECT id, mark FROM {name} WHERE mark + 0 >= 0"))
            .await?;
        client.run("COMMIT").await?;
        Ok(Action::Read { mark, all, by_index })
    }

    /// Does it and notes what it saw; the flag of an error tells whether a commit may have happened.
    async fn carry_out(
        &self,
        client: &Client,
        table: usize,
        action: &mut Action,
        random: &mut SmallRng,
    ) -> Result<(), Failure> {
        let name = self.name_of(table);
        let sql = match action {
            Action::Create => {
                let clause = self
                    .shards
                    .map_or_else(String::new, |shards| format!(" SHARD KEY (id) SHARDS {shards}"));
                format!(
                    "CREATE TABLE IF NOT EXISTS {name} (id bigint PRIMARY KEY, mark bigint NOT NULL){clause}"
                )
            }
            Action::Drop => format!("DROP TABLE IF EXISTS {name}"),
            Action::Truncate => format!("TRUNCATE {name}"),
            Action::Index { wanted: true } => {
                format!("CREATE INDEX {name}_mark ON {name} (mark)")
            }
            Action::Index { wanted: false } => format!("DROP INDEX {name}_mark"),
            Action::Column { wanted: true } => {
                format!("ALTER TABLE {name} ADD COLUMN extra bigint NOT NULL DEFAULT 7")
            }
            Action::Column { wanted: false } => format!("ALTER TABLE {name} DROP COLUMN extra"),
            Action::Insert { id } => {
                format!("INSERT INTO {name} (id, mark) VALUES ({id}, {})", mark_of(*id))
            }
            Action::Transact { transaction } => {
                let definitions = || self.redefined.lock().get(&table).copied().unwrap_or(0);
                return transaction.execute(client, &name, random, definitions).await;
            }
            Action::Read { mark, .. } => {
                *action = self.read(client, table, *mark).await.map_err(at_once)?;
                return Ok(());
            }
        };
        client.run(&sql).await.map_err(at_once)?;
        Ok(())
    }

    /// The first of `count` keys that were never used.
    fn take_ids(&self, count: i64) -> i64 {
        self.next_id.fetch_add(count, Ordering::Relaxed)
    }

    fn draw(&self, random: &mut SmallRng) -> Action {
        match random.random_range(0..100) {
            0..=3 => Action::Create,
            4..=5 => Action::Drop,
            6..=9 => Action::Truncate,
            // Others are made right after transactions.
            10..=13 => Action::Index {
                wanted: random.random_bool(0.4),
            },
            14..=16 => Action::Column {
                wanted: random.random_bool(0.5),
            },
            17..=39 => Action::Insert { id: self.take_ids(1) },
            40..=59 => Action::Transact {
                transaction: Transaction::draw(random, |count| self.take_ids(count)),
            },
            _ => Action::Read {
                mark: random.random_range(0..MARKS),
                all: Vec::new(),
                by_index: Vec::new(),
            },
        }
    }

    /// Uses a table, and writes down how that ended.
    async fn use_table(
        &self,
        client: &Client,
        index: u32,
        random: &mut SmallRng,
        table: usize,
        action: Action,
    ) -> Step {
        let clock = client.world().clock.clone();
        let mut usage = Use {
            table,
            action,
            was_missing: false,
        };
        let invocation = self.history.invoke(&*clock, index, usage.clone());
        let result = self
            .carry_out(client, usage.table, &mut usage.action, random)
            .await;
        let (mut outcome, error) = result
            .as_ref()
            .map_or_else(outcome_of, |()| (Outcome::Done, None));
        if let Err((error, _)) = &result
            && usage.action.is_definition()
            && error.code() == Some(IO_ERROR)
        {
            outcome = Outcome::Unknown;
        }
        usage.was_missing = result.as_ref().is_err_and(|(error, _)| is_missing(error));
        if usage.action.is_definition() && outcome == Outcome::Done {
            *self.redefined.lock().entry(table).or_default() += 1;
        }
        match (&usage.action, outcome) {
            (Action::Create, Outcome::Done) => self.names.created(table),
            (Action::Create | Action::Drop | Action::Truncate, Outcome::Unknown) => self.names.doubt(table),
            _ => {}
        }
        self.history.complete(&*clock, invocation, usage, outcome, error);
        match result {
            Ok(()) => Step::Served,
            Err((error, _)) => after_error(client, &error).await,
        }
    }
}

/// The failure of a statement that is a transaction of its own.
fn at_once(error: CallError) -> Failure {
    (error, true)
}

fn is_missing(error: &CallError) -> bool {
    matches!(error, CallError::Refused { code, .. } if code == UNDEFINED_TABLE)
}

#[async_trait]
impl Workload for Definitions {
    fn name(&self) -> &str {
        "definitions"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        if self.is_repeated {
            self.drop_left_tables(client).await?;
        }
        for table in 0..TABLES {
            create_table(client, &self.name_of(table), "mark bigint NOT NULL", self.shards).await?;
        }
        Ok(())
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let (table, is_created) = self.names.take(random.random_range(0..TABLES));
        let action = if is_created {
            self.draw(random)
        } else {
            Action::Create
        };
        // What the transaction has committed may not be written everywhere yet: the index must have it all the same.
        let is_indexed = matches!(action, Action::Transact { .. }) && random.random_bool(0.2);
        match self.use_table(client, index, random, table, action).await {
            Step::Served if is_indexed => {
                let action = Action::Index { wanted: true };
                self.use_table(client, index, random, table, action).await
            }
            step => step,
        }
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        for table in self.names.all() {
            for mark in 0..MARKS {
                let mut usage = Use {
                    table,
                    action: Action::Read {
                        mark,
                        all: Vec::new(),
                        by_index: Vec::new(),
                    },
                    was_missing: false,
                };
                let invocation = self.history.invoke(&*clock, FINAL_READER, usage.clone());
                let outcome = match self.read(client, table, mark).await {
                    Ok(action) => {
                        usage.action = action;
                        Outcome::Done
                    }
                    Err(error) if is_missing(&error) => {
                        client.run("ROLLBACK").await?;
                        usage.was_missing = true;
                        Outcome::Failed
                    }
                    Err(error) => return Err(error),
                };
                self.history.complete(&*clock, invocation, usage, outcome, None);
            }
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::definitions::check(records, TABLES)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
