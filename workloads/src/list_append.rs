//! Transactions that append unique numbers to lists and read lists, as Elle's list-append: the order inside a
//! list tells the order of the writes, so the checker can infer who must have come before whom.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, at_most_one, by_key};
use crate::history::{FINAL_READER, History, Outcome};
pub use crate::level::Level;
use crate::workload::{Failure, Report, Step, Workload, conclude, conclude_last, create_table, judge};

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Append `element` to the list of `key`.
    Append {
        /// The list.
        key: i64,
        /// Unique over the whole history.
        element: i64,
    },
    /// Read the list of `key`; nothing until answered.
    Read {
        /// The list.
        key: i64,
        /// What was seen.
        list: Option<Vec<i64>>,
    },
    /// SAVEPOINT; they do not nest.
    Savepoint,
    /// ROLLBACK TO the savepoint: appends since then were never made.
    RollbackTo,
}

/// A transaction: its actions in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What it did.
    pub actions: Vec<Action>,
}

/// The list-append workload.
pub struct ListAppend {
    name: String,
    table: String,
    shards: Option<u32>,
    level: Level,
    keys: i64,
    /// Appends a list gets before the workload moves on to a new key: long lists cost more than they tell.
    longest_list: i64,
    appended: AtomicI64,
    next_element: AtomicI64,
    history: History<Transaction>,
}

impl ListAppend {
    /// Transactions of `level` over `keys` lists at a time in `table`.
    pub fn new(table: &str, level: Level, keys: i64, longest_list: i64, shards: Option<u32>) -> Self {
        let suffix = match level {
            Level::ReadCommitted => "read-committed",
            Level::RepeatableRead => "repeatable-read",
            Level::Serializable => "serializable",
        };
        Self {
            name: format!("list-append-{suffix}"),
            table: table.to_owned(),
            shards,
            level,
            keys,
            longest_list,
            appended: AtomicI64::new(0),
            next_element: AtomicI64::new(1),
            history: History::default(),
        }
    }

    fn pick_key(&self, random: &mut SmallRng) -> i64 {
        // A window of keys that slides on as they fill up.
        let first = self.appended.load(Ordering::Relaxed) / self.longest_list;
        first + random.random_range(0..self.keys)
    }

    fn draw(&self, random: &mut SmallRng) -> Transaction {
        let mut actions: Vec<Action> = (0..random.random_range(1..=4))
            .map(|_| {
                let key = self.pick_key(random);
                if random.random_bool(0.5) {
                    self.appended.fetch_add(1, Ordering::Relaxed);
                    let element = self.next_element.fetch_add(1, Ordering::Relaxed);
                    Action::Append { key, element }
                } else {
                    Action::Read { key, list: None }
                }
            })
            .collect();
        if random.random_bool(0.8) {
            // In one order for all, so that deadlocks stay rare enough for the others to get on.
            actions.sort_by_key(|action| match action {
                Action::Append { key, .. } | Action::Read { key, .. } => *key,
                Action::Savepoint | Action::RollbackTo => i64::MAX,
            });
        }
        if random.random_bool(0.3) {
            let first = random.random_range(0..actions.len());
            let after_last = random.random_range(first + 1..=actions.len());
            actions.insert(after_last, Action::RollbackTo);
            actions.insert(first, Action::Savepoint);
        }
        Transaction { actions }
    }

    async fn append(&self, client: &Client, key: i64, element: i64) -> CallResult<()> {
        let table = &self.table;
        let update = format!("UPDATE {table} SET list = list || ',{element}' WHERE id = {key}");
        if client.run(&update).await? == 0 {
            // Somebody else may insert it first; the transaction is refused then.
            client
                .run(&format!(
                    "INSERT INTO {table} (id, list) VALUES ({key}, '{element}')"
                ))
                .await?;
        }
        Ok(())
    }

    async fn read(&self, client: &Client, key: i64) -> CallResult<Vec<i64>> {
        let rows = client
            .rows(&format!("SELECT list FROM {} WHERE id = {key}", self.table))
            .await?;
        match at_most_one(rows)? {
            None => Ok(Vec::new()),
            Some(row) => parse_list(row.first().and_then(|value| value.as_deref()).unwrap_or("")),
        }
    }

    /// Runs the actions, filling in what was read; the flag of an error tells whether it met the commit.
    async fn execute(&self, client: &Client, transaction: &mut Transaction) -> Result<(), Failure> {
        let before = |error| (error, false);
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.level.sql());
        client.run(&begin).await.map_err(before)?;
        let mut in_savepoint = false;
        // An error since the savepoint is taken back with everything else.
        let mut failed = false;
        for action in &mut transaction.actions {
            let done = match action {
                Action::Append { .. } | Action::Read { .. } if failed => Ok(()),
                Action::Append { key, element } => self.append(client, *key, *element).await,
                Action::Read { key, list } => {
                    let seen = self.read(client, *key).await;
                    seen.map(|seen| *list = Some(seen))
                }
                Action::Savepoint => {
                    in_savepoint = true;
                    client.run("SAVEPOINT here").await.map(|_| ())
                }
                Action::RollbackTo => {
                    in_savepoint = false;
                    failed = false;
                    client.run("ROLLBACK TO SAVEPOINT here").await.map(|_| ())
                }
            };
            match done {
                Ok(()) => {}
                Err(error) if in_savepoint && error.connection_survives() && !error.is_internal() => {
                    failed = true
                }
                Err(error) => return Err(before(error)),
            }
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }
}

fn parse_list(text: &str) -> CallResult<Vec<i64>> {
    text.split(',')
        .map(|element| {
            element
                .parse()
                .map_err(|_| CallError::Nonsense(format!("not a list of numbers: {text:?}")))
        })
        .collect()
}

#[async_trait]
impl Workload for ListAppend {
    fn name(&self) -> &str {
        &self.name
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "list text NOT NULL", self.shards).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let mut transaction = self.draw(random);
        let invocation = self.history.invoke(&*clock, index, transaction.clone());
        let result = self.execute(client, &mut transaction).await;
        conclude(client, &self.history, invocation, transaction, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let rows = client
            .rows(&format!("SELECT id, list FROM {}", self.table))
            .await?;
        let mut lists = Vec::new();
        for row in &rows {
            let key = crate::client::number(row.first())?;
            let list = parse_list(row.get(1).and_then(|value| value.as_deref()).unwrap_or(""))?;
            lists.push((key, list));
        }
        let mut lists = match by_key(lists) {
            Ok(lists) => lists,
            Err(error) => {
                let nothing = Transaction { actions: Vec::new() };
                return conclude_last(client, &self.history, nothing, error);
            }
        };
        // Keys whose list is missing were read too, as empty: their appends must have failed.
        let last_key = self.appended.load(Ordering::Relaxed) / self.longest_list + self.keys;
        let actions = (0..=last_key)
            .map(|key| Action::Read {
                key,
                list: Some(lists.remove(&key).unwrap_or_default()),
            })
            .collect();
        let transaction = Transaction { actions };
        let invocation = self.history.invoke(&*clock, FINAL_READER, transaction.clone());
        self.history
            .complete(&*clock, invocation, transaction, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::list_append::check(&self.name, records, self.level)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
