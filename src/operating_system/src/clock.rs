//! The operating system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use neorunbase_world::{Clock, MonotonicTime};

/// `CLOCK_MONOTONIC`, counted from the creation of this value, and the system's wall clock.
#[derive(Debug)]
pub struct OsClock {
    origin: Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts near zero. Times of two clocks must not be compared: make one a process.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for OsClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_clock_unix_micros(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            // A machine whose clock stands before 1970 still has to boot.
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        }
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn sleeps_at_least_as_long_as_asked() {
        let clock = OsClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(20)).await;
        assert!(clock.monotonic().since(before) >= Duration::from_millis(20));
    }

    #[tokio::test]
    async fn timeout_fires() {
        let clock = OsClock::new();
        let outcome =
            neorunbase_world::clock::timeout(&clock, Duration::from_millis(5), std::future::pending::<()>())
                .await;
        assert!(outcome.is_err());
    }

    #[test]
    fn the_wall_clock_is_past_2024() {
        assert!(OsClock::new().wall_clock_unix_micros() > 1_700_000_000_000_000);
    }
}
