//! Who committed: the anchor's memory of decisions, and how participants learn them.
//!
//! Presumed abort: an anchor that has no trace of a transaction answers "aborted", after making sure (durably)
//! that it can never prepare it. Commit decisions are kept until every participant has finished.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::message::{
    Decision, DecisionReply, Finish, QueryDecision, Request, RequestBody, ResponseBody, ShardId, Timestamp,
    TransactionId,
};
use neorunbase_txn::outcomes::COMMIT_KEPT_FOR;
use neorunbase_txn::{Lost, Outcome, Phase};
use neorunbase_world::MonotonicTime;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::{buggify, planted};

use super::commit::{outcome_at, wal_record};
use super::failure::Failure;
use super::log_record::{DecisionValue, ForgetRecord, LogEntry, OutcomeRecord};
use super::replication::{Committed, LoggedStep, Room};
use super::shard::decision_key;
use super::{DataNode, Participant};
use prost::Message;

/// How long one question to another node may take.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How long a question waits for an outcome that is being written.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);
/// A commit decision that its Coordinator has not closed for so long is told to the participants by the anchor.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// An abort is presumed anyway; its record only guards against messages that are late by less than this.
const ABORT_KEPT_FOR: Duration = Duration::from_secs(600);

/// A decision of an anchor shard on this node.
#[derive(Clone, Debug)]
pub(super) struct KeptDecision {
    /// The anchor.
    pub anchor: ShardId,
    /// When it committed; 0: it aborted.
    pub commit_timestamp: Timestamp,
    /// Who has to learn it. Nobody but its Coordinator, if there are none (any more).
    pub participants: Vec<ShardId>,
    /// Since when it is kept (or was last tried to be told to its participants).
    pub since: MonotonicTime,
}

impl KeptDecision {
    pub(super) fn new(
        anchor: ShardId,
        participants: Vec<ShardId>,
        commit_timestamp: Timestamp,
        node: &DataNode,
    ) -> Self {
        Self {
            anchor,
            commit_timestamp,
            participants,
            since: node.world.clock.monotonic(),
        }
    }

    /// Whether no participant has to be told of it: an abort is presumed by them anyway.
    fn is_told(&self) -> bool {
        self.commit_timestamp == 0 || self.participants.is_empty()
    }
}

pub(super) fn reply(outcome: Outcome) -> DecisionReply {
    match outcome {
        Outcome::Committed(commit_timestamp) => DecisionReply {
            decision: Decision::Committed.into(),
            commit_timestamp,
        },
        Outcome::Aborted => DecisionReply {
            decision: Decision::Aborted.into(),
            commit_timestamp: 0,
        },
    }
}

pub(super) fn undecided(decision: Decision) -> DecisionReply {
    DecisionReply {
        decision: decision.into(),
        commit_timestamp: 0,
    }
}

/// An abort that is being presumed: until it is committed nobody is told of it, and the transaction cannot begin.
struct Presumed {
    node: Arc<DataNode>,
    transaction: TransactionId,
    anchor: ShardId,
}

impl Drop for Presumed {
    fn drop(&mut self) {
        self.node.presumed.lock().remove(&self.transaction);
    }
}

impl LoggedStep for Presumed {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        let (Some(position), Ok(shard)) = (committed.position(self.anchor), node.open_shard(self.anchor))
        else {
            return;
        };
        let value = DecisionValue::default().encode_to_vec().into();
        let system = [(decision_key(self.transaction), Some(value))];
        let applied = shard.apply(&[], 0, position, &[], &system);
        if node.check_applied(&shard, position, applied) {
            node.outcomes.lock().record_abandoned(self.transaction);
            let decision = KeptDecision::new(self.anchor, Vec::new(), 0, node);
            node.keep_decision(self.transaction, decision);
        }
    }

    fn refused(self: Box<Self>, _: &DataNode) {}

    fn voided(&mut self, _: &DataNode, _: ShardId) {}
}

/// Decisions that are being forgotten.
struct Forgotten(Vec<(ShardId, TransactionId)>);

impl LoggedStep for Forgotten {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        for same_shard in self.0.chunk_by(|left, right| left.0 == right.0) {
            let anchor = same_shard[0].0;
            let (Some(position), Ok(shard)) = (committed.position(anchor), node.open_shard(anchor)) else {
                continue;
            };
            let keys = same_shard
                .iter()
                .map(|(_, transaction)| decision_key(*transaction));
            let system: Vec<_> = keys.map(|key| (key, None)).collect();
            let applied = shard.apply(&[], 0, position, &[], &system);
            node.check_applied(&shard, position, applied);
        }
    }

    fn refused(mut self: Box<Self>, node: &DataNode) {
        node.forgettable.lock().append(&mut self.0);
    }

    fn voided(&mut self, _: &DataNode, _: ShardId) {}
}

impl DataNode {
    pub(super) fn keep_decision(&self, transaction: TransactionId, decision: KeptDecision) {
        self.decisions.lock().insert(transaction, decision);
    }

    /// How a transaction that this node does not hold any more has ended.
    fn known_outcome(&self, transaction: TransactionId) -> Option<Outcome> {
        if let Some(decision) = self.decisions.lock().get(&transaction) {
            return Some(outcome_at(decision.commit_timestamp));
        }
        self.outcomes.lock().get(transaction)
    }

    /// As [`known_outcome`](Self::known_outcome), if that is its anchor's decision: that it had nothing to commit here is none.
    pub(super) fn known_decision(&self, transaction: TransactionId) -> Option<Outcome> {
        self.known_outcome(transaction)
            .filter(|outcome| *outcome != Outcome::Committed(0))
    }

    /// The decision becomes another one: a planted bug.
    pub(super) fn overwrite_decision(&self, transaction: TransactionId, commit_timestamp: Timestamp) {
        if let Some(decision) = self.decisions.lock().get_mut(&transaction) {
            decision.commit_timestamp = commit_timestamp;
        }
    }

    /// All participants have finished: the decision goes with the next sweep.
    pub(super) fn forget_later(&self, transaction: TransactionId) {
        if let Some(decision) = self.decisions.lock().remove(&transaction) {
            self.forgettable.lock().push((decision.anchor, transaction));
        }
    }

    pub(super) fn is_abandoned(&self, participant: &Participant) -> bool {
        let silence = self.world.clock.monotonic().since(participant.last_heard());
        if silence <= self.config.abandon_after {
            return false;
        }
        // A statement that runs is heard of when it began; its Coordinator may have had no time for more.
        let limit = self.config.abandon_after + self.config.deadlock_timeout;
        participant.phase() != Phase::Active || !participant.is_running() || silence > limit
    }

    /// See [`QueryDecision`].
    pub(super) async fn query_decision(&self, request: QueryDecision) -> Result<DecisionReply, Failure> {
        self.served_since(&request.anchor)?;
        self.decision_of(
            request.transaction,
            request.anchor.shard,
            request.abort_if_abandoned,
            request.one_round,
        )
        .await
    }

    /// What holds, or may still come to hold, the part of `transaction` in its anchor.
    ///
    /// Prepared parts in other shards say nothing of the anchor's: they are on the same node if it leads the anchor only
    /// since the primary before is gone, and the anchor's part may have gone with that one.
    pub(super) fn decider(&self, transaction: TransactionId, anchor: ShardId) -> Option<Arc<Participant>> {
        self.holder(transaction, anchor)
            .filter(|holder| !holder.is_decided_elsewhere() || planted("part-taken-for-the-anchors"))
    }

    async fn decision_of(
        &self,
        transaction: TransactionId,
        anchor: ShardId,
        abort_if_abandoned: bool,
        one_round: bool,
    ) -> Result<DecisionReply, Failure> {
        let known = if one_round {
            self.known_outcome(transaction)
        } else {
            self.known_decision(transaction)
        };
        if let Some(outcome) = known {
            return Ok(reply(outcome));
        }
        let Some(participant) = self.decider(transaction, anchor) else {
            if abort_if_abandoned && (!one_round || self.would_remember(transaction)) {
                return self.presume_abort(transaction, anchor).await;
            }
            return Ok(undecided(Decision::Unknown));
        };
        match participant.phase() {
            Phase::Active if abort_if_abandoned && self.is_abandoned(&participant) => {
                if self.abandon(&participant).await {
                    return self.presume_abort(transaction, anchor).await;
                }
                Ok(undecided(Decision::Pending))
            }
            Phase::Prepared if participant.participation().is_staged => {
                self.decide_staged(&participant).await
            }
            Phase::Prepared if abort_if_abandoned && self.is_abandoned(&participant) => {
                let Some(participation) = participant.begin_decide_as_anchor() else {
                    return Ok(undecided(Decision::Pending));
                };
                self.write_outcome(&participant, participation, Outcome::Aborted)
                    .await?;
                Ok(reply(Outcome::Aborted))
            }
            Phase::Active | Phase::Preparing | Phase::Staging | Phase::Prepared => {
                Ok(undecided(Decision::Pending))
            }
            Phase::Committing | Phase::Deciding | Phase::Ended(_) => {
                let ended = self.or_failed(participant.ended());
                match timeout(&*self.world.clock, OUTCOME_PATIENCE, ended).await {
                    Ok(ended) => match ended? {
                        Ok(outcome) => Ok(reply(outcome)),
                        Err(Lost) => Err(Failure::OutcomeUnknown),
                    },
                    Err(_) => Ok(undecided(Decision::Pending)),
                }
            }
            Phase::Lost => Err(Failure::OutcomeUnknown),
        }
    }

    /// Makes sure that a transaction without a trace here stays without one, and reports it aborted.
    async fn presume_abort(
        &self,
        transaction: TransactionId,
        anchor: ShardId,
    ) -> Result<DecisionReply, Failure> {
        {
            let transactions = self.transactions.lock();
            let may_still_prepare = |holder: &Arc<Participant>| !holder.is_decided_elsewhere();
            if transactions.get(&transaction).is_some_and(may_still_prepare)
                || !self.presumed.lock().insert(transaction)
            {
                return Ok(undecided(Decision::Pending)); // it has just begun, or somebody else is at it
            }
        }
        neorunbase_world::sometimes!("abort-presumed");
        let presumed = Presumed {
            node: self.shared()?,
            transaction,
            anchor,
        };
        let shard = self.open_shard(anchor)?;
        let record = OutcomeRecord {
            transaction,
            commit_timestamp: 0,
            decision: true,
            participants: Vec::new(),
        };
        let records = vec![wal_record(&shard, LogEntry::Outcome(record))];
        self.log(records, Box::new(presumed), Room::OrRefuse).await?;
        Ok(reply(Outcome::Aborted))
    }

    /// Rolls back an active transaction whose Coordinator went silent. `false`: it has left Active meanwhile.
    pub(super) async fn abandon(&self, participant: &Arc<Participant>) -> bool {
        if !participant.begin_abort().await {
            return false;
        }
        self.outcomes.lock().record_abandoned(participant.id());
        self.settle(participant, Outcome::Aborted, None);
        true
    }

    /// Asks the anchor what became of a prepared transaction, and finishes it if that is known.
    pub(super) async fn resolve(&self, participant: &Arc<Participant>) -> Result<(), Failure> {
        if participant.phase() != Phase::Prepared {
            return Ok(());
        }
        if planted("in-doubt-presumed-aborted") {
            return self.finish_participant(participant, Outcome::Aborted).await;
        }
        let (transaction, anchor) = (participant.id(), participant.participation().anchor);
        let is_local = self.is_primary(anchor);
        let decision = if is_local {
            self.decision_of(transaction, anchor, true, false).await?
        } else {
            let Some((channel, anchor)) = self.peers.channel_for_shard(anchor).await else {
                return Ok(());
            };
            let question = QueryDecision {
                transaction,
                anchor,
                abort_if_abandoned: true,
                one_round: false,
            };
            let call = channel.call(Request {
                body: Some(RequestBody::QueryDecision(question)),
            });
            match timeout(&*self.world.clock, CALL_DEADLINE, call).await {
                Ok(Ok(response)) => match response.body {
                    Some(ResponseBody::Decision(decision)) => decision,
                    _ => return Ok(()),
                },
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
        };
        match Decision::try_from(decision.decision) {
            Ok(Decision::Committed) if decision.commit_timestamp != 0 => {
                neorunbase_world::sometimes!("in-doubt-transaction-committed-by-its-anchor");
                self.finish_participant(participant, Outcome::Committed(decision.commit_timestamp))
                    .await
            }
            Ok(Decision::Aborted) => {
                neorunbase_world::sometimes!("in-doubt-transaction-aborted-by-its-anchor");
                self.finish_participant(participant, Outcome::Aborted).await
            }
            _ => Ok(()),
        }
    }

    /// One round of looking after transactions that nobody else looks after.
    pub(super) async fn sweep(&self) {
        let silent: Vec<_> = {
            let transactions = self.transactions.lock();
            let revived = self.revived.lock();
            let all = transactions.values().chain(revived.values());
            let asks_early = |participant: &Participant| {
                participant.phase() == Phase::Prepared && buggify("anchor asked early")
            };
            all.filter(|participant| self.is_abandoned(participant) || asks_early(participant))
                .cloned()
                .collect()
        };
        for participant in silent {
            match participant.phase() {
                Phase::Active => {
                    tracing::info!(
                        transaction = participant.id(),
                        "rolling back an abandoned transaction"
                    );
                    neorunbase_world::sometimes!("abandoned-transaction-rolled-back");
                    self.abandon(&participant).await;
                }
                Phase::Prepared => self.resolve_quietly(&participant).await,
                _ => {}
            }
        }
        let close_after = if buggify("decision told early") {
            Duration::ZERO
        } else {
            CLOSE_AFTER
        };
        self.close_decisions(close_after).await;
        if let Err(failure) = self.forget_decisions().await {
            tracing::warn!(?failure, "cannot forget decisions now");
        }
    }

    /// As [`resolve`](Self::resolve), for callers who will come back later.
    pub(super) async fn resolve_quietly(&self, participant: &Arc<Participant>) {
        if let Err(failure) = self.resolve(participant).await {
            tracing::warn!(
                transaction = participant.id(),
                ?failure,
                "cannot resolve a prepared transaction yet"
            );
        }
    }

    /// Tells participants of old commit decisions (their Coordinator may be dead). Such a decision is forgotten when its
    /// Coordinator, if it is alive after all, has stopped to ask for it.
    pub(super) async fn close_decisions(&self, close_after: Duration) {
        let now = self.world.clock.monotonic();
        let mut due = Vec::new();
        for (transaction, decision) in self.decisions.lock().iter_mut() {
            let limit = match decision.commit_timestamp {
                0 => ABORT_KEPT_FOR,
                _ if decision.is_told() => COMMIT_KEPT_FOR,
                _ => close_after,
            };
            if now.since(decision.since) > limit {
                decision.since = now;
                due.push((*transaction, decision.clone()));
            }
        }
        for (transaction, decision) in due {
            if decision.is_told() {
                self.forget_later(transaction);
            } else if self.tell_participants(transaction, &decision).await {
                neorunbase_world::sometimes!("decision-told-by-its-anchor");
                if planted("decision-forgotten-when-told") {
                    self.forget_later(transaction);
                } else if let Some(decision) = self.decisions.lock().get_mut(&transaction) {
                    decision.participants.clear();
                }
            }
        }
    }

    async fn tell_participants(&self, transaction: TransactionId, decision: &KeptDecision) -> bool {
        for shard in &decision.participants {
            let is_here = self.is_primary(*shard);
            if is_here && self.holder(transaction, *shard).is_none() {
                continue; // finished with the decision itself, or since
            }
            let Some((channel, shard)) = self.peers.channel_for_shard(*shard).await else {
                return false;
            };
            let finish = Finish {
                transaction,
                shards: vec![shard],
                commit_timestamp: decision.commit_timestamp,
                forget_decision: false,
            };
            let call = channel.call(Request {
                body: Some(RequestBody::Finish(finish)),
            });
            match timeout(&*self.world.clock, CALL_DEADLINE, call).await {
                Ok(Ok(response)) if matches!(response.body, Some(ResponseBody::Done(_))) => {}
                _ => return false,
            }
        }
        true
    }

    /// Deletes decisions that nobody needs any more, all in one log frame.
    async fn forget_decisions(&self) -> Result<(), Failure> {
        let mut forgettable = std::mem::take(&mut *self.forgettable.lock());
        forgettable.sort_unstable();
        // Those of other primaries now are theirs to forget.
        forgettable.retain(|(anchor, _)| self.is_primary(*anchor));
        let records = forgettable
            .chunk_by(|left, right| left.0 == right.0)
            .map(|same_shard| {
                let shard = self.open_shard(same_shard[0].0)?;
                let transactions = same_shard.iter().map(|(_, transaction)| *transaction).collect();
                Ok(wal_record(
                    &shard,
                    LogEntry::Forget(ForgetRecord { transactions }),
                ))
            });
        let records = records.collect::<Result<Vec<_>, Failure>>()?;
        if records.is_empty() {
            return Ok(());
        }
        self.log(records, Box::new(Forgotten(forgettable)), Room::OrRefuse)
            .await
    }
}
