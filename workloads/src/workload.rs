//! What every workload offers.

use std::io::{self, Write};

use async_trait::async_trait;
use rand::rngs::SmallRng;
use serde::Serialize;

use crate::checker::refusal::own_faults;
use crate::client::{CallError, CallResult, Client};
use crate::history::{FINAL_READER, History, Invocation, Outcome, Record};

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

/// What became of a last reading that failed: an answer that makes no sense is written down, for the checker, as no other
/// attempt takes it back. Other errors are for the caller to try again.
pub(crate) fn conclude_last<T: Clone>(
    client: &Client,
    history: &History<T>,
    operation: T,
    error: CallError,
) -> CallResult<()> {
    if !matches!(error, CallError::Nonsense(_)) {
        return Err(error);
    }
    let clock = &*client.world().clock;
    let invocation = history.invoke(clock, FINAL_READER, operation.clone());
    let message = Some(error.to_string());
    history.complete(clock, invocation, operation, Outcome::Failed, message);
    Ok(())
}

/// A workload's report: what `check` finds in its history, and what no server may answer to any workload.
pub(crate) fn judge<T: Clone>(history: &History<T>, check: impl FnOnce(&[Record<T>]) -> Report) -> Report {
    let records = history.records();
    let mut report = check(&records);
    for fault in own_faults(&records) {
        // Some checkers know refusals better, and told it already.
        let is_told = |violation: &String| violation.contains(&fault.error);
        if !report.violations.iter().any(is_told) {
            report.violations.push(fault.to_string());
        }
    }
    report
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_judged_by_what_no_server_may_answer() {
        let history = |error: CallError, outcome| {
            History::of(vec![Record {
                outcome,
                error: Some(error.to_string()),
                ..Record::done(3, 7, 8, ())
            }])
        };
        let refused = |code: &str| CallError::Refused {
            code: code.to_owned(),
            message: "the query engine failed".to_owned(),
        };
        let violations = |history: &History<()>, found: &[&str]| {
            let found = found.iter().map(|what| (*what).to_owned()).collect();
            let report = judge(history, |_| Report {
                violations: found,
                ..Report::default()
            });
            report.violations
        };
        let internal = history(refused("XX000"), Outcome::Failed);
        let told = violations(&internal, &[]);
        assert_eq!(told.len(), 1);
        for part in ["XX000: the query engine failed", "client 3", "7 µs"] {
            assert!(told[0].contains(part), "{told:?}");
        }
        let known = violations(&internal, &["refused: XX000: the query engine failed: it"]);
        assert_eq!(known.len(), 1, "told once: {known:?}");
        let nonsense = history(
            CallError::Nonsense("row 1 is there twice".to_owned()),
            Outcome::Failed,
        );
        assert_eq!(violations(&nonsense, &[]).len(), 1);
        for code in ["XX001", "40001", "08007", "55P03", "72000"] {
            assert!(violations(&history(refused(code), Outcome::Unknown), &[]).is_empty());
        }
        let lost = history(
            CallError::NoAnswer("deadline passed".to_owned()),
            Outcome::Unknown,
        );
        assert!(violations(&lost, &[]).is_empty());
    }
}
