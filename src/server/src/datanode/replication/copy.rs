//! A whole shard goes to a follower that lacks more than the log still has.
//!
//! The copy is the engine as it is after one entry of the log, and the prepare records of what is undecided there. It goes
//! out piece by piece while the shard is written on; the log keeps what follows it.
//!
//! If the follower cannot be reached, the snapshot is kept for a while: in the same term the copy goes on with the piece that
//! was not acknowledged. The follower knows that piece if only the acknowledgement was lost.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::Channel;
use neorunbase_protocol::message::{Request, RequestBody, ResponseBody, ShardId};
use neorunbase_protocol::replicate::{CopiedEntry, CopyEnd, CopyPiece, CopyReplyKind};
use neorunbase_replication::LogPosition;
use neorunbase_world::MonotonicTime;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::planted;
use neorunbase_world::shard_engine::{EngineError, EngineSnapshot, KeyspaceId};
use prost::Message;

use super::super::DataNode;
use super::copies::Destination;
use super::install::Checksum;
use super::replica::{Replica, Replicas, Role};

/// How long the follower may take for a piece. The last one waits for a flush.
const PIECE_DEADLINE: Duration = Duration::from_secs(20);
/// After a copy that did not come about.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A copy on its way.
pub(super) struct Copy {
    shard: ShardId,
    term: u64,
    follower: String,
    id: u64,
    position: LogPosition,
    snapshot: Arc<dyn EngineSnapshot>,
    keyspaces: Vec<KeyspaceId>,
    prepared: Vec<bytes::Bytes>,
    /// What was not acknowledged yet begins here.
    next: Place,
    /// Of the engine, when the copy began.
    pub(super) bytes_total: u64,
    pub(super) started_unix_micros: i64,
    /// Since when nothing was acknowledged, if it was interrupted.
    pub(super) interrupted_since: Option<MonotonicTime>,
}

/// A place in a copy, between two pieces.
#[derive(Clone, Default)]
struct Place {
    /// Number of the piece that begins here.
    number: u64,
    /// Which keyspace it is of; behind the last one: it closes the copy.
    keyspace: usize,
    /// Its first key is not below this.
    lower: Vec<u8>,
    /// Over everything before.
    checksum: Checksum,
    /// Everything before.
    bytes: u64,
}

/// Why a copy did not come about.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the follower cannot be reached")]
    Unreachable,
    #[error("the follower has refused a piece")]
    Refused,
    #[error("the follower knows of term {0}")]
    Stale(u64),
}

impl DataNode {
    /// Begins to copy `shard` to `follower`, unless that is under way.
    pub(super) fn start_copy(&self, shard: ShardId, follower: &str) {
        let destination = (shard, follower.to_owned());
        if !self.copies.begin(&destination) {
            return;
        }
        let Ok(node) = self.shared() else { return };
        let task = async move {
            let (shard, follower) = &destination;
            if let Err(error) = node.copy(*shard, follower).await {
                neorunbase_world::sometimes!("copy-of-a-shard-broken-off");
                tracing::info!(shard, follower, %error, "the copy of the shard is tried again later");
                node.world.clock.sleep(RETRY_PAUSE).await;
            }
            node.copies.end(&destination);
        };
        self.world.spawner.spawn("copy of a shard", Box::pin(task));
    }

    async fn copy(&self, shard: ShardId, follower: &str) -> Result<(), CopyError> {
        let Some(mut copy) = self
            .resume_copy(shard, follower)
            .or_else(|| self.begin_copy(shard, follower))
        else {
            return Ok(()); // not primary any more
        };
        tracing::info!(shard, follower, position = ?copy.position, piece = copy.next.number, "copies the shard");
        let sent = self.send_copy(&mut copy).await;
        let is_interrupted = matches!(sent, Err(CopyError::Unreachable));
        let (term, position) = (copy.term, copy.position);
        let mut replicas = self.replicas.lock();
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return Ok(());
        };
        if is_interrupted && replica.is_primary_of(term) {
            self.copies.progress(&copy, true);
            copy.interrupted_since.get_or_insert(self.world.clock.monotonic());
            if let Some(given_up) = self.copies.interrupt(copy) {
                forget_copy(&mut replicas, &given_up);
            }
            return sent;
        }
        if sent.is_err() {
            replica.copies.remove(follower);
        }
        match sent {
            Ok(()) => {
                if let Some(primary) = replica.primary_of(term) {
                    primary.copied(follower, position);
                    replicas.send_later(follower, [shard]);
                    self.unsent.notify_waiters();
                }
                Ok(())
            }
            Err(CopyError::Stale(later)) => {
                if replica.primary_of(term).is_some() {
                    self.depose(&mut replicas, shard);
                }
                Err(CopyError::Stale(later))
            }
            Err(error) => Err(error),
        }
    }

    /// The interrupted copy of `shard` to `follower`, if it is still of use.
    fn resume_copy(&self, shard: ShardId, follower: &str) -> Option<Copy> {
        let mut copy = self.copies.take_interrupted(&(shard, follower.to_owned()))?;
        let mut replicas = self.replicas.lock();
        let replica = replicas.shards.get_mut(&shard)?;
        if !is_useful(replica, &copy) {
            return None;
        }
        // What follows the copy is still there, and stays.
        replica.copies.insert(follower.to_owned(), copy.position.sequence);
        if planted("copy-resumes-at-wrong-piece")
            && let Ok((_, after)) = copy.read(usize::MAX)
        {
            let number = copy.next.number;
            let checksum = copy.next.checksum;
            copy.next = Place {
                number,
                checksum,
                ..after
            };
        }
        Some(copy)
    }

    fn begin_copy(&self, shard: ShardId, follower: &str) -> Option<Copy> {
        let mut replicas = self.replicas.lock();
        let replica = replicas.shards.get_mut(&shard)?;
        let Role::Primary(primary) = &replica.role else {
            return None;
        };
        let term = primary.term();
        let position = if planted("copy-misses-tail") {
            primary.log().end()
        } else {
            replica.applied
        };
        if let Err(error) = replica.shard.advance_to(replica.applied) {
            self.fail(format!("shard {shard:#x} could not be written: {error}"));
            return None;
        }
        replica.copies.insert(follower.to_owned(), position.sequence);
        let prepared = replica
            .prepared
            .values()
            .map(|prepare| prepare.record.encode_to_vec().into());
        let engine = replica.shard.store.engine();
        Some(Copy {
            shard,
            term,
            follower: follower.to_owned(),
            id: self.world.entropy.next_u64(),
            position,
            snapshot: engine.snapshot(),
            keyspaces: engine.keyspaces(),
            prepared: if planted("copy-without-prepared") {
                Vec::new()
            } else {
                prepared.collect()
            },
            next: Place::default(),
            bytes_total: engine.approximate_bytes(),
            started_unix_micros: self.world.clock.wall_clock_unix_micros(),
            interrupted_since: None,
        })
    }

    /// Sends what was not acknowledged yet.
    async fn send_copy(&self, copy: &mut Copy) -> Result<(), CopyError> {
        let channel = self.peers.channel_to(&copy.follower).await;
        let channel = channel.ok_or(CopyError::Unreachable)?;
        let replication = &self.config.replication;
        loop {
            self.copies.progress(copy, false);
            let (piece, after) = copy.read(replication.copy_piece_bytes)?;
            let is_last = piece.end.is_some();
            let bytes = usize::try_from(after.bytes - copy.next.bytes).unwrap_or(usize::MAX);
            let pace = replication.copy_bytes_per_second;
            self.copies.pace(&*self.world.clock, bytes, pace).await;
            let kind = self.send_piece(&*channel, piece).await?;
            if is_last || kind == CopyReplyKind::NotNeeded {
                return Ok(());
            }
            copy.next = after;
            copy.interrupted_since = None;
        }
    }

    /// Gives up interrupted copies that have waited for too long.
    pub(in crate::datanode) fn drop_interrupted_copies(&self) {
        let now = self.world.clock.monotonic();
        let mut replicas = self.replicas.lock();
        let is_needed = |copy: &Copy| {
            let replica = replicas.shards.get(&copy.shard);
            replica.is_some_and(|replica| is_useful(replica, copy))
        };
        let kept_for = self.config.replication.copy_kept_for;
        for copy in self.copies.take_useless(now, kept_for, is_needed) {
            forget_copy(&mut replicas, &copy);
        }
    }

    async fn send_piece(&self, channel: &dyn Channel, piece: CopyPiece) -> Result<CopyReplyKind, CopyError> {
        let call = channel.call(Request {
            body: Some(RequestBody::CopyPiece(piece)),
        });
        let Ok(Ok(response)) = timeout(&*self.world.clock, PIECE_DEADLINE, call).await else {
            return Err(CopyError::Unreachable);
        };
        let Some(ResponseBody::Copied(reply)) = response.body else {
            return Err(CopyError::Refused);
        };
        match CopyReplyKind::try_from(reply.kind) {
            Ok(kind @ (CopyReplyKind::Taken | CopyReplyKind::NotNeeded)) => Ok(kind),
            Ok(CopyReplyKind::Stale) => Err(CopyError::Stale(reply.term)),
            Ok(CopyReplyKind::Failed) | Err(_) => Err(CopyError::Refused),
        }
    }
}

impl Copy {
    /// Where it goes.
    pub(super) fn destination(&self) -> Destination {
        (self.shard, self.follower.clone())
    }

    /// What has arrived.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.next.bytes
    }

    /// The next piece, of not much more than `most_bytes`, and what follows it.
    fn read(&self, most_bytes: usize) -> Result<(CopyPiece, Place), EngineError> {
        let mut after = self.next.clone();
        after.number += 1;
        let mut piece = CopyPiece {
            shard: self.shard,
            term: self.term,
            copy: self.id,
            position_term: self.position.term,
            position_sequence: self.position.sequence,
            number: self.next.number,
            ..CopyPiece::default()
        };
        if piece.number == 0 {
            piece.keyspaces = self.keyspaces.iter().map(|keyspace| keyspace.0).collect();
            after.checksum.add_keyspaces(&piece.keyspaces);
        }
        let Some(keyspace) = self.keyspaces.get(self.next.keyspace) else {
            after.checksum.add_prepared(&self.prepared);
            piece.end = Some(CopyEnd {
                prepared: self.prepared.clone(),
                checksum: after.checksum.value(),
            });
            return Ok((piece, after));
        };
        let (entries, bytes, following) =
            read_piece(&*self.snapshot, *keyspace, &self.next.lower, most_bytes)?;
        after.checksum.add_entries(&entries);
        after.bytes += bytes as u64;
        piece.entries = entries;
        match following {
            Some(lower) => after.lower = lower,
            None => {
                after.keyspace += 1;
                after.lower.clear();
            }
        }
        Ok((piece, after))
    }
}

/// Whether `copy` can go on: this node still leads in its term, the follower is still to have the shard, and the log still
/// has what follows.
fn is_useful(replica: &Replica, copy: &Copy) -> bool {
    let Role::Primary(primary) = &replica.role else {
        return false;
    };
    primary.term() == copy.term
        && primary.followers().any(|follower| follower == copy.follower)
        && primary.log().position(copy.position.sequence).is_some()
}

/// The log need not keep what follows `copy`.
fn forget_copy(replicas: &mut Replicas, copy: &Copy) {
    if let Some(replica) = replicas.shards.get_mut(&copy.shard) {
        replica.copies.remove(&copy.follower);
    }
}

/// Entries of `keyspace` from `lower` on, their bytes, and where the next piece begins; none: that was the last.
fn read_piece(
    snapshot: &dyn EngineSnapshot,
    keyspace: KeyspaceId,
    lower: &[u8],
    most_bytes: usize,
) -> Result<(Vec<CopiedEntry>, usize, Option<Vec<u8>>), EngineError> {
    let mut cursor = match snapshot.scan(keyspace, lower, &[], false) {
        // Dropped since.
        Err(EngineError::UnknownKeyspace(_)) => return Ok((Vec::new(), 0, None)),
        cursor => cursor?,
    };
    let mut entries = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = cursor.next()? {
        if bytes >= most_bytes {
            return Ok((entries, bytes, Some(key.to_vec())));
        }
        bytes += key.len() + value.len();
        entries.push(CopiedEntry {
            keyspace: keyspace.0,
            key: bytes::Bytes::copy_from_slice(key),
            value: bytes::Bytes::copy_from_slice(value),
        });
    }
    Ok((entries, bytes, None))
}
