//! The end of a term: another node is, or will be, the shard's primary.

use std::sync::Arc;

use neorunbase_protocol::message::ShardId;
use neorunbase_txn::Phase;
use neorunbase_world::fault::planted;

use super::super::shard::Shard;
use super::super::{DataNode, Participant};
use super::replica::{Ending, Replicas, Role};

impl DataNode {
    /// This node is primary of `shard` no more. Requests that wait for its log learn that their outcome is unknown here.
    pub(super) fn depose(&self, replicas: &mut Replicas, shard: ShardId) {
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return;
        };
        let Role::Primary(primary) = &replica.role else {
            return;
        };
        tracing::info!(node = %self.config.name, shard, term = primary.term(), "no longer primary of the shard");
        neorunbase_world::sometimes!("primary-deposed");
        let stopped = replica.shard.clone();
        stopped.stop();
        replica.role = Role::Follower(primary.clone().depose());
        let head_is_ready = std::mem::take(&mut replica.head_is_ready);
        let waiting = std::mem::take(&mut replica.waiting);
        let mut others = Vec::new();
        for (index, waiting) in waiting.into_iter().enumerate() {
            let Some(frame) = replicas.frames.get_mut(&waiting.lsn) else {
                continue;
            };
            frame.positions.retain(|(member, _)| *member != shard);
            frame.missing -= usize::from(!(index == 0 && head_is_ready));
            neorunbase_world::sometimes!("commit-voided-by-a-new-term");
            frame.is_voided = true;
            frame.step.voided(self, shard);
            others.extend(frame.positions.iter().map(|(member, _)| *member));
            if frame.positions.is_empty()
                && let Some(frame) = replicas.frames.remove(&waiting.lsn)
            {
                // Whoever asked may have gone away.
                let _ = frame.done.send(if planted("deposed-primary-acks") {
                    Ending::Committed
                } else {
                    Ending::Voided
                });
            }
        }
        self.give_up_transactions(&stopped);
        self.decisions
            .lock()
            .retain(|_, decision| decision.anchor != shard);
        self.forgettable.lock().retain(|(anchor, _)| *anchor != shard);
        self.advance(replicas, others);
    }

    /// What transactions have in `shard` is not theirs to keep any more.
    fn give_up_transactions(&self, shard: &Arc<Shard>) {
        let participants: Vec<_> = self.transactions.lock().values().cloned().collect();
        for participant in participants {
            match participant.phase() {
                // A request that is in the shard now may be about to leave something there.
                Phase::Active
                    if participant.touches(shard.id) || !shard.is_quiet() && participant.is_running() =>
                {
                    participant.doom();
                    self.roll_back_soon(participant);
                }
                Phase::Prepared => self.strip_or_lose(&participant, shard),
                // Their steps are told what is voided.
                _ => {}
            }
        }
        let revived: Vec<_> = {
            let mut revived = self.revived.lock();
            let lost = revived.extract_if(.., |(_, held), _| *held == shard.id);
            lost.map(|(_, participant)| participant).collect()
        };
        for participant in revived {
            if participant.phase() == Phase::Prepared {
                self.lose(&participant);
            }
        }
    }

    fn roll_back_soon(&self, participant: Arc<Participant>) {
        let Ok(node) = self.shared() else { return };
        let task = async move {
            node.roll_back(&participant).await;
        };
        self.world
            .spawner
            .spawn("rollback of a doomed transaction", Box::pin(task));
    }

    /// The transaction's part in `shard` is left to the next primary. Returns whether nothing else of it is here.
    pub(in crate::datanode) fn strip(&self, participant: &Arc<Participant>, shard: &Shard) -> bool {
        let is_empty = {
            let mut writes = participant.writes.lock();
            if let Some(shard_writes) = writes.shard(shard.id) {
                shard.clear_in_doubt(participant, shard_writes);
            }
            writes.remove_shard(shard.id);
            writes.is_empty()
        };
        let keys = participant.take_locks_of(shard.id);
        self.locks.release(participant.id(), &keys);
        if participant.participation().anchor == shard.id {
            participant.decides_no_more();
        }
        is_empty && !participant.participation().decides
    }

    /// The record by which the transaction was to be prepared in `shard` is left to the next primary.
    pub(in crate::datanode) fn void_prepare(&self, participant: &Arc<Participant>, shard: ShardId) {
        let nothing_left = self
            .open_shard(shard)
            .is_ok_and(|shard| self.strip(participant, &shard));
        if nothing_left && matches!(participant.phase(), Phase::Preparing | Phase::Staging) {
            self.lose(participant);
        }
    }

    pub(in crate::datanode) fn strip_or_lose(&self, participant: &Arc<Participant>, shard: &Shard) {
        let touched = participant.touches(shard.id)
            || participant.participation().decides && participant.participation().anchor == shard.id;
        // Locks in other shards are held for it until its outcome is heard of, as if it had written there.
        if touched && self.strip(participant, shard) && !participant.has_locks() {
            self.lose(participant);
        }
    }

    /// Ends a transaction without knowing its outcome.
    pub(in crate::datanode) fn lose(&self, participant: &Arc<Participant>) {
        self.clear_in_doubt(participant);
        self.forget_participant(participant);
        participant.lose();
        self.locks.release(participant.id(), &participant.take_locks());
    }
}
