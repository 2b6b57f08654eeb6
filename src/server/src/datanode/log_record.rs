//! What the write-ahead log says. Field numbers are for ever; never reuse one.
//!
//! A frame is atomic and holds at most one record a shard. Records name tables by the digest of their descriptor;
//! the first record of a shard that uses a digest carries the descriptor itself, which applying the record stores
//! in the shard's system keyspace.

use bytes::Bytes;
use neorunbase_protocol::message::{ShardId, StorageId, Timestamp, TransactionId};

/// One record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    /// What happened.
    #[prost(oneof = "LogEntry", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub entry: Option<LogEntry>,
}

/// The kinds of record.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum LogEntry {
    /// A transaction (or bulk write) committed in one round.
    #[prost(message, tag = "1")]
    Commit(CommitRecord),
    /// A transaction's writes, undecided.
    #[prost(message, tag = "2")]
    Prepare(PrepareRecord),
    /// What became of a prepared (or never seen) transaction.
    #[prost(message, tag = "3")]
    Outcome(OutcomeRecord),
    /// Decisions that nobody will ask for any more.
    #[prost(message, tag = "4")]
    Forget(ForgetRecord),
    /// A primary's term began.
    #[prost(message, tag = "5")]
    TermBegan(TermBeganRecord),
    /// Storages come and go.
    #[prost(message, tag = "6")]
    ChangeStorage(ChangeStorageRecord),
    /// An index was filled with the entries of all rows so far.
    #[prost(message, tag = "7")]
    BuildIndex(BuildIndexRecord),
    /// Old versions of a table are refused from here on.
    #[prost(message, tag = "8")]
    Fence(FenceRecord),
}

/// See [`LogEntry::Commit`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitRecord {
    /// The transaction; 0: a bulk write.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// When it committed.
    #[prost(fixed64, tag = "2")]
    pub commit_timestamp: Timestamp,
    /// Its writes in this shard.
    #[prost(message, repeated, tag = "3")]
    pub tables: Vec<TableWritesRecord>,
    /// Rows affected, for a repeated autocommit request.
    #[prost(uint64, tag = "4")]
    pub affected: u64,
}

/// See [`LogEntry::Prepare`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PrepareRecord {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// The shard that holds the decision.
    #[prost(fixed64, tag = "2")]
    pub anchor: ShardId,
    /// All participating shards of the cluster.
    #[prost(fixed64, repeated, tag = "3")]
    pub participants: Vec<ShardId>,
    /// Its writes in this shard.
    #[prost(message, repeated, tag = "4")]
    pub tables: Vec<TableWritesRecord>,
    /// Of a staged commit, when it commits; 0: that is for the anchor to say.
    #[prost(fixed64, tag = "5")]
    pub commit_timestamp: Timestamp,
}

/// See [`LogEntry::Outcome`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutcomeRecord {
    /// The transaction.
    #[prost(fixed64, tag = "1")]
    pub transaction: TransactionId,
    /// When it committed; 0: it aborted.
    #[prost(fixed64, tag = "2")]
    pub commit_timestamp: Timestamp,
    /// This is the anchor's decision, to be kept until it is forgotten.
    #[prost(bool, tag = "3")]
    pub decision: bool,
    /// Who has to learn it.
    #[prost(fixed64, repeated, tag = "4")]
    pub participants: Vec<ShardId>,
}

/// See [`LogEntry::Forget`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForgetRecord {
    /// The transactions.
    #[prost(fixed64, repeated, tag = "1")]
    pub transactions: Vec<TransactionId>,
}

/// See [`LogEntry::TermBegan`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TermBeganRecord {}

/// See [`LogEntry::Fence`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FenceRecord {
    /// The table's storage.
    #[prost(fixed64, tag = "1")]
    pub storage: StorageId,
    /// What writers must know.
    #[prost(uint64, tag = "2")]
    pub write_version: u64,
    /// What readers must know.
    #[prost(uint64, tag = "3")]
    pub read_version: u64,
    /// Unless their snapshot is not later than this.
    #[prost(fixed64, tag = "4")]
    pub read_timestamp: Timestamp,
}

/// See [`LogEntry::ChangeStorage`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeStorageRecord {
    /// Storages to make.
    #[prost(fixed64, repeated, tag = "1")]
    pub create: Vec<StorageId>,
    /// Storages to drop.
    #[prost(fixed64, repeated, tag = "2")]
    pub drop: Vec<StorageId>,
}

/// See [`LogEntry::BuildIndex`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildIndexRecord {
    /// Digest of the encoded descriptor of the table, which the shard knows.
    #[prost(fixed64, tag = "1")]
    pub table_digest: u64,
    /// The index.
    #[prost(fixed64, tag = "2")]
    pub index: StorageId,
}

/// Writes of one table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TableWritesRecord {
    /// Digest of its encoded descriptor.
    #[prost(fixed64, tag = "1")]
    pub table_digest: u64,
    /// The descriptor itself, unless the shard knows it already.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub table_definition: Option<Bytes>,
    /// The rows.
    #[prost(message, repeated, tag = "3")]
    pub rows: Vec<RowRecord>,
}

/// One row.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowRecord {
    /// Memcomparable primary key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The row; none: deleted.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub row: Option<Bytes>,
}

/// What the anchor keeps of a decision in its system keyspace, until it is forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecisionValue {
    /// When it committed; 0: it aborted.
    #[prost(fixed64, tag = "1")]
    pub commit_timestamp: Timestamp,
    /// Who has to learn it.
    #[prost(fixed64, repeated, tag = "2")]
    pub participants: Vec<ShardId>,
}

/// The shards of a node, in its registry file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegistryRecord {
    /// The shards.
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<RegisteredShard>,
    /// Tells this disk from all others that the node had or will have; 0: not drawn yet.
    #[prost(fixed64, tag = "3")]
    pub disk: u64,
}

/// A shard that has an engine on this node.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RegisteredShard {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// The highest term that this node has begun as its primary.
    #[prost(uint64, tag = "2")]
    pub begun: u64,
    /// Whether a copy of the whole shard was being received: what the engine holds is worth nothing then.
    #[prost(bool, tag = "3")]
    pub installing: bool,
    /// Records of the shard below this position of the node's log were overtaken by such a copy.
    #[prost(uint64, tag = "4")]
    pub log_from: u64,
    /// Whether the copy was given up: there is no engine, and what the log has of the shard counts no more.
    #[prost(bool, tag = "5")]
    pub dropped: bool,
}
