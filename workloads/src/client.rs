//! One PostgreSQL connection, each call of which ends by a deadline of the client's own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neorunbase_world::clock::timeout;
use neorunbase_world::{Clock, Network, Spawner, TaskHandle, World};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row, SimpleQueryMessage, Statement};

/// The SQLSTATE of a row that another one keeps out.
pub(crate) const UNIQUE_VIOLATION: &str = "23505";

/// What a client needs of a world.
#[derive(Clone)]
pub struct ClientWorld {
    /// The clock for deadlines and histories: all clients must share it.
    pub clock: Arc<dyn Clock>,
    /// Runs connections.
    pub spawner: Arc<dyn Spawner>,
    /// Reaches the server.
    pub network: Arc<dyn Network>,
}

impl From<&World> for ClientWorld {
    fn from(world: &World) -> Self {
        Self {
            clock: world.clock.clone(),
            spawner: world.spawner.clone(),
            network: world.network.clone(),
        }
    }
}

/// Where and as whom to connect, and how patient to be.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of the PostgreSQL ports: connections go to one after the other.
    pub addresses: Vec<String>,
    /// Counts the connections.
    pub connections: Arc<AtomicUsize>,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The database.
    pub database: String,
    /// A call without an answer for so long is given up; its outcome is unknown.
    pub call_deadline: Duration,
}

/// How a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no; `code` is its SQLSTATE. The transaction is aborted.
    #[error("{code}: {message}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
    },
    /// No answer in time, or the connection broke: nobody knows what became of the call.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer does not follow the protocol or has not the shape the query asks for.
    #[error("nonsense from the server: {0}")]
    Nonsense(String),
}

impl CallError {
    /// Whether the connection can be used on (after a ROLLBACK).
    pub fn connection_survives(&self) -> bool {
        match self {
            // Class 57P is an administrator's shutdown; the connection goes with it. Class 08 tells of a
            // connection or an outcome that was lost, 08007 among them.
            Self::Refused { code, .. } => !code.starts_with("57P") && !code.starts_with("08"),
            Self::NoAnswer(_) | Self::Nonsense(_) => false,
        }
    }

    /// Whether the server says that it is broken itself: class XX.
    pub fn is_internal(&self) -> bool {
        self.code().is_some_and(|code| code.starts_with("XX"))
    }

    /// The SQLSTATE of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::NoAnswer(_) | Self::Nonsense(_) => None,
        }
    }

    /// Whether the server vouches that a *commit* which met this error had no effect.
    pub fn proves_no_effect(&self) -> bool {
        match self {
            Self::Refused { code, .. } => !code.starts_with("08") && !code.starts_with("57P"),
            Self::NoAnswer(_) | Self::Nonsense(_) => false,
        }
    }
}

fn classify(error: tokio_postgres::Error) -> CallError {
    use std::error::Error as _;
    match error.as_db_error() {
        Some(refusal) => CallError::Refused {
            code: refusal.code().code().to_owned(),
            message: refusal.message().to_owned(),
        },
        None => {
            let cause = error
                .source()
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            CallError::NoAnswer(format!("{error}{cause}"))
        }
    }
}

/// The result of a call.
pub type CallResult<T> = Result<T, CallError>;

/// One connection to the database.
pub struct Client {
    world: ClientWorld,
    inner: tokio_postgres::Client,
    task: TaskHandle,
    target: Target,
}

impl Drop for Client {
    fn drop(&mut self) {
        // A client that gave up must not keep its connection open: the server would wait for it.
        self.task.abort();
    }
}

impl Client {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// [`CallError`]; nothing is left behind.
    pub async fn connect(world: &ClientWorld, target: &Target) -> CallResult<Self> {
        let turn = target.connections.fetch_add(1, Ordering::Relaxed) % target.addresses.len().max(1);
        let Some(address) = target.addresses.get(turn) else {
            return Err(CallError::NoAnswer("no address to connect to".to_owned()));
        };
        let connecting = async {
            let stream = world
                .network
                .connect(address)
                .await
                .map_err(|error| CallError::NoAnswer(format!("connect: {error}")))?;
            let mut config = Config::new();
            config
                .user(&target.user)
                .password(&target.password)
                .dbname(&target.database)
                .application_name("neorunbase-workload");
            config.connect_raw(stream, NoTls).await.map_err(classify)
        };
        let (inner, connection) = timeout(&*world.clock, target.call_deadline, connecting)
            .await
            .map_err(|_| CallError::NoAnswer("connect: deadline passed".into()))??;
        let task = world.spawner.spawn(
            "workload-connection",
            Box::pin(async move {
                // The client's calls report what ended the connection.
                let _ = connection.await;
            }),
        );
        Ok(Self {
            world: world.clone(),
            inner,
            task,
            target: target.clone(),
        })
    }

    /// Another connection to where this one goes.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn another(&self) -> CallResult<Self> {
        Self::connect(&self.world, &self.target).await
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> CallResult<T> {
        match timeout(&*self.world.clock, self.target.call_deadline, call).await {
            Ok(result) => result.map_err(classify),
            Err(_) => Err(CallError::NoAnswer("deadline passed".into())),
        }
    }

    /// Runs `sql` by the simple protocol; the number of rows the last statement affected.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn run(&self, sql: &str) -> CallResult<u64> {
        let messages = self.limited(self.inner.simple_query(sql)).await?;
        Ok(messages
            .iter()
            .rev()
            .find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(count) => Some(*count),
                _ => None,
            })
            .unwrap_or(0))
    }

    /// The rows of `sql` by the simple protocol, all values as text.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn rows(&self, sql: &str) -> CallResult<Vec<Vec<Option<String>>>> {
        let messages = self.limited(self.inner.simple_query(sql)).await?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|column| row.get(column).map(str::to_owned))
                        .collect(),
                ),
                _ => None,
            })
            .collect())
    }

    /// The rows of `sql` by the simple protocol, all of whose values are numbers.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn numbers(&self, sql: &str) -> CallResult<Vec<Vec<i64>>> {
        let rows = self.rows(sql).await?;
        rows.iter()
            .map(|row| row.iter().map(|value| number(Some(value))).collect())
            .collect()
    }

    /// The two numbers of each row of `sql`, in their order. A row that comes twice is there twice.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn pairs(&self, sql: &str) -> CallResult<Vec<(i64, i64)>> {
        let rows = self.numbers(sql).await?;
        let mut pairs = rows
            .iter()
            .map(|row| match row.as_slice() {
                [first, second] => Ok((*first, *second)),
                row => Err(CallError::Nonsense(format!("expected two columns, got {row:?}"))),
            })
            .collect::<CallResult<Vec<_>>>()?;
        pairs.sort_unstable();
        Ok(pairs)
    }

    /// Prepares a statement for this connection.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn prepare(&self, sql: &str) -> CallResult<Statement> {
        self.limited(self.inner.prepare(sql)).await
    }

    /// Runs a prepared query.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> CallResult<Vec<Row>> {
        self.limited(self.inner.query(statement, parameters)).await
    }

    /// Runs a prepared statement; the number of rows it affected.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn execute(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> CallResult<u64> {
        self.limited(self.inner.execute(statement, parameters)).await
    }

    /// The world the client lives in.
    pub fn world(&self) -> &ClientWorld {
        &self.world
    }
}

/// Rows by their key.
///
/// # Errors
/// [`CallError::Nonsense`] if one of them is there twice.
pub fn by_key<Row>(rows: impl IntoIterator<Item = (i64, Row)>) -> CallResult<BTreeMap<i64, Row>> {
    let mut by_key = BTreeMap::new();
    for (key, row) in rows {
        if by_key.insert(key, row).is_some() {
            return Err(CallError::Nonsense(format!("row {key} is there twice")));
        }
    }
    Ok(by_key)
}

/// Keys, each once.
///
/// # Errors
/// As [`by_key`].
pub fn distinct(keys: impl IntoIterator<Item = i64>) -> CallResult<BTreeSet<i64>> {
    let rows = by_key(keys.into_iter().map(|key| (key, ())))?;
    Ok(rows.into_keys().collect())
}

/// The row of a query that asks by the primary key, if it is there.
///
/// # Errors
/// [`CallError::Nonsense`] if there are more.
pub fn at_most_one<Row>(rows: Vec<Row>) -> CallResult<Option<Row>> {
    match rows.len() {
        0 | 1 => Ok(rows.into_iter().next()),
        many => Err(CallError::Nonsense(format!("{many} rows have one primary key"))),
    }
}

/// The number in a text column.
///
/// # Errors
/// [`CallError::Nonsense`].
pub fn number(value: Option<&Option<String>>) -> CallResult<i64> {
    value
        .and_then(|value| value.as_deref())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| CallError::Nonsense(format!("expected a number, got {value:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_row_comes_twice_unnoticed() {
        assert_eq!(by_key([(2, 'b'), (1, 'a')]).unwrap().len(), 2);
        assert!(matches!(
            by_key([(1, 'a'), (1, 'a')]),
            Err(CallError::Nonsense(_))
        ));
        assert_eq!(distinct([2, 1]).unwrap(), BTreeSet::from([1, 2]));
        assert!(matches!(distinct([1, 1]), Err(CallError::Nonsense(_))));
        assert_eq!(at_most_one(Vec::<i64>::new()).unwrap(), None);
        assert_eq!(at_most_one(vec![1]).unwrap(), Some(1));
        assert!(matches!(at_most_one(vec![1, 1]), Err(CallError::Nonsense(_))));
    }
}
