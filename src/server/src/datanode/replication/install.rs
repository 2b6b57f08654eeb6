//! A copy of a whole shard comes in and takes the place of what was here.
//!
//! From the first piece on the registry says that what the engine holds is worth nothing; from the last one on, that
//! what the node's log has of the shard is older than the copy.

use std::sync::Arc;

use neorunbase_protocol::message::ShardId;
use neorunbase_protocol::replicate::{CopiedEntry, CopyEnd, CopyPiece, CopyReply, CopyReplyKind};
use neorunbase_replication::{LogPosition, Reply};
use neorunbase_storage::StorageError;
use neorunbase_storage::shard::{SYSTEM_KEYSPACE, ShardStore};
use neorunbase_world::fault::buggify;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, KeyspaceId, ShardEngine};
use prost::Message;

use super::super::DataNode;
use super::super::durable_step::DurableStep;
use super::super::failure::Failure;
use super::super::log_record::{PrepareRecord, RegisteredShard};
use super::super::shard::{Shard, prepared_key};
use super::super::start::StartError;
use super::replica::{KeptPrepare, Role};

/// A copy that is coming in.
pub(in crate::datanode) struct Incoming {
    copy: u64,
    position: LogPosition,
    engine: Arc<dyn ShardEngine>,
    next_number: u64,
    checksum: Checksum,
}

/// Over everything that a copy consists of.
#[derive(Clone, Copy, Default)]
pub(super) struct Checksum(u32);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.0 = crc32c::crc32c_append(self.0, &length.to_le_bytes());
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    pub fn add_keyspaces(&mut self, keyspaces: &[u64]) {
        for keyspace in keyspaces {
            self.add(&keyspace.to_le_bytes());
        }
    }

    pub fn add_entries(&mut self, entries: &[CopiedEntry]) {
        for entry in entries {
            self.add(&entry.keyspace.to_le_bytes());
            self.add(&entry.key);
            self.add(&entry.value);
        }
    }

    pub fn add_prepared(&mut self, prepared: &[bytes::Bytes]) {
        for record in prepared {
            self.add(record);
        }
    }

    pub fn value(self) -> u32 {
        self.0
    }
}

/// How a piece was taken.
enum Taken {
    Yes,
    NotNeeded,
    Failed,
    Stale(u64),
}

impl DataNode {
    /// See [`CopyPiece`].
    pub(in crate::datanode) async fn take_copy_piece(&self, piece: CopyPiece) -> Result<CopyReply, Failure> {
        let node = self.shared()?;
        let step = async move {
            // Entries wait meanwhile: the log must not get any of the shard between the copy and its registration.
            let _one_at_a_time = node.receiving.lock().await;
            node.take_piece(piece).await
        };
        let taken = DurableStep::new(self.world.spawner.clone(), step).await;
        let (kind, term) = match taken {
            Ok(Taken::Yes) => (CopyReplyKind::Taken, 0),
            Ok(Taken::NotNeeded) => (CopyReplyKind::NotNeeded, 0),
            Ok(Taken::Failed) => (CopyReplyKind::Failed, 0),
            Ok(Taken::Stale(term)) => (CopyReplyKind::Stale, term),
            Err(error) => {
                tracing::error!(%error, "a copy of a shard cannot be taken");
                (CopyReplyKind::Failed, 0)
            }
        };
        Ok(CopyReply {
            kind: kind.into(),
            term,
        })
    }

    async fn take_piece(&self, piece: CopyPiece) -> Result<Taken, StartError> {
        let shard = piece.shard;
        let position = LogPosition {
            term: piece.position_term,
            sequence: piece.position_sequence,
        };
        if let Some(refused) = self.offered(shard, piece.term, position) {
            return Ok(refused);
        }
        if piece.number < 2 && buggify("piece of a copy refused") {
            return Ok(Taken::Failed);
        }
        if self.has_taken(&piece, position) {
            return Ok(Taken::Yes);
        }
        if piece.number == 0 {
            self.begin_install(&piece, position).await?;
        }
        let incoming = self.incoming.lock().remove(&shard);
        let Some(mut incoming) = incoming.filter(|incoming| {
            incoming.copy == piece.copy
                && incoming.next_number == piece.number
                && incoming.position == position
        }) else {
            return Ok(Taken::Failed);
        };
        incoming.checksum.add_keyspaces(&piece.keyspaces);
        incoming.checksum.add_entries(&piece.entries);
        incoming.next_number += 1;
        let changes = piece.entries.into_iter().map(|entry| EngineChange::Put {
            keyspace: KeyspaceId(entry.keyspace),
            key: entry.key,
            value: entry.value,
        });
        let batch = EngineBatch {
            changes: changes.collect(),
            applied_lsn: incoming.engine.applied_lsn(),
        };
        incoming.engine.write(batch)?;
        let Some(end) = piece.end else {
            self.incoming.lock().insert(shard, incoming);
            return Ok(Taken::Yes);
        };
        incoming.checksum.add_prepared(&end.prepared);
        if incoming.checksum.value() != end.checksum {
            tracing::error!(shard, "a copy of the shard did not arrive as it was sent");
            return Ok(Taken::Failed);
        }
        self.finish_install(shard, piece.term, incoming, &end).await
    }

    /// Whether the piece was taken before, and comes again because its sender has not heard of that.
    fn has_taken(&self, piece: &CopyPiece, position: LogPosition) -> bool {
        let incoming = self.incoming.lock();
        incoming.get(&piece.shard).is_some_and(|incoming| {
            incoming.copy == piece.copy
                && incoming.position == position
                && piece.number < incoming.next_number
        })
    }

    /// Whether the copy is refused.
    fn offered(&self, shard: ShardId, term: u64, position: LogPosition) -> Option<Taken> {
        let mut replicas = self.replicas.lock();
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return Some(Taken::Failed); // the map has not come here yet
        };
        if let Role::Primary(primary) = &replica.role {
            if term <= primary.term() {
                return Some(Taken::Stale(primary.term()));
            }
            self.depose(&mut replicas, shard);
        }
        let replica = replicas.shards.get_mut(&shard)?;
        let Role::Follower(follower) = &mut replica.role else {
            return Some(Taken::Failed);
        };
        if replica.is_given_up {
            return Some(Taken::Failed);
        }
        match follower.offered(term, position) {
            Err(Reply::Stale { term }) => Some(Taken::Stale(term)),
            Err(_) => Some(Taken::Failed),
            Ok(_) if replica.is_installing || replica.shard.is_damaged() => None,
            Ok(true) => None,
            Ok(false) => Some(Taken::NotNeeded),
        }
    }

    /// What is here is worth nothing from now on.
    async fn begin_install(&self, piece: &CopyPiece, position: LogPosition) -> Result<(), StartError> {
        let shard = piece.shard;
        self.register_install(shard, |registered| registered.installing = true)
            .await?;
        let before = {
            let mut replicas = self.replicas.lock();
            let Some(replica) = replicas.shards.get_mut(&shard) else {
                return Ok(());
            };
            if replica.is_installing {
                neorunbase_world::sometimes!("copy-of-a-shard-begun-again");
            }
            replica.is_installing = true;
            replica.shard.clone()
        };
        before.store.retire();
        let engine = before.store.engine().clone();
        for keyspace in engine.keyspaces() {
            engine.drop_keyspace(keyspace)?;
        }
        for keyspace in &piece.keyspaces {
            engine.create_keyspace(KeyspaceId(*keyspace))?;
        }
        let incoming = Incoming {
            copy: piece.copy,
            position,
            engine,
            next_number: 0,
            checksum: Checksum::default(),
        };
        self.incoming.lock().insert(shard, incoming);
        Ok(())
    }

    async fn finish_install(
        &self,
        shard: ShardId,
        term: u64,
        incoming: Incoming,
        end: &CopyEnd,
    ) -> Result<Taken, StartError> {
        let Incoming { engine, position, .. } = incoming;
        let malformed = |_| StartError::MalformedRecord { shard, lsn: 0 };
        let mut prepared = Vec::with_capacity(end.prepared.len());
        for record in &end.prepared {
            prepared.push(PrepareRecord::decode(record.clone()).map_err(malformed)?);
        }
        let changes = prepared
            .iter()
            .zip(&end.prepared)
            .map(|(record, encoded)| EngineChange::Put {
                keyspace: SYSTEM_KEYSPACE,
                key: prepared_key(record.transaction),
                value: encoded.clone(),
            });
        engine.write(EngineBatch {
            changes: changes.collect(),
            applied_lsn: position.sequence,
        })?;
        engine.flush().await?;
        let store = ShardStore::new(engine)?;
        let log_from = self.wal.next_lsn();
        self.register_install(shard, |registered| {
            registered.installing = false;
            registered.log_from = log_from;
        })
        .await?;
        self.forget_outcomes_before_now();
        let mut replicas = self.replicas.lock();
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return Ok(Taken::Failed);
        };
        let installed = Arc::new(Shard::new(shard, store, replica.shard.term())?);
        let Role::Follower(follower) = &mut replica.role else {
            return Ok(Taken::Stale(term));
        };
        follower.installed(position);
        replica.applied = position;
        replica.lsns.clear();
        let kept = prepared
            .into_iter()
            .map(|record| (record.transaction, KeptPrepare { lsn: None, record }));
        replica.prepared = kept.collect();
        replica.is_installing = false;
        replica.shard = installed.clone();
        self.shards.write().insert(shard, installed);
        neorunbase_world::sometimes!("copy-of-a-shard-received");
        tracing::info!(node = %self.config.name, shard, ?position, "has received a copy of the shard");
        Ok(Taken::Yes)
    }

    async fn register_install(
        &self,
        shard: ShardId,
        change: impl FnOnce(&mut RegisteredShard),
    ) -> Result<(), StartError> {
        let mut registry = self.registry.lock().await;
        let mut changed = registry.clone();
        if let Ok(place) = changed.shards.binary_search_by_key(&shard, |known| known.shard) {
            change(&mut changed.shards[place]);
        }
        self.replace_registry(&mut registry, changed).await
    }
}

/// The prepare records that came with a copy of the shard.
pub(in crate::datanode) fn prepared_in(shard: &Shard) -> Result<Vec<PrepareRecord>, StorageError> {
    let malformed = StorageError::Malformed {
        what: "prepare record",
    };
    let found = shard.store.system_scan(super::super::shard::PREPARED_PREFIX)?;
    let records = found.into_iter().map(|(_, value)| PrepareRecord::decode(value));
    records.collect::<Result<_, _>>().map_err(|_| malformed)
}
