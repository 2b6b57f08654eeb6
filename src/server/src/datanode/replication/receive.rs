//! Entries come in from primaries.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::message::ShardId;
use neorunbase_protocol::replicate::{Replicate, ReplicateReply, ShardAppend, ShardReply, ShardReplyKind};
use neorunbase_replication::{Append, Entry, LogPosition, Received, Reply};
use neorunbase_storage::wal::{self, Lsn, WalRecord};
use neorunbase_world::fault::{dawdle, planted};
use prost::Message;

use super::super::DataNode;
use super::super::durable_step::DurableStep;
use super::super::failure::Failure;
use super::super::log_record::{LogEntry, LogRecord, TermBeganRecord};
use super::replica::{Payload, Replicas, Role};

impl DataNode {
    /// See [`Replicate`]. Answers once everything is durable here.
    pub(in crate::datanode) async fn replicate(&self, request: Replicate) -> Result<ReplicateReply, Failure> {
        let node = self.shared()?;
        // What is in memory must come into the log even if the sender goes away: it is not going to be written again.
        let step = async move { node.take_over(request).await };
        let reply = DurableStep::new(self.world.spawner.clone(), step).await;
        dawdle(
            &*self.world.clock,
            "entries acknowledged late",
            Duration::from_millis(300),
        )
        .await;
        reply
    }

    async fn take_over(&self, request: Replicate) -> Result<ReplicateReply, Failure> {
        // One at a time: entries of a shard come into the node's log in order.
        let _one_at_a_time = self.receiving.lock().await;
        let mut replies = Vec::new();
        let mut taken = Vec::new();
        let mut records = Vec::new();
        {
            let mut replicas = self.replicas.lock();
            for append in request.shards {
                let shard = append.shard;
                match self.receive(&mut replicas, append) {
                    None => {}
                    Some(Received::Refused(reply)) => replies.push(encode_reply(shard, reply)),
                    Some(Received::Taken { write, up_to }) => {
                        records.extend(write.into_iter().map(|entry| record_of(shard, entry)));
                        taken.push((shard, up_to));
                    }
                    Some(Received::Diverged(position)) => self.diverged(&replicas, shard, position),
                }
            }
            // What is committed by now may have its effect.
            let shards: Vec<_> = taken.iter().map(|(shard, _)| *shard).collect();
            self.advance(&mut replicas, shards);
        }
        if planted("follower-acks-before-fsync") {
            let node = self.shared()?;
            let written = async move {
                // As if it were of no importance.
                let _ = node.write_received(records).await;
            };
            self.world.spawner.spawn("late write", Box::pin(written));
        } else {
            self.write_received(records).await?;
        }
        let replicas = self.replicas.lock();
        for (shard, up_to) in taken {
            let replica = replicas.shards.get(&shard);
            if let Some(Role::Follower(follower)) = replica.map(|replica| &replica.role) {
                replies.push(encode_reply(shard, follower.matched(up_to)));
            }
        }
        Ok(ReplicateReply { shards: replies })
    }

    fn receive(&self, replicas: &mut Replicas, append: ShardAppend) -> Option<Received<Payload>> {
        let shard = append.shard;
        let replica = replicas.shards.get_mut(&shard)?;
        if replica.is_given_up || replica.is_installing && planted("interrupted-copy-not-begun-again") {
            return None;
        }
        if let Role::Primary(primary) = &replica.role {
            if append.term <= primary.term() && !planted("old-term-accepted") {
                let term = primary.term();
                return Some(Received::Refused(Reply::Stale { term }));
            }
            self.depose(replicas, shard);
        }
        let replica = replicas.shards.get_mut(&shard)?;
        let Role::Follower(follower) = &mut replica.role else {
            return None;
        };
        // Whoever sent the copy that comes in may have died before its end: the next primary has to hear of it.
        if replica.is_installing || replica.shard.is_damaged() {
            return Some(Received::Refused(Reply::Damaged));
        }
        Some(follower.receive(decode(append)?, self.world.clock.monotonic()))
    }

    fn diverged(&self, replicas: &Replicas, shard: ShardId, position: LogPosition) {
        let damage = format!("the primary does not have entry {position:?}, which is committed here");
        tracing::error!(shard, %damage, "the copy of the shard is damaged");
        if let Some(replica) = replicas.shards.get(&shard) {
            replica.shard.damage.lock().get_or_insert(damage);
        }
    }

    async fn write_received(&self, records: Vec<WalRecord>) -> Result<(), Failure> {
        let most = self.config.wal_max_frame_bytes as usize / 2;
        let mut frame = Vec::new();
        let mut bytes = 0;
        for record in records {
            if bytes + record.payload.len() > most && !frame.is_empty() {
                self.write_frame(std::mem::take(&mut frame)).await?;
                bytes = 0;
            }
            bytes += record.payload.len();
            frame.push(record);
        }
        self.write_frame(frame).await
    }

    async fn write_frame(&self, records: Vec<WalRecord>) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let node = self.shared()?;
        let positions: Vec<_> = records
            .iter()
            .map(|record| {
                let position = LogPosition {
                    term: record.term,
                    sequence: record.sequence,
                };
                (record.shard, position)
            })
            .collect();
        let written: wal::Apply = Box::new(move |logged| node.received_is_durable(&positions, logged.lsn));
        let clock = self.world.clock.clone();
        if let Err(error) = self.wal.append_when_room(&*clock, records, written).await {
            self.log_failed(&error);
        }
        self.check_healthy()
    }

    fn received_is_durable(self: &Arc<Self>, positions: &[(ShardId, LogPosition)], lsn: Lsn) {
        let mut replicas = self.replicas.lock();
        for (shard, position) in positions {
            let Some(replica) = replicas.shards.get_mut(shard) else {
                continue;
            };
            if let Role::Follower(follower) = &mut replica.role {
                follower.written(*position);
                replica.lsns.insert(position.sequence, lsn);
            }
        }
        self.advance(&mut replicas, positions.iter().map(|(shard, _)| *shard));
    }
}

/// `None`: no log goes on so.
fn decode(append: ShardAppend) -> Option<Append<Payload>> {
    let previous = LogPosition {
        term: append.previous_term,
        sequence: append.previous_sequence,
    };
    let mut last = previous;
    let mut entries = Vec::with_capacity(append.entries.len());
    for entry in append.entries {
        let position = LogPosition {
            term: entry.term,
            sequence: last.sequence.checked_add(1)?,
        };
        if position.term < last.term || position.term > append.term {
            return None;
        }
        last = position;
        let record = entry.record.map(Payload);
        entries.push(Entry { position, record });
    }
    Some(Append {
        term: append.term,
        previous,
        entries,
        committed: append.committed,
    })
}

fn record_of(shard: ShardId, entry: Entry<Payload>) -> WalRecord {
    let payload = entry.record.map_or_else(
        || {
            let entry = Some(LogEntry::TermBegan(TermBeganRecord {}));
            LogRecord { entry }.encode_to_vec().into()
        },
        |record| record.0,
    );
    WalRecord {
        shard,
        term: entry.position.term,
        sequence: entry.position.sequence,
        payload,
    }
}

fn encode_reply(shard: ShardId, reply: Reply) -> ShardReply {
    let (kind, value) = match reply {
        Reply::Matched { up_to } => (ShardReplyKind::Matched, up_to),
        Reply::Mismatch { retry_after } => (ShardReplyKind::Mismatch, retry_after),
        Reply::Stale { term } => (ShardReplyKind::Stale, term),
        Reply::Damaged => (ShardReplyKind::Damaged, 0),
    };
    ShardReply {
        shard,
        kind: kind.into(),
        value,
    }
}
