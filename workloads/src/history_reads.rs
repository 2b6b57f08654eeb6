//! Snapshots whose timestamps are written down, and read again by anybody, much later, AS OF SYSTEM TIME: through other
//! Coordinators and other primaries, after restarts, they show what they showed, or are refused as too old.

use std::io::{self, Write};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::checker::history_reads::Expectations;
use crate::client::{CallError, CallResult, Client};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{
    Failure, Report, Step, Workload, after_error, conclude, create_table, fill_table, judge,
};

/// Rows, whose keys begin at 0; their values always sum up to 0.
pub const ROWS: i64 = 5;
/// Timestamps that are mostly read again: the latest so many.
const RECENT: usize = 12;

/// SQLSTATE of what is not kept any more.
pub const SNAPSHOT_TOO_OLD: &str = "72000";

/// How a snapshot is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// In a REPEATABLE READ transaction that also tells its timestamp.
    Fresh,
    /// `SELECT … AS OF SYSTEM TIME`
    Statement,
    /// `BEGIN AS OF SYSTEM TIME`, and row by row.
    Block,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryOperation {
    /// An amount moves from one row to another.
    Move {
        /// Loses it.
        from: i64,
        /// Gets it.
        to: i64,
    },
    /// All rows are read.
    Look {
        /// How.
        look: Look,
        /// At which timestamp; 0 as long as it is not known.
        timestamp: u64,
        /// Rows and values (empty until answered).
        values: Vec<(i64, i64)>,
        /// SQLSTATE of the refusal.
        refusal: Option<String>,
    },
}

/// The history-reads workload.
pub struct HistoryReads {
    table: String,
    shards: Option<u32>,
    expectations: Expectations,
    /// Timestamps of snapshots that were seen.
    noted: Mutex<Vec<u64>>,
    history: History<HistoryOperation>,
}

impl HistoryReads {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            expectations: Expectations::default(),
            noted: Mutex::default(),
            history: History::default(),
        }
    }

    /// The same on servers of which something is known.
    pub fn expecting(self, expectations: Expectations) -> Self {
        Self { expectations, ..self }
    }

    async fn transfer(&self, client: &Client, from: i64, to: i64, amount: i64) -> Result<(), Failure> {
        let table = &self.table;
        let before = |error| (error, false);
        client.run("BEGIN").await.map_err(before)?;
        for (row, by) in [(from, -amount), (to, amount)] {
            client
                .run(&format!(
                    "UPDATE {table} SET value = value + {by} WHERE id = {row}"
                ))
                .await
                .map_err(before)?;
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    /// Reads all rows; `timestamp` is learned, or given.
    async fn look(&self, client: &Client, look: Look, timestamp: &mut u64) -> CallResult<Vec<(i64, i64)>> {
        let table = &self.table;
        let mut values = Vec::new();
        match look {
            Look::Fresh => {
                client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
                values = client.pairs(&format!("SELECT id, value FROM {table}")).await?;
                let rows = client.rows("SELECT cluster_logical_timestamp()").await?;
                let text = rows.first().and_then(|row| row.first()).cloned().flatten();
                let number = text.as_deref().and_then(|text| text.parse().ok());
                *timestamp = number
                    .ok_or_else(|| CallError::Nonsense(format!("expected a timestamp, got {text:?}")))?;
                client.run("COMMIT").await?;
            }
            Look::Statement => {
                let query = format!("SELECT id, value FROM {table} AS OF SYSTEM TIME {timestamp}");
                values = client.pairs(&query).await?;
            }
            Look::Block => {
                client
                    .run(&format!("BEGIN AS OF SYSTEM TIME {timestamp}"))
                    .await?;
                for row in 0..ROWS {
                    let query = format!("SELECT id, value FROM {table} WHERE id = {row}");
                    values.extend(client.pairs(&query).await?);
                }
                client.run("COMMIT").await?;
            }
        }
        Ok(values)
    }

    /// One reading, written down.
    async fn write_down(
        &self,
        client: &Client,
        index: u32,
        look: Look,
        mut timestamp: u64,
    ) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let operation = |timestamp, values, refusal| HistoryOperation::Look {
            look,
            timestamp,
            values,
            refusal,
        };
        let asked = operation(timestamp, Vec::new(), None);
        let invocation = self.history.invoke(&*clock, index, asked);
        match self.look(client, look, &mut timestamp).await {
            Ok(values) => {
                let answered = operation(timestamp, values, None);
                self.history
                    .complete(&*clock, invocation, answered, Outcome::Done, None);
                if look == Look::Fresh {
                    self.noted.lock().push(timestamp);
                }
                Ok(())
            }
            Err(error) => {
                let refusal = error.code().map(str::to_owned);
                let refused = operation(timestamp, Vec::new(), refusal);
                let message = Some(error.to_string());
                self.history
                    .complete(&*clock, invocation, refused, Outcome::Failed, message);
                Err(error)
            }
        }
    }

    /// A timestamp to look back at.
    fn pick(&self, random: &mut SmallRng) -> Option<u64> {
        let noted = self.noted.lock();
        let from = if random.random_bool(0.7) {
            noted.len().saturating_sub(RECENT)
        } else {
            0
        };
        (!noted.is_empty()).then(|| noted[random.random_range(from..noted.len())])
    }
}

#[async_trait]
impl Workload for HistoryReads {
    fn name(&self) -> &str {
        "history-reads"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "value bigint NOT NULL", self.shards).await?;
        let rows = (0..ROWS).map(|row| (row, 0));
        fill_table(client, table, "value", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        if random.random_bool(0.5) {
            let clock = client.world().clock.clone();
            let from = random.random_range(0..ROWS);
            let to = (from + random.random_range(1..ROWS)) % ROWS;
            let operation = HistoryOperation::Move { from, to };
            let invocation = self.history.invoke(&*clock, index, operation.clone());
            let amount = random.random_range(1..=9);
            let result = self.transfer(client, from, to, amount).await;
            return conclude(client, &self.history, invocation, operation, result).await;
        }
        let back = if random.random_bool(0.7) {
            self.pick(random)
        } else {
            None
        };
        let look = match back {
            None => Look::Fresh,
            Some(_) if random.random_bool(0.4) => Look::Block,
            Some(_) => Look::Statement,
        };
        match self.write_down(client, index, look, back.unwrap_or(0)).await {
            Ok(()) => Step::Served,
            Err(error) => after_error(client, &error).await,
        }
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let noted: Vec<u64> = self.noted.lock().iter().rev().take(RECENT).copied().collect();
        for timestamp in noted {
            match self
                .write_down(client, FINAL_READER, Look::Statement, timestamp)
                .await
            {
                Err(CallError::Refused { code, .. }) if code == SNAPSHOT_TOO_OLD => {}
                result => result?,
            }
        }
        self.write_down(client, FINAL_READER, Look::Fresh, 0).await
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::history_reads::check(records, ROWS, self.expectations)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
