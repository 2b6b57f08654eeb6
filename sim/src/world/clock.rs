//! A node's own clock: it started some time ago, runs a little fast or slow, and its wall clock is off.

use std::time::Duration;

use async_trait::async_trait;
use neorunbase_world::{Clock, MonotonicTime};

use super::now_nanos;

/// 2026-01-01 UTC: where wall clocks begin.
const EPOCH_UNIX_MICROS: i64 = 1_767_225_600_000_000;
const MILLION: i128 = 1_000_000;

/// How far a node's clock is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockError {
    /// Nanoseconds that the monotonic clock had run before the simulation began.
    pub offset_nanos: u64,
    /// Parts per million that it runs too fast (negative: too slow).
    pub drift_ppm: i32,
    /// Microseconds that the wall clock is ahead (negative: behind).
    pub wall_skew_micros: i64,
}

/// The clock of one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimClock(pub ClockError);

impl SimClock {
    fn own_nanos(&self) -> u64 {
        let elapsed = i128::from(now_nanos());
        let drifted = elapsed * (MILLION + i128::from(self.0.drift_ppm)) / MILLION;
        u64::try_from(drifted + i128::from(self.0.offset_nanos)).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl Clock for SimClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.own_nanos())
    }

    fn wall_clock_unix_micros(&self) -> i64 {
        let elapsed = i64::try_from(now_nanos() / 1000).unwrap_or(i64::MAX);
        EPOCH_UNIX_MICROS + elapsed + self.0.wall_skew_micros
    }

    async fn sleep(&self, duration: Duration) {
        let own = i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / MILLION);
        let real = own.saturating_mul(MILLION) / (MILLION + i128::from(self.0.drift_ppm)) + 1;
        // Hundreds of years; the timer's arithmetic must not overflow.
        let real = u64::try_from(real).unwrap_or(u64::MAX).min(1 << 62);
        madsim::time::sleep(Duration::from_nanos(real)).await;
    }
}
