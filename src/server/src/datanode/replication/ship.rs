//! Entries go to followers: one message at a time to each node, with what all its shards lack.

use std::cmp::min;
use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::message::{Request, RequestBody, ResponseBody, ShardId};
use neorunbase_protocol::replicate::{
    Replicate, ReplicateReply, ReplicatedEntry, ShardAppend, ShardReply, ShardReplyKind,
};
use neorunbase_replication::{Append, Asked, Next, Reply};
use neorunbase_world::MonotonicTime;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::{buggify, dawdle, planted};

use super::super::DataNode;
use super::replica::{Payload, Role};

/// Entries of one shard in one message.
const MOST_ENTRIES: usize = 1_024;
/// Bytes of one message, unless one entry alone is larger.
const MOST_BYTES: usize = 1 << 20;
/// After a message that was not answered; twice as long after each more, up to a heartbeat.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

impl DataNode {
    /// Makes sure that every follower of a shard that this node leads is sent to.
    pub(super) fn start_shippers(self: &Arc<Self>) {
        let mut followers: Vec<String> = Vec::new();
        for replica in self.replicas.lock().shards.values() {
            if let Role::Primary(primary) = &replica.role {
                followers.extend(primary.followers().map(str::to_owned));
            }
        }
        followers.sort_unstable();
        followers.dedup();
        for follower in followers {
            if !self.shippers.lock().insert(follower.clone()) {
                continue;
            }
            let node = Arc::downgrade(self);
            let clock = self.world.clock.clone();
            let longest_pause = self.config.replication.heartbeat;
            let task = async move {
                let mut pause = RETRY_PAUSE;
                loop {
                    let Some(node) = node.upgrade() else { return };
                    if node.failure().is_some() {
                        return;
                    }
                    if node.ship(&follower).await {
                        pause = RETRY_PAUSE;
                    } else {
                        drop(node);
                        clock.sleep(pause).await;
                        pause = min(pause * 2, longest_pause);
                    }
                }
            };
            let task = self.world.spawner.spawn("replication", Box::pin(task));
            self.tasks.lock().push(task);
        }
    }

    /// Sends one message to `follower` if there is a reason to, or waits for one. Returns whether all is well.
    async fn ship(&self, follower: &str) -> bool {
        let heartbeat = self.config.replication.heartbeat;
        let sent_at = self.world.clock.monotonic();
        let unsent = self.unsent.notified();
        tokio::pin!(unsent);
        // Registered before looking, or an append in between would wait for the next heartbeat.
        unsent.as_mut().enable();
        let shards = self.take_unsent(follower, sent_at);
        if shards.is_empty() {
            // Whichever comes first.
            let _ = timeout(&*self.world.clock, heartbeat / 2, unsent).await;
            return true;
        }
        let terms: Vec<_> = shards.iter().map(|append| (append.shard, append.term)).collect();
        let reply = self.send(follower, shards).await;
        let Some(reply) = reply.filter(|_| !buggify("follower's answer lost")) else {
            let unanswered = terms.iter().map(|(shard, _)| *shard);
            self.replicas.lock().send_later(follower, unanswered);
            return false;
        };
        // The follower reckons its promise from when it heard: only a lease from before that ends in time.
        let asked_at = if planted("lease-from-answer") {
            self.world.clock.monotonic()
        } else {
            sent_at
        };
        self.take_replies(follower, &terms, asked_at, &reply);
        true
    }

    /// The answer of `follower`, if there is one in time.
    async fn send(&self, follower: &str, shards: Vec<ShardAppend>) -> Option<ReplicateReply> {
        let channel = self.peers.channel_to(follower).await?;
        let message = Replicate { shards };
        let call = channel.call(Request {
            body: Some(RequestBody::Replicate(message)),
        });
        dawdle(
            &*self.world.clock,
            "entries shipped late",
            Duration::from_millis(200),
        )
        .await;
        let deadline = self.config.replication.call_deadline;
        let response = timeout(&*self.world.clock, deadline, call).await.ok()?.ok()?;
        match response.body {
            Some(ResponseBody::Replicated(reply)) => Some(reply),
            _ => None,
        }
    }

    /// What `follower` is to get now.
    fn take_unsent(&self, follower: &str, now: MonotonicTime) -> Vec<ShardAppend> {
        let mut replicas = self.replicas.lock();
        let heartbeat = self.config.replication.heartbeat;
        let last = self.last_shipped.lock().get(follower).copied();
        let is_heartbeat = last.is_none_or(|last| now.since(last) >= heartbeat);
        let unsent = replicas.unsent.remove(follower).unwrap_or_default();
        let mut appends = Vec::new();
        let mut bytes = 0;
        let mut later = Vec::new();
        for (shard, replica) in &mut replicas.shards {
            let Role::Primary(primary) = &mut replica.role else {
                continue;
            };
            if !is_heartbeat && !unsent.contains(shard) {
                continue;
            }
            if bytes >= MOST_BYTES && !is_heartbeat {
                later.push(*shard);
                continue;
            }
            let room = MOST_BYTES.saturating_sub(bytes);
            let most = if buggify("one entry shipped") {
                1
            } else {
                MOST_ENTRIES
            };
            match primary.next(follower, most, room) {
                Some(Next::Append(append)) => {
                    bytes += append
                        .entries
                        .iter()
                        .map(|entry| entry.record.as_ref().map_or(0, |record| record.0.len()))
                        .sum::<usize>();
                    appends.push(encode(*shard, append));
                }
                Some(Next::Copy) => self.start_copy(*shard, follower),
                None => {}
            }
        }
        if is_heartbeat {
            self.last_shipped.lock().insert(follower.to_owned(), now);
        }
        replicas.send_later(follower, later);
        appends
    }

    fn take_replies(
        &self,
        follower: &str,
        terms: &[(ShardId, u64)],
        at: MonotonicTime,
        reply: &ReplicateReply,
    ) {
        let mut replicas = self.replicas.lock();
        for reply in &reply.shards {
            let Some((shard, term)) = terms.iter().find(|(shard, _)| *shard == reply.shard) else {
                continue;
            };
            let Some(replica) = replicas.shards.get_mut(shard) else {
                continue;
            };
            let Role::Primary(primary) = &mut replica.role else {
                continue;
            };
            let Some(reply) = decode_reply(reply) else {
                continue;
            };
            let asked = Asked { term: *term, at };
            match primary.replied(follower, asked, reply) {
                Ok(_) => {
                    if primary.lacks_entries(follower) {
                        replicas.send_later(follower, [*shard]);
                    }
                    self.advance(&mut replicas, [*shard]);
                }
                Err(stale) => {
                    tracing::info!(shard, term = stale.term, "a follower knows of a later term");
                    self.depose(&mut replicas, *shard);
                }
            }
        }
    }
}

fn encode(shard: ShardId, append: Append<Payload>) -> ShardAppend {
    let entries = append.entries.into_iter().map(|entry| ReplicatedEntry {
        term: entry.position.term,
        record: entry.record.map(|record| record.0),
    });
    ShardAppend {
        shard,
        term: append.term,
        previous_term: append.previous.term,
        previous_sequence: append.previous.sequence,
        entries: entries.collect(),
        committed: append.committed,
    }
}

fn decode_reply(reply: &ShardReply) -> Option<Reply> {
    Some(match ShardReplyKind::try_from(reply.kind).ok()? {
        ShardReplyKind::Matched => Reply::Matched { up_to: reply.value },
        ShardReplyKind::Mismatch => Reply::Mismatch {
            retry_after: reply.value,
        },
        ShardReplyKind::Stale => Reply::Stale { term: reply.value },
        ShardReplyKind::Damaged => Reply::Damaged,
    })
}
