//! The messages among Coordinators: the catalog's replication, definitions for the leader, tables kept still.

use bytes::Bytes;

use crate::message::{StorageId, Timestamp};

/// A version of the catalog to keep durably, from the leader of `term`. Nobody may see it before it is published.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AcceptCatalog {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The encoded catalog.
    #[prost(bytes = "bytes", tag = "2")]
    pub snapshot: Bytes,
}

/// An accepted version is on all Coordinators in sync: sessions may see it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PublishCatalog {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The catalog's version.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// A Coordinator that wants to follow tells what it has; asked again and again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinCatalog {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The term of the last version that it has accepted.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// That version.
    #[prost(uint64, tag = "3")]
    pub version: u64,
}

/// What the leader makes of a [`JoinCatalog`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CatalogReply {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The published catalog, unless the follower has it; empty then.
    #[prost(bytes = "bytes", tag = "2")]
    pub snapshot: Bytes,
    /// The follower is in the in-sync set: nothing is acknowledged without it.
    #[prost(bool, tag = "3")]
    pub in_sync: bool,
    /// The definitions of this term that tables are held for. None: it is not said.
    #[prost(message, optional, tag = "4")]
    pub live: Option<LiveDefinitionsReply>,
}

/// The leader's definitions that have not ended: no [`HoldTables`] for another one is needed any more.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LiveDefinitionsReply {
    /// Their names.
    #[prost(fixed64, repeated, tag = "1")]
    pub definitions: Vec<u64>,
}

/// A definition for the leader to carry out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Define {
    /// Who asks.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The encoded definition.
    #[prost(bytes = "bytes", tag = "2")]
    pub definition: Bytes,
    /// `now()`: microseconds since 1970-01-01 UTC.
    #[prost(sfixed64, tag = "3")]
    pub transaction_time_unix_micros: i64,
}

/// A notice of a definition.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NoticeReply {
    /// SQLSTATE.
    #[prost(string, tag = "1")]
    pub sql_state: String,
    /// Its message.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// A definition was carried out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DefinedReply {
    /// The command tag.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// Notices.
    #[prost(message, repeated, tag = "2")]
    pub notices: Vec<NoticeReply>,
    /// The catalog's version since.
    #[prost(uint64, tag = "3")]
    pub catalog_version: u64,
}

/// Waits until no transaction here writes the tables, and lets none begin, for a definition of the leader of `term`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HoldTables {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Names the definition.
    #[prost(fixed64, tag = "2")]
    pub definition: u64,
    /// The tables.
    #[prost(uint32, repeated, tag = "3")]
    pub tables: Vec<u32>,
}

/// Ends a [`HoldTables`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ReleaseTables {
    /// Names the definition.
    #[prost(fixed64, tag = "1")]
    pub definition: u64,
}

/// A Data Node demands a later version of a table than the catalog has: a definition was never finished.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RaiseTableVersion {
    /// The table's storage.
    #[prost(fixed64, tag = "1")]
    pub storage: StorageId,
    /// The version that is demanded.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// From now on a shard refuses those who know an older version of a table.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FenceTable {
    /// Where.
    #[prost(message, required, tag = "1")]
    pub shard: crate::message::ShardRef,
    /// The table's storage.
    #[prost(fixed64, tag = "2")]
    pub storage: StorageId,
    /// Writes, and commits of writes, must know this version or a later one.
    #[prost(uint64, tag = "3")]
    pub write_version: u64,
    /// So must reads, unless their snapshot is not later than `read_timestamp`; 0: all may read.
    #[prost(uint64, tag = "4")]
    pub read_version: u64,
    /// See `read_version`.
    #[prost(fixed64, tag = "5")]
    pub read_timestamp: Timestamp,
}
