//! A client, and a database of a few fixed statements for it to talk to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use neorunbase_world::clock::MonotonicTime;
use neorunbase_world::{Clock, Entropy, Spawner, TaskHandle};
use pgwire::messages::data::DataRow;
use pgwire::messages::extendedquery::{Bind, Close, Describe, Execute, Flush, Parse, Sync};
use pgwire::messages::response::TransactionStatus as WireStatus;
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{Authentication, SASLInitialResponse, SASLResponse, SecretKey};
use pgwire::messages::{DecodeContext, Message, PgWireBackendMessage as Backend, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::session::*;
use crate::{ConnectionLimits, ScramVerifier, Server, connection, scram};

/// Counts up: neither random nor secret.
#[derive(Default)]
pub(crate) struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, destination: &mut [u8]) {
        for chunk in destination.chunks_mut(8) {
            let number = self
                .0
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Runs a thousand times too fast, so that a minute's timeout takes 60 ms.
pub(crate) struct TestClock(tokio::time::Instant);

#[async_trait]
impl Clock for TestClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(0).after(self.0.elapsed() * 1000)
    }

    fn wall_clock_unix_micros(&self) -> i64 {
        0
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration / 1000).await;
    }
}

/// How long a transaction may be left idle.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

struct TestSpawner;

impl Spawner for TestSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        tokio::spawn(task);
        TaskHandle::new(|| {})
    }
}

/// Knows `alice`, whose password is `secret`.
#[derive(Default)]
pub(crate) struct TestGateway {
    pub(crate) open_sessions: Arc<AtomicUsize>,
    /// Calls of [`Session::fail`] and [`Session::sync`].
    pub(crate) failures: Arc<AtomicUsize>,
    pub(crate) syncs: Arc<AtomicUsize>,
}

#[async_trait]
impl Gateway for TestGateway {
    async fn scram_verifier(&self, user: &str) -> Result<Option<ScramVerifier>> {
        Ok((user == "alice").then(|| ScramVerifier::from_password("secret", b"salt", 1)))
    }

    async fn open_session(&self, startup: Startup) -> Result<Box<dyn Session>> {
        if startup.database == "missing" {
            return Err(SqlError::new(
                SqlState::INVALID_CATALOG_NAME,
                "database \"missing\" does not exist",
            ));
        }
        self.open_sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(TestSession {
            startup,
            status: TransactionStatus::Idle,
            open_sessions: self.open_sessions.clone(),
            failures: self.failures.clone(),
            syncs: self.syncs.clone(),
        }))
    }
}

struct TestSession {
    startup: Startup,
    status: TransactionStatus,
    open_sessions: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
    syncs: Arc<AtomicUsize>,
}

fn column(name: &str, sql_type: &SqlType) -> ColumnDescription {
    ColumnDescription {
        name: name.to_owned(),
        sql_type: sql_type.clone(),
        table_oid: 0,
        column_number: 0,
    }
}

impl TestSession {
    fn abort(&mut self) {
        if self.status != TransactionStatus::Idle {
            self.status = TransactionStatus::Failed;
        }
    }

    async fn run(&mut self, sql: &str, client: &mut dyn Client) -> Result<()> {
        match sql {
            "" => client.empty_query(),
            "begin" => {
                self.status = TransactionStatus::InTransaction;
                client.command_complete("BEGIN");
            }
            "commit" => {
                self.status = TransactionStatus::Idle;
                client.command_complete("COMMIT");
            }
            "notice" => {
                client.notice("NOTICE", &SqlError::new(SqlState("00000"), "careful"));
                client.parameter_status("TimeZone", "CET");
                client.command_complete("DO");
            }
            "copy in" | "copy in, then fail" => {
                client.start_copy_in(2).await?;
                let mut received = Vec::new();
                while let Some(data) = client.copy_data().await? {
                    received.extend_from_slice(&data);
                    if sql != "copy in" {
                        return Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "bad line"));
                    }
                }
                client.command_complete(&format!("COPY {}", String::from_utf8_lossy(&received)));
            }
            "copy out" => {
                client.start_copy_out(1);
                client.send_copy_data(b"one\n");
                client.finish_copy_out();
                client.command_complete("COPY 1");
            }
            "wait" => {
                let waited =
                    tokio::time::timeout(Duration::from_secs(20), self.startup.cancel.changed()).await;
                waited.expect("cancelled in time").expect("the connection lives");
                return Err(SqlError::new(
                    SqlState::QUERY_CANCELED,
                    "canceling statement due to user request",
                ));
            }
            other => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("syntax error at or near \"{other}\""),
                )
                .with_detail("d")
                .with_hint("h")
                .with_position(1));
            }
        }
        Ok(())
    }
}

/// `rows N` yields the numbers below N.
fn row_count(sql: &str) -> Option<i32> {
    sql.strip_prefix("rows ")?.parse().ok()
}

#[async_trait]
impl Session for TestSession {
    fn initial_parameters(&self) -> Vec<(String, String)> {
        let names: Vec<&str> = self
            .startup
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        vec![
            ("timezone".to_owned(), "UTC+1".to_owned()),
            ("test.parameters".to_owned(), names.join(",")),
        ]
    }

    async fn simple_query(&mut self, sql: &str, client: &mut dyn Client) -> Result<()> {
        if let Some(count) = row_count(sql) {
            client.row_description(&[column("n", &SqlType::Integer)]);
            for number in 0..count {
                client.row(&[Datum::Integer(number)]);
                client.make_room().await?;
            }
            client.command_complete(&format!("SELECT {count}"));
            return Ok(());
        }
        let ran = self.run(sql, client).await;
        if ran.is_err() {
            self.abort();
        }
        ran
    }

    async fn prepare(&mut self, sql: &str, parameter_oids: &[u32]) -> Result<Arc<Prepared>> {
        if sql == "bad" {
            self.abort();
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "syntax error at or near \"bad\"",
            ));
        }
        let parameter_types: Vec<SqlType> = parameter_oids
            .iter()
            .map(|&oid| SqlType::from_oid(oid).unwrap_or(SqlType::Text))
            .collect();
        let columns = if row_count(sql).is_some() {
            Some(vec![column("n", &SqlType::Integer)])
        } else if sql == "echo" {
            Some(
                parameter_types
                    .iter()
                    .map(|sql_type| column("echo", sql_type))
                    .collect(),
            )
        } else {
            None
        };
        Ok(Arc::new(Prepared {
            parameter_types,
            columns,
            plan: Arc::new(sql.to_owned()),
        }))
    }

    async fn execute(
        &mut self,
        portal: &mut Portal,
        max_rows: usize,
        client: &mut dyn Client,
    ) -> Result<ExecuteOutcome> {
        let sql = portal.prepared.plan.downcast_ref::<String>().unwrap().clone();
        if sql == "echo" {
            client.row(&portal.parameters);
            client.command_complete("SELECT 1");
        } else if let Some(count) = row_count(&sql) {
            let first = portal
                .execution
                .take()
                .map_or(0, |state| *state.downcast::<i32>().unwrap());
            let last = if max_rows == 0 {
                count
            } else {
                count.min(first + max_rows as i32)
            };
            for number in first..last {
                client.row(&[Datum::Integer(number)]);
                client.make_room().await?;
            }
            if last < count {
                portal.execution = Some(Box::new(last));
                return Ok(ExecuteOutcome::Suspended);
            }
            client.command_complete(&format!("SELECT {}", last - first));
        } else if let Err(error) = self.run(&sql, client).await {
            self.abort();
            return Err(error);
        }
        Ok(ExecuteOutcome::Complete)
    }

    async fn sync(&mut self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn fail(&mut self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        self.abort();
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn idle_in_transaction_limit(&self) -> Option<Duration> {
        Some(IDLE_LIMIT)
    }

    async fn close(&mut self) {
        self.open_sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server and the gateway behind it.
pub(crate) struct TestServer {
    pub(crate) server: Arc<Server>,
    pub(crate) gateway: Arc<TestGateway>,
}

impl TestServer {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        let gateway = Arc::new(TestGateway::default());
        let server = Server::from_parts(
            Arc::new(TestClock(tokio::time::Instant::now())),
            Arc::new(TestEntropy::default()),
            Arc::new(TestSpawner),
            gateway.clone(),
            limits,
        );
        Self { server, gateway }
    }

    /// A connection that has sent nothing yet; the streams between buffer `bytes` each way.
    pub(crate) fn connect_with_buffer(&self, bytes: usize) -> TestClient {
        let (near, far) = tokio::io::duplex(bytes);
        let backend = self.server.backends.register();
        tokio::spawn(connection::run(self.server.clone(), Box::new(far), backend));
        TestClient {
            stream: near,
            input: BytesMut::new(),
            output: BytesMut::new(),
            key: None,
        }
    }

    pub(crate) fn connect(&self) -> TestClient {
        self.connect_with_buffer(64 * 1024)
    }

    /// A connection that is ready for queries.
    pub(crate) async fn login(&self) -> TestClient {
        let mut client = self.connect();
        client.startup(&[("user", "alice")]).await;
        client.authenticate("secret").await;
        assert_eq!(client.until_ready().await.last().unwrap(), "ReadyForQuery I");
        client
    }
}

/// A client that shows what it gets in words.
pub(crate) struct TestClient {
    pub(crate) stream: DuplexStream,
    input: BytesMut,
    output: BytesMut,
    /// Process id and secret, once known.
    pub(crate) key: Option<(i32, i32)>,
}

impl TestClient {
    /// Adds a message to the next batch.
    pub(crate) fn put(&mut self, message: impl Message) -> &mut Self {
        message.encode(&mut self.output).unwrap();
        self
    }

    pub(crate) fn parse(&mut self, name: &str, sql: &str, oids: &[u32]) -> &mut Self {
        self.put(Parse::new(Some(name.to_owned()), sql.to_owned(), oids.to_vec()))
    }

    pub(crate) fn bind(&mut self, portal: &str, statement: &str) -> &mut Self {
        self.bind_values(portal, statement, &[], &[], &[])
    }

    pub(crate) fn bind_values(
        &mut self,
        portal: &str,
        statement: &str,
        formats: &[i16],
        values: &[Option<&[u8]>],
        result_formats: &[i16],
    ) -> &mut Self {
        let values = values
            .iter()
            .map(|value| value.map(|bytes| bytes.to_vec().into()))
            .collect();
        self.put(Bind::new(
            Some(portal.to_owned()),
            Some(statement.to_owned()),
            formats.to_vec(),
            values,
            result_formats.to_vec(),
        ))
    }

    pub(crate) fn execute(&mut self, portal: &str, max_rows: i32) -> &mut Self {
        self.put(Execute::new(Some(portal.to_owned()), max_rows))
    }

    pub(crate) fn describe(&mut self, kind: u8, name: &str) -> &mut Self {
        self.put(Describe::new(kind, Some(name.to_owned())))
    }

    pub(crate) fn close(&mut self, kind: u8, name: &str) -> &mut Self {
        self.put(Close::new(kind, Some(name.to_owned())))
    }

    pub(crate) fn flush(&mut self) -> &mut Self {
        self.put(Flush::new())
    }

    pub(crate) fn query(&mut self, sql: &str) -> &mut Self {
        self.put(Query::new(sql.to_owned()))
    }

    /// Sends the batch.
    pub(crate) async fn send(&mut self) {
        let batch = self.output.split();
        self.stream.write_all(&batch).await.unwrap();
    }

    /// Sends the batch with a Sync at its end, and returns all up to ReadyForQuery.
    pub(crate) async fn sync(&mut self) -> Vec<String> {
        self.put(Sync::new()).send().await;
        self.until_ready().await
    }

    /// Sends a simple query, and returns all up to ReadyForQuery.
    pub(crate) async fn run(&mut self, sql: &str) -> Vec<String> {
        self.query(sql).send().await;
        self.until_ready().await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn startup(&mut self, parameters: &[(&str, &str)]) {
        self.startup_with_minor(0, parameters).await;
    }

    pub(crate) async fn startup_with_minor(&mut self, minor: u16, parameters: &[(&str, &str)]) {
        let mut startup = pgwire::messages::startup::Startup::new();
        startup.protocol_number_minor = minor;
        startup.parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>();
        self.put(startup).send().await;
    }

    /// Runs the SCRAM exchange; its outcome is the next message.
    pub(crate) async fn authenticate(&mut self, password: &str) {
        let offered = self.next().await.unwrap();
        assert!(
            matches!(&offered, Backend::Authentication(Authentication::SASL(names)) if names == &["SCRAM-SHA-256"])
        );
        let bare = "n=,r=clientnonce";
        let initial = SASLInitialResponse::new("SCRAM-SHA-256".to_owned(), Some(format!("n,,{bare}").into()));
        self.put(initial).send().await;
        let Some(Backend::Authentication(Authentication::SASLContinue(server_first))) = self.next().await
        else {
            panic!("expected the server's first message");
        };
        let server_first = String::from_utf8(server_first.to_vec()).unwrap();
        let client_final = scram::client::final_message(password, bare, &server_first);
        self.put(SASLResponse::new(client_final.into())).send().await;
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Backend> {
        let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        loop {
            if let Some(message) = Backend::decode(&mut self.input, &context).unwrap() {
                return Some(message);
            }
            let read = self.stream.read_buf(&mut self.input);
            let count = tokio::time::timeout(Duration::from_secs(20), read)
                .await
                .expect("an answer")
                .unwrap();
            if count == 0 {
                assert!(self.input.is_empty(), "half a message: {:?}", self.input);
                return None;
            }
        }
    }

    pub(crate) async fn read_byte(&mut self) -> u8 {
        self.stream.read_u8().await.unwrap()
    }

    /// The next message, in words.
    pub(crate) async fn next_shown(&mut self) -> String {
        let message = self.next().await;
        self.show(message)
    }

    /// All messages up to ReadyForQuery or the end of the stream, in words.
    pub(crate) async fn until_ready(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        loop {
            let message = self.next_shown().await;
            let last = message == "end" || message.starts_with("ReadyForQuery");
            shown.push(message);
            if last {
                return shown;
            }
        }
    }

    fn show(&mut self, message: Option<Backend>) -> String {
        let fields = |fields: Vec<(u8, String)>| {
            let shown: Vec<String> = fields
                .iter()
                .map(|(code, value)| format!("{}={value}", char::from(*code)))
                .collect();
            shown.join(" ")
        };
        match message {
            None => "end".to_owned(),
            Some(Backend::ErrorResponse(error)) => format!("Error {}", fields(error.fields)),
            Some(Backend::NoticeResponse(notice)) => format!("Notice {}", fields(notice.fields)),
            Some(Backend::ReadyForQuery(ready)) => match ready.status {
                WireStatus::Idle => "ReadyForQuery I".to_owned(),
                WireStatus::Transaction => "ReadyForQuery T".to_owned(),
                WireStatus::Error => "ReadyForQuery E".to_owned(),
            },
            Some(Backend::CommandComplete(complete)) => complete.tag,
            Some(Backend::ParameterStatus(status)) => format!("{}: {}", status.name, status.value),
            Some(Backend::RowDescription(description)) => {
                let columns: Vec<String> = description
                    .fields
                    .iter()
                    .map(|field| format!("{}/{}/{}", field.name, field.type_id, field.format_code))
                    .collect();
                format!("Columns {}", columns.join(" "))
            }
            Some(Backend::ParameterDescription(description)) => format!("Parameters {:?}", description.types),
            Some(Backend::DataRow(row)) => show_row(row),
            Some(Backend::CopyData(copy)) => format!("CopyData {:?}", copy.data),
            Some(Backend::CopyInResponse(copy)) => format!("CopyIn {:?}", copy.column_formats),
            Some(Backend::CopyOutResponse(copy)) => format!("CopyOut {:?}", copy.column_formats),
            Some(Backend::BackendKeyData(key)) => {
                let SecretKey::I32(secret) = key.secret_key else {
                    panic!("a long secret")
                };
                self.key = Some((key.pid, secret));
                "BackendKeyData".to_owned()
            }
            // `Name(Name)` and `Authentication(Kind)` of the codec's own Debug.
            Some(other) => format!("{other:?}").split('(').next().unwrap().to_owned(),
        }
    }
}

fn show_row(row: DataRow) -> String {
    let mut data = row.data;
    let mut shown = "Row".to_owned();
    for _ in 0..row.field_count {
        match data.get_i32() {
            -1 => shown += " NULL",
            length => {
                let value = data.split_to(length as usize);
                shown += &format!(" {}", value.escape_ascii());
            }
        }
    }
    assert!(data.is_empty());
    shown
}
