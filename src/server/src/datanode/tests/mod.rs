//! A Data Node over engines in memory and a disk that can crash.
#![allow(clippy::unwrap_used)]

mod commits;
mod deadlocks;
mod disks;
mod indexes;
mod isolation;
mod recovery;
mod savepoints;
mod staged_commit;
mod two_phase;
mod validation;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::storage_support::{CrashDisk, SeededEntropy};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use neorunbase_expression::program::InputColumn;
use neorunbase_expression::{Expression, Function, ScanProgram, WriteProgram};
use neorunbase_kms::MasterKey;
use neorunbase_protocol::message::*;
use neorunbase_protocol::{CallError, Channel, RequestHandler};
use neorunbase_replication::Configuration;
use neorunbase_storage::descriptor::{IndexDescriptor, KeyColumn, TableDescriptor};
use neorunbase_storage::key::encode_key;
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_storage::row::{decode_tuple, encode_row};
use neorunbase_txn::{TimestampError, TimestampSource};
use neorunbase_types::{Datum, SqlType};
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState, Version, Watch};
use neorunbase_world::{
    Clock, Coordination, Listener, MonotonicTime, Network, Spawner, Stream, TaskHandle, World,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::ReplicationConfig;
use super::{DataNode, DataNodeConfig, PeerDirectory};

const TABLE: StorageId = 1024;
const BY_VALUE: StorageId = 1025;
const BY_TAG: StorageId = 1026;
const SHARD: ShardId = 1 << 32;
const OTHER_SHARD: ShardId = (1 << 32) | 1;

struct TestClock(tokio::time::Instant);

#[async_trait]
impl Clock for TestClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.0.elapsed().as_nanos() as u64)
    }
    fn wall_clock_unix_micros(&self) -> i64 {
        0
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Kills what it spawned, as a crash does.
#[derive(Default)]
struct TestSpawner(Mutex<Vec<tokio::task::AbortHandle>>);

impl Spawner for TestSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let handle = tokio::spawn(task).abort_handle();
        self.0.lock().push(handle.clone());
        TaskHandle::new(move || handle.abort())
    }
}

struct Nowhere;

#[async_trait]
impl Network for Nowhere {
    async fn listen(&self, _address: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Coordination for Nowhere {
    async fn create(&self, _: &str, _: Bytes, _: CreateMode) -> Result<String, CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn get(&self, _: &str) -> Result<Option<(Bytes, Version)>, CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn get_and_watch(&self, _: &str) -> Result<(Option<(Bytes, Version)>, Watch), CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn set(&self, _: &str, _: Bytes, _: Version) -> Result<Version, CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn delete(&self, _: &str, _: Option<Version>) -> Result<(), CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn children(&self, _: &str) -> Result<Vec<String>, CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    async fn children_and_watch(&self, _: &str) -> Result<(Vec<String>, Watch), CoordinationError> {
        Err(CoordinationError::ConnectionLost)
    }
    fn session(&self) -> watch::Receiver<SessionState> {
        watch::channel(SessionState::Connected).1
    }
}

/// Timestamps a millisecond apart; `delay` holds answers back after they were drawn.
#[derive(Default)]
struct Oracle {
    last: AtomicU64,
    delay_ms: AtomicU64,
}

impl Oracle {
    fn draw(&self) -> Timestamp {
        (self.last.fetch_add(1, Ordering::SeqCst) + 1) << 20
    }
}

#[async_trait]
impl TimestampSource for Oracle {
    async fn next(&self) -> Result<Timestamp, TimestampError> {
        let timestamp = self.draw();
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        Ok(timestamp)
    }
}

#[derive(Default)]
struct Peers(Mutex<BTreeMap<ShardId, Arc<DataNode>>>);

struct Direct(Arc<DataNode>);

#[async_trait]
impl Channel for Direct {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(self.0.handle(request).await)
    }
}

#[async_trait]
impl PeerDirectory for Peers {
    async fn channel_for_shard(&self, shard: ShardId) -> Option<(Arc<dyn Channel>, ShardRef)> {
        let node = self.0.lock().get(&shard)?.clone();
        let epoch = node.open_shard(shard).ok()?.serving()?;
        Some((Arc::new(Direct(node)), ShardRef { shard, epoch }))
    }

    fn data_nodes(&self) -> Vec<String> {
        self.0
            .lock()
            .values()
            .map(|node| node.name().to_owned())
            .collect()
    }

    async fn channel_to(&self, name: &str) -> Option<Arc<dyn Channel>> {
        let nodes = self.0.lock();
        let node = nodes.values().find(|node| node.name() == name)?.clone();
        Some(Arc::new(Direct(node)))
    }
}

/// What the nodes of a test share.
#[derive(Clone, Default)]
struct Cluster {
    oracle: Arc<Oracle>,
    peers: Arc<Peers>,
}

/// One node's durable side, and the node that runs on it.
struct TestNode {
    cluster: Cluster,
    shard: ShardId,
    /// The last term that the node was asked to begin.
    term: u64,
    disk: CrashDisk,
    engines: MemoryEngineFactory,
    spawner: Arc<TestSpawner>,
    node: Option<Arc<DataNode>>,
    chance: SeededEntropy,
}

fn config(name: String) -> DataNodeConfig {
    let mut replication = ReplicationConfig::default();
    // A restarted node begins its next term after this.
    replication.timing.lease = Duration::from_millis(10);
    DataNodeConfig {
        replication,
        deadlock_timeout: Duration::from_millis(200),
        abandon_after: Duration::from_millis(700),
        in_doubt_patience: Duration::from_millis(100),
        garbage_interval: Duration::from_secs(3600),
        wal_segment_bytes: 4 << 10,
        wal_max_frame_bytes: 1 << 20,
        ..DataNodeConfig::new(name)
    }
}

impl TestNode {
    async fn start(cluster: &Cluster, shard: ShardId) -> Self {
        let mut node = Self {
            cluster: cluster.clone(),
            shard,
            term: 0,
            disk: CrashDisk::default(),
            engines: MemoryEngineFactory::new(),
            spawner: Arc::default(),
            node: None,
            chance: SeededEntropy::new(shard),
        };
        node.boot().await;
        let create = vec![TABLE, BY_VALUE, BY_TAG];
        let change = ChangeStorage {
            shard: node.reference(),
            create,
            drop: Vec::new(),
        };
        expect_done(node.call(RequestBody::ChangeStorage(change)).await);
        node
    }

    async fn single() -> Self {
        Self::start(&Cluster::default(), SHARD).await
    }

    async fn boot(&mut self) {
        self.spawner = Arc::default();
        let world = World {
            clock: Arc::new(TestClock(tokio::time::Instant::now())),
            entropy: Arc::new(SeededEntropy::new(7 + self.cluster.oracle.draw())),
            spawner: self.spawner.clone(),
            network: Arc::new(Nowhere),
            disk: Arc::new(self.disk.clone()),
            engines: Arc::new(self.engines.clone()),
            coordination: Arc::new(Nowhere),
        };
        let key = MasterKey::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let cluster = &self.cluster;
        let node = DataNode::open(
            world,
            config(self.name()),
            &key,
            cluster.oracle.clone(),
            cluster.peers.clone(),
        )
        .await
        .unwrap();
        cluster.peers.0.lock().insert(self.shard, node.clone());
        self.node = Some(node);
        self.term += 1;
        self.configure(self.configuration()).await;
        self.serves(self.term).await;
    }

    fn name(&self) -> String {
        format!("test-{:x}", self.shard)
    }

    /// This node alone holds the shard.
    fn configuration(&self) -> Configuration {
        Configuration {
            epoch: self.term,
            term: self.term,
            ..Configuration::new(vec![self.name()])
        }
    }

    async fn configure(&self, configuration: Configuration) {
        let map = BTreeMap::from([(self.shard, configuration)]);
        self.node().configure(&map).await.unwrap();
    }

    /// Returns when the shard is served in `term`.
    async fn serves(&self, term: u64) {
        while self.node().open_shard(self.shard).unwrap().serving() != Some(term) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Power fails. Nothing of the node runs on.
    async fn crash(&mut self) {
        self.cluster.peers.0.lock().remove(&self.shard);
        self.node = None;
        for task in self.spawner.0.lock().drain(..) {
            task.abort();
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.engines.crash_all();
        self.disk.crash(&self.chance);
    }

    fn node(&self) -> Arc<DataNode> {
        self.node.clone().unwrap()
    }

    fn reference(&self) -> ShardRef {
        ShardRef {
            shard: self.shard,
            epoch: self.term,
        }
    }

    async fn call(&self, body: RequestBody) -> Response {
        self.node().handle(Request { body: Some(body) }).await
    }

    fn begin(&self) -> TestTransaction {
        TestTransaction::new(self.cluster.oracle.draw())
    }

    /// A repeatable-read transaction with a snapshot of now.
    fn begin_snapshot(&self) -> TestTransaction {
        let transaction = self.begin();
        TestTransaction {
            snapshot: self.cluster.oracle.draw(),
            fail_on_newer: true,
            ..transaction
        }
    }

    fn autocommit(&self) -> TestTransaction {
        TestTransaction {
            autocommit: true,
            ..self.begin()
        }
    }

    async fn insert(&self, transaction: &TestTransaction, rows: &[(i32, i32)]) -> Result<u64, ErrorReply> {
        let rows: Vec<_> = rows.iter().map(|(id, value)| (*id, *value, None)).collect();
        self.write(transaction, RowWriteKind::Insert, &rows)
            .await
            .map(|reply| reply.affected)
    }

    async fn write(
        &self,
        transaction: &TestTransaction,
        kind: RowWriteKind,
        rows: &[(i32, i32, Option<&str>)],
    ) -> Result<WrittenReply, ErrorReply> {
        let writes = rows.iter().map(|row| row_write(kind, row)).collect();
        let request = WriteRows {
            shard: self.reference(),
            context: transaction.context(),
            table: table(),
            writes,
        };
        written(self.call(RequestBody::WriteRows(request)).await)
    }

    /// `UPDATE … SET value = value + delta WHERE id = …`
    async fn add(&self, transaction: &TestTransaction, id: i32, delta: i32) -> Result<u64, ErrorReply> {
        let request = ModifyRows {
            keys: vec![key(id)],
            program: add_program(delta),
            ..self.modify(transaction)
        };
        written(self.call(RequestBody::ModifyRows(request)).await).map(|reply| reply.affected)
    }

    fn modify(&self, transaction: &TestTransaction) -> ModifyRows {
        ModifyRows {
            shard: self.reference(),
            context: transaction.context(),
            table: table(),
            ..ModifyRows::default()
        }
    }

    async fn read(&self, transaction: &TestTransaction, id: i32) -> Result<Option<i32>, ErrorReply> {
        self.read_locked(transaction, id, LockMode::None, LockWait::Wait)
            .await
    }

    async fn read_locked(
        &self,
        transaction: &TestTransaction,
        id: i32,
        lock: LockMode,
        wait: LockWait,
    ) -> Result<Option<i32>, ErrorReply> {
        let request = ReadRows {
            shard: self.reference(),
            storage: TABLE,
            context: transaction.context(),
            keys: vec![key(id)],
            program: scan_program(),
            parameters: Bytes::new(),
            lock: lock.into(),
            wait: wait.into(),
        };
        let rows = rows(self.call(RequestBody::ReadRows(request)).await)?;
        Ok(rows.first().map(|row| row.1))
    }

    /// The newest committed value.
    async fn peek(&self, id: i32) -> Option<i32> {
        self.read(&TestTransaction::new(0), id).await.unwrap()
    }

    fn scan_request(&self, transaction: &TestTransaction) -> ScanRows {
        ScanRows {
            shard: self.reference(),
            storage: TABLE,
            context: transaction.context(),
            program: scan_program(),
            ..ScanRows::default()
        }
    }

    async fn scan(&self, transaction: &TestTransaction) -> Vec<(i32, i32)> {
        self.scan_all(self.scan_request(transaction)).await.unwrap()
    }

    /// All batches of a scan.
    async fn scan_all(&self, mut request: ScanRows) -> Result<Vec<(i32, i32)>, ErrorReply> {
        let mut all = Vec::new();
        loop {
            let response = self.call(RequestBody::ScanRows(request.clone())).await;
            let continuation = match &response.body {
                Some(ResponseBody::Rows(rows)) => rows.continuation.clone(),
                _ => Bytes::new(),
            };
            all.extend(rows(response)?);
            if continuation.is_empty() {
                return Ok(all);
            }
            request.resume_from = continuation;
        }
    }

    async fn commit(&self, transaction: &TestTransaction) -> Result<Timestamp, ErrorReply> {
        let request = CommitLocal {
            anchor: None,
            reads: None,
            transaction: transaction.id,
            shards: vec![self.reference()],
            last_sequence: transaction.sequence.load(Ordering::SeqCst),
        };
        written(self.call(RequestBody::CommitLocal(request)).await).map(|reply| reply.commit_timestamp)
    }

    async fn roll_back(&self, transaction: &TestTransaction) {
        self.finish(transaction, 0, false).await.unwrap();
    }

    async fn finish(
        &self,
        transaction: &TestTransaction,
        commit_timestamp: Timestamp,
        forget_decision: bool,
    ) -> Result<(), ErrorReply> {
        let (transaction, shards) = (transaction.id, vec![self.reference()]);
        let request = Finish {
            transaction,
            shards,
            commit_timestamp,
            forget_decision,
        };
        done(self.call(RequestBody::Finish(request)).await)
    }

    async fn prepare(&self, transaction: &TestTransaction, anchor: ShardId) -> Result<(), ErrorReply> {
        let request = Prepare {
            transaction: transaction.id,
            shards: vec![self.reference()],
            anchor,
            participants: vec![SHARD, OTHER_SHARD],
            last_sequence: 0,
        };
        done(self.call(RequestBody::Prepare(request)).await)
    }

    async fn decide(
        &self,
        transaction: &TestTransaction,
        commit_timestamp: Timestamp,
    ) -> Result<(), ErrorReply> {
        let request = Decide {
            transaction: transaction.id,
            anchor: self.reference(),
            commit_timestamp,
        };
        done(self.call(RequestBody::Decide(request)).await)
    }

    async fn query(&self, transaction: &TestTransaction, abort_if_abandoned: bool) -> Decision {
        let request = QueryDecision {
            transaction: transaction.id,
            anchor: self.reference(),
            abort_if_abandoned,
            one_round: false,
        };
        match self.call(RequestBody::QueryDecision(request)).await.body {
            Some(ResponseBody::Decision(reply)) => reply.decision(),
            other => panic!("{other:?}"),
        }
    }
}

struct TestTransaction {
    id: TransactionId,
    snapshot: Timestamp,
    fail_on_newer: bool,
    autocommit: bool,
    lock_timeout_ms: u32,
    sequence: AtomicU32,
}

impl TestTransaction {
    fn new(id: TransactionId) -> Self {
        Self {
            id,
            snapshot: 0,
            fail_on_newer: false,
            autocommit: false,
            lock_timeout_ms: 0,
            sequence: AtomicU32::new(0),
        }
    }

    fn context(&self) -> StatementContext {
        StatementContext {
            transaction: self.id,
            snapshot: self.snapshot,
            fail_on_newer: self.fail_on_newer,
            sequence: self.sequence.fetch_add(1, Ordering::SeqCst) + 1,
            transaction_time_unix_micros: 0,
            lock_timeout_ms: self.lock_timeout_ms,
            autocommit: self.autocommit,
            revocable: true,
            table_version: 0,
            repeated: false,
        }
    }
}

fn key(id: i32) -> Bytes {
    encode_key(&[Datum::Integer(id)])
}

fn row_write(kind: RowWriteKind, (id, value, tag): &(i32, i32, Option<&str>)) -> RowWrite {
    let tag = tag.map_or(Datum::Null, Datum::text);
    let row = encode_row(&[(1, &Datum::Integer(*id)), (2, &Datum::Integer(*value)), (3, &tag)]);
    RowWrite {
        kind: kind.into(),
        key: key(*id),
        row,
    }
}

fn table() -> ProgramRef {
    let column = |column, name: &str, sql_type| KeyColumn {
        column,
        name: name.into(),
        sql_type,
        descending: false,
        missing: Datum::Null,
    };
    let index = |storage, name: &str, columns, unique| IndexDescriptor {
        storage,
        name: name.into(),
        columns,
        unique,
    };
    let descriptor = TableDescriptor {
        storage: TABLE,
        table_name: "t".into(),
        schema_name: "public".into(),
        primary_key_name: "t_pkey".into(),
        primary_key: vec![column(1, "id", SqlType::Integer)],
        indexes: vec![
            index(
                BY_VALUE,
                "t_value_idx",
                vec![column(2, "value", SqlType::Integer)],
                false,
            ),
            index(BY_TAG, "t_tag_key", vec![column(3, "tag", SqlType::Text)], true),
        ],
        version: 1,
    };
    ProgramRef::new(postcard::to_stdvec(&descriptor).unwrap())
}

fn inputs() -> Vec<InputColumn> {
    [1, 2]
        .map(|column| InputColumn {
            column,
            missing: Datum::Null,
        })
        .to_vec()
}

fn input(index: usize) -> Expression {
    Expression::Input {
        index,
        sql_type: SqlType::Integer,
    }
}

fn number(value: i32) -> Expression {
    Expression::Literal {
        value: Datum::Integer(value),
        sql_type: SqlType::Integer,
    }
}

fn call(function: Function, arguments: [Expression; 2], sql_type: SqlType) -> Expression {
    Expression::Call {
        function,
        arguments: arguments.to_vec(),
        sql_type,
    }
}

/// `SELECT id, value`
fn scan_program() -> ProgramRef {
    let program = ScanProgram {
        inputs: inputs(),
        filter: None,
        output: vec![input(0), input(1)],
    };
    ProgramRef::new(program.encode())
}

/// `SET value = value + delta`
fn add_program(delta: i32) -> ProgramRef {
    let sum = call(Function::Add, [input(1), number(delta)], SqlType::Integer);
    let program = WriteProgram {
        inputs: inputs(),
        assignments: vec![(2, sum)],
        ..WriteProgram::default()
    };
    ProgramRef::new(program.encode())
}

fn body<T>(response: Response, wanted: impl FnOnce(ResponseBody) -> Option<T>) -> Result<T, ErrorReply> {
    match response.body.unwrap() {
        ResponseBody::Error(error) => Err(error),
        other => Ok(wanted(other).unwrap()),
    }
}

fn done(response: Response) -> Result<(), ErrorReply> {
    body(response, |body| {
        matches!(body, ResponseBody::Done(_)).then_some(())
    })
}

fn expect_done(response: Response) {
    done(response).unwrap();
}

fn written(response: Response) -> Result<WrittenReply, ErrorReply> {
    body(response, |body| match body {
        ResponseBody::Written(reply) => Some(reply),
        _ => None,
    })
}

fn rows(response: Response) -> Result<Vec<(i32, i32)>, ErrorReply> {
    let reply = body(response, |body| match body {
        ResponseBody::Rows(reply) => Some(reply),
        _ => None,
    })?;
    Ok(reply.rows.iter().map(|row| two_integers(row)).collect())
}

fn two_integers(tuple: &[u8]) -> (i32, i32) {
    match decode_tuple(tuple).unwrap().as_slice() {
        [Datum::Integer(first), Datum::Integer(second)] => (*first, *second),
        other => panic!("{other:?}"),
    }
}

/// Long enough for others to run until they wait.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}
