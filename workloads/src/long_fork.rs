//! Rows that are written once, independently of each other, and readers who look at groups of them: all snapshots lie
//! on one line, and the line agrees with real time. A long fork is two readers who see two writes in opposite orders; a
//! causal reverse is a reader who sees a write but not another one that was acknowledged before it was asked for.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallResult, Client, distinct};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Report, Step, Workload, conclude, conclude_last, create_table, judge};

/// Rows of a group; their keys spread over the shards.
pub const GROUP: i64 = 6;

/// How a group is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRead {
    /// One statement over the range of keys.
    Range,
    /// One statement with a list of keys.
    List,
    /// Row by row, in any order, in one REPEATABLE READ transaction.
    OneTransaction,
    /// The last reading of all groups, when everything is quiet.
    Final,
}

/// An operation on rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkOperation {
    /// A row is inserted.
    Write {
        /// Its key.
        key: i64,
    },
    /// A group is read.
    Read {
        /// How.
        kind: GroupRead,
        /// The group.
        group: i64,
        /// Keys of the rows that were there.
        seen: BTreeSet<i64>,
    },
}

/// The long-fork workload.
pub struct LongFork {
    table: String,
    shards: Option<u32>,
    next_key: AtomicI64,
    history: History<ForkOperation>,
}

/// The group of a row.
pub fn group_of(key: i64) -> i64 {
    key.div_euclid(GROUP)
}

fn keys_of(group: i64) -> std::ops::Range<i64> {
    group * GROUP..(group + 1) * GROUP
}

impl LongFork {
    /// Rows of `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_key: AtomicI64::new(0),
            history: History::default(),
        }
    }

    async fn read(
        &self,
        client: &Client,
        kind: GroupRead,
        group: i64,
        random: &mut SmallRng,
    ) -> CallResult<BTreeSet<i64>> {
        let table = &self.table;
        let mut keys: Vec<i64> = keys_of(group).collect();
        keys.shuffle(random);
        let queries = match kind {
            GroupRead::Range | GroupRead::Final => {
                let keys = keys_of(group);
                vec![format!(
                    "SELECT id FROM {table} WHERE id >= {} AND id < {}",
                    keys.start, keys.end
                )]
            }
            GroupRead::List => {
                let list: Vec<String> = keys.iter().map(i64::to_string).collect();
                vec![format!(
                    "SELECT id FROM {table} WHERE id IN ({})",
                    list.join(", ")
                )]
            }
            GroupRead::OneTransaction => keys
                .iter()
                .map(|key| format!("SELECT id FROM {table} WHERE id = {key}"))
                .collect(),
        };
        if kind == GroupRead::OneTransaction {
            client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        }
        let mut seen = Vec::new();
        for query in &queries {
            seen.extend(client.numbers(query).await?.into_iter().flatten());
        }
        if kind == GroupRead::OneTransaction {
            client.run("COMMIT").await?;
        }
        distinct(seen)
    }
}

#[async_trait]
impl Workload for LongFork {
    fn name(&self) -> &str {
        "long-fork"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "value bigint NOT NULL", self.shards).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        if random.random_bool(0.4) {
            let key = self.next_key.fetch_add(1, Ordering::Relaxed);
            let operation = ForkOperation::Write { key };
            let invocation = self.history.invoke(&*clock, index, operation.clone());
            let insert = format!("INSERT INTO {} (id, value) VALUES ({key}, {index})", self.table);
            let result = client.run(&insert).await;
            let result = result.map(|_| ()).map_err(|error| (error, true));
            return conclude(client, &self.history, invocation, operation, result).await;
        }
        let kind = match random.random_range(0..4) {
            0 => GroupRead::OneTransaction,
            1 => GroupRead::List,
            _ => GroupRead::Range,
        };
        // The group that is being filled, or the one before it.
        let newest = group_of(self.next_key.load(Ordering::Relaxed));
        let group = (newest - i64::from(random.random_bool(0.2))).max(0);
        let mut seen = BTreeSet::new();
        let operation = |seen: &BTreeSet<i64>| ForkOperation::Read {
            kind,
            group,
            seen: seen.clone(),
        };
        let invocation = self.history.invoke(&*clock, index, operation(&seen));
        let result = self.read(client, kind, group, random).await;
        let result = result.map(|keys| seen = keys).map_err(|error| (error, false));
        conclude(client, &self.history, invocation, operation(&seen), result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let last = group_of(self.next_key.load(Ordering::Relaxed));
        let operation = |group, seen| ForkOperation::Read {
            kind: GroupRead::Final,
            group,
            seen,
        };
        let reading: Vec<_> = (0..=last)
            .map(|group| {
                let empty = operation(group, BTreeSet::new());
                (group, self.history.invoke(&*clock, FINAL_READER, empty))
            })
            .collect();
        let rows = client.numbers(&format!("SELECT id FROM {}", self.table)).await?;
        let all = match distinct(rows.into_iter().flatten()) {
            Ok(all) => all,
            Err(error) => {
                let nothing = operation(0, BTreeSet::new());
                return conclude_last(client, &self.history, nothing, error);
            }
        };
        for (group, invocation) in reading {
            let seen = all.range(keys_of(group)).copied().collect();
            let operation = operation(group, seen);
            self.history
                .complete(&*clock, invocation, operation, Outcome::Done, None);
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::long_fork::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
