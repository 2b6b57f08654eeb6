//! The outcome of a prepared transaction: decided on its anchor, then carried out everywhere.

use std::sync::Arc;

use neorunbase_protocol::message::{ShardId, Timestamp, TransactionId};
use neorunbase_storage::wal::WalRecord;
use neorunbase_txn::transaction::Participation;
use neorunbase_txn::{Outcome, Phase};
use neorunbase_world::fault::planted;
use prost::Message;

use super::commit::{Part, timestamp_of, wal_record};
use super::decisions::KeptDecision;
use super::failure::Failure;
use super::log_record::{DecisionValue, LogEntry, OutcomeRecord};
use super::replication::{Committed, LoggedStep, Room};
use super::shard::{decision_key, prepared_key};
use super::together::Together;
use super::{DataNode, Participant};

/// An outcome on its way into the log.
pub(super) struct OutcomeStep {
    participant: Arc<Participant>,
    parts: Vec<Part>,
    outcome: Outcome,
    /// The anchor, if its record is the decision.
    decides: Option<ShardId>,
    /// Whether the transaction has ended here with this frame.
    is_last: bool,
    _together: Option<Together>,
}

impl OutcomeStep {
    /// Some of it is another primary's now. Nothing left: the rest is done.
    fn strip(&self, node: &DataNode, shard: ShardId) -> bool {
        let Ok(shard) = node.open_shard(shard) else {
            return false;
        };
        node.strip(&self.participant, &shard)
    }

    /// The outcome did not come into the log here.
    fn reopen(&self, node: &DataNode, nothing_left: bool) {
        if self.participant.phase() != Phase::Deciding {
            return;
        }
        match self.decides {
            _ if !nothing_left => self.participant.reopen(),
            Some(_) => node.lose(&self.participant),
            // It was decided before, and other primaries carry it out.
            None => node.settle(&self.participant, self.outcome, None),
        }
    }
}

impl LoggedStep for OutcomeStep {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        let transaction = self.participant.id();
        let commit_timestamp = timestamp_of(self.outcome);
        let participation = self.participant.participation();
        let kept_prepares = committed.forget_prepares(transaction);
        let kept = DecisionValue {
            commit_timestamp,
            participants: participation.participants.clone(),
        };
        let system = |shard| {
            let mut system = Vec::new();
            if self.decides == Some(shard) {
                system.push((decision_key(transaction), Some(kept.encode_to_vec().into())));
            }
            if kept_prepares.contains(&shard) {
                system.push((prepared_key(transaction), None));
            }
            system
        };
        if !node.apply_parts(&self.parts, commit_timestamp, committed, system) {
            return;
        }
        if let Some(anchor) = self.decides {
            let participants = participation.participants.clone();
            let decision = KeptDecision::new(anchor, participants, commit_timestamp, node);
            node.keep_decision(transaction, decision);
        }
        if self.is_last {
            node.settle(&self.participant, self.outcome, None);
        } else if !planted("decided-part-kept") {
            // The rest may fail, and be tried again: what has been decided must not be.
            for part in &self.parts {
                node.strip(&self.participant, &part.shard);
            }
        }
    }

    fn refused(self: Box<Self>, node: &DataNode) {
        let mut nothing_left = false;
        for part in &self.parts {
            if part.shard.serving() != Some(part.term) {
                nothing_left = self.strip(node, part.shard.id);
            }
        }
        self.reopen(node, nothing_left);
    }

    fn voided(&mut self, node: &DataNode, shard: ShardId) {
        let nothing_left = self.strip(node, shard);
        self.parts.retain(|part| part.shard.id != shard);
        if self.decides == Some(shard) {
            self.reopen(node, nothing_left);
        } else if self.parts.is_empty() && self.is_last && self.participant.phase() == Phase::Deciding {
            // How it ends was decided before, and what is left of it was carried out with the decision.
            node.settle(&self.participant, self.outcome, None);
        }
    }
}

impl DataNode {
    /// Logs and applies the outcome of a transaction that a request moved to `Deciding`, when it was part of `participation`. On
    /// the anchor this is the decision itself: no other shard may know it before it is committed there. (If the anchor was lost
    /// since, it comes to nothing with the rest of that term.)
    pub(super) async fn write_outcome(
        &self,
        participant: &Arc<Participant>,
        participation: Arc<Participation>,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        let commit_timestamp = timestamp_of(outcome);
        let anchor = participation.decides.then_some(participation.anchor);
        if commit_timestamp != 0 {
            participant.set_commit_timestamp(commit_timestamp);
            participant.wake();
        }
        let parts = self
            .parts_with(participant, anchor)
            .inspect_err(|_| participant.reopen())?;
        let mut parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
        if planted("commit-one-shard") && anchor.is_none() && commit_timestamp != 0 {
            parts.retain(|part| part.shard.id % 2 == 0);
        }
        let records = outcome_records(
            &parts,
            participant.id(),
            commit_timestamp,
            anchor,
            &participation.participants,
        );
        let step = |parts, decides, is_last, together| OutcomeStep {
            participant: participant.clone(),
            parts,
            outcome,
            decides,
            is_last,
            _together: together,
        };
        if records.is_empty() {
            // Nothing of it is here (a planted bug may have seen to that).
            self.settle(participant, outcome, None);
            return Ok(());
        }
        let together = anchor.and_then(|_| self.count_on_being_alone(&records));
        let is_one_frame = anchor.is_none() || parts.len() == 1 || together.is_some();
        if anchor.is_some() && is_one_frame && planted("anchor-decision-not-durable") {
            let node = self.shared()?;
            let step = step(parts, anchor, true, together);
            let writing = async move {
                // Whatever becomes of it, the Coordinator was told.
                let _ = node.log(records, Box::new(step), Room::OrWait).await;
            };
            self.world.spawner.spawn("decision", Box::pin(writing));
            return Ok(());
        }
        if is_one_frame {
            let step = step(parts, anchor, true, together);
            return self.log(records, Box::new(step), Room::OrWait).await;
        }
        let is_anchor = |shard: ShardId| anchor == Some(shard);
        let (decision, others): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| is_anchor(record.shard));
        let (anchor_part, other_parts): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| is_anchor(part.shard.id));
        let first = step(anchor_part, anchor, false, None);
        self.log(decision, Box::new(first), Room::OrWait).await?;
        let node = self.shared()?;
        let second = step(other_parts, None, true, None);
        let rest = async move {
            // Nobody but the other shards waits for it, and they ask the anchor if it fails.
            if let Err(failure) = node.log(others, Box::new(second), Room::OrWait).await {
                tracing::debug!(?failure, "an outcome was left to other primaries");
            }
        };
        self.world
            .spawner
            .spawn("outcome on further shards", Box::pin(rest));
        Ok(())
    }
}

fn outcome_records(
    parts: &[Part],
    transaction: TransactionId,
    commit_timestamp: Timestamp,
    anchor: Option<ShardId>,
    participants: &[ShardId],
) -> Vec<WalRecord> {
    let record_of = |part: &Part| {
        let decision = anchor == Some(part.shard.id);
        let record = OutcomeRecord {
            transaction,
            commit_timestamp,
            decision,
            participants: if decision {
                participants.to_vec()
            } else {
                Vec::new()
            },
        };
        wal_record(&part.shard, LogEntry::Outcome(record))
    };
    parts.iter().map(record_of).collect()
}
