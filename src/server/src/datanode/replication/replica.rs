//! A copy of a shard on this node, and what waits for its log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_protocol::message::{ShardId, TransactionId};
use neorunbase_replication::{Configuration, Follower, LogPosition, Primary, Record, ShardLog};
use neorunbase_storage::wal::Lsn;
use neorunbase_world::MonotonicTime;
use tokio::sync::oneshot;

use super::super::log_record::PrepareRecord;
use super::super::shard::Shard;
use super::step::LoggedStep;

/// Bytes of records that are kept at most if a copy of the shard is on its way to a follower.
const KEPT_FOR_COPIES_BYTES: usize = 512 << 20;
/// What an entry costs besides its record.
const OVERHEAD_BYTES: usize = 96;

/// An encoded log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::datanode) struct Payload(pub Bytes);

impl Record for Payload {
    fn bytes(&self) -> usize {
        self.0.len() + OVERHEAD_BYTES
    }
}

/// What the copy is.
pub(in crate::datanode) enum Role {
    /// It takes over what a primary sends.
    Follower(Follower<Payload>),
    /// It orders the shard's writes.
    Primary(Primary<Payload>),
}

impl Role {
    pub fn log(&self) -> &ShardLog<Payload> {
        match self {
            Self::Follower(follower) => follower.log(),
            Self::Primary(primary) => primary.log(),
        }
    }

    fn log_mut(&mut self) -> &mut ShardLog<Payload> {
        match self {
            Self::Follower(follower) => follower.log_mut(),
            Self::Primary(primary) => primary.log_mut(),
        }
    }

    /// Entries up to here may have their effect.
    pub fn applicable(&self) -> u64 {
        match self {
            Self::Follower(follower) => follower.applicable(),
            Self::Primary(primary) => primary.committed(),
        }
    }
}

/// An undecided transaction's part in this shard, as the log has it.
pub(in crate::datanode) struct KeptPrepare {
    /// Its record in the node's log, which must not be cut there. `None`: it came with a copy of the shard, and is in the
    /// engine.
    pub lsn: Option<Lsn>,
    /// The record.
    pub record: PrepareRecord,
}

/// A record that the request which made it waits for.
pub(super) struct Waiting {
    pub sequence: u64,
    /// Its frame.
    pub lsn: Lsn,
}

/// A shard that takes no new transactions at times, because it is to be handed over.
pub(super) struct Closing {
    /// When it was closed last.
    pub since: MonotonicTime,
    /// How often it was closed before.
    pub times: u32,
}

/// A copy of a shard.
pub(in crate::datanode) struct Replica {
    pub shard: Arc<Shard>,
    pub role: Role,
    /// The latest that is known of who holds the shard.
    pub configuration: Option<Configuration>,
    /// Everything up to here has had its effect.
    pub applied: LogPosition,
    /// Where in the node's log the entries are that are durable and not applied.
    pub lsns: BTreeMap<u64, Lsn>,
    /// Records of frames of this node's requests, in order.
    pub(super) waiting: VecDeque<Waiting>,
    /// Whether the first of them is counted as ready in its frame.
    pub(super) head_is_ready: bool,
    /// Transactions that are prepared and undecided in what is applied.
    pub prepared: BTreeMap<TransactionId, KeptPrepare>,
    /// Copies of the shard on their way to followers, and the last entry that each of them holds.
    pub(super) copies: BTreeMap<String, u64>,
    /// Whether a copy of the shard is being received.
    pub is_installing: bool,
    /// Whether the copy is about to be dropped: it neither takes anything nor tells what it holds.
    pub(super) is_given_up: bool,
    /// The shard is to be handed over.
    pub(super) closing: Option<Closing>,
    /// See [`ReplicationConfig`](super::super::config::ReplicationConfig).
    kept_log_bytes: usize,
}

impl Replica {
    pub fn new(shard: Arc<Shard>, follower: Follower<Payload>, kept_log_bytes: usize) -> Self {
        let applied = follower.log().base();
        Self {
            shard,
            role: Role::Follower(follower),
            configuration: None,
            applied,
            lsns: BTreeMap::new(),
            waiting: VecDeque::new(),
            head_is_ready: false,
            prepared: BTreeMap::new(),
            copies: BTreeMap::new(),
            is_installing: false,
            is_given_up: false,
            closing: None,
            kept_log_bytes,
        }
    }

    /// The primary of `term`, if this is it.
    pub fn primary_of(&mut self, term: u64) -> Option<&mut Primary<Payload>> {
        match &mut self.role {
            Role::Primary(primary) if primary.term() == term => Some(primary),
            _ => None,
        }
    }

    /// Whether this is the primary of `term`.
    pub fn is_primary_of(&self, term: u64) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.term() == term)
    }

    /// The first position of the node's log that is still needed for this copy.
    pub fn needed_from(&self) -> Option<Lsn> {
        let prepared = self.prepared.values().filter_map(|prepare| prepare.lsn);
        self.lsns.values().copied().chain(prepared).min()
    }

    /// The entries up to `position` have had their effect.
    pub(super) fn is_applied(&mut self, position: LogPosition) {
        assert_eq!(
            position.sequence,
            self.applied.sequence + 1,
            "entries of shard {:#x} have their effect in order",
            self.shard.id
        );
        self.applied = position;
        while let Some(first) = self
            .lsns
            .first_entry()
            .filter(|first| *first.key() <= position.sequence)
        {
            first.remove();
        }
        // A copy is of no use without what follows it.
        let copied = self.copies.values().min().copied().unwrap_or(u64::MAX);
        let log = self.role.log_mut();
        log.forget_beyond(position.sequence.min(copied), self.kept_log_bytes);
        log.forget_beyond(position.sequence, KEPT_FOR_COPIES_BYTES);
        if let Role::Primary(primary) = &mut self.role {
            let matched = primary.matched_by_all().min(position.sequence).min(copied);
            primary.log_mut().forget_up_to(matched);
        }
    }

    /// Tells readers until when they may read here.
    pub(super) fn refresh_lease(&self) {
        let until = match &self.role {
            Role::Primary(primary) => primary.readable_until(),
            Role::Follower(_) => None,
        };
        self.shard.lease(until);
    }
}

/// A frame of this node's requests in the log, not all of whose records are committed.
pub(super) struct PendingFrame {
    /// Those whose shards have not got another primary.
    pub positions: Vec<(ShardId, LogPosition)>,
    /// How many of them are not yet the next to have their effect.
    pub missing: usize,
    /// Whether some record was left to another primary.
    pub is_voided: bool,
    pub step: Box<dyn LoggedStep>,
    pub done: oneshot::Sender<Ending>,
}

/// What became of a frame that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All of it is committed and had its effect.
    Committed,
    /// Another primary will decide about some of it.
    Voided,
}

/// All copies on this node.
#[derive(Default)]
pub(in crate::datanode) struct Replicas {
    pub shards: BTreeMap<ShardId, Replica>,
    pub(super) frames: BTreeMap<Lsn, PendingFrame>,
    /// By node: the shards that have something to be sent there.
    pub(super) unsent: BTreeMap<String, BTreeSet<ShardId>>,
}

impl Replicas {
    /// `shards` have something to be sent to `follower`.
    pub(super) fn send_later(&mut self, follower: &str, shards: impl IntoIterator<Item = ShardId>) {
        self.unsent.entry(follower.to_owned()).or_default().extend(shards);
    }
}
