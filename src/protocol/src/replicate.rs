//! The messages by which a shard's primary replicates its log. Field numbers are for ever; never reuse one.

use bytes::Bytes;

use crate::message::ShardId;

/// Entries (or just a sign of life) for copies on the receiver.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Replicate {
    /// One message a shard.
    #[prost(message, repeated, tag = "1")]
    pub shards: Vec<ShardAppend>,
}

/// What a shard's primary says to a follower.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShardAppend {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// The sender's term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// The term of the entry before the first one here.
    #[prost(uint64, tag = "3")]
    pub previous_term: u64,
    /// Its sequence.
    #[prost(uint64, tag = "4")]
    pub previous_sequence: u64,
    /// What follows it, in order.
    #[prost(message, repeated, tag = "5")]
    pub entries: Vec<ReplicatedEntry>,
    /// Entries up to this sequence are committed.
    #[prost(uint64, tag = "6")]
    pub committed: u64,
}

/// An entry of a shard's log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplicatedEntry {
    /// The term whose primary made it.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// An encoded log record; none: the term began.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub record: Option<Bytes>,
}

/// The answer to [`Replicate`]. Shards that the receiver has no usable copy of are left out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplicateReply {
    /// One answer a shard.
    #[prost(message, repeated, tag = "1")]
    pub shards: Vec<ShardReply>,
}

/// What a follower says to its primary.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ShardReply {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// What it says.
    #[prost(enumeration = "ShardReplyKind", tag = "2")]
    pub kind: i32,
    /// The number that belongs to it.
    #[prost(uint64, tag = "3")]
    pub value: u64,
}

/// The kinds of [`ShardReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ShardReplyKind {
    /// The follower's log is the primary's up to this sequence, durably.
    Matched = 0,
    /// The follower lacks the entry before those sent; it may have the one of this sequence.
    Mismatch = 1,
    /// The follower knows of this later term.
    Stale = 2,
    /// What the follower has is damaged: it needs a copy of everything.
    Damaged = 3,
}

/// A piece of a copy of a whole shard, from its primary. The pieces of a copy come one after the other.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopyPiece {
    /// The shard.
    #[prost(fixed64, tag = "1")]
    pub shard: ShardId,
    /// The sender's term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Tells this copy from others of the same shard.
    #[prost(fixed64, tag = "3")]
    pub copy: u64,
    /// The term of the last log entry that the copy holds.
    #[prost(uint64, tag = "4")]
    pub position_term: u64,
    /// Its sequence.
    #[prost(uint64, tag = "5")]
    pub position_sequence: u64,
    /// Counts the copy's pieces from 0.
    #[prost(uint64, tag = "6")]
    pub number: u64,
    /// All keyspaces, in the first piece.
    #[prost(fixed64, repeated, tag = "7")]
    pub keyspaces: Vec<u64>,
    /// Entries of the engine, in order.
    #[prost(message, repeated, tag = "8")]
    pub entries: Vec<CopiedEntry>,
    /// With the last piece.
    #[prost(message, optional, tag = "9")]
    pub end: Option<CopyEnd>,
}

/// An entry of a shard's engine.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CopiedEntry {
    /// Where.
    #[prost(fixed64, tag = "1")]
    pub keyspace: u64,
    /// Which key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "3")]
    pub value: Bytes,
}

/// What closes a copy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopyEnd {
    /// Encoded prepare records of undecided transactions: they are in the log only.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub prepared: Vec<Bytes>,
    /// CRC32C over all keyspaces, entries and prepare records, in order.
    #[prost(fixed32, tag = "2")]
    pub checksum: u32,
}

/// The answer to [`CopyPiece`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CopyReply {
    /// What became of it.
    #[prost(enumeration = "CopyReplyKind", tag = "1")]
    pub kind: i32,
    /// With [`CopyReplyKind::Stale`]: the later term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// The kinds of [`CopyReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CopyReplyKind {
    /// The piece was taken; after the last one the copy is in place, durably.
    Taken = 0,
    /// The receiver has all of it already.
    NotNeeded = 1,
    /// The copy must begin anew: a piece is missing, or it is not what was sent.
    Failed = 2,
    /// The receiver knows of a later term.
    Stale = 3,
}
