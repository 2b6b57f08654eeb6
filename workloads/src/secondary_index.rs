//! Rows that move between the keys of an index, and readers who look for them by the index, by their primary key and
//! by a full scan in one snapshot: all three must tell the same, and no row may be missing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallResult, Client};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, fill_table, judge};

/// Rows, whose keys begin at 0.
pub const ROWS: i64 = 12;
/// Categories, of which each row has one.
pub const CATEGORIES: i64 = 4;

/// How rows are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// One row, by a statement that commits by itself.
    One,
    /// Two rows in one transaction.
    Two,
    /// All rows of a category, which the index finds.
    Category,
    /// A row is deleted and inserted again.
    Anew,
    /// A row is moved, the move taken back to a savepoint, and another row moved.
    TakenBack,
}

/// What one snapshot showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rows and categories by a full scan; none where a single statement looked by the index only.
    pub by_scan: Option<Vec<(i64, i64)>>,
    /// Category to rows and categories as the index found them.
    pub by_index: BTreeMap<i64, Vec<(i64, i64)>>,
    /// Row to categories as the primary key found it.
    pub by_key: BTreeMap<i64, Vec<i64>>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexOperation {
    /// Rows get other categories.
    Move {
        /// How.
        kind: Move,
    },
    /// Rows are looked at.
    Look {
        /// What was seen; nothing until answered.
        snapshot: Snapshot,
    },
}

/// The secondary-index workload.
pub struct SecondaryIndex {
    table: String,
    shards: Option<u32>,
    history: History<IndexOperation>,
}

impl SecondaryIndex {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            history: History::default(),
        }
    }

    async fn update(&self, client: &Client, row: i64, category: i64) -> CallResult<()> {
        let table = &self.table;
        let update = format!("UPDATE {table} SET category = {category} WHERE id = {row}");
        // A row that was deleted and inserted again meanwhile may be passed over, as in PostgreSQL.
        client.run(&update).await.map(|_| ())
    }

    /// The flag of an error tells whether it met the commit.
    async fn carry_out(&self, client: &Client, kind: Move, random: &mut SmallRng) -> Result<(), Failure> {
        let table = &self.table;
        let before = |error| (error, false);
        let row = random.random_range(0..ROWS);
        let other = (row + random.random_range(1..ROWS)) % ROWS;
        let category = random.random_range(0..CATEGORIES);
        if kind == Move::One {
            let result = self.update(client, row, category).await;
            return result.map_err(|error| (error, true));
        }
        client.run("BEGIN").await.map_err(before)?;
        match kind {
            Move::One => {}
            Move::Two => {
                self.update(client, row, category).await.map_err(before)?;
                let category = random.random_range(0..CATEGORIES);
                self.update(client, other, category).await.map_err(before)?;
            }
            Move::Category => {
                let from = (category + 1) % CATEGORIES;
                client
                    .run(&format!(
                        "UPDATE {table} SET category = {category} WHERE category = {from}"
                    ))
                    .await
                    .map_err(before)?;
            }
            Move::Anew => {
                client
                    .run(&format!("DELETE FROM {table} WHERE id = {row}"))
                    .await
                    .map_err(before)?;
                client
                    .run(&format!(
                        "INSERT INTO {table} (id, category) VALUES ({row}, {category})"
                    ))
                    .await
                    .map_err(before)?;
            }
            Move::TakenBack => {
                client.run("SAVEPOINT here").await.map_err(before)?;
                self.update(client, row, category).await.map_err(before)?;
                client.run("ROLLBACK TO SAVEPOINT here").await.map_err(before)?;
                self.update(client, other, category).await.map_err(before)?;
            }
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    async fn by_index(&self, client: &Client, category: i64) -> CallResult<Vec<(i64, i64)>> {
        let table = &self.table;
        let query = format!("SELECT id, category FROM {table} WHERE category = {category}");
        client.pairs(&query).await
    }

    /// Looks by the index for `categories`, by key for `rows`, and at everything, in one snapshot.
    async fn look(&self, client: &Client, categories: &[i64], rows: &[i64]) -> CallResult<Snapshot> {
        let table = &self.table;
        let mut snapshot = Snapshot::default();
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        for category in categories {
            let found = self.by_index(client, *category).await?;
            snapshot.by_index.insert(*category, found);
        }
        // A condition that no index helps with.
        let scan = format!("SELECT id, category FROM {table} WHERE category + 0 >= 0");
        snapshot.by_scan = Some(client.pairs(&scan).await?);
        for row in rows {
            let found = client
                .numbers(&format!("SELECT category FROM {table} WHERE id = {row}"))
                .await?;
            snapshot
                .by_key
                .insert(*row, found.into_iter().flatten().collect());
        }
        client.run("COMMIT").await?;
        Ok(snapshot)
    }
}

#[async_trait]
impl Workload for SecondaryIndex {
    fn name(&self) -> &str {
        "secondary-index"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "category bigint NOT NULL", self.shards).await?;
        client.run(&format!("CREATE INDEX ON {table} (category)")).await?;
        let rows = (0..ROWS).map(|row| (row, row % CATEGORIES));
        fill_table(client, table, "category", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        if random.random_bool(0.6) {
            let kind = match random.random_range(0..100) {
                0..=39 => Move::One,
                40..=59 => Move::Two,
                60..=69 => Move::Category,
                70..=84 => Move::Anew,
                _ => Move::TakenBack,
            };
            let operation = IndexOperation::Move { kind };
            let invocation = self.history.invoke(&*clock, index, operation.clone());
            let result = self.carry_out(client, kind, random).await;
            return conclude(client, &self.history, invocation, operation, result).await;
        }
        let category = random.random_range(0..CATEGORIES);
        let row = random.random_range(0..ROWS);
        let mut snapshot = Snapshot::default();
        let operation = |snapshot: &Snapshot| IndexOperation::Look {
            snapshot: snapshot.clone(),
        };
        let invocation = self.history.invoke(&*clock, index, operation(&snapshot));
        let result = if random.random_bool(0.3) {
            let found = self.by_index(client, category).await;
            found.map(|found| Snapshot {
                by_index: BTreeMap::from([(category, found)]),
                ..Snapshot::default()
            })
        } else {
            self.look(client, &[category], &[row]).await
        };
        let result = result.map(|seen| snapshot = seen).map_err(|error| (error, false));
        conclude(client, &self.history, invocation, operation(&snapshot), result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let categories: Vec<i64> = (0..CATEGORIES).collect();
        let rows: Vec<i64> = (0..ROWS).collect();
        let snapshot = self.look(client, &categories, &rows).await?;
        let operation = IndexOperation::Look { snapshot };
        let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
        self.history
            .complete(&*clock, invocation, operation, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::secondary_index::check(records, ROWS)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
