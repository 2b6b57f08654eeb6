//! What became of recent transactions, so that repeated and late messages get the same answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use neorunbase_protocol::message::{Timestamp, TransactionId};
use neorunbase_world::fault::planted;

/// An anchor keeps a commit decision at least for so long, unless the Coordinator itself says that it has it.
pub const COMMIT_KEPT_FOR: Duration = Duration::from_secs(120);

/// A Coordinator that hears later than this after it began to ask for a commit that there is no trace of it does not know
/// whether it was aborted, or committed and forgotten. Half of [`COMMIT_KEPT_FOR`]: clocks may differ in rate.
pub const ABORT_BELIEVED_FOR: Duration = Duration::from_secs(60);

const _: () = assert!(2 * ABORT_BELIEVED_FOR.as_secs() <= COMMIT_KEPT_FOR.as_secs());

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It committed at this timestamp (0: it had written nothing here).
    Committed(Timestamp),
    /// It was rolled back.
    Aborted,
}

/// A bounded memory of outcomes, with a fence that keeps it safe to forget.
///
/// A transaction that this node gave up on its own (no heartbeat) must never be mistaken for a new one when its
/// next statement arrives. Forgetting such an outcome therefore raises the fence: unknown transactions that began
/// at or before the fence are refused.
pub struct Outcomes<Detail> {
    recent: BTreeMap<TransactionId, (Outcome, Option<Detail>)>,
    order: VecDeque<TransactionId>,
    abandoned: BTreeMap<TransactionId, ()>,
    fence: TransactionId,
    /// The latest transaction whose outcome was dropped.
    forgotten: TransactionId,
    capacity: usize,
}

impl<Detail: Clone> Outcomes<Detail> {
    /// Remembers up to `capacity` outcomes of each kind.
    pub fn new(capacity: usize) -> Self {
        Self {
            recent: BTreeMap::new(),
            order: VecDeque::new(),
            abandoned: BTreeMap::new(),
            fence: 0,
            forgotten: 0,
            capacity,
        }
    }

    /// Remembers how `transaction` ended. The first report wins: an outcome never changes. (That of the log, though, is
    /// [above](Self::record_logged) this node's own.)
    pub fn record(&mut self, transaction: TransactionId, outcome: Outcome, detail: Option<Detail>) {
        if transaction == 0 || self.recent.contains_key(&transaction) {
            return;
        }
        self.recent.insert(transaction, (outcome, detail));
        self.order.push_back(transaction);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    /// As [`record`](Self::record), of what a shard's log says. A node that was deposed while it committed a statement took that
    /// for aborted; its successor may have been sent the same transaction, and have committed it.
    pub fn record_logged(&mut self, transaction: TransactionId, outcome: Outcome, detail: Option<Detail>) {
        match self.recent.get_mut(&transaction) {
            Some(known) if known.0 == Outcome::Aborted && !planted("own-refusal-above-the-log") => {
                *known = (outcome, detail);
            }
            _ => self.record(transaction, outcome, detail),
        }
    }

    /// Remembers that this node ended `transaction` while its Coordinator may still believe it open.
    pub fn record_abandoned(&mut self, transaction: TransactionId) {
        self.record(transaction, Outcome::Aborted, None);
        self.abandoned.insert(transaction, ());
        if self.abandoned.len() > self.capacity
            && let Some((oldest, ())) = self.abandoned.pop_first()
        {
            self.fence = self.fence.max(oldest);
        }
    }

    /// How `transaction` ended, if remembered.
    pub fn get(&self, transaction: TransactionId) -> Option<Outcome> {
        self.recent
            .get(&transaction)
            .map(|(outcome, _)| *outcome)
            .or_else(|| {
                self.abandoned
                    .contains_key(&transaction)
                    .then_some(Outcome::Aborted)
            })
    }

    /// What was recorded along with the outcome.
    pub fn detail(&self, transaction: TransactionId) -> Option<Detail> {
        self.recent
            .get(&transaction)
            .and_then(|(_, detail)| detail.clone())
    }

    /// Outcomes of transactions up to this one may have been dropped.
    pub fn forgotten(&self) -> TransactionId {
        self.forgotten
    }

    /// Whether a transaction that this node does not hold may begin here.
    pub fn may_begin(&self, transaction: TransactionId) -> bool {
        transaction > self.fence && self.get(transaction).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_stays() {
        let mut outcomes = Outcomes::<()>::new(10);
        outcomes.record(5, Outcome::Aborted, None);
        outcomes.record(5, Outcome::Committed(9), None);
        assert_eq!(outcomes.get(5), Some(Outcome::Aborted));
        assert!(!outcomes.may_begin(5));
        assert!(outcomes.may_begin(6));
    }

    #[test]
    fn the_log_is_above_what_a_deposed_node_believed() {
        let mut outcomes = Outcomes::<u8>::new(10);
        outcomes.record(5, Outcome::Aborted, None);
        outcomes.record_logged(5, Outcome::Committed(9), Some(1));
        assert_eq!(outcomes.get(5), Some(Outcome::Committed(9)));
        assert_eq!(outcomes.detail(5), Some(1));
        outcomes.record_logged(5, Outcome::Aborted, None);
        assert_eq!(outcomes.get(5), Some(Outcome::Committed(9)));
        outcomes.record_logged(6, Outcome::Committed(10), None);
        assert_eq!(outcomes.get(6), Some(Outcome::Committed(10)));
    }

    #[test]
    fn forgetting_an_abandoned_transaction_raises_the_fence() {
        let mut outcomes = Outcomes::<()>::new(2);
        for transaction in [10, 11, 12] {
            outcomes.record_abandoned(transaction);
        }
        assert!(!outcomes.may_begin(10));
        assert!(!outcomes.may_begin(9));
        assert!(outcomes.may_begin(13));
        // Ordinary outcomes may be forgotten without harm.
        for transaction in [20, 21, 22] {
            outcomes.record(transaction, Outcome::Committed(30), None);
        }
        assert_eq!(outcomes.get(20), None);
        assert!(outcomes.forgotten() >= 20);
        assert!(outcomes.may_begin(19));
    }
}
