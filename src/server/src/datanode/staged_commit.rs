//! Commits in one round of several shards with copies elsewhere, all led by this node.
//!
//! One frame holds a prepare record a shard, with the commit timestamp. As soon as all of them are committed in their
//! shards' logs the transaction is committed, and its client is told; the decision on the anchor is written afterwards.
//! If this node loses one of the shards in between, the anchor's primary asks the others: all are prepared, or one of them
//! is not and never will be. (Parallel commits: Taft et al., CockroachDB, SIGMOD 2020, §3.2.)

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::message::{
    Decision, DecisionReply, Finish, Preparation, PreparedReply, QueryPrepared, ReadSetMessage, Request,
    RequestBody, ResponseBody, ShardId, ShardRef, TransactionId, WrittenReply,
};
use neorunbase_txn::transaction::Participation;
use neorunbase_txn::{Outcome, Phase};
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::{dawdle, planted};

use super::commit::{Unsettled, prepare_records};
use super::decisions::{CALL_DEADLINE, reply, undecided};
use super::failure::Failure;
use super::replication::{Committed, LoggedStep, Room};
use super::{DataNode, Participant};

/// A staged commit on its way into the log.
pub(super) struct StagedStep {
    pub participant: Arc<Participant>,
    /// Whether another primary decides about one of the records.
    pub is_voided: bool,
}

impl LoggedStep for StagedStep {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        committed.keep_prepares();
        self.participant.prepared();
        if !self.is_voided || planted("staged-commit-ignores-voided") {
            neorunbase_world::sometimes!("staged-commit-decided-at-once");
            node.write_staged_outcome(self.participant);
        }
    }

    fn refused(self: Box<Self>, node: &DataNode) {
        node.settle(&self.participant, Outcome::Aborted, None);
    }

    fn voided(&mut self, node: &DataNode, shard: ShardId) {
        self.is_voided = true;
        node.void_prepare(&self.participant, shard);
    }
}

impl DataNode {
    /// One-round commit of an active transaction in several shards, with `anchor` as the one that decides in doubt. The rest is
    /// as of a [commit](Self::commit).
    pub(super) async fn commit_staged(
        &self,
        participant: &Arc<Participant>,
        anchor: ShardId,
        references: &[ShardRef],
        reads: Option<&ReadSetMessage>,
    ) -> Result<WrittenReply, Failure> {
        let participation = Participation {
            anchor,
            participants: Vec::new(),
            decides: true,
            is_staged: true,
        };
        if !participant.begin_staging(participation).await {
            return self.joined_staged_commit(participant).await;
        }
        let unsettled = Unsettled::new(self, participant)?;
        if participant.writes.lock().is_empty() {
            self.check_all_current(references, participant.id())?;
            let (node, participant) = unsettled.disarm();
            node.settle(&participant, Outcome::Committed(0), None);
            return Ok(WrittenReply::default());
        }
        let commit_timestamp = self.draw_commit_timestamp(participant, references, reads).await?;
        let parts = self.parts_with(participant, Some(anchor))?;
        participant.takes_part_in(parts.iter().map(|(part, _)| part.shard.id).collect());
        let records = prepare_records(parts, participant, commit_timestamp);
        self.check_frame_size(&records)?;
        let (node, participant) = unsettled.disarm();
        let step = StagedStep {
            participant,
            is_voided: false,
        };
        node.log(records, Box::new(step), Room::OrRefuse).await?;
        Ok(WrittenReply {
            commit_timestamp,
            ..WrittenReply::default()
        })
    }

    /// The answer of a staged commit that another request is carrying out, or has.
    async fn joined_staged_commit(&self, participant: &Participant) -> Result<WrittenReply, Failure> {
        match self.or_failed(participant.prepare_written()).await? {
            // Not all of it is known to be prepared.
            Phase::Prepared => Err(Failure::OutcomeUnknown),
            _ => self.reply_once_ended(participant).await,
        }
    }

    /// Writes down that a staged transaction has committed, which it has.
    fn write_staged_outcome(&self, participant: Arc<Participant>) {
        let Ok(node) = self.shared() else { return };
        let task = async move {
            let clock = &*node.world.clock;
            dawdle(clock, "staged commit written down late", Duration::from_secs(3)).await;
            // Not earlier: what is written down next is of the term in which it still is the anchor's part.
            let Some(participation) = participant.begin_decide_as_anchor() else {
                return; // whoever asks decides, or has
            };
            let outcome = Outcome::Committed(participant.commit_timestamp());
            if let Err(failure) = node.write_outcome(&participant, participation, outcome).await {
                tracing::debug!(
                    ?failure,
                    "the outcome of a staged commit is left to whoever asks for it"
                );
            }
        };
        self.world
            .spawner
            .spawn("outcome of a staged commit", Box::pin(task));
    }

    /// Whether a part of a staged commit that the sender of `request` takes for committed may not be finished yet: as long as the
    /// anchor has not decided, it counts on finding the part. Who names the anchor, too, is the Coordinator, who has not
    /// heard of a decision; the anchor names the others.
    pub(super) fn awaits_decision(&self, participant: &Participant, request: &Finish) -> bool {
        let participation = participant.participation();
        let mut shards = request.shards.iter();
        participation.is_staged
            && participant.phase() == Phase::Prepared
            && shards.any(|shard| shard.shard == participation.anchor)
            && self.known_decision(participant.id()).is_none()
            && !planted("staged-part-finished-undecided")
    }

    /// Finds out how a staged transaction ends whose anchor's part this is, and writes it down.
    pub(super) async fn decide_staged(
        &self,
        participant: &Arc<Participant>,
    ) -> Result<DecisionReply, Failure> {
        let participation = participant.participation();
        let mut outcome = Outcome::Committed(participant.commit_timestamp());
        let others = participation.participants.iter();
        for shard in others.filter(|shard| **shard != participation.anchor) {
            match self.preparation_in(participant.id(), *shard).await {
                Preparation::Prepared => {}
                Preparation::Absent => {
                    outcome = Outcome::Aborted;
                    break;
                }
                Preparation::UnderWay => return Ok(undecided(Decision::Pending)),
            }
        }
        if planted("staged-commit-presumed-aborted") {
            outcome = Outcome::Aborted;
        }
        let clock = &*self.world.clock;
        dawdle(clock, "staged commit decided late", Duration::from_secs(2)).await;
        let Some(participation) = participant.begin_decide_as_anchor() else {
            // Somebody else is at it, or the anchor is another node's by now: then it is for that one to ask.
            return Ok(undecided(Decision::Pending));
        };
        match outcome {
            Outcome::Committed(_) => neorunbase_world::sometimes!("staged-commit-found-prepared-everywhere"),
            Outcome::Aborted => neorunbase_world::sometimes!("staged-commit-found-absent-in-a-shard"),
        }
        self.write_outcome(participant, participation, outcome).await?;
        Ok(reply(outcome))
    }

    /// What `shard` has of a staged transaction. Nobody to ask: it may yet have it.
    async fn preparation_in(&self, transaction: TransactionId, shard: ShardId) -> Preparation {
        if let Some(preparation) = self.preparation_here(transaction, shard) {
            return preparation;
        }
        let Some((channel, shard)) = self.peers.channel_for_shard(shard).await else {
            return Preparation::UnderWay;
        };
        let question = QueryPrepared { transaction, shard };
        let call = channel.call(Request {
            body: Some(RequestBody::QueryPrepared(question)),
        });
        match timeout(&*self.world.clock, CALL_DEADLINE, call).await {
            Ok(Ok(response)) => match response.body {
                Some(ResponseBody::Prepared(reply)) => reply.preparation(),
                _ => Preparation::UnderWay,
            },
            Ok(Err(_)) | Err(_) => Preparation::UnderWay,
        }
    }

    /// What the log of `shard` has of a staged transaction, if this node is certainly its primary.
    ///
    /// That it has nothing is for ever: the anchor's record was in the same frame. So either this is the primary that wrote
    /// it, and has written it already, or one of a later term, which began with all that there will ever be of earlier ones.
    /// (Nor was it finished here: that comes after the anchor's decision, which whoever asks would have found.)
    fn preparation_here(&self, transaction: TransactionId, shard: ShardId) -> Option<Preparation> {
        let replicas = self.replicas.lock();
        let replica = replicas.shards.get(&shard)?;
        let term = replica.shard.serving()?;
        let is_under_way = || {
            let participant = self.participant(transaction);
            participant.is_some_and(|participant| participant.phase() == Phase::Staging)
        };
        let preparation = if replica.prepared.contains_key(&transaction) {
            Preparation::Prepared
        } else if is_under_way() && !planted("staged-part-under-way-taken-for-absent") {
            Preparation::UnderWay
        } else {
            Preparation::Absent
        };
        replica
            .shard
            .is_current(term, &*self.world.clock)
            .then_some(preparation)
    }

    /// See [`QueryPrepared`].
    pub(super) fn query_prepared(&self, request: QueryPrepared) -> Result<PreparedReply, Failure> {
        self.served_since(&request.shard)?;
        let shard = request.shard.shard;
        let preparation = self.preparation_here(request.transaction, shard);
        let preparation = preparation.ok_or(Failure::StaleEpoch { shard, serving: None })?;
        Ok(PreparedReply {
            preparation: preparation.into(),
        })
    }
}
