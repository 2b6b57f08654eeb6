//! Rows that were acknowledged must be there, whatever happened since.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallResult, Client, number};
use crate::history::History;
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, judge};

/// Ids inserted by one transaction: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Insertion {
    /// The ids.
    pub ids: Vec<i64>,
}

/// The durability workload.
pub struct Durability {
    table: String,
    shards: Option<u32>,
    next_id: AtomicI64,
    history: History<Insertion>,
    /// Ids that were there at the end. Whatever is there twice is in it twice.
    last_seen: Mutex<Option<Vec<i64>>>,
}

impl Durability {
    /// Inserts into `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_id: AtomicI64::new(1),
            history: History::default(),
            last_seen: Mutex::new(None),
        }
    }

    /// Inserts `ids`; the flag of an error tells whether it met the commit.
    async fn insert(&self, client: &Client, ids: &[i64]) -> Result<(), Failure> {
        let table = &self.table;
        let values = |ids: &[i64]| {
            // Of different lengths, so that log records spread over sectors in every way.
            let note = |id: i64| {
                format!(
                    "row {id} {}",
                    "…".repeat(usize::try_from(id % 7).unwrap_or(0) * 20)
                )
            };
            let values: Vec<String> = ids.iter().map(|id| format!("({id}, '{}')", note(*id))).collect();
            values.join(", ")
        };
        // Half of the transactions commit by themselves, so that both ways to the commit point are walked.
        if ids[0] % 2 == 0 {
            let sql = format!("INSERT INTO {table} (id, note) VALUES {}", values(ids));
            client.run(&sql).await.map_err(|error| (error, true))?;
            return Ok(());
        }
        client.run("BEGIN").await.map_err(|error| (error, false))?;
        for id in ids {
            let sql = format!("INSERT INTO {table} (id, note) VALUES {}", values(&[*id]));
            client.run(&sql).await.map_err(|error| (error, false))?;
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }
}

#[async_trait]
impl Workload for Durability {
    fn name(&self) -> &str {
        "durability"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "note text NOT NULL", self.shards).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let ids: Vec<i64> = (0..random.random_range(1..=8))
            .map(|_| self.next_id.fetch_add(1, Ordering::Relaxed))
            .collect();
        let operation = Insertion { ids };
        let invocation = self.history.invoke(&*clock, index, operation.clone());
        let result = self.insert(client, &operation.ids).await;
        conclude(client, &self.history, invocation, operation, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let rows = client.rows(&format!("SELECT id FROM {}", self.table)).await?;
        let mut seen = rows
            .iter()
            .map(|row| number(row.first()))
            .collect::<CallResult<Vec<_>>>()?;
        seen.sort_unstable();
        *self.last_seen.lock() = Some(seen);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::durability::check(records, self.last_seen.lock().as_deref())
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)?;
        serde_json::to_writer(
            &mut *output,
            &serde_json::json!({ "finally_present": *self.last_seen.lock() }),
        )?;
        output.write_all(b"\n")
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
