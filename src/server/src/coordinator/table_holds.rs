//! Tables that this Coordinator keeps still for definitions of the leader, which runs elsewhere.
//!
//! A hold may come to be when its definition has ended already: its request was under way, or it waited for a
//! transaction. And the leader's word of the end may be lost. So ends are remembered, a hold that waits is given up when
//! its definition ends, and the leader says again and again which definitions are live.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use neorunbase_protocol::coordinate::HoldTables;
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::fault::{dawdle, planted};
use neorunbase_world::{Clock, MonotonicTime};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::table_locks::{ExclusiveTableLock, TableLocks};

/// So many ended definitions are remembered. A hold that comes even later lasts until the leader says what is live.
const REMEMBERED: usize = 256;

/// The holds for the leader's definitions.
#[derive(Default)]
pub struct TableHolds {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Leaders before this term finish nothing any more.
    least_term: u64,
    /// Definitions that have ended, the latest last.
    ended: VecDeque<u64>,
    /// By definition.
    holds: BTreeMap<u64, Hold>,
}

struct Hold {
    /// The leader's term.
    term: u64,
    /// When it was asked for.
    asked_at: MonotonicTime,
    _claim: Claim,
}

/// Ends when it is dropped.
enum Claim {
    Waiting {
        _unless_given_up: oneshot::Sender<Infallible>,
    },
    Held {
        _locks: Vec<ExclusiveTableLock>,
    },
}

fn ended() -> Box<SqlError> {
    SqlError::new(
        SqlState::LOCK_NOT_AVAILABLE,
        "the definition that needs the table has ended, or another coordinator leads",
    )
    .with_hint("try again")
}

impl State {
    fn end(&mut self, definition: u64) {
        self.holds.remove(&definition);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(definition);
    }

    fn end_before(&mut self, term: u64) {
        self.least_term = self.least_term.max(term);
        let least_term = self.least_term;
        self.holds.retain(|_, hold| hold.term >= least_term);
    }
}

impl TableHolds {
    /// Takes tables of `locks` alone, until their definition ends.
    ///
    /// # Errors
    /// `55P03` if transactions keep using one, or if the definition ends first.
    pub async fn hold(&self, clock: &dyn Clock, locks: &TableLocks, request: &HoldTables) -> Result<()> {
        self.release_before(request.term);
        let granted = async {
            let taken = locks.take(clock, &request.tables).await?;
            dawdle(clock, "hold granted late", Duration::from_secs(1)).await;
            Ok(taken)
        };
        if planted("late-hold-kept") {
            let kept = Hold {
                term: request.term,
                // No later word of the leader's ends it.
                asked_at: MonotonicTime(u64::MAX),
                _claim: Claim::Held {
                    _locks: granted.await?,
                },
            };
            self.state.lock().holds.insert(request.definition, kept);
            return Ok(());
        }
        let given_up = self.begin(request, clock.monotonic())?;
        let granted = tokio::select! {
            biased;
            _ = given_up => Err(ended()),
            granted = granted => granted,
        };
        self.settle(request.definition, granted)
    }

    /// The answer tells when the hold that waits now is given up.
    fn begin(&self, request: &HoldTables, now: MonotonicTime) -> Result<oneshot::Receiver<Infallible>> {
        let mut state = self.state.lock();
        if request.term < state.least_term || state.ended.contains(&request.definition) {
            return Err(ended());
        }
        let Entry::Vacant(slot) = state.holds.entry(request.definition) else {
            return Err(SqlError::internal("the definition's tables are held already"));
        };
        let (unless_given_up, given_up) = oneshot::channel();
        slot.insert(Hold {
            term: request.term,
            asked_at: now,
            _claim: Claim::Waiting {
                _unless_given_up: unless_given_up,
            },
        });
        Ok(given_up)
    }

    fn settle(&self, definition: u64, granted: Result<Vec<ExclusiveTableLock>>) -> Result<()> {
        let mut state = self.state.lock();
        match granted {
            Ok(locks) => {
                // It may have ended at the same moment.
                let hold = state.holds.get_mut(&definition).ok_or_else(ended)?;
                hold._claim = Claim::Held { _locks: locks };
                Ok(())
            }
            Err(error) => {
                state.holds.remove(&definition);
                Err(error)
            }
        }
    }

    /// The definition has ended: so does its [`hold`](Self::hold), now or when it comes.
    pub fn release(&self, definition: u64) {
        self.state.lock().end(definition);
    }

    /// Ends the holds for leaders before `term`, who finish nothing any more.
    pub fn release_before(&self, term: u64) {
        self.state.lock().end_before(term);
    }

    /// The leader of `term`, asked at `asked`, says which of its definitions are `live`: holds for others end. One that was
    /// asked for later may be for a definition that has begun since.
    pub fn keep_live(&self, term: u64, live: &[u64], asked: MonotonicTime) {
        let mut state = self.state.lock();
        state.end_before(term);
        let known = state.holds.iter();
        let over = known.filter(|(definition, hold)| {
            hold.term == term && hold.asked_at < asked && !live.contains(definition)
        });
        let over: Vec<u64> = over.map(|(definition, _)| *definition).collect();
        for definition in over {
            tracing::info!(definition, "a definition that held tables here has ended unheard");
            state.end(definition);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::{FutureExt, poll};
    use neorunbase_catalog::schema::TableId;

    use super::*;

    const TABLE: TableId = 7;
    const TERM: u64 = 3;
    const DEFINITION: u64 = 42;

    /// Every question is asked later than the one before; no wait ends.
    #[derive(Default)]
    struct CountingClock(AtomicU64);

    #[async_trait::async_trait]
    impl Clock for CountingClock {
        fn monotonic(&self) -> MonotonicTime {
            MonotonicTime(self.0.fetch_add(1, Ordering::SeqCst))
        }

        fn wall_clock_unix_micros(&self) -> i64 {
            0
        }

        async fn sleep(&self, _duration: Duration) {
            std::future::pending().await
        }
    }

    #[derive(Default)]
    struct Follower {
        clock: CountingClock,
        locks: TableLocks,
        holds: TableHolds,
    }

    impl Follower {
        async fn hold(&self, term: u64, definition: u64) -> Result<()> {
            let request = HoldTables {
                term,
                definition,
                tables: vec![TABLE],
            };
            self.holds.hold(&self.clock, &self.locks, &request).await
        }

        fn may_write(&self) -> bool {
            self.locks.share(TABLE).now_or_never().is_some()
        }
    }

    fn is_refused(outcome: &Result<()>) -> bool {
        outcome
            .as_ref()
            .is_err_and(|error| error.state == SqlState::LOCK_NOT_AVAILABLE)
    }

    #[tokio::test]
    async fn a_table_is_held_from_the_wait_on_until_its_definition_ends() {
        let follower = Follower::default();
        let writer = follower.locks.share(TABLE).await;
        let mut hold = Box::pin(follower.hold(TERM, DEFINITION));
        assert!(poll!(&mut hold).is_pending());
        assert!(!follower.may_write(), "new writers queue behind the hold");
        drop(writer);
        hold.await.unwrap();
        assert!(!follower.may_write());
        follower.holds.release(DEFINITION);
        assert!(follower.may_write());
    }

    #[tokio::test]
    async fn a_hold_that_waits_is_given_up_when_its_definition_ends() {
        let follower = Follower::default();
        let writer = follower.locks.share(TABLE).await;
        let mut hold = Box::pin(follower.hold(TERM, DEFINITION));
        assert!(poll!(&mut hold).is_pending());
        follower.holds.release(DEFINITION);
        assert!(is_refused(&hold.await));
        assert!(follower.may_write(), "though the transaction before goes on");
        drop(writer);
        assert!(follower.may_write());
    }

    #[tokio::test]
    async fn an_end_and_a_grant_at_the_same_time_leave_nothing_held() {
        let follower = Follower::default();
        let writer = follower.locks.share(TABLE).await;
        let mut hold = Box::pin(follower.hold(TERM, DEFINITION));
        assert!(poll!(&mut hold).is_pending());
        drop(writer);
        follower.holds.release(DEFINITION);
        assert!(is_refused(&hold.await));
        assert!(follower.may_write());

        let locks = follower.locks.take(&follower.clock, &[TABLE]).await;
        assert!(is_refused(&follower.holds.settle(DEFINITION, locks)));
        assert!(follower.may_write());
    }

    #[tokio::test]
    async fn a_hold_that_comes_after_its_end_is_refused() {
        let follower = Follower::default();
        follower.holds.release(DEFINITION);
        assert!(is_refused(&follower.hold(TERM, DEFINITION).await));
        assert!(follower.may_write());
        follower.hold(TERM, DEFINITION + 1).await.unwrap();
        assert!(!follower.may_write(), "other definitions are held for");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let follower = Follower::default();
        for definition in 0..2 * REMEMBERED as u64 {
            follower.holds.release(definition);
        }
        assert_eq!(follower.holds.state.lock().ended.len(), REMEMBERED);
        assert!(is_refused(&follower.hold(TERM, REMEMBERED as u64).await));
        // The leader's next word ends what comes that late.
        follower.hold(TERM, 0).await.unwrap();
        follower.holds.keep_live(TERM, &[], follower.clock.monotonic());
        assert!(follower.may_write());
    }

    #[tokio::test]
    async fn a_lost_release_is_made_up_for_by_what_the_leader_says_is_live() {
        let follower = Follower::default();
        let asked_before = follower.clock.monotonic();
        follower.hold(TERM, DEFINITION).await.unwrap();
        follower.holds.keep_live(TERM, &[], asked_before);
        assert!(
            !follower.may_write(),
            "the definition may have begun after the answer"
        );
        let asked = follower.clock.monotonic();
        follower.holds.keep_live(TERM, &[DEFINITION], asked);
        assert!(!follower.may_write(), "it is live");
        follower.holds.keep_live(TERM - 1, &[], asked);
        assert!(!follower.may_write(), "an earlier leader knows nothing of it");
        follower.holds.keep_live(TERM, &[DEFINITION + 1], asked);
        assert!(follower.may_write());
        assert!(is_refused(&follower.hold(TERM, DEFINITION).await));
    }

    #[tokio::test]
    async fn a_hold_that_waits_is_given_up_when_the_leader_does_not_name_it() {
        let follower = Follower::default();
        let _writer = follower.locks.share(TABLE).await;
        let mut hold = Box::pin(follower.hold(TERM, DEFINITION));
        assert!(poll!(&mut hold).is_pending());
        follower.holds.keep_live(TERM, &[], follower.clock.monotonic());
        assert!(is_refused(&hold.await));
        assert!(follower.may_write());
    }

    #[tokio::test]
    async fn holds_end_with_their_leaders_term_also_late_ones() {
        let follower = Follower::default();
        follower.hold(TERM, DEFINITION).await.unwrap();
        follower.holds.keep_live(TERM + 1, &[], MonotonicTime(0));
        assert!(follower.may_write());
        assert!(is_refused(&follower.hold(TERM, DEFINITION + 1).await));

        let writer = follower.locks.share(TABLE).await;
        let mut hold = Box::pin(follower.hold(TERM + 1, DEFINITION + 2));
        assert!(poll!(&mut hold).is_pending());
        follower.holds.release_before(TERM + 2);
        assert!(is_refused(&hold.await));
        drop(writer);
        assert!(follower.may_write());
    }
}
