//! Sessions of a Coordinator over a Data Node in the same process, whose requests and answers can be lost.
#![allow(clippy::unwrap_used)]

mod isolation;
mod lost_commits;
mod network;
mod row_locks;

use std::sync::Arc;
use std::time::Duration;

use crate::storage_support::{CrashDisk, SeededEntropy, TestSpawner};
use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_coordination::{ClientOptions, EmbeddedClient, EmbeddedService};
use neorunbase_frontend::{Client, ColumnDescription, Gateway, Portal, Session, Startup};
use neorunbase_kms::MasterKey;
use neorunbase_protocol::message::{ErrorKind, Request, RequestBody, Response, ResponseBody};
use neorunbase_protocol::{Channel, RequestHandler};
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_types::{Datum, Result, SqlError, SqlState};
use neorunbase_world::{Clock, MonotonicTime, World};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{CoordinatorGateway, DATABASE, FIRST_USER};
use crate::daemon::{
    CoordinatorHandle, CoordinatorSettings, DataNodeHandle, DataNodeSettings, start_coordinator,
    start_data_node,
};
use crate::datanode::DataNodeConfig;
use crate::error_reply::error_reply;
use network::MemoryNetwork;

const DATA_NODE: &str = "data-1";
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

struct TestClock(tokio::time::Instant);

#[async_trait]
impl Clock for TestClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.0.elapsed().as_nanos() as u64)
    }
    fn wall_clock_unix_micros(&self) -> i64 {
        1_700_000_000_000_000 + self.0.elapsed().as_micros() as i64
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// What becomes of a request to the Data Node.
enum Fate {
    Answered,
    RequestLost,
    AnswerLost,
    /// Not delivered: the node is made to say this.
    Refused(ErrorKind),
}

type Decide = Box<dyn FnMut(&RequestBody) -> Fate + Send>;

/// The way to the Data Node.
struct Wire {
    channel: Arc<dyn Channel>,
    decide: Mutex<Option<Decide>>,
}

fn failed(kind: ErrorKind) -> Response {
    let error = SqlError::internal("a fault of the test");
    ResponseBody::Error(error_reply(kind, *error)).into()
}

#[async_trait]
impl RequestHandler for Wire {
    async fn handle(&self, request: Request) -> Response {
        let fate = match (&mut *self.decide.lock(), &request.body) {
            (Some(decide), Some(body)) => decide(body),
            _ => Fate::Answered,
        };
        match fate {
            Fate::RequestLost => return failed(ErrorKind::OutcomeUnknown),
            Fate::Refused(kind) => return failed(kind),
            Fate::Answered | Fate::AnswerLost => {}
        }
        let answer = self.channel.call(request).await;
        match answer {
            Ok(response) if !matches!(fate, Fate::AnswerLost) => response,
            _ => failed(ErrorKind::OutcomeUnknown),
        }
    }
}

/// One Coordinator, one Data Node.
struct Cluster {
    coordinator: Arc<CoordinatorHandle>,
    wire: Arc<Wire>,
    _data_node: Arc<DataNodeHandle>,
    _coordination: EmbeddedService,
}

impl Cluster {
    async fn start() -> Self {
        let clock = Arc::new(TestClock(tokio::time::Instant::now()));
        let spawner = Arc::new(TestSpawner);
        let network = Arc::new(MemoryNetwork::default());
        let entropy = Arc::new(SeededEntropy::new(1));
        let coordination = EmbeddedService::start(clock.clone(), entropy.clone(), spawner.clone(), None)
            .await
            .unwrap();
        let world = |seed| World {
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(seed)),
            spawner: spawner.clone(),
            network: network.clone(),
            disk: Arc::new(CrashDisk::default()),
            engines: Arc::new(MemoryEngineFactory::new()),
            coordination: Arc::new(EmbeddedClient::embedded(
                &coordination,
                clock.clone(),
                &*spawner,
                ClientOptions::with_session_timeout(SESSION_TIMEOUT),
            )),
        };
        let key = MasterKey::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let settings = CoordinatorSettings {
            name: "coordinator-1".to_owned(),
            pg_address: "coordinator-1:5432".to_owned(),
            internal_address: "coordinator-1:7000".to_owned(),
            session_timeout: SESSION_TIMEOUT,
            shards_default: 1,
            replicas_default: 1,
            admin_password: Some("secret".to_owned()),
            max_connections: 10,
            scram_iterations: 1,
            grace_period: crate::cluster::DEFAULT_GRACE_PERIOD,
        };
        let coordinator = start_coordinator(world(2), settings, &key).await.unwrap();
        let settings = DataNodeSettings {
            internal_address: format!("{DATA_NODE}:7000"),
            session_timeout: SESSION_TIMEOUT,
            labels: Default::default(),
            node: DataNodeConfig::new(DATA_NODE),
        };
        let timestamps = Some(coordinator.timestamps());
        let data_node = start_data_node(world(3), settings, &key, timestamps)
            .await
            .unwrap();
        let directory = coordinator.coordinator().router.directory();
        let channel = loop {
            match directory.channel(DATA_NODE) {
                Some(channel) => break channel,
                None => clock.sleep(Duration::from_millis(5)).await,
            }
        };
        let decide = Mutex::default();
        let wire = Arc::new(Wire { channel, decide });
        directory.add_local(DATA_NODE, wire.clone());
        Self {
            coordinator,
            wire,
            _data_node: data_node,
            _coordination: coordination,
        }
    }

    /// With a table `t` of two rows.
    async fn with_table() -> Self {
        let cluster = Self::start().await;
        let mut session = cluster.connect().await;
        let create = "CREATE TABLE t (id int PRIMARY KEY, v int) SHARD KEY (id) SHARDS 1";
        session.run(create).await.unwrap();
        session.run("INSERT INTO t VALUES (1, 0), (2, 0)").await.unwrap();
        cluster
    }

    async fn connect(&self) -> TestSession {
        let (cancel, cancelled) = watch::channel(0);
        let startup = Startup {
            user: FIRST_USER.to_owned(),
            database: DATABASE.to_owned(),
            parameters: Vec::new(),
            process_id: 1,
            cancel: cancelled,
        };
        let gateway = CoordinatorGateway(self.coordinator.coordinator().clone());
        TestSession {
            session: gateway.open_session(startup).await.unwrap(),
            client: TestClient::default(),
            _cancel: cancel,
        }
    }

    /// Asks `decide` about every request to the Data Node from now on.
    fn decide(&self, decide: impl FnMut(&RequestBody) -> Fate + Send + 'static) {
        *self.wire.decide.lock() = Some(Box::new(decide));
    }

    /// The newest committed values, by id.
    async fn values(&self) -> Vec<i32> {
        self.connect()
            .await
            .run("SELECT v FROM t ORDER BY id")
            .await
            .unwrap()
    }
}

struct TestSession {
    session: Box<dyn Session>,
    client: TestClient,
    _cancel: watch::Sender<u64>,
}

impl TestSession {
    /// Runs a query string. Returns the first column of all rows.
    async fn run(&mut self, sql: &str) -> Result<Vec<i32>> {
        self.client.rows.clear();
        self.session.simple_query(sql, &mut self.client).await?;
        Ok(self.client.integers())
    }

    /// Runs a statement of a pipeline, which goes on until [`sync`](Self::sync).
    async fn execute(&mut self, sql: &str) -> Result<Vec<i32>> {
        self.client.rows.clear();
        let prepared = self.session.prepare(sql, &[]).await?;
        let mut portal = Portal {
            prepared,
            parameters: Vec::new(),
            execution: None,
        };
        self.session.execute(&mut portal, 0, &mut self.client).await?;
        Ok(self.client.integers())
    }

    async fn sync(&mut self) -> Result<()> {
        self.session.sync().await
    }
}

/// Keeps what it is sent.
#[derive(Default)]
struct TestClient {
    rows: Vec<Vec<Datum>>,
}

impl TestClient {
    fn integers(&self) -> Vec<i32> {
        let first = self.rows.iter().map(|row| match row[0] {
            Datum::Integer(value) => value,
            ref other => panic!("not an integer: {other:?}"),
        });
        first.collect()
    }
}

#[async_trait]
impl Client for TestClient {
    fn row_description(&mut self, _: &[ColumnDescription]) {}
    fn row(&mut self, row: &[Datum]) {
        self.rows.push(row.to_vec());
    }
    fn command_complete(&mut self, _: &str) {}
    fn empty_query(&mut self) {}
    fn notice(&mut self, _: &'static str, _: &SqlError) {}
    fn parameter_status(&mut self, _: &str, _: &str) {}
    async fn make_room(&mut self) -> Result<()> {
        Ok(())
    }
    async fn start_copy_in(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    async fn copy_data(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }
    fn start_copy_out(&mut self, _: usize) {}
    fn send_copy_data(&mut self, _: &[u8]) {}
    fn finish_copy_out(&mut self) {}
}

fn state<T: std::fmt::Debug>(outcome: Result<T>) -> SqlState {
    outcome.unwrap_err().state
}
