//! Single rows as registers: each is read, made, written, replaced if it has a certain value, and deleted by statements
//! that commit by themselves, each of which must seem to happen at one instant between question and answer.
//!
//! Such reads need no timestamp: the primary of the shard answers them from what it has. So this is the workload that
//! meets primaries which do not know yet that they were replaced. After a change the client asks at once by a second
//! connection, which mostly leads to another Coordinator.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, UNIQUE_VIOLATION, at_most_one, by_key};
use crate::history::{FINAL_READER, History, Outcome};
use crate::second_connection::SecondConnections;
use crate::workload::{Failure, Report, Step, Workload, conclude, conclude_last, create_table, judge};

/// Registers in use at a time.
const KEYS: usize = 3;
/// Operations that a register gets before another takes its place: long histories cost more than they tell.
const OPERATIONS: u32 = 60;
/// Unanswered changes after which it is replaced too: each may happen at any later time, which doubles the search.
const UNANSWERED: u32 = 4;

/// A statement on a register, with its answer where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// `SELECT value`
    Read {
        /// What was seen; nothing if the row was not there.
        value: Option<i64>,
    },
    /// `INSERT`
    Insert {
        /// The first value.
        value: i64,
        /// False: refused because the row was there.
        inserted: bool,
    },
    /// `UPDATE`
    Update {
        /// The new value.
        value: i64,
        /// Whether the row was there.
        updated: bool,
    },
    /// `UPDATE … WHERE value =`
    Replace {
        /// The value that it must have.
        from: i64,
        /// The new value.
        to: i64,
        /// Whether it had that value.
        replaced: bool,
    },
    /// `DELETE`
    Delete {
        /// Whether the row was there.
        deleted: bool,
    },
}

impl Request {
    /// Whether it only looks.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// A request and the register it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterOperation {
    /// The register.
    pub key: i64,
    /// What was asked and answered.
    pub request: Request,
}

/// A register in use.
#[derive(Default)]
struct Open {
    key: i64,
    operations: u32,
    unanswered: u32,
    /// A value that it had lately: to be replaced.
    last_seen: Option<i64>,
}

/// The registers workload.
pub struct Registers {
    table: String,
    shards: Option<u32>,
    open: Mutex<Vec<Open>>,
    next_key: AtomicI64,
    next_value: AtomicI64,
    seconds: SecondConnections,
    history: History<RegisterOperation>,
}

impl Registers {
    /// Registers in `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            open: Mutex::new((0..KEYS).map(|_| Open::default()).collect()),
            next_key: AtomicI64::new(1),
            next_value: AtomicI64::new(1),
            seconds: SecondConnections::default(),
            history: History::default(),
        }
    }

    /// The register in use at `place`, and a value that it had lately.
    fn register(&self, place: usize) -> (i64, Option<i64>) {
        let mut open = self.open.lock();
        let register = &mut open[place];
        if register.key == 0 || register.operations >= OPERATIONS || register.unanswered >= UNANSWERED {
            *register = Open {
                key: self.next_key.fetch_add(1, Ordering::Relaxed),
                ..Open::default()
            };
        }
        register.operations += 1;
        (register.key, register.last_seen)
    }

    fn note(&self, key: i64, request: Request, result: &Result<(), Failure>) {
        let mut open = self.open.lock();
        let Some(register) = open.iter_mut().find(|register| register.key == key) else {
            return;
        };
        match (result, request) {
            (Ok(()), Request::Read { value }) => register.last_seen = value,
            (
                Ok(()),
                Request::Insert {
                    value,
                    inserted: true,
                },
            )
            | (Ok(()), Request::Update { value, updated: true }) => register.last_seen = Some(value),
            (
                Ok(()),
                Request::Replace {
                    to, replaced: true, ..
                },
            ) => register.last_seen = Some(to),
            (Err((error, true)), _) if !error.proves_no_effect() => register.unanswered += 1,
            _ => {}
        }
    }

    fn draw(&self, random: &mut SmallRng, last_seen: Option<i64>) -> Request {
        let fresh = || self.next_value.fetch_add(1, Ordering::Relaxed);
        match random.random_range(0..100) {
            0..=44 => Request::Read { value: None },
            45..=69 => match last_seen {
                None => Request::Insert {
                    value: fresh(),
                    inserted: false,
                },
                Some(_) => Request::Update {
                    value: fresh(),
                    updated: false,
                },
            },
            70..=89 => Request::Replace {
                from: last_seen.unwrap_or(0),
                to: fresh(),
                replaced: false,
            },
            90..=94 => Request::Insert {
                value: fresh(),
                inserted: false,
            },
            _ => Request::Delete { deleted: false },
        }
    }

    /// Runs a request and fills in its answer; the flag of an error tells whether it may have had an effect.
    async fn execute(&self, client: &Client, key: i64, request: &mut Request) -> Result<(), Failure> {
        let table = &self.table;
        let effect = |error| (error, true);
        match request {
            Request::Read { value } => {
                let rows = client
                    .numbers(&format!("SELECT value FROM {table} WHERE id = {key}"))
                    .await
                    .map_err(|error| (error, false))?;
                let row = at_most_one(rows).map_err(|error| (error, false))?;
                *value = row.and_then(|row| row.first().copied());
            }
            Request::Insert { value, inserted } => {
                let insert = format!("INSERT INTO {table} (id, value) VALUES ({key}, {value})");
                match client.run(&insert).await {
                    Ok(_) => *inserted = true,
                    Err(CallError::Refused { code, .. }) if code == UNIQUE_VIOLATION => *inserted = false,
                    Err(error) => return Err(effect(error)),
                }
            }
            Request::Update { value, updated } => {
                let update = format!("UPDATE {table} SET value = {value} WHERE id = {key}");
                *updated = client.run(&update).await.map_err(effect)? > 0;
            }
            Request::Replace { from, to, replaced } => {
                let update = format!("UPDATE {table} SET value = {to} WHERE id = {key} AND value = {from}");
                *replaced = client.run(&update).await.map_err(effect)? > 0;
            }
            Request::Delete { deleted } => {
                let delete = format!("DELETE FROM {table} WHERE id = {key}");
                *deleted = client.run(&delete).await.map_err(effect)? > 0;
            }
        }
        Ok(())
    }

    /// One request by `client`, recorded.
    async fn ask(&self, client: &Client, index: u32, key: i64, mut request: Request) -> Step {
        let clock = client.world().clock.clone();
        let operation = |request| RegisterOperation { key, request };
        let invocation = self.history.invoke(&*clock, index, operation(request));
        let result = self.execute(client, key, &mut request).await;
        self.note(key, request, &result);
        conclude(client, &self.history, invocation, operation(request), result).await
    }
}

#[async_trait]
impl Workload for Registers {
    fn name(&self) -> &str {
        "registers"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "value bigint NOT NULL", self.shards).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let (key, last_seen) = self.register(random.random_range(0..KEYS));
        let request = self.draw(random, last_seen);
        let step = self.ask(client, index, key, request).await;
        let looks_again = !request.is_read() || random.random_bool(0.3);
        if !looks_again || !matches!(step, Step::Served) {
            return step;
        }
        let Ok(second) = self.seconds.take(client, index).await else {
            return step;
        };
        let again = self.ask(&second, index, key, Request::Read { value: None }).await;
        // Now and then a new one, perhaps to yet another Coordinator.
        if !matches!(again, Step::Broken(_)) && random.random_bool(0.95) {
            self.seconds.give_back(index, second);
        }
        step
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let mut reading = Vec::new();
        for key in 1..self.next_key.load(Ordering::Relaxed) {
            let operation = RegisterOperation {
                key,
                request: Request::Read { value: None },
            };
            reading.push((key, self.history.invoke(&*clock, FINAL_READER, operation)));
        }
        let rows = client
            .pairs(&format!("SELECT id, value FROM {}", self.table))
            .await?;
        let values = match by_key(rows) {
            Ok(values) => values,
            Err(error) => {
                let nothing = RegisterOperation {
                    key: 0,
                    request: Request::Read { value: None },
                };
                return conclude_last(client, &self.history, nothing, error);
            }
        };
        for (key, invocation) in reading {
            let value = values.get(&key).copied();
            let operation = RegisterOperation {
                key,
                request: Request::Read { value },
            };
            self.history
                .complete(&*clock, invocation, operation, Outcome::Done, None);
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::registers::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
