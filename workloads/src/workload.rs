//! What every workload offers.

use std::io::{self, Write};

use async_trait::async_trait;
use rand::rngs::SmallRng;
use serde::Serialize;

use crate::client::{CallError, CallResult, Client};
use crate::history::{History, Invocation, Outcome};

/// How an operation of a workload ended, as far as the driver must know.
#[derive(Debug)]
pub enum Step {
    /// The client was served.
    Served,
    /// The server refused (a conflict, say); the connection was rolled back and is usable.
    Refused(String),
    /// The connection is of no more use.
    Broken(String),
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The workload.
    pub workload: String,
    /// Each is proof that the database broke a promise.
    pub violations: Vec<String>,
    /// Whether the final state was read: without it this is no acquittal.
    pub is_complete: bool,
    /// What was counted, for the summary.
    pub summary: String,
}

impl Report {
    /// Whether everything was looked at and found right.
    pub fn is_acquittal(&self) -> bool {
        self.is_complete && self.violations.is_empty()
    }
}

/// Clients of one kind, with their history and its checker.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Names it on command lines and in reports.
    fn name(&self) -> &str;

    /// Creates and fills its tables. May be called again after an error, on a new connection.
    async fn setup(&self, client: &Client) -> CallResult<()>;

    /// One operation of client number `index`, recorded in the history.
    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step;

    /// Reads the final state, once everything is quiet. May be called again after an error.
    async fn finish(&self, client: &Client) -> CallResult<()>;

    /// Judges the history.
    fn check(&self) -> Report;

    /// The history as JSON lines.
    ///
    /// # Errors
    /// The writer's error.
    fn write_history(&self, output: &mut dyn Write) -> io::Result<()>;

    /// Operations done, failed and of unknown outcome.
    fn counts(&self) -> (usize, usize, usize);
}

/// Makes a table with the key `id` and nothing in it. `columns` are the others; `shards` is for servers that know them.
pub(crate) async fn create_table(
    client: &Client,
    table: &str,
    columns: &str,
    shards: Option<u32>,
) -> CallResult<()> {
    client.run(&format!("DROP TABLE IF EXISTS {table}")).await?;
    let clause = shards.map_or_else(String::new, |shards| format!(" SHARD KEY (id) SHARDS {shards}"));
    client
        .run(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, {columns}){clause}"
        ))
        .await?;
    Ok(())
}

/// Puts rows of a key and one number, the column `column`, into a table that [`create_table`] has made.
pub(crate) async fn fill_table(
    client: &Client,
    table: &str,
    column: &str,
    rows: impl IntoIterator<Item = (i64, i64)>,
) -> CallResult<()> {
    let values: Vec<String> = rows
        .into_iter()
        .map(|(id, value)| format!("({id}, {value})"))
        .collect();
    client
        .run(&format!(
            "INSERT INTO {table} (id, {column}) VALUES {}",
            values.join(", ")
        ))
        .await?;
    Ok(())
}

/// How a transaction failed, and whether that was at its commit.
pub(crate) type Failure = (CallError, bool);

/// What the client knows after a failure: before COMMIT was sent nothing can have taken effect.
pub(crate) fn outcome_of((error, committing): &Failure) -> (Outcome, Option<String>) {
    let outcome = if !committing || error.proves_no_effect() {
        Outcome::Failed
    } else {
        Outcome::Unknown
    };
    (outcome, Some(error.to_string()))
}

/// Writes down how an operation ended, and gets its client ready for the next.
pub(crate) async fn conclude<T>(
    client: &Client,
    history: &History<T>,
    invocation: Invocation,
    operation: T,
    result: Result<(), Failure>,
) -> Step {
    let (outcome, error) = match &result {
        Ok(()) => (Outcome::Done, None),
        Err(failure) => outcome_of(failure),
    };
    history.complete(&*client.world().clock, invocation, operation, outcome, error);
    match result {
        Ok(()) => Step::Served,
        Err((error, _)) => after_error(client, &error).await,
    }
}

/// Ends a transaction that was refused, and says whether the connection lives on.
pub(crate) async fn after_error(client: &Client, error: &CallError) -> Step {
    if !error.connection_survives() {
        return Step::Broken(error.to_string());
    }
    match client.run("ROLLBACK").await {
        Ok(_) => Step::Refused(error.to_string()),
        Err(rollback) => Step::Broken(format!("{error}; then ROLLBACK: {rollback}")),
    }
}
