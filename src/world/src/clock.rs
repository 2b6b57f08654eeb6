//! Time. Correctness never rests on two nodes agreeing about it; leases assume a bounded *rate* only.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

/// Nanoseconds since an arbitrary origin of this node; never goes back while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// The instant `duration` after this one (saturating).
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The clock of one node.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Monotonic time, for timeouts and leases.
    fn monotonic(&self) -> MonotonicTime;

    /// Microseconds since 1970-01-01 UTC, for `now()` and logs. May jump.
    fn wall_clock_unix_micros(&self) -> i64;

    /// Returns once `duration` of this node's time has passed.
    async fn sleep(&self, duration: Duration);
}

/// The deadline of [`timeout`] passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

/// Runs `future` for at most `limit` of `clock`'s time.
///
/// # Errors
/// [`Elapsed`] if the limit passed first; `future` is dropped then.
pub async fn timeout<F: Future>(clock: &dyn Clock, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = clock.sleep(limit) => Err(Elapsed),
    }
}
