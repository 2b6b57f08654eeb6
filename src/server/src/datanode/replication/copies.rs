//! The copies of shards that this node sends: what runs, what was interrupted and may go on, and how fast all of them
//! together may be.

use std::collections::BTreeMap;
use std::time::Duration;

use neorunbase_protocol::message::{CopyStatus, ShardId};
use neorunbase_world::{Clock, MonotonicTime};
use parking_lot::Mutex;

use super::copy::Copy;

/// An interrupted copy keeps a snapshot and the log since: there are not more of them at a time.
const MOST_INTERRUPTED: usize = 16;

/// A shard and the follower that gets it.
pub(super) type Destination = (ShardId, String);

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    bytes_sent: u64,
    bytes_total: u64,
    started_unix_micros: i64,
    is_interrupted: bool,
}

/// See the [module](self).
#[derive(Default)]
pub(in crate::datanode) struct Copies {
    running: Mutex<BTreeMap<Destination, Progress>>,
    /// Their followers could not be reached.
    interrupted: Mutex<BTreeMap<Destination, Copy>>,
    /// When the bytes that were let go will have been sent at the speed that is allowed.
    busy_until: Mutex<Option<MonotonicTime>>,
}

impl Copies {
    /// Notes that a copy is under way. Returns `false` if it was before.
    pub(super) fn begin(&self, destination: &Destination) -> bool {
        let mut running = self.running.lock();
        if running.contains_key(destination) {
            return false;
        }
        running.insert(destination.clone(), Progress::default());
        true
    }

    /// Notes that it is not any more.
    pub(super) fn end(&self, destination: &Destination) {
        self.running.lock().remove(destination);
    }

    /// Notes how far it is.
    pub(super) fn progress(&self, copy: &Copy, is_interrupted: bool) {
        if let Some(progress) = self.running.lock().get_mut(&copy.destination()) {
            *progress = Progress {
                bytes_sent: copy.bytes_sent(),
                bytes_total: copy.bytes_total,
                started_unix_micros: copy.started_unix_micros,
                is_interrupted,
            };
        }
    }

    /// Keeps an interrupted copy. Returns the one that had to go for it, if any.
    pub(super) fn interrupt(&self, copy: Copy) -> Option<Copy> {
        let mut interrupted = self.interrupted.lock();
        interrupted.insert(copy.destination(), copy);
        if interrupted.len() <= MOST_INTERRUPTED {
            return None;
        }
        let oldest = interrupted.iter().min_by_key(|(_, copy)| copy.interrupted_since);
        let oldest = oldest.map(|(destination, _)| destination.clone())?;
        interrupted.remove(&oldest)
    }

    /// The interrupted copy to `destination`, to go on with it.
    pub(super) fn take_interrupted(&self, destination: &Destination) -> Option<Copy> {
        self.interrupted.lock().remove(destination)
    }

    /// The interrupted copies that are older than `kept_for`, or of no use any more.
    pub(super) fn take_useless(
        &self,
        now: MonotonicTime,
        kept_for: Duration,
        is_useful: impl Fn(&Copy) -> bool,
    ) -> Vec<Copy> {
        let mut interrupted = self.interrupted.lock();
        let is_old = |copy: &Copy| {
            copy.interrupted_since
                .is_some_and(|since| now.since(since) > kept_for)
        };
        let useless: Vec<_> = interrupted
            .iter()
            .filter(|(_, copy)| is_old(copy) || !is_useful(copy))
            .map(|(destination, _)| destination.clone())
            .collect();
        let taken = useless
            .iter()
            .filter_map(|destination| interrupted.remove(destination));
        taken.collect()
    }

    /// Returns once `bytes` more may be sent.
    pub(super) async fn pace(&self, clock: &dyn Clock, bytes: usize, bytes_per_second: u64) {
        let now = clock.monotonic();
        let wait = {
            let mut busy_until = self.busy_until.lock();
            let start = busy_until.map_or(now, |until| until.max(now));
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(bytes_per_second.max(1));
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *busy_until = Some(start.after(takes));
            start.since(now)
        };
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }

    /// What runs now.
    pub fn statuses(&self) -> Vec<CopyStatus> {
        let running = self.running.lock();
        let status = |((shard, to), progress): (&Destination, &Progress)| CopyStatus {
            shard: *shard,
            to: to.clone(),
            bytes_sent: progress.bytes_sent,
            bytes_total: progress.bytes_total,
            started_unix_micros: progress.started_unix_micros,
            is_interrupted: progress.is_interrupted,
        };
        running
            .iter()
            // What has not begun has nothing to show.
            .filter(|(_, progress)| progress.started_unix_micros != 0)
            .map(status)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Time passes only where somebody sleeps.
    #[derive(Default)]
    struct SleepingClock(Mutex<u64>);

    #[async_trait::async_trait]
    impl Clock for SleepingClock {
        fn monotonic(&self) -> MonotonicTime {
            MonotonicTime(*self.0.lock())
        }

        fn wall_clock_unix_micros(&self) -> i64 {
            0
        }

        async fn sleep(&self, duration: Duration) {
            *self.0.lock() += u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        }
    }

    #[test]
    fn all_copies_together_are_no_faster_than_allowed() {
        let (clock, copies) = (SleepingClock::default(), Copies::default());
        let passed = || clock.monotonic().since(MonotonicTime(0));
        block_on(async {
            copies.pace(&clock, 1_000, 1_000).await;
            assert_eq!(passed(), Duration::ZERO, "the first piece goes at once");
            for _ in 0..4 {
                copies.pace(&clock, 500, 1_000).await;
            }
            assert_eq!(passed(), Duration::from_millis(2_500));
            clock.sleep(Duration::from_secs(60)).await;
            let before = passed();
            copies.pace(&clock, 10, 1_000).await;
            assert_eq!(passed(), before, "nothing is due after a rest");
        });
    }

    #[test]
    fn what_has_not_begun_is_not_shown() {
        let copies = Copies::default();
        let destination = (7, "b".to_owned());
        assert!(copies.begin(&destination));
        assert!(
            !copies.begin(&destination),
            "one copy of a shard to a node at a time"
        );
        assert!(copies.statuses().is_empty());
        copies.end(&destination);
        assert!(copies.begin(&destination));
    }
}
