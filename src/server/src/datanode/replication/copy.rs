//! A whole shard goes to a follower that lacks more than the log still has.
//!
//! The copy is the engine as it is after one entry of the log, and the prepare records of what is undecided there. It goes
//! out piece by piece while the shard is written on; the log keeps what follows it.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::Channel;
use neorunbase_protocol::message::{Request, RequestBody, ResponseBody, ShardId};
use neorunbase_protocol::replicate::{CopiedEntry, CopyEnd, CopyPiece, CopyReplyKind};
use neorunbase_replication::LogPosition;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::planted;
use neorunbase_world::shard_engine::{EngineError, EngineSnapshot, KeyspaceId};
use prost::Message;

use super::super::DataNode;
use super::install::Checksum;
use super::replica::Role;

/// Bytes of one piece, unless one entry alone is larger.
const PIECE_BYTES: usize = 256 << 10;
/// How long the follower may take for a piece. The last one waits for a flush.
const PIECE_DEADLINE: Duration = Duration::from_secs(20);
/// Between two pieces, so that copies leave room for the shard's clients.
const PIECE_PAUSE: Duration = Duration::from_millis(2);
/// After a copy that did not come about.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A copy on its way.
struct Copy {
    shard: ShardId,
    term: u64,
    follower: String,
    id: u64,
    position: LogPosition,
    snapshot: Arc<dyn EngineSnapshot>,
    keyspaces: Vec<KeyspaceId>,
    prepared: Vec<bytes::Bytes>,
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
        if !self.copying.lock().insert((shard, follower.to_owned())) {
            return;
        }
        let Ok(node) = self.shared() else { return };
        let follower = follower.to_owned();
        let task = async move {
            if let Err(error) = node.copy(shard, &follower).await {
                neorunbase_world::sometimes!("copy-of-a-shard-broken-off");
                tracing::info!(shard, follower, %error, "the copy of the shard is tried again later");
                node.world.clock.sleep(RETRY_PAUSE).await;
            }
            node.copying.lock().remove(&(shard, follower));
        };
        self.world.spawner.spawn("copy of a shard", Box::pin(task));
    }

    async fn copy(&self, shard: ShardId, follower: &str) -> Result<(), CopyError> {
        let Some(copy) = self.begin_copy(shard, follower) else {
            return Ok(()); // not primary any more
        };
        tracing::info!(shard, follower, position = ?copy.position, "copies the shard");
        let sent = self.send_copy(&copy).await;
        let mut replicas = self.replicas.lock();
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return Ok(());
        };
        if sent.is_err() {
            replica.copies.remove(follower);
        }
        match sent {
            Ok(()) => {
                if let Some(primary) = replica.primary_of(copy.term) {
                    primary.copied(follower, copy.position);
                    let unsent = replicas.unsent.entry(follower.to_owned()).or_default();
                    unsent.insert(shard);
                    self.unsent.notify_waiters();
                }
                Ok(())
            }
            Err(CopyError::Stale(term)) => {
                if replica.primary_of(copy.term).is_some() {
                    self.depose(&mut replicas, shard);
                }
                Err(CopyError::Stale(term))
            }
            Err(error) => Err(error),
        }
    }

    fn begin_copy(&self, shard: ShardId, follower: &str) -> Option<Copy> {
        let mut replicas = self.replicas.lock();
        let replica = replicas.shards.get_mut(&shard)?;
        let Role::Primary(primary) = &replica.role else {
            return None;
        };
        let term = primary.term();
        let position = replica.applied;
        if let Err(error) = replica.shard.advance_to(position) {
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
        })
    }

    async fn send_copy(&self, copy: &Copy) -> Result<(), CopyError> {
        let channel = self.peers.channel_to(&copy.follower).await;
        let channel = channel.ok_or(CopyError::Unreachable)?;
        let mut checksum = Checksum::default();
        let mut piece = copy.piece(0);
        piece.keyspaces = copy.keyspaces.iter().map(|keyspace| keyspace.0).collect();
        checksum.add_keyspaces(&piece.keyspaces);
        for keyspace in &copy.keyspaces {
            let mut from = Some(Vec::new());
            while let Some(lower) = from {
                let entries;
                (entries, from) = read_piece(&*copy.snapshot, *keyspace, &lower)?;
                checksum.add_entries(&entries);
                piece.entries = entries;
                let next = copy.piece(piece.number + 1);
                if self
                    .send_piece(&*channel, std::mem::replace(&mut piece, next))
                    .await?
                    == CopyReplyKind::NotNeeded
                {
                    return Ok(());
                }
                self.world.clock.sleep(PIECE_PAUSE).await;
            }
        }
        checksum.add_prepared(&copy.prepared);
        piece.end = Some(CopyEnd {
            prepared: copy.prepared.clone(),
            checksum: checksum.value(),
        });
        self.send_piece(&*channel, piece).await?;
        Ok(())
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
    fn piece(&self, number: u64) -> CopyPiece {
        CopyPiece {
            shard: self.shard,
            term: self.term,
            copy: self.id,
            position_term: self.position.term,
            position_sequence: self.position.sequence,
            number,
            ..CopyPiece::default()
        }
    }
}

/// Entries of `keyspace` from `lower` on, and where the next piece begins; none: that was the last.
fn read_piece(
    snapshot: &dyn EngineSnapshot,
    keyspace: KeyspaceId,
    lower: &[u8],
) -> Result<(Vec<CopiedEntry>, Option<Vec<u8>>), EngineError> {
    let mut cursor = match snapshot.scan(keyspace, lower, &[], false) {
        // Dropped since.
        Err(EngineError::UnknownKeyspace(_)) => return Ok((Vec::new(), None)),
        cursor => cursor?,
    };
    let mut entries = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = cursor.next()? {
        if bytes >= PIECE_BYTES {
            return Ok((entries, Some(key.to_vec())));
        }
        bytes += key.len() + value.len();
        entries.push(CopiedEntry {
            keyspace: keyspace.0,
            key: bytes::Bytes::copy_from_slice(key),
            value: bytes::Bytes::copy_from_slice(value),
        });
    }
    Ok((entries, None))
}
