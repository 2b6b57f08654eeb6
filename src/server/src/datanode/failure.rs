//! Why a request failed, and how that travels.

use neorunbase_protocol::message::{
    ErrorKind, ErrorReply, Response, ResponseBody, ShardId, StaleTableReply, StorageId, TransactionId,
};
use neorunbase_storage::StorageError;
use neorunbase_txn::{LockError, TimestampError};
use neorunbase_types::{SqlError, SqlState};

use crate::error_reply::error_reply;

/// A request's failure.
#[derive(Debug)]
pub enum Failure {
    /// For the client.
    Sql(Box<SqlError>),
    /// The sender should read the shard map again.
    StaleEpoch {
        /// The shard asked for.
        shard: ShardId,
        /// The epoch under which this node serves it, if it does.
        serving: Option<u64>,
    },
    /// The sender should read the catalog again.
    StaleTable {
        /// The table's storage.
        storage: StorageId,
        /// The version of the table that is demanded.
        version: u64,
    },
    /// The transaction's state is not (or no longer) here.
    UnknownTransaction(TransactionId),
    /// Another primary of the shard will know.
    OutcomeUnknown,
    /// Asked for something that only the leader Coordinator answers.
    NotLeader,
}

impl Failure {
    /// Whether a statement is refused because of rows that it met (or did not): nothing came of it then, and whoever has other
    /// rows may not refuse it. Classes 21 to 23: cardinality, data, constraints.
    pub fn tells_of_rows(&self) -> bool {
        let classes = ["21", "22", "23"];
        matches!(self, Self::Sql(error) if classes.iter().any(|class| error.state.0.starts_with(class)))
    }

    /// As an answer.
    pub fn into_response(self) -> Response {
        let reply = match self {
            Self::Sql(error) => error_reply(ErrorKind::Sql, *error),
            Self::StaleEpoch { shard, serving } => ErrorReply {
                kind: ErrorKind::StaleEpoch.into(),
                sql_state: SqlState::SERIALIZATION_FAILURE.0.to_owned(),
                message: match serving {
                    Some(epoch) => format!("shard {shard:#x} is served under epoch {epoch}"),
                    None => format!("shard {shard:#x} is not served here"),
                },
                ..ErrorReply::default()
            },
            Self::StaleTable { storage, version } => ErrorReply {
                kind: ErrorKind::StaleTable.into(),
                sql_state: SqlState::SERIALIZATION_FAILURE.0.to_owned(),
                message: "could not serialize access due to concurrent change of the table".to_owned(),
                hint: "The transaction might succeed if retried.".to_owned(),
                stale_table: Some(Box::new(StaleTableReply { storage, version })),
                ..ErrorReply::default()
            },
            Self::UnknownTransaction(transaction) => ErrorReply {
                kind: ErrorKind::UnknownTransaction.into(),
                sql_state: SqlState::SERIALIZATION_FAILURE.0.to_owned(),
                message: "could not serialize access: the transaction was rolled back on a data node"
                    .to_owned(),
                detail: format!("transaction {transaction} is not known there any more"),
                ..ErrorReply::default()
            },
            Self::OutcomeUnknown => ErrorReply {
                kind: ErrorKind::OutcomeUnknown.into(),
                sql_state: SqlState::TRANSACTION_RESOLUTION_UNKNOWN.0.to_owned(),
                message: "the shard gets another primary during the commit; its outcome is not known yet"
                    .to_owned(),
                ..ErrorReply::default()
            },
            Self::NotLeader => ErrorReply {
                kind: ErrorKind::NotLeader.into(),
                sql_state: SqlState::INTERNAL_ERROR.0.to_owned(),
                message: "data nodes do not answer this request".to_owned(),
                ..ErrorReply::default()
            },
        };
        Response {
            body: Some(ResponseBody::Error(reply)),
        }
    }
}

impl From<Box<SqlError>> for Failure {
    fn from(error: Box<SqlError>) -> Self {
        Self::Sql(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            // Statements that were planned before a DROP or TRUNCATE; a retry plans anew.
            StorageError::UnknownStorage(storage) => Self::Sql(
                SqlError::new(
                    SqlState::SERIALIZATION_FAILURE,
                    "could not serialize access due to concurrent change of the table",
                )
                .with_detail(format!("storage {storage} does not exist in the shard")),
            ),
            other => Self::Sql(other.into()),
        }
    }
}

impl From<TimestampError> for Failure {
    fn from(error: TimestampError) -> Self {
        Self::Sql(SqlError::new(SqlState::CANNOT_CONNECT_NOW, error.to_string()))
    }
}

/// `40001` of a row that changed after the snapshot.
pub fn concurrent_update() -> Failure {
    Failure::Sql(SqlError::new(
        SqlState::SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent update",
    ))
}

/// The error of a lock that was not obtained.
pub fn lock_failure(error: LockError, table_name: Option<&str>, owner: TransactionId) -> Failure {
    let error = match error {
        LockError::NotAvailable => {
            let message = match table_name {
                Some(table) => format!("could not obtain lock on row in relation \"{table}\""),
                None => "could not obtain lock on row".to_owned(),
            };
            SqlError::new(SqlState::LOCK_NOT_AVAILABLE, message)
        }
        LockError::TimedOut => SqlError::new(
            SqlState::LOCK_NOT_AVAILABLE,
            "canceling statement due to lock timeout",
        ),
        LockError::Deadlock => SqlError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected"),
        LockError::Cancelled => return Failure::UnknownTransaction(owner),
    };
    Failure::Sql(error)
}
