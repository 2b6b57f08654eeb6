//! Transactions of several statements, with time between them for others to redefine the table.

use std::time::Duration;

use neorunbase_world::Clock;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use super::{MARKS, mark_of};
use crate::client::Client;
use crate::level::Level;
use crate::workload::Failure;

/// Rows that are changed or deleted are among so many that were inserted last.
const RECENT: i64 = 30;
/// So many rows meet most shards, those that the transaction has written before among them.
const MANY: i64 = 16;
/// Some transactions wait so long for their table to be redefined, though they keep it from that.
const OUTLASTS: Duration = Duration::from_secs(7);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// INSERT of rows that were never there.
    Insert {
        /// Their keys.
        ids: Vec<i64>,
    },
    /// UPDATE of the mark of a row, if it is there.
    Remark {
        /// Its key.
        id: i64,
        /// The new mark.
        mark: i64,
    },
    /// DELETE of a row, if it is there.
    Delete {
        /// Its key.
        id: i64,
    },
}

/// A statement and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What it does.
    pub change: Change,
    /// When the answer came, on the clock of the history.
    pub answered_micros: Option<u64>,
    /// How many rows it affected, once it is answered.
    pub rows: u64,
}

/// BEGIN, statements, COMMIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Its isolation level.
    pub level: Level,
    /// In their order; the first inserts.
    pub statements: Vec<Statement>,
    /// When COMMIT was sent, on the clock of the history.
    pub commit_micros: Option<u64>,
}

impl Transaction {
    /// What a client will do; `take_ids` gives the first of so many new keys.
    pub(super) fn draw(random: &mut SmallRng, take_ids: impl Fn(i64) -> i64) -> Self {
        let level = match random.random_range(0..4) {
            0 => Level::RepeatableRead,
            1 => Level::Serializable,
            _ => Level::ReadCommitted,
        };
        let insert = |first: i64, count: i64| Change::Insert {
            ids: (first..first + count).collect(),
        };
        let count = random.random_range(1..=3);
        let newest = take_ids(count);
        let mut changes = vec![insert(newest, count)];
        for _ in 0..random.random_range(0..3) {
            // Never one of its own, which might leave it with nothing to commit.
            let id = newest - random.random_range(1..=RECENT);
            changes.push(match random.random_range(0..6) {
                0 => Change::Delete { id },
                1 | 2 => Change::Remark {
                    id,
                    mark: random.random_range(0..MARKS),
                },
                3 => insert(take_ids(1), 1),
                _ => insert(take_ids(MANY), MANY),
            });
        }
        let statement = |change| Statement {
            change,
            answered_micros: None,
            rows: 0,
        };
        Self {
            level,
            statements: changes.into_iter().map(statement).collect(),
            commit_micros: None,
        }
    }

    /// Carries it out on `table`, and notes the answers; the flag of an error tells whether it met the commit. `definitions`
    /// counts those of the table that were acknowledged.
    pub(super) async fn execute(
        &mut self,
        client: &Client,
        table: &str,
        random: &mut SmallRng,
        definitions: impl Fn() -> u64 + Send + Sync,
    ) -> Result<(), Failure> {
        let before = |error| (error, false);
        let clock = client.world().clock.clone();
        let now = || clock.monotonic().0 / 1000;
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.level.sql());
        client.run(&begin).await.map_err(before)?;
        let known = definitions();
        for statement in &mut self.statements {
            statement.rows = client.run(&sql(&statement.change, table)).await.map_err(before)?;
            statement.answered_micros = Some(now());
            if random.random_range(0..20) == 0 {
                outlast(&*clock, || definitions() != known).await;
            } else {
                clock.sleep(pause(random)).await;
            }
        }
        self.commit_micros = Some(now());
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }
}

fn sql(change: &Change, table: &str) -> String {
    match change {
        Change::Insert { ids } => {
            let rows: Vec<String> = ids.iter().map(|id| format!("({id}, {})", mark_of(*id))).collect();
            format!("INSERT INTO {table} (id, mark) VALUES {}", rows.join(", "))
        }
        Change::Remark { id, mark } => format!("UPDATE {table} SET mark = {mark} WHERE id = {id}"),
        Change::Delete { id } => format!("DELETE FROM {table} WHERE id = {id}"),
    }
}

/// Waits until a definition has left behind the Coordinator that keeps it off, since that did not hear of it.
async fn outlast(clock: &dyn Clock, is_left_behind: impl Fn() -> bool + Send + Sync) {
    let until = clock.monotonic().after(OUTLASTS);
    while !is_left_behind() && clock.monotonic() < until {
        clock.sleep(LOOK_INTERVAL).await;
    }
}

/// Mostly a moment.
fn pause(random: &mut SmallRng) -> Duration {
    let longest = if random.random_bool(0.2) { 800 } else { 30 };
    Duration::from_millis(random.random_range(0..=longest))
}
