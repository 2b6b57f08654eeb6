//! The messages between Coordinators and Data Nodes. Field numbers are for ever; never reuse one.
//!
//! Every request that names a shard carries the epoch under which its sender believes the receiver to be that
//! shard's primary; a node that knows a later one refuses ([`ErrorKind::StaleEpoch`]).

use bytes::Bytes;

use crate::coordinate::{
    AcceptCatalog, CatalogReply, Define, DefinedReply, FenceTable, HoldTables, JoinCatalog, PublishCatalog,
    RaiseTableVersion, ReleaseTables,
};
use crate::replicate::{CopyPiece, CopyReply, Replicate, ReplicateReply};

/// Names a shard of a shard group: group in the upper half, index in the lower.
pub type ShardId = u64;
/// A transaction: the timestamp-oracle timestamp it began with, so unique in the cluster.
pub type TransactionId = u64;
/// A timestamp of the oracle: milliseconds since 1970 in the upper 44 bits, a counter in the lower 20.
pub type Timestamp = u64;
/// Names one incarnation of a table's (or index's) rows. TRUNCATE and rewrites make a new one; never reused.
pub type StorageId = u64;

/// Builds a [`ShardId`].
pub fn shard_id(group: u32, index: u32) -> ShardId {
    (u64::from(group) << 32) | u64::from(index)
}

/// A request to a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked.
    #[prost(
        oneof = "RequestBody",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 24, 27, 30, 31, 32, 33, 34, 35, 36, 37"
    )]
    pub body: Option<RequestBody>,
}

/// The kinds of request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestBody {
    /// Rows by key.
    #[prost(message, tag = "1")]
    ReadRows(ReadRows),
    /// Rows by key range or index range.
    #[prost(message, tag = "2")]
    ScanRows(ScanRows),
    /// Literal row changes.
    #[prost(message, tag = "3")]
    WriteRows(WriteRows),
    /// Updates and deletes by program.
    #[prost(message, tag = "4")]
    ModifyRows(ModifyRows),
    /// First phase of two-phase commit.
    #[prost(message, tag = "5")]
    Prepare(Prepare),
    /// Commit of a transaction that touched this node only: one durable round.
    #[prost(message, tag = "6")]
    CommitLocal(CommitLocal),
    /// The decision, recorded on the anchor shard: the commit point.
    #[prost(message, tag = "7")]
    Decide(Decide),
    /// Second phase for the other participants, or rollback before prepare.
    #[prost(message, tag = "8")]
    Finish(Finish),
    /// What became of a transaction, asked of its anchor.
    #[prost(message, tag = "9")]
    QueryDecision(QueryDecision),
    /// Keeps open transactions alive on the node.
    #[prost(message, tag = "10")]
    Heartbeat(Heartbeat),
    /// Makes or drops storages.
    #[prost(message, tag = "11")]
    ChangeStorage(ChangeStorage),
    /// Rows of a storage that nobody can see yet (index builds, rewrites).
    #[prost(message, tag = "12")]
    BulkWrite(BulkWrite),
    /// Collects old row versions.
    #[prost(message, tag = "13")]
    CollectGarbage(CollectGarbage),
    /// What the node holds and does.
    #[prost(message, tag = "14")]
    Status(StatusRequest),
    /// New timestamps, from the leader Coordinator's oracle.
    #[prost(message, tag = "15")]
    Timestamps(TimestampsRequest),
    /// Takes back the statements since a savepoint.
    #[prost(message, tag = "17")]
    RollbackTo(RollbackTo),
    /// Entries of shards' logs, for the receiver's copies.
    #[prost(message, tag = "18")]
    Replicate(Replicate),
    /// A piece of a copy of a shard.
    #[prost(message, tag = "19")]
    CopyPiece(CopyPiece),
    /// Is a staged commit prepared in a shard?
    #[prost(message, tag = "20")]
    QueryPrepared(QueryPrepared),
    /// Whether what a serializable transaction has read is still so when it commits.
    #[prost(message, tag = "24")]
    Validate(Validate),
    /// Who waits for whose row locks.
    #[prost(message, tag = "27")]
    LockWaits(LockWaitsRequest),
    /// A version of the catalog, to be kept.
    #[prost(message, tag = "30")]
    AcceptCatalog(AcceptCatalog),
    /// A version of the catalog may be seen.
    #[prost(message, tag = "31")]
    PublishCatalog(PublishCatalog),
    /// A Coordinator follows the leader.
    #[prost(message, tag = "32")]
    JoinCatalog(JoinCatalog),
    /// A definition for the leader.
    #[prost(message, tag = "33")]
    Define(Define),
    /// Keeps tables still.
    #[prost(message, tag = "34")]
    HoldTables(HoldTables),
    /// Tables need not be still any more.
    #[prost(message, tag = "35")]
    ReleaseTables(ReleaseTables),
    /// A definition was never finished.
    #[prost(message, tag = "36")]
    RaiseTableVersion(RaiseTableVersion),
    /// A shard refuses old versions of a table.
    #[prost(message, tag = "37")]
    FenceTable(FenceTable),
}

/// A compiled program (`ScanProgram`, `WriteProgram` or `TableDescriptor`), decoded once a node and cached by digest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProgramRef {
    /// First 8 bytes of a digest of `encoded`; names it in the node's cache.
    #[prost(fixed64, tag = "1")]
    pub digest: u64,
    /// The encoded program.
    #[prost(bytes = "bytes", tag = "2")]
    pub encoded: Bytes,
}

impl ProgramRef {
    /// Names `encoded` by the first 8 bytes of its SHA-256.
    pub fn new(encoded: impl Into<Bytes>) -> Self {
        use sha2::Digest;
        let encoded = encoded.into();
        let hash: [u8; 32] = sha2::Sha256::digest(&encoded).into();
        let digest = hash
            .first_chunk::<8>()
            .map_or(0, |first| u64::from_be_bytes(*first));
        Self { digest, encoded }
    }
}

/// Which shard, under which epoch.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ShardRef {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// The sender's epoch for it.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

/// Row locks, weakest first (PostgreSQL 15 manual, 13.3.2; the KEY variants count as their stronger neighbour).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LockMode {
    /// No lock.
    None = 0,
    /// FOR SHARE
    Share = 1,
    /// FOR UPDATE
    Exclusive = 2,
}

/// What to do when a lock is held by another transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum LockWait {
    /// Wait, up to the timeout.
    Wait = 0,
    /// Fail with 55P03.
    NoWait = 1,
    /// Leave the row out.
    SkipLocked = 2,
}

/// The transaction and snapshot that a statement runs under.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StatementContext {
    /// The transaction, or 0 for a read outside any.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Read as of this timestamp; 0: the newest committed version at the primary.
    #[prost(fixed64, tag = "2")]
    pub snapshot: Timestamp,
    /// Under REPEATABLE READ and above: a row changed after `snapshot` fails with 40001 instead of being re-read.
    #[prost(bool, tag = "3")]
    pub fail_on_newer: bool,
    /// Number of the statement in its transaction, for savepoints and idempotent retries.
    #[prost(uint32, tag = "4")]
    pub sequence: u32,
    /// `now()`: microseconds since 1970-01-01 UTC.
    #[prost(sfixed64, tag = "5")]
    pub transaction_time_unix_micros: i64,
    /// Longest wait for one lock; 0: no limit of its own.
    #[prost(uint32, tag = "6")]
    pub lock_timeout_ms: u32,
    /// Commit right after this request if it succeeds (the only one of its transaction).
    #[prost(bool, tag = "7")]
    pub autocommit: bool,
    /// There is a savepoint: what the statement does may have to be taken back alone.
    #[prost(bool, tag = "8")]
    pub revocable: bool,
    /// The version of the table that a read knows; 0: does not matter. Writes have it in the table's descriptor.
    #[prost(uint64, tag = "9")]
    pub table_version: u64,
    /// The request was sent before, and its answer was lost.
    #[prost(bool, tag = "10")]
    pub repeated: bool,
}

/// Rows by key, in the order of the keys that exist and pass the filter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRows {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// Which rows.
    #[prost(fixed64, tag = "2")]
    pub storage: StorageId,
    /// For whom.
    #[prost(message, required, tag = "3")]
    pub context: StatementContext,
    /// Memcomparable primary keys.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub keys: Vec<Bytes>,
    /// A `ScanProgram`: filter and output.
    #[prost(message, required, tag = "5")]
    pub program: ProgramRef,
    /// Values of `$1`, …: an encoded tuple.
    #[prost(bytes = "bytes", tag = "6")]
    pub parameters: Bytes,
    /// Row locks to take.
    #[prost(enumeration = "LockMode", tag = "7")]
    pub lock: i32,
    /// How to wait for them.
    #[prost(enumeration = "LockWait", tag = "8")]
    pub wait: i32,
}

/// Rows by range, ascending by key (or index entry), a batch at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScanRows {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// Which rows.
    #[prost(fixed64, tag = "2")]
    pub storage: StorageId,
    /// For whom.
    #[prost(message, required, tag = "3")]
    pub context: StatementContext,
    /// Walk this index instead of the primary key (0: primary key). Entries are hints: rows are checked again.
    #[prost(fixed64, tag = "4")]
    pub index: StorageId,
    /// First key (or index key prefix), inclusive.
    #[prost(bytes = "bytes", tag = "5")]
    pub lower: Bytes,
    /// Last key, exclusive; empty: to the end.
    #[prost(bytes = "bytes", tag = "6")]
    pub upper: Bytes,
    /// A `ScanProgram`.
    #[prost(message, required, tag = "7")]
    pub program: ProgramRef,
    /// Values of `$1`, …: an encoded tuple.
    #[prost(bytes = "bytes", tag = "8")]
    pub parameters: Bytes,
    /// Stop after so many output rows in all; 0: no limit.
    #[prost(uint64, tag = "9")]
    pub limit: u64,
    /// Stop the batch after about so many bytes (the node has a limit of its own as well).
    #[prost(uint32, tag = "10")]
    pub batch_bytes: u32,
    /// The previous batch's continuation; empty at first.
    #[prost(bytes = "bytes", tag = "11")]
    pub resume_from: Bytes,
    /// Row locks to take.
    #[prost(enumeration = "LockMode", tag = "12")]
    pub lock: i32,
    /// How to wait for them.
    #[prost(enumeration = "LockWait", tag = "13")]
    pub wait: i32,
    /// Also return each row's primary key in [`RowsReply::keys`].
    #[prost(bool, tag = "14")]
    pub with_keys: bool,
    /// Descending instead.
    #[prost(bool, tag = "15")]
    pub reverse: bool,
}

/// One literal row change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowWrite {
    /// What to do.
    #[prost(enumeration = "RowWriteKind", tag = "1")]
    pub kind: i32,
    /// Memcomparable primary key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The encoded row (not for deletes).
    #[prost(bytes = "bytes", tag = "3")]
    pub row: Bytes,
}

/// What a [`RowWrite`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum RowWriteKind {
    /// A new row; an existing one is a 23505 error.
    Insert = 0,
    /// A new row; an existing one is left alone and not counted (ON CONFLICT DO NOTHING).
    InsertOrSkip = 1,
    /// Replaces or creates.
    Put = 2,
    /// Removes; a missing row is not counted.
    Delete = 3,
}

/// Literal row changes of one shard, all or none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRows {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// For whom.
    #[prost(message, required, tag = "2")]
    pub context: StatementContext,
    /// A `TableDescriptor`: storage, name for messages, indexes.
    #[prost(message, required, tag = "3")]
    pub table: ProgramRef,
    /// The changes, in order.
    #[prost(message, repeated, tag = "4")]
    pub writes: Vec<RowWrite>,
}

/// UPDATE or DELETE of the rows that match, evaluated where they live.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModifyRows {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// For whom.
    #[prost(message, required, tag = "2")]
    pub context: StatementContext,
    /// A `TableDescriptor`.
    #[prost(message, required, tag = "3")]
    pub table: ProgramRef,
    /// A `WriteProgram`: filter, assignments, checks, returning.
    #[prost(message, required, tag = "4")]
    pub program: ProgramRef,
    /// Values of `$1`, …: an encoded tuple.
    #[prost(bytes = "bytes", tag = "5")]
    pub parameters: Bytes,
    /// Delete instead of update.
    #[prost(bool, tag = "6")]
    pub delete: bool,
    /// Only these keys; none: the range below.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub keys: Vec<Bytes>,
    /// Walk this index (0: primary key).
    #[prost(fixed64, tag = "8")]
    pub index: StorageId,
    /// First key, inclusive.
    #[prost(bytes = "bytes", tag = "9")]
    pub lower: Bytes,
    /// Last key, exclusive; empty: to the end.
    #[prost(bytes = "bytes", tag = "10")]
    pub upper: Bytes,
}

/// First phase: make the transaction's writes on these shards durable and undecided.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Prepare {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Its shards on this node.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardRef>,
    /// The shard that will hold the decision.
    #[prost(fixed64, tag = "3")]
    pub anchor: ShardId,
    /// All participating shards of the cluster, for recovery.
    #[prost(fixed64, repeated, tag = "4")]
    pub participants: Vec<ShardId>,
    /// Names the statements the sender believes to have run here; a node that lost some (restart) must refuse.
    #[prost(uint32, tag = "5")]
    pub last_sequence: u32,
}

/// Takes back what a transaction did on this node since a savepoint. Doing it again changes nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RollbackTo {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Its shards on this node.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardRef>,
    /// The last statement that stays.
    #[prost(uint32, tag = "3")]
    pub kept_sequence: u32,
    /// This command's own number: no statement below it may run any more.
    #[prost(uint32, tag = "4")]
    pub sequence: u32,
    /// The last of the staying statements that was sent to this node; 0: none was, so the node may know nothing of
    /// the transaction. A node that knows of fewer has lost some.
    #[prost(uint32, tag = "5")]
    pub last_sequence: u32,
}

/// One-round commit of a transaction whose shards are all on this node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitLocal {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Its shards.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardRef>,
    /// See [`Prepare::last_sequence`].
    #[prost(uint32, tag = "3")]
    pub last_sequence: u32,
    /// A serializable transaction's reads, all on this node: without them being valid it does not commit.
    #[prost(message, optional, tag = "4")]
    pub reads: Option<ReadSetMessage>,
    /// Shards of it have copies elsewhere, so that no frame of this node's log commits all of them: its commit is staged, with
    /// this shard as the anchor. None: each shard is here only, or there is but one.
    #[prost(fixed64, optional, tag = "5")]
    pub anchor: Option<ShardId>,
}

/// What a transaction has read at its snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadSetMessage {
    /// The snapshot.
    #[prost(fixed64, tag = "1")]
    pub snapshot: Timestamp,
    /// By shard.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardReads>,
}

/// What was read of one shard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShardReads {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// By table.
    #[prost(message, repeated, tag = "2")]
    pub tables: Vec<TableReads>,
}

/// What was read of one table in one shard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TableReads {
    /// The table's rows.
    #[prost(fixed64, tag = "1")]
    pub storage: StorageId,
    /// Primary keys, found or not.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub keys: Vec<Bytes>,
    /// Ranges, with whatever they held.
    #[prost(message, repeated, tag = "3")]
    pub ranges: Vec<ReadRange>,
}

/// A range of the primary key or of an index.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadRange {
    /// The index; 0: the primary key.
    #[prost(fixed64, tag = "1")]
    pub index: StorageId,
    /// Inclusive.
    #[prost(bytes = "bytes", tag = "2")]
    pub lower: Bytes,
    /// Exclusive; empty: to the end.
    #[prost(bytes = "bytes", tag = "3")]
    pub upper: Bytes,
}

/// Asks whether nothing of what a transaction has read changes between its snapshot and its commit timestamp. To be
/// asked after the timestamp was drawn: whoever marks a write later commits later.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Validate {
    /// The transaction: its own writes do not count.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// When it will commit.
    #[prost(fixed64, tag = "2")]
    pub commit_timestamp: Timestamp,
    /// What it has read.
    #[prost(message, required, tag = "3")]
    pub reads: ReadSetMessage,
}

/// The decision, to the anchor.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Decide {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// The anchor shard.
    #[prost(message, required, tag = "2")]
    pub anchor: ShardRef,
    /// When it commits; 0: it aborts.
    #[prost(fixed64, tag = "3")]
    pub commit_timestamp: Timestamp,
}

/// Ends a transaction on a node: applies or discards its writes, releases its locks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Finish {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Its shards on this node.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardRef>,
    /// When it committed; 0: it aborted.
    #[prost(fixed64, tag = "3")]
    pub commit_timestamp: Timestamp,
    /// All participants have finished: the anchor may forget the decision.
    #[prost(bool, tag = "4")]
    pub forget_decision: bool,
}

/// What became of a transaction?
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct QueryDecision {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// Its anchor shard (or the one shard of a one-round commit).
    #[prost(message, required, tag = "2")]
    pub anchor: ShardRef,
    /// Decide to abort, durably, if undecided and its coordinator has gone silent.
    #[prost(bool, tag = "3")]
    pub abort_if_abandoned: bool,
    /// It may have committed in one round. No decision is kept of that, so a node without a trace of it may have
    /// forgotten it.
    #[prost(bool, tag = "4")]
    pub one_round: bool,
}

/// Is a staged commit prepared in this shard? Asked by its anchor, while that is undecided.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct QueryPrepared {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// The shard.
    #[prost(message, required, tag = "2")]
    pub shard: ShardRef,
}

/// The Coordinator of these transactions is alive.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeat {
    /// The open transactions.
    #[prost(fixed64, repeated, packed = "true", tag = "1")]
    pub transactions: Vec<TransactionId>,
}

/// Makes or drops storages of one shard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeStorage {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// To make, if missing.
    #[prost(fixed64, repeated, packed = "true", tag = "2")]
    pub create: Vec<StorageId>,
    /// To drop, if there.
    #[prost(fixed64, repeated, packed = "true", tag = "3")]
    pub drop: Vec<StorageId>,
}

/// Committed rows for a storage that no query can see yet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BulkWrite {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: ShardRef,
    /// A `TableDescriptor` (its indexes are filled as well).
    #[prost(message, required, tag = "2")]
    pub table: ProgramRef,
    /// Rows to add; an existing key is a 23505 error.
    #[prost(message, repeated, tag = "3")]
    pub rows: Vec<RowWrite>,
    /// Their commit timestamp.
    #[prost(fixed64, tag = "4")]
    pub commit_timestamp: Timestamp,
    /// Instead of rows from the wire: build this index from the shard's own rows (0: no).
    #[prost(fixed64, tag = "5")]
    pub build_index: StorageId,
}

/// Row versions that no snapshot at or after the watermark can see may go.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CollectGarbage {
    /// Snapshots below this are refused from now on.
    #[prost(fixed64, tag = "1")]
    pub watermark: Timestamp,
}

/// Asks for [`LockWaitsReply`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LockWaitsRequest {
    /// Leave out those who have not waited that long yet.
    #[prost(uint64, tag = "1")]
    pub min_wait_micros: u64,
}

/// Asks for [`StatusReply`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StatusRequest {}

/// Asks the oracle for timestamps.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TimestampsRequest {
    /// How many, in one unbroken run.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// A node's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What is answered.
    #[prost(oneof = "ResponseBody", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21, 27")]
    pub body: Option<ResponseBody>,
}

impl From<RequestBody> for Request {
    fn from(body: RequestBody) -> Self {
        Self { body: Some(body) }
    }
}

impl From<ResponseBody> for Response {
    fn from(body: ResponseBody) -> Self {
        Self { body: Some(body) }
    }
}

/// The kinds of answer.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ResponseBody {
    /// It failed.
    #[prost(message, tag = "1")]
    Error(ErrorReply),
    /// Done, nothing to say.
    #[prost(message, tag = "2")]
    Done(DoneReply),
    /// Rows.
    #[prost(message, tag = "3")]
    Rows(RowsReply),
    /// Changes made.
    #[prost(message, tag = "4")]
    Written(WrittenReply),
    /// A transaction's outcome.
    #[prost(message, tag = "5")]
    Decision(DecisionReply),
    /// The node's state.
    #[prost(message, tag = "6")]
    Status(StatusReply),
    /// Timestamps.
    #[prost(message, tag = "7")]
    Timestamps(TimestampsReply),
    /// What followers say to their primary.
    #[prost(message, tag = "8")]
    Replicated(ReplicateReply),
    /// What became of a piece of a copy.
    #[prost(message, tag = "9")]
    Copied(CopyReply),
    /// What a shard has of a staged commit.
    #[prost(message, tag = "10")]
    Prepared(PreparedReply),
    /// The leader's catalog.
    #[prost(message, tag = "20")]
    Catalog(CatalogReply),
    /// A definition was carried out.
    #[prost(message, tag = "21")]
    Defined(DefinedReply),
    /// Who waits for whose row locks.
    #[prost(message, tag = "27")]
    LockWaits(LockWaitsReply),
}

/// Failure, as SQL error or as a reason to route again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorReply {
    /// What the caller should do about it.
    #[prost(enumeration = "ErrorKind", tag = "1")]
    pub kind: i32,
    /// SQLSTATE.
    #[prost(string, tag = "2")]
    pub sql_state: String,
    /// Primary message.
    #[prost(string, tag = "3")]
    pub message: String,
    /// Detail, if any.
    #[prost(string, tag = "4")]
    pub detail: String,
    /// Hint, if any.
    #[prost(string, tag = "5")]
    pub hint: String,
    /// The database objects that it is about, if any.
    #[prost(message, optional, boxed, tag = "6")]
    pub objects: Option<Box<ErrorObjectsReply>>,
    /// Of [`ErrorKind::StaleTable`]: what is demanded.
    #[prost(message, optional, boxed, tag = "7")]
    pub stale_table: Option<Box<StaleTableReply>>,
}

/// A table that the sender of a request knows too old a version of.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StaleTableReply {
    /// The table's storage.
    #[prost(fixed64, tag = "1")]
    pub storage: StorageId,
    /// The version that is demanded.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// The database objects that an error is about; empty: none.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ErrorObjectsReply {
    /// The table's schema.
    #[prost(string, tag = "1")]
    pub schema: String,
    /// The table.
    #[prost(string, tag = "2")]
    pub table: String,
    /// The column.
    #[prost(string, tag = "3")]
    pub column: String,
    /// The constraint.
    #[prost(string, tag = "4")]
    pub constraint: String,
    /// Which row of the request.
    #[prost(uint32, optional, tag = "5")]
    pub row: Option<u32>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorKind {
    /// For the client: an SQL error.
    Sql = 0,
    /// The sender's epoch is old, or this node does not serve the shard: read the shard map again and retry.
    StaleEpoch = 1,
    /// The node does not know this transaction (any more): it was aborted, or the node restarted.
    UnknownTransaction = 2,
    /// This node is not the leader that could answer.
    NotLeader = 3,
    /// The shard gets another primary, which will know whether the request's commit is in the shard's log.
    OutcomeUnknown = 4,
    /// The sender knows an old version of the table: read the catalog again and retry.
    StaleTable = 5,
}

/// Nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DoneReply {}

/// Output rows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowsReply {
    /// Each an encoded tuple of the program's output.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub rows: Vec<Bytes>,
    /// Their primary keys, if asked for.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub keys: Vec<Bytes>,
    /// Pass as `resume_from` to go on; empty: no more rows.
    #[prost(bytes = "bytes", tag = "3")]
    pub continuation: Bytes,
}

/// Result of writes and commits.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WrittenReply {
    /// Rows changed.
    #[prost(uint64, tag = "1")]
    pub affected: u64,
    /// RETURNING rows, each an encoded tuple.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub returned: Vec<Bytes>,
    /// When it committed, if it did (autocommit, CommitLocal).
    #[prost(fixed64, tag = "3")]
    pub commit_timestamp: Timestamp,
    /// For [`RowWriteKind::InsertOrSkip`]: indexes of the writes that were skipped.
    #[prost(uint32, repeated, tag = "4")]
    pub skipped: Vec<u32>,
}

/// A transaction's outcome.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DecisionReply {
    /// What the anchor knows.
    #[prost(enumeration = "Decision", tag = "1")]
    pub decision: i32,
    /// When it committed, if it did.
    #[prost(fixed64, tag = "2")]
    pub commit_timestamp: Timestamp,
}

/// Outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Decision {
    /// Still open: the coordinator was heard of lately.
    Pending = 0,
    /// Committed.
    Committed = 1,
    /// Aborted, for ever.
    Aborted = 2,
    /// The anchor has no trace of it: it was never prepared here, or was finished and forgotten.
    Unknown = 3,
}

/// What a shard has of a staged commit.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PreparedReply {
    /// What it has.
    #[prost(enumeration = "Preparation", tag = "1")]
    pub preparation: i32,
}

/// States of a staged commit in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Preparation {
    /// Its record is being written.
    UnderWay = 0,
    /// Its record is committed in the shard's log.
    Prepared = 1,
    /// Its record is not there, and unless the anchor has decided meanwhile it never was and never will be.
    Absent = 2,
}

/// What a node holds and does.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusReply {
    /// The node's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One entry a shard.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<ShardStatus>,
    /// Open transactions.
    #[prost(uint64, tag = "3")]
    pub open_transactions: u64,
    /// Bytes of write-ahead log on disk.
    #[prost(uint64, tag = "4")]
    pub wal_bytes: u64,
    /// Copies of shards that the node sends to others.
    #[prost(message, repeated, tag = "5")]
    pub copies: Vec<CopyStatus>,
}

/// A copy of a shard on its way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopyStatus {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// The node that gets it.
    #[prost(string, tag = "2")]
    pub to: String,
    /// What has arrived there.
    #[prost(uint64, tag = "3")]
    pub bytes_sent: u64,
    /// Approximately, all of it.
    #[prost(uint64, tag = "4")]
    pub bytes_total: u64,
    /// By the sender's clock.
    #[prost(int64, tag = "5")]
    pub started_unix_micros: i64,
    /// Whether it waits for the other node to be there again.
    #[prost(bool, tag = "6")]
    pub is_interrupted: bool,
}

/// One shard's state on a node.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ShardStatus {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// Its epoch here.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Approximate bytes.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// Last log position applied.
    #[prost(uint64, tag = "4")]
    pub applied_lsn: u64,
    /// Transactions prepared and undecided.
    #[prost(uint64, tag = "5")]
    pub prepared: u64,
    /// Requests that it has served as primary since the node started.
    #[prost(uint64, tag = "6")]
    pub operations: u64,
}

/// Who waits for whose row locks on a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockWaitsReply {
    /// One for each pair.
    #[prost(message, repeated, tag = "1")]
    pub waits: Vec<LockWaitEdge>,
}

/// A transaction that waits for another.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LockWaitEdge {
    /// Who waits.
    #[prost(fixed64, tag = "1")]
    pub waiter: TransactionId,
    /// Names the wait; another wait never has the same number.
    #[prost(fixed64, tag = "2")]
    pub wait: u64,
    /// For whom.
    #[prost(fixed64, tag = "3")]
    pub blocker: TransactionId,
}

/// A run of timestamps.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TimestampsReply {
    /// The first; the others follow it one by one.
    #[prost(fixed64, tag = "1")]
    pub first: Timestamp,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}
