//! Counters that are increased by statements that commit by themselves: each that was acknowledged counts once, each
//! that was not at most once, however often requests inside the cluster were tried again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, UNIQUE_VIOLATION};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, fill_table, judge};

/// Counters that are increased one by one.
pub const SINGLES: i64 = 3;
/// Counters that are only increased together, by one statement.
pub const PAIR: [i64; 2] = [3, 4];
/// Keys of rows that are inserted begin here.
const FIRST_ROW: i64 = 1_000;

/// An operation on counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterOperation {
    /// `UPDATE … SET value = value + 1 WHERE id =`
    Increase {
        /// The counter.
        counter: i64,
        /// Rows that the server says were changed.
        rows: u64,
    },
    /// The same with `RETURNING value`.
    IncreaseReturning {
        /// The counter.
        counter: i64,
        /// What was returned.
        values: Vec<i64>,
    },
    /// Both counters of the pair.
    IncreasePair {
        /// Rows that the server says were changed.
        rows: u64,
    },
    /// A row with a key that nobody else uses.
    Insert {
        /// The key.
        key: i64,
        /// Refused because the key was there.
        was_there: bool,
    },
    /// One counter is read.
    Read {
        /// The counter.
        counter: i64,
        /// What was seen.
        values: Vec<i64>,
    },
    /// All counters are read by one statement.
    ReadAll {
        /// Counters and values.
        values: Vec<(i64, i64)>,
    },
    /// The keys of all inserted rows, when everything is quiet.
    Rows {
        /// The keys.
        keys: Vec<i64>,
    },
}

/// The counters workload.
pub struct Counters {
    table: String,
    shards: Option<u32>,
    next_row: AtomicI64,
    history: History<CounterOperation>,
}

impl Counters {
    /// Counters in `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_row: AtomicI64::new(FIRST_ROW),
            history: History::default(),
        }
    }

    fn draw(&self, random: &mut SmallRng) -> CounterOperation {
        let counter = random.random_range(0..SINGLES);
        match random.random_range(0..100) {
            0..=24 => CounterOperation::Increase { counter, rows: 0 },
            25..=34 => CounterOperation::IncreaseReturning {
                counter,
                values: Vec::new(),
            },
            35..=49 => CounterOperation::IncreasePair { rows: 0 },
            50..=64 => CounterOperation::Insert {
                key: self.next_row.fetch_add(1, Ordering::Relaxed),
                was_there: false,
            },
            65..=84 => CounterOperation::Read {
                counter,
                values: Vec::new(),
            },
            _ => CounterOperation::ReadAll { values: Vec::new() },
        }
    }

    /// Carries an operation out and fills in its answer; the flag of an error tells whether it may have had an effect.
    async fn execute(&self, client: &Client, operation: &mut CounterOperation) -> Result<(), Failure> {
        let table = &self.table;
        let effect = |error| (error, true);
        let no_effect = |error| (error, false);
        match operation {
            CounterOperation::Increase { counter, rows } => {
                let update = format!("UPDATE {table} SET value = value + 1 WHERE id = {counter}");
                *rows = client.run(&update).await.map_err(effect)?;
            }
            CounterOperation::IncreaseReturning { counter, values } => {
                let update =
                    format!("UPDATE {table} SET value = value + 1 WHERE id = {counter} RETURNING value");
                let rows = client.numbers(&update).await.map_err(effect)?;
                *values = rows.into_iter().flatten().collect();
            }
            CounterOperation::IncreasePair { rows } => {
                let [first, second] = PAIR;
                let update = format!("UPDATE {table} SET value = value + 1 WHERE id IN ({first}, {second})");
                *rows = client.run(&update).await.map_err(effect)?;
            }
            CounterOperation::Insert { key, was_there } => {
                let insert = format!("INSERT INTO {table} (id, value) VALUES ({key}, 0)");
                match client.run(&insert).await {
                    Ok(_) => {}
                    Err(CallError::Refused { code, .. }) if code == UNIQUE_VIOLATION => *was_there = true,
                    Err(error) => return Err(effect(error)),
                }
            }
            CounterOperation::Read { counter, values } => {
                let query = format!("SELECT value FROM {table} WHERE id = {counter}");
                let rows = client.numbers(&query).await.map_err(no_effect)?;
                *values = rows.into_iter().flatten().collect();
            }
            CounterOperation::ReadAll { values } => {
                let query = format!("SELECT id, value FROM {table} WHERE id < {FIRST_ROW}");
                *values = client.pairs(&query).await.map_err(no_effect)?;
            }
            CounterOperation::Rows { keys } => {
                let query = format!("SELECT id FROM {table} WHERE id >= {FIRST_ROW}");
                let rows = client.numbers(&query).await.map_err(no_effect)?;
                *keys = rows.into_iter().flatten().collect();
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Workload for Counters {
    fn name(&self) -> &str {
        "counters"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "value bigint NOT NULL", self.shards).await?;
        let counters = (0..SINGLES).chain(PAIR);
        let rows = counters.map(|counter| (counter, 0));
        fill_table(client, table, "value", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let mut operation = self.draw(random);
        let invocation = self.history.invoke(&*clock, index, operation.clone());
        let result = self.execute(client, &mut operation).await;
        conclude(client, &self.history, invocation, operation, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        for mut operation in [
            CounterOperation::ReadAll { values: Vec::new() },
            CounterOperation::Rows { keys: Vec::new() },
        ] {
            let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
            self.execute(client, &mut operation)
                .await
                .map_err(|(error, _)| error)?;
            self.history
                .complete(&*clock, invocation, operation, Outcome::Done, None);
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::counters::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
