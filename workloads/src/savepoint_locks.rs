//! Locks that a transaction took since a savepoint are free once it went back there; those from before are not.
//!
//! Each client has rows of its own, so that nobody else can explain what its second connection is told.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client};
use crate::history::History;
use crate::workload::{Failure, Report, Step, Workload, after_error, conclude, create_table, judge};

/// Whether another connection could have a row's lock at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// It got the lock.
    Free,
    /// `55P03`.
    Locked,
}

/// A transaction that went back to a savepoint, and what the other connection found then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The row that was written before the savepoint.
    pub held_row: i64,
    /// The row that was written since the savepoint only.
    pub freed_row: i64,
    /// What the other connection was told about `held_row`; nothing without an answer.
    pub held: Option<Probe>,
    /// What it was told about `freed_row`.
    pub freed: Option<Probe>,
}

/// The savepoint-locks workload.
pub struct SavepointLocks {
    table: String,
    shards: Option<u32>,
    next_row: AtomicI64,
    /// Rows of each client that nothing of it can still be on the way to.
    rows: Mutex<BTreeMap<u32, (i64, i64)>>,
    /// Each client's second connection.
    others: Mutex<BTreeMap<u32, Client>>,
    history: History<Observation>,
}

impl SavepointLocks {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_row: AtomicI64::new(1),
            rows: Mutex::default(),
            others: Mutex::default(),
            history: History::default(),
        }
    }

    /// The client's rows; new ones after trouble, as a lost request may still lock the old ones for a moment.
    async fn own_rows(&self, client: &Client, index: u32) -> CallResult<(i64, i64)> {
        if let Some(rows) = self.rows.lock().get(&index) {
            return Ok(*rows);
        }
        let held = self.next_row.fetch_add(2, Ordering::Relaxed);
        let freed = held + 1;
        let table = &self.table;
        client
            .run(&format!(
                "INSERT INTO {table} (id, value) VALUES ({held}, 0), ({freed}, 0)"
            ))
            .await?;
        self.rows.lock().insert(index, (held, freed));
        Ok((held, freed))
    }

    async fn write(&self, client: &Client, row: i64) -> CallResult<()> {
        let table = &self.table;
        let update = format!("UPDATE {table} SET value = value + 1 WHERE id = {row}");
        match client.run(&update).await? {
            1 => Ok(()),
            rows => Err(CallError::Nonsense(format!(
                "{rows} rows have the primary key {row}"
            ))),
        }
    }

    /// Asks for the lock of `row` and for its value without waiting.
    async fn probe(&self, other: &Client, row: i64) -> CallResult<Probe> {
        let table = &self.table;
        let query = format!("SELECT value FROM {table} WHERE id = {row} FOR UPDATE NOWAIT");
        match other.rows(&query).await {
            Ok(_) => Ok(Probe::Free),
            Err(CallError::Refused { code, .. }) if code == "55P03" => Ok(Probe::Locked),
            Err(error) => Err(error),
        }
    }

    /// Fills in what the other connection sees; the flag of an error tells whether it met the commit.
    async fn execute(
        &self,
        client: &Client,
        other: &Client,
        random: &mut SmallRng,
        seen: &mut Observation,
    ) -> Result<(), Failure> {
        let before = |error| (error, false);
        client.run("BEGIN").await.map_err(before)?;
        self.write(client, seen.held_row).await.map_err(before)?;
        client.run("SAVEPOINT outer_one").await.map_err(before)?;
        if random.random_bool(0.5) {
            // Locked before already: going back must not let go of it.
            self.write(client, seen.held_row).await.map_err(before)?;
        }
        if random.random_bool(0.3) {
            client.run("SAVEPOINT inner_one").await.map_err(before)?;
        }
        self.write(client, seen.freed_row).await.map_err(before)?;
        client
            .run("ROLLBACK TO SAVEPOINT outer_one")
            .await
            .map_err(before)?;
        seen.freed = Some(self.probe(other, seen.freed_row).await.map_err(before)?);
        seen.held = Some(self.probe(other, seen.held_row).await.map_err(before)?);
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }
}

#[async_trait]
impl Workload for SavepointLocks {
    fn name(&self) -> &str {
        "savepoint-locks"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "value bigint NOT NULL", self.shards).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let (held_row, freed_row) = match self.own_rows(client, index).await {
            Ok(rows) => rows,
            Err(error) => return after_error(client, &error).await,
        };
        let mut seen = Observation {
            held_row,
            freed_row,
            ..Observation::default()
        };
        let invocation = self.history.invoke(&*clock, index, seen.clone());
        let known = self.others.lock().remove(&index);
        let other = match known {
            Some(other) => Ok(other),
            None => client.another().await,
        };
        let result = match other {
            Ok(other) => {
                let result = self.execute(client, &other, random, &mut seen).await;
                if result.is_ok() {
                    self.others.lock().insert(index, other);
                }
                result
            }
            Err(error) => Err((error, false)),
        };
        if result.is_err() {
            self.rows.lock().remove(&index);
        }
        conclude(client, &self.history, invocation, seen, result).await
    }

    async fn finish(&self, _client: &Client) -> CallResult<()> {
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::savepoint_locks::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
