//! A snapshot shows the same rows for as long as it can be read, however old it is, or it cannot be read any more.
//!
//! Writers change rows all the time, an indexed column with them, and delete and insert some. Readers look, sleep for longer
//! than old versions may be kept, and look again: in one transaction, or AS OF SYSTEM TIME.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, number};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, judge};

/// Rows that are only counted up, each by statements that commit at once.
pub const COUNTERS: i64 = 3;
/// Rows between which amounts are moved: the first after the counters.
pub const MOVED: i64 = 5;
/// Rows that come and go.
const FLEETING: i64 = 3;
/// What each of the moved rows begins with.
pub const INITIAL: i64 = 100;
const TAGS: i64 = 4;
/// The longest sleep between two looks.
const LONGEST_SLEEP_MS: u64 = 1_500;

/// A row's value and tag.
pub type Row = (i64, i64);

/// By which way rows were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// All of the table.
    All,
    /// The row with this key.
    Key(i64),
    /// The rows with this tag, by the index.
    Tag(i64),
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// How.
    pub way: Way,
    /// By key.
    pub rows: BTreeMap<i64, Row>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// One more for a counter.
    Count {
        /// Which.
        row: i64,
    },
    /// From one row to another.
    Move,
    /// A row was deleted, or inserted if it was not there.
    Toggle,
    /// Looks at one snapshot, the first at all of it.
    Look {
        /// AS OF SYSTEM TIME rather than in one transaction.
        as_of: bool,
        /// In order.
        views: Vec<View>,
    },
}

/// The old-snapshots workload.
pub struct OldSnapshots {
    table: String,
    shards: Option<u32>,
    history: History<Operation>,
}

impl OldSnapshots {
    /// Rows of `table`, over `shards` shards where the server knows them (and AS OF SYSTEM TIME).
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            history: History::default(),
        }
    }

    async fn view(&self, client: &Client, way: Way, as_of: &str) -> CallResult<View> {
        let condition = match way {
            Way::All => String::new(),
            Way::Key(key) => format!(" WHERE id = {key}"),
            Way::Tag(tag) => format!(" WHERE tag = {tag}"),
        };
        let query = format!("SELECT id, value, tag FROM {}{as_of}{condition}", self.table);
        let mut rows = BTreeMap::new();
        for row in client.rows(&query).await? {
            let key = number(row.first())?;
            let seen = (number(row.get(1))?, number(row.get(2))?);
            if rows.insert(key, seen).is_some() {
                return Err(CallError::Nonsense(format!("row {key} came twice")));
            }
        }
        Ok(View { way, rows })
    }

    async fn look(
        &self,
        client: &Client,
        random: &mut SmallRng,
        seen: &mut Operation,
    ) -> Result<(), Failure> {
        let Operation::Look { as_of, views } = seen else {
            return Ok(());
        };
        let before = |error| (error, false);
        client
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(before)?;
        views.push(self.view(client, Way::All, "").await.map_err(before)?);
        let mut clause = String::new();
        if *as_of {
            let rows = client
                .rows("SELECT cluster_logical_timestamp()")
                .await
                .map_err(before)?;
            let timestamp = number(rows.first().and_then(|row| row.first())).map_err(before)?;
            clause = format!(" AS OF SYSTEM TIME {timestamp}");
            client.run("COMMIT").await.map_err(before)?;
        }
        for _ in 0..random.random_range(1..=3) {
            let sleep = Duration::from_millis(random.random_range(100..=LONGEST_SLEEP_MS));
            client.world().clock.sleep(sleep).await;
            for _ in 0..random.random_range(1..=3) {
                let way = match random.random_range(0..4) {
                    0 => Way::All,
                    1 => Way::Key(random.random_range(0..COUNTERS + MOVED + FLEETING)),
                    _ => Way::Tag(random.random_range(0..TAGS)),
                };
                views.push(self.view(client, way, &clause).await.map_err(before)?);
            }
        }
        if !*as_of {
            client.run("COMMIT").await.map_err(before)?;
        }
        Ok(())
    }

    async fn change(&self, client: &Client, random: &mut SmallRng, what: &Operation) -> Result<(), Failure> {
        let table = &self.table;
        let at_once = |error| (error, true);
        let before = |error| (error, false);
        match what {
            Operation::Count { row } => {
                let update = format!(
                    "UPDATE {table} SET value = value + 1, tag = (tag + 1) % {TAGS} WHERE id = {row}"
                );
                expect_one(client.run(&update).await.map_err(at_once)?)
            }
            Operation::Move => {
                let from = COUNTERS + random.random_range(0..MOVED);
                let to = COUNTERS + (from - COUNTERS + random.random_range(1..MOVED)) % MOVED;
                let amount = random.random_range(1..10);
                client.run("BEGIN").await.map_err(before)?;
                for (row, amount) in [(from, -amount), (to, amount)] {
                    let tag = random.random_range(0..TAGS);
                    let update =
                        format!("UPDATE {table} SET value = value + {amount}, tag = {tag} WHERE id = {row}");
                    expect_one(client.run(&update).await.map_err(before)?)?;
                }
                client.run("COMMIT").await.map_err(at_once)?;
                Ok(())
            }
            Operation::Toggle => {
                let row = COUNTERS + MOVED + random.random_range(0..FLEETING);
                let delete = format!("DELETE FROM {table} WHERE id = {row}");
                if client.run(&delete).await.map_err(at_once)? == 0 {
                    let (value, tag) = (random.random_range(0..1_000), random.random_range(0..TAGS));
                    let insert = format!(
                        "INSERT INTO {table} (id, value, tag) VALUES ({row}, {value}, {tag}) ON CONFLICT DO NOTHING"
                    );
                    client.run(&insert).await.map_err(at_once)?;
                }
                Ok(())
            }
            Operation::Look { .. } => Ok(()),
        }
    }
}

fn expect_one(rows: u64) -> Result<(), Failure> {
    match rows {
        1 => Ok(()),
        rows => Err((
            CallError::Nonsense(format!("{rows} rows have one primary key")),
            false,
        )),
    }
}

#[async_trait]
impl Workload for OldSnapshots {
    fn name(&self) -> &str {
        "old-snapshots"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        let columns = "value bigint NOT NULL, tag bigint NOT NULL";
        create_table(client, table, columns, self.shards).await?;
        client
            .run(&format!("CREATE INDEX {table}_tag ON {table} (tag)"))
            .await?;
        let row = |id: i64| {
            let value = if id < COUNTERS { 0 } else { INITIAL };
            format!("({id}, {value}, {})", id % TAGS)
        };
        let rows: Vec<String> = (0..COUNTERS + MOVED).map(row).collect();
        let insert = format!("INSERT INTO {table} (id, value, tag) VALUES {}", rows.join(", "));
        client.run(&insert).await?;
        Ok(())
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let mut operation = match random.random_range(0..10) {
            0..=3 => Operation::Count {
                row: random.random_range(0..COUNTERS),
            },
            4..=6 => Operation::Move,
            7 => Operation::Toggle,
            choice => Operation::Look {
                as_of: choice == 9 && self.shards.is_some(),
                views: Vec::new(),
            },
        };
        let invocation = self
            .history
            .invoke(&*client.world().clock, index, operation.clone());
        let result = if matches!(operation, Operation::Look { .. }) {
            self.look(client, random, &mut operation).await
        } else {
            self.change(client, random, &operation).await
        };
        conclude(client, &self.history, invocation, operation, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let mut operation = Operation::Look {
            as_of: false,
            views: Vec::new(),
        };
        let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
        let (outcome, error) = match self.view(client, Way::All, "").await {
            Ok(view) => {
                operation = Operation::Look {
                    as_of: false,
                    views: vec![view],
                };
                (Outcome::Done, None)
            }
            Err(error) => (Outcome::Failed, Some(error)),
        };
        let message = error.as_ref().map(CallError::to_string);
        self.history
            .complete(&*clock, invocation, operation, outcome, message);
        error.map_or(Ok(()), Err)
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::old_snapshots::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
