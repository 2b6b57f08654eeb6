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
}
