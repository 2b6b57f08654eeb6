//! What clients asked, when, and what they were told.

use std::io::{self, Write};
use std::sync::Arc;

use neorunbase_world::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a client knows about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It had no effect and never will.
    Failed,
    /// The answer was lost, or never awaited: it may or may not have taken effect, even later.
    Unknown,
}

/// The client that reads the final state.
pub const FINAL_READER: u32 = u32::MAX;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Which client; its operations follow each other.
    pub client: u32,
    /// Microseconds on the clock that all clients share.
    pub invoked_micros: u64,
    /// When the answer came; none for an operation that got no answer.
    pub completed_micros: Option<u64>,
    /// What the client knows.
    pub outcome: Outcome,
    /// Why it failed or is unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What was asked and answered.
    pub operation: T,
}

impl<T> Record<T> {
    /// Whether it had ended, as far as its client knows, before `other` was begun.
    pub fn ended_before<U>(&self, other: &Record<U>) -> bool {
        self.completed_micros
            .is_some_and(|completed| completed < other.invoked_micros)
    }
}

#[cfg(test)]
impl<T> Record<T> {
    /// What took effect, for tests of checkers.
    pub(crate) fn done(client: u32, invoked_micros: u64, completed_micros: u64, operation: T) -> Self {
        Self {
            client,
            invoked_micros,
            completed_micros: Some(completed_micros),
            outcome: Outcome::Done,
            error: None,
            operation,
        }
    }
}

/// The records of all clients in order of invocation. Clones share them.
#[derive(Debug)]
pub struct History<T> {
    records: Arc<Mutex<Vec<Record<T>>>>,
}

#[cfg(test)]
impl<T> History<T> {
    /// With records, for tests of what judges them.
    pub(crate) fn of(records: Vec<Record<T>>) -> Self {
        Self {
            records: Arc::new(Mutex::new(records)),
        }
    }
}

impl<T> Clone for History<T> {
    fn clone(&self) -> Self {
        Self {
            records: self.records.clone(),
        }
    }
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self {
            records: Arc::default(),
        }
    }
}

/// Names a record that awaits its completion.
#[derive(Clone, Copy, Debug)]
pub struct Invocation(usize);

impl<T> History<T> {
    /// Writes down that `client` starts `operation`; unknown until completed.
    pub fn invoke(&self, clock: &dyn Clock, client: u32, operation: T) -> Invocation {
        let mut records = self.records.lock();
        records.push(Record {
            client,
            invoked_micros: clock.monotonic().0 / 1000,
            completed_micros: None,
            outcome: Outcome::Unknown,
            error: None,
            operation,
        });
        Invocation(records.len() - 1)
    }

    /// Writes down how it ended and what it saw. Unknown outcomes get no completion time: they may still happen.
    pub fn complete(
        &self,
        clock: &dyn Clock,
        invocation: Invocation,
        operation: T,
        outcome: Outcome,
        error: Option<String>,
    ) {
        let now = clock.monotonic().0 / 1000;
        if let Some(record) = self.records.lock().get_mut(invocation.0) {
            record.operation = operation;
            record.outcome = outcome;
            record.error = error;
            record.completed_micros = (outcome != Outcome::Unknown).then_some(now);
        }
    }

    /// A copy of all records.
    pub fn records(&self) -> Vec<Record<T>>
    where
        T: Clone,
    {
        self.records.lock().clone()
    }

    /// How many are done, failed and unknown.
    pub fn counts(&self) -> (usize, usize, usize) {
        let records = self.records.lock();
        let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
        (
            count(Outcome::Done),
            count(Outcome::Failed),
            count(Outcome::Unknown),
        )
    }

    /// One JSON object a line.
    ///
    /// # Errors
    /// The writer's error.
    pub fn write_json_lines(&self, output: &mut dyn Write) -> io::Result<()>
    where
        T: Serialize,
    {
        for record in self.records.lock().iter() {
            serde_json::to_writer(&mut *output, record)?;
            output.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Records from JSON lines, as written by [`History::write_json_lines`].
///
/// # Errors
/// The line that is not a record.
pub fn parse_json_lines<T: for<'de> Deserialize<'de>>(text: &str) -> serde_json::Result<Vec<Record<T>>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect()
}
