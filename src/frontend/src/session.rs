//! What the wire needs from the rest of the database: sessions that run statements, and what a session may
//! send to its client while it does. The Coordinator implements [`Gateway`] and [`Session`]; the connection
//! implements [`Client`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_types::{Datum, Result, SqlError, SqlType};
use tokio::sync::watch;

use crate::scram::ScramVerifier;

/// One column of a result, as RowDescription carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDescription {
    /// The column's label.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// The table it comes from, or 0.
    pub table_oid: u32,
    /// Its number in that table (from 1), or 0.
    pub column_number: i16,
}

/// The indicator of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed block; only ROLLBACK (or COMMIT, which rolls back) is accepted.
    Failed,
}

/// A parsed and analysed statement. Shared: several portals may run it at once.
pub struct Prepared {
    /// Types of `$1`, `$2`, …, inferred where the client gave none.
    pub parameter_types: Vec<SqlType>,
    /// Result columns, or `None` for statements that return no rows.
    pub columns: Option<Vec<ColumnDescription>>,
    /// The session's own plan.
    pub plan: Arc<dyn Any + Send + Sync>,
}

/// A statement bound to parameter values, executed in one or several steps.
pub struct Portal {
    /// The statement.
    pub prepared: Arc<Prepared>,
    /// One value a parameter.
    pub parameters: Vec<Datum>,
    /// The session's own state of a suspended execution; `None` before the first step.
    pub execution: Option<Box<dyn Any + Send>>,
}

/// How a step of a portal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecuteOutcome {
    /// All done; CommandComplete (or EmptyQueryResponse) was sent.
    Complete,
    /// The row limit was reached and there may be more.
    Suspended,
}

/// Who connects, from the startup packet.
#[derive(Clone, Debug)]
pub struct Startup {
    /// The role that was authenticated.
    pub user: String,
    /// The database asked for (the user's name if none was).
    pub database: String,
    /// All other startup parameters, such as `application_name`.
    pub parameters: Vec<(String, String)>,
    /// This connection's process id, as BackendKeyData reports it.
    pub process_id: i32,
    /// Turns `true` each time the client asks to cancel; the session resets it by remembering the version seen.
    pub cancel: watch::Receiver<u64>,
}

/// What the server as a whole offers to connections.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// The password verifier of `user`, or `None` if there is no such role (the exchange goes on all the same).
    ///
    /// # Errors
    /// If users cannot be looked up now.
    async fn scram_verifier(&self, user: &str) -> Result<Option<ScramVerifier>>;

    /// Opens a session for an authenticated user.
    ///
    /// # Errors
    /// Such as `3D000` for an unknown database or `53300` when there are too many sessions.
    async fn open_session(&self, startup: Startup) -> Result<Box<dyn Session>>;
}

/// What a session may send to, or ask from, its client while it runs a statement.
///
/// Calls buffer; the connection flushes when the buffer is large ([`Client::make_room`]) and at Sync.
#[async_trait]
pub trait Client: Send {
    /// RowDescription (simple protocol only; the extended protocol describes by itself).
    fn row_description(&mut self, columns: &[ColumnDescription]);
    /// DataRow, in the formats that the client asked for. `types` are the result columns' types.
    fn row(&mut self, row: &[Datum]);
    /// CommandComplete, such as `INSERT 0 1`.
    fn command_complete(&mut self, tag: &str);
    /// EmptyQueryResponse.
    fn empty_query(&mut self);
    /// NoticeResponse with the given severity (`NOTICE`, `WARNING`, …).
    fn notice(&mut self, severity: &'static str, notice: &SqlError);
    /// ParameterStatus.
    fn parameter_status(&mut self, name: &str, value: &str);
    /// Lets a large buffer drain to the socket; call between rows of long results.
    ///
    /// # Errors
    /// If the connection is gone.
    async fn make_room(&mut self) -> Result<()>;
    /// CopyInResponse for `columns` text-format columns; data follow through [`Client::copy_data`].
    ///
    /// # Errors
    /// If the connection is gone.
    async fn start_copy_in(&mut self, columns: usize) -> Result<()>;
    /// The next CopyData, `None` at CopyDone.
    ///
    /// # Errors
    /// `57014` at CopyFail, or if the connection is gone.
    async fn copy_data(&mut self) -> Result<Option<Bytes>>;
    /// CopyOutResponse for `columns` text-format columns.
    fn start_copy_out(&mut self, columns: usize);
    /// CopyData from server to client.
    fn send_copy_data(&mut self, data: &[u8]);
    /// CopyDone from server to client.
    fn finish_copy_out(&mut self);
}

/// One client's conversation with the database. After any error the session has already put its transaction
/// into the state that [`Session::transaction_status`] reports.
#[async_trait]
pub trait Session: Send {
    /// ParameterStatus pairs to report at start, besides the ones the connection itself knows.
    fn initial_parameters(&self) -> Vec<(String, String)>;

    /// Runs a simple-protocol query string, which may hold several statements (one implicit transaction).
    ///
    /// # Errors
    /// The first failing statement's error; responses of those before it were sent.
    async fn simple_query(&mut self, sql: &str, client: &mut dyn Client) -> Result<()>;

    /// Parses and analyses one statement. `parameter_oids`: 0 or missing where the client leaves it to us.
    ///
    /// # Errors
    /// Syntax and analysis errors.
    async fn prepare(&mut self, sql: &str, parameter_oids: &[u32]) -> Result<Arc<Prepared>>;

    /// Runs (a step of) a portal. `max_rows` 0: no limit.
    ///
    /// # Errors
    /// The statement's error.
    async fn execute(
        &mut self,
        portal: &mut Portal,
        max_rows: usize,
        client: &mut dyn Client,
    ) -> Result<ExecuteOutcome>;

    /// Sync: ends the implicit transaction, committing it.
    ///
    /// # Errors
    /// If the commit failed.
    async fn sync(&mut self) -> Result<()>;

    /// An error was reported to the client that the session does not know of (such as a bad Bind).
    async fn fail(&mut self);

    /// For ReadyForQuery.
    fn transaction_status(&self) -> TransactionStatus;

    /// How long the client may leave a transaction idle before its connection is ended; `None`: as long as it likes.
    fn idle_in_transaction_limit(&self) -> Option<Duration>;

    /// The client is gone: rolls back and frees everything.
    async fn close(&mut self);
}
