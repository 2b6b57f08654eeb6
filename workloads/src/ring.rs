//! A ring of rows, each of which names the next one; transactions turn three of the pointers (the Cycle workload of
//! FoundationDB). Whoever interleaves two of them breaks the ring into several, or into one that is too short.

use std::io::{self, Write};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, at_most_one};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, fill_table, judge};

/// How a rotation keeps others out. Each must keep the ring whole: all that is read is written or locked too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationKind {
    /// SERIALIZABLE, plain reads.
    Serializable,
    /// REPEATABLE READ, plain reads: of two that meet, one is refused.
    Snapshot,
    /// READ COMMITTED, reads by SELECT … FOR UPDATE: of two that meet, one waits.
    LockedRows,
}

/// How the ring is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalkKind {
    /// One statement over all rows.
    OneStatement,
    /// From row to row in one REPEATABLE READ transaction.
    OneTransaction,
    /// The last reading, when everything is quiet.
    Final,
}

/// An operation on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingOperation {
    /// Row, second and third of `a → b → c → d` change their order: `a → c → b → d`.
    Rotate {
        /// How.
        kind: RotationKind,
        /// `a`, and as far as they were read `b`, `c` and `d`.
        rows: Vec<i64>,
    },
    /// Pointers that were read: row to next row.
    Walk {
        /// How.
        kind: WalkKind,
        /// What was seen (empty until answered).
        next: Vec<(i64, i64)>,
    },
}

/// The ring workload.
pub struct Ring {
    table: String,
    length: i64,
    shards: Option<u32>,
    history: History<RingOperation>,
}

impl Ring {
    /// A ring of `length` rows, at least four, in `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, length: i64, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            length: length.max(4),
            shards,
            history: History::default(),
        }
    }

    /// Where a row leads; nothing if it is not there.
    async fn next(&self, client: &Client, row: i64, lock: &str) -> CallResult<Option<i64>> {
        let table = &self.table;
        let rows = client
            .numbers(&format!("SELECT next FROM {table} WHERE id = {row}{lock}"))
            .await?;
        Ok(at_most_one(rows)?.and_then(|columns| columns.first().copied()))
    }

    async fn rotate(&self, client: &Client, kind: RotationKind, rows: &mut Vec<i64>) -> Result<(), Failure> {
        let before = |error| (error, false);
        let (level, lock) = match kind {
            RotationKind::Serializable => ("SERIALIZABLE", ""),
            RotationKind::Snapshot => ("REPEATABLE READ", ""),
            RotationKind::LockedRows => ("READ COMMITTED", " FOR UPDATE"),
        };
        client
            .run(&format!("BEGIN ISOLATION LEVEL {level}"))
            .await
            .map_err(before)?;
        for turn in 0..3 {
            let row = rows[turn];
            match self.next(client, row, lock).await.map_err(before)? {
                Some(next) => rows.push(next),
                // Whoever reads the ring as a whole tells the checker.
                None => return Err(before(CallError::Nonsense(format!("row {row} is missing")))),
            }
        }
        let table = &self.table;
        for (row, next) in [(rows[0], rows[2]), (rows[2], rows[1]), (rows[1], rows[3])] {
            let updated = client
                .run(&format!("UPDATE {table} SET next = {next} WHERE id = {row}"))
                .await
                .map_err(before)?;
            if updated != 1 {
                let error = CallError::Nonsense(format!("row {row} was not there to be updated"));
                return Err((error, false));
            }
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    async fn walk(&self, client: &Client, kind: WalkKind, first: i64) -> CallResult<Vec<(i64, i64)>> {
        if kind != WalkKind::OneTransaction {
            return client
                .pairs(&format!("SELECT id, next FROM {}", self.table))
                .await;
        }
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let mut seen = Vec::new();
        let mut row = first;
        // A walk that comes back too early, or nowhere, has seen too little, which the checker says.
        while !seen.iter().any(|(from, _)| *from == row) {
            let Some(next) = self.next(client, row, "").await? else {
                break;
            };
            seen.push((row, next));
            row = next;
        }
        client.run("COMMIT").await?;
        Ok(seen)
    }
}

#[async_trait]
impl Workload for Ring {
    fn name(&self) -> &str {
        "ring"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "next bigint NOT NULL", self.shards).await?;
        let rows = (0..self.length).map(|row| (row, (row + 1) % self.length));
        fill_table(client, table, "next", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let first = random.random_range(0..self.length);
        if random.random_bool(0.5) {
            let kind = match random.random_range(0..4) {
                0 => RotationKind::LockedRows,
                1 => RotationKind::Snapshot,
                _ => RotationKind::Serializable,
            };
            let mut rows = vec![first];
            let operation = |rows: &[i64]| RingOperation::Rotate {
                kind,
                rows: rows.to_vec(),
            };
            let invocation = self.history.invoke(&*clock, index, operation(&rows));
            let result = self.rotate(client, kind, &mut rows).await;
            return conclude(client, &self.history, invocation, operation(&rows), result).await;
        }
        let kind = if random.random_bool(0.2) {
            WalkKind::OneTransaction
        } else {
            WalkKind::OneStatement
        };
        let mut next = Vec::new();
        let operation = |next: &[(i64, i64)]| RingOperation::Walk {
            kind,
            next: next.to_vec(),
        };
        let invocation = self.history.invoke(&*clock, index, operation(&next));
        let result = self.walk(client, kind, first).await;
        let result = result.map(|seen| next = seen).map_err(|error| (error, false));
        conclude(client, &self.history, invocation, operation(&next), result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let kind = WalkKind::Final;
        let next = self.walk(client, kind, 0).await?;
        let operation = RingOperation::Walk { kind, next };
        let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
        self.history
            .complete(&*clock, invocation, operation, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::ring::check(records, self.length)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
