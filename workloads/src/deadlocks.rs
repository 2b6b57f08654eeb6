//! Transactions that lock rows in opposite orders, over all shards: none may wait for ever, who is refused is refused
//! for a reason that tells to try again, and what is refused leaves nothing behind.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::future::join;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, fill_table, judge};

/// Rows, whose keys begin at 0; their values always sum up to 0.
pub const ROWS: i64 = 6;

/// SQLSTATE of who is chosen to make way.
pub const DEADLOCK_DETECTED: &str = "40P01";

/// How a transaction locks its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// By changing them.
    Update,
    /// By SELECT … FOR UPDATE; they are changed once all are locked.
    Select,
    /// Some so, some so.
    Mixed,
}

/// How the crossing of two transactions ended, when nothing else was going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// SQLSTATE that each of the two met; nothing where it got both locks and committed.
    pub refusals: Vec<Option<String>>,
}

impl Crossing {
    /// Whether they met, and nothing else came between: a failover may still end transactions for other reasons.
    pub fn met(&self) -> bool {
        let refusals = || self.refusals.iter().flatten();
        refusals().next().is_some() && refusals().all(|code| code == DEADLOCK_DETECTED)
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockingOperation {
    /// Rows are locked in an order, then one unit is taken from each but the first, which gets them all.
    Change {
        /// How.
        lock: Lock,
        /// In this order.
        rows: Vec<i64>,
        /// SQLSTATE of the refusal.
        refusal: Option<String>,
    },
    /// All rows by one statement.
    Read {
        /// Rows and values (empty until answered).
        values: Vec<(i64, i64)>,
    },
    /// Two transactions that must meet, when everything is quiet.
    Cross(Crossing),
}

/// The deadlocks workload.
pub struct Deadlocks {
    table: String,
    shards: Option<u32>,
    is_damage_expected: bool,
    history: History<LockingOperation>,
    /// Crossings tried at the end: each takes other rows, which none before can still hold.
    crossings: AtomicI64,
}

async fn change(client: &Client, table: &str, row: i64, by: i64) -> CallResult<()> {
    let update = format!("UPDATE {table} SET value = value + {by} WHERE id = {row}");
    match client.run(&update).await? {
        1 => Ok(()),
        // Whoever reads all rows tells the checker.
        rows => Err(CallError::Nonsense(format!("{rows} rows have the key {row}"))),
    }
}

/// Asks for the second lock, and makes way at once if it is refused. The SQLSTATE of the refusal.
async fn cross(client: &Client, table: &str, row: i64) -> CallResult<Option<String>> {
    let refused = match change(client, table, row, -1).await {
        Ok(()) => match client.run("COMMIT").await {
            Ok(_) => return Ok(None),
            Err(error) => error,
        },
        Err(error) => error,
    };
    match refused.code().map(str::to_owned) {
        Some(code) if refused.connection_survives() => {
            client.run("ROLLBACK").await?;
            Ok(Some(code))
        }
        _ => Err(refused),
    }
}

impl Deadlocks {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            is_damage_expected: false,
            history: History::default(),
            crossings: AtomicI64::new(0),
        }
    }

    /// The same where somebody damages disks: who meets a damaged copy of a shard is refused.
    pub fn expecting_damage(self, is_damage_expected: bool) -> Self {
        Self {
            is_damage_expected,
            ..self
        }
    }

    /// The flag of an error tells whether it met the commit.
    async fn change_all(
        &self,
        client: &Client,
        lock: Lock,
        rows: &[i64],
        random: &mut SmallRng,
    ) -> Result<(), Failure> {
        let table = &self.table;
        let before = |error| (error, false);
        let by = |place: usize| if place == 0 { rows.len() as i64 - 1 } else { -1 };
        client.run("BEGIN").await.map_err(before)?;
        let mut only_locked = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let only_lock = match lock {
                Lock::Update => false,
                Lock::Select => true,
                Lock::Mixed => random.random_bool(0.5),
            };
            if only_lock {
                let query = format!("SELECT value FROM {table} WHERE id = {row} FOR UPDATE");
                client.rows(&query).await.map_err(before)?;
                only_locked.push((*row, by(place)));
            } else {
                change(client, table, *row, by(place)).await.map_err(before)?;
            }
        }
        for (row, by) in only_locked {
            change(client, table, row, by).await.map_err(before)?;
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    async fn read(&self, client: &Client) -> CallResult<Vec<(i64, i64)>> {
        let table = &self.table;
        client.pairs(&format!("SELECT id, value FROM {table}")).await
    }

    /// Has two transactions wait for each other, which one of them at least must get out of.
    async fn crossing(&self, client: &Client) -> CallResult<Crossing> {
        let table = &self.table;
        let first = self.crossings.fetch_add(1, Ordering::Relaxed) % ROWS;
        let second = (first + 1) % ROWS;
        let other = client.another().await?;
        for (client, row) in [(client, first), (&other, second)] {
            client.run("BEGIN").await?;
            change(client, table, row, 1).await?;
        }
        let (one, two) = join(cross(client, table, second), cross(&other, table, first)).await;
        Ok(Crossing {
            refusals: vec![one?, two?],
        })
    }
}

#[async_trait]
impl Workload for Deadlocks {
    fn name(&self) -> &str {
        "deadlocks"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "value bigint NOT NULL", self.shards).await?;
        let rows = (0..ROWS).map(|row| (row, 0));
        fill_table(client, table, "value", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        if random.random_bool(0.25) {
            let mut values = Vec::new();
            let operation = |values: &[(i64, i64)]| LockingOperation::Read {
                values: values.to_vec(),
            };
            let invocation = self.history.invoke(&*clock, index, operation(&values));
            let result = self.read(client).await;
            let result = result.map(|seen| values = seen).map_err(|error| (error, false));
            return conclude(client, &self.history, invocation, operation(&values), result).await;
        }
        let lock = match random.random_range(0..3) {
            0 => Lock::Update,
            1 => Lock::Select,
            _ => Lock::Mixed,
        };
        let mut rows: Vec<i64> = (0..ROWS).collect();
        rows.shuffle(random);
        rows.truncate(random.random_range(2..=3));
        let operation = |refusal| LockingOperation::Change {
            lock,
            rows: rows.clone(),
            refusal,
        };
        let invocation = self.history.invoke(&*clock, index, operation(None));
        let result = self.change_all(client, lock, &rows, random).await;
        let refusal = result
            .as_ref()
            .err()
            .and_then(|(error, _)| error.code().map(str::to_owned));
        conclude(client, &self.history, invocation, operation(refusal), result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        for _ in 0..2 {
            let operation = LockingOperation::Cross(Crossing::default());
            let invocation = self.history.invoke(&*clock, FINAL_READER, operation);
            let crossing = self.crossing(client).await?;
            let disturbed = !crossing.met();
            let message = format!("the crossing ended otherwise: {:?}", crossing.refusals);
            let operation = LockingOperation::Cross(crossing);
            self.history
                .complete(&*clock, invocation, operation, Outcome::Done, None);
            if disturbed {
                return Err(CallError::NoAnswer(message));
            }
        }
        let values = self.read(client).await?;
        let operation = LockingOperation::Read { values };
        let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
        self.history
            .complete(&*clock, invocation, operation, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::deadlocks::check(records, ROWS, self.is_damage_expected)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
