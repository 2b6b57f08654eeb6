//! Committed entries have their effect, shard by shard in the order of their logs.

use neorunbase_protocol::message::ShardId;

use super::super::DataNode;
use super::replica::{Ending, PendingFrame, Replica, Replicas, Role};
use super::step::Committed;

/// What comes next in a shard's log.
enum Next {
    /// Nothing that may have its effect now.
    Nothing,
    /// A record of a frame whose other records are not ready.
    OthersFirst,
    /// A frame of this node's requests.
    Frame(u64),
    /// An entry that nobody here waits for.
    Entry(u64),
}

impl DataNode {
    /// Lets everything in `shards` have its effect that may, and what that makes ready in others.
    pub(super) fn advance(&self, replicas: &mut Replicas, shards: impl IntoIterator<Item = ShardId>) {
        let mut due: Vec<ShardId> = shards.into_iter().collect();
        while let Some(shard) = due.pop() {
            while self.failure.get().is_none() {
                match self.next_effect(replicas, shard) {
                    Next::Nothing | Next::OthersFirst => break,
                    Next::Frame(lsn) => self.finish_frame(replicas, lsn, shard, &mut due),
                    Next::Entry(sequence) => {
                        if !self.replay_next(replicas, shard, sequence) {
                            break;
                        }
                    }
                }
            }
            if let Some(replica) = replicas.shards.get(&shard) {
                replica.refresh_lease();
            }
        }
    }

    fn next_effect(&self, replicas: &mut Replicas, shard: ShardId) -> Next {
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return Next::Nothing;
        };
        if replica.is_installing {
            return Next::Nothing;
        }
        let sequence = replica.applied.sequence + 1;
        if sequence > replica.role.applicable() || replica.shard.is_damaged() {
            return Next::Nothing;
        }
        let Some(head) = replica.waiting.front().filter(|head| head.sequence == sequence) else {
            return Next::Entry(sequence);
        };
        let lsn = head.lsn;
        let Some(frame) = replicas.frames.get_mut(&lsn) else {
            return Next::Nothing;
        };
        if !replica.head_is_ready {
            replica.head_is_ready = true;
            frame.missing -= 1;
        }
        if frame.missing == 0 {
            Next::Frame(lsn)
        } else {
            Next::OthersFirst
        }
    }

    fn finish_frame(&self, replicas: &mut Replicas, lsn: u64, shard: ShardId, due: &mut Vec<ShardId>) {
        let Some(PendingFrame {
            positions,
            is_voided,
            step,
            done,
            ..
        }) = replicas.frames.remove(&lsn)
        else {
            return;
        };
        let mut committed = Committed {
            lsn,
            positions: &positions,
            shards: &mut replicas.shards,
        };
        step.committed(self, &mut committed);
        for (member, position) in &positions {
            if let Some(replica) = replicas.shards.get_mut(member) {
                replica.waiting.pop_front();
                replica.head_is_ready = false;
                replica.is_applied(*position);
            }
            if *member != shard {
                due.push(*member);
            }
        }
        let ending = if is_voided {
            Ending::Voided
        } else {
            Ending::Committed
        };
        // Whoever asked may have gone away.
        let _ = done.send(ending);
    }

    /// Returns whether there is anything left to do in this shard.
    fn replay_next(&self, replicas: &mut Replicas, shard: ShardId, sequence: u64) -> bool {
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return false;
        };
        let Some(entry) = replica.role.log().get(sequence).cloned() else {
            self.fail(format!(
                "entry {sequence} of shard {shard:#x} is committed and not there"
            ));
            return false;
        };
        let lsn = replica.lsns.get(&sequence).copied().unwrap_or_default();
        if let Err(error) = self.replay(replica, entry.position, lsn, entry.record.as_ref()) {
            self.fail(format!(
                "shard {shard:#x} could not apply entry {sequence} of its log: {error}"
            ));
            return false;
        }
        replica.is_applied(entry.position);
        if began_here(replica, sequence) {
            self.begin_serving(replica);
        }
        true
    }
}

/// Whether entry `sequence` began the term in which this copy is primary.
fn began_here(replica: &Replica, sequence: u64) -> bool {
    matches!(&replica.role, Role::Primary(primary) if primary.began() == sequence)
}
