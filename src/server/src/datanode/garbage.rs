//! Collection of old row versions, a little at a time.

use std::collections::VecDeque;
use std::time::Duration;

use neorunbase_protocol::message::{CollectGarbage, Timestamp};
use neorunbase_storage::StorageError;
use neorunbase_world::MonotonicTime;
use neorunbase_world::fault::planted;

use super::DataNode;
use super::failure::Failure;

/// Timestamps that were drawn, and when: what was drawn long enough ago is the horizon of history.
///
/// Ages are counted by this node's own clock. They cannot be read off the timestamps: those leap when another leader takes over
/// or when its clock is set, and a snapshot that is a moment old must not be refused for that.
#[derive(Default)]
pub(super) struct DrawnTimestamps(VecDeque<(MonotonicTime, Timestamp)>);

impl DrawnTimestamps {
    /// Notes that `timestamp` had been drawn by `now`, and returns the latest that was drawn at least `age` ago.
    fn draw(&mut self, timestamp: Timestamp, now: MonotonicTime, age: Duration) -> Option<Timestamp> {
        self.0.push_back((now, timestamp));
        let is_old = |(drawn, _): &(MonotonicTime, Timestamp)| now.since(*drawn) >= age;
        while self.0.get(1).is_some_and(is_old) {
            self.0.pop_front();
        }
        self.0
            .front()
            .filter(|drawn| is_old(drawn))
            .map(|(_, timestamp)| *timestamp)
    }
}

impl DataNode {
    /// Collects what is older than the configured retention.
    pub(super) async fn collect_garbage_round(&self) {
        let timestamp = match self.timestamps.next().await {
            Ok(timestamp) => timestamp,
            Err(error) => {
                tracing::debug!(%error, "no garbage is collected while the timestamp oracle is away");
                return;
            }
        };
        let now = self.world.clock.monotonic();
        let retention = if planted("history-kept-too-short") {
            self.config.history_retention / 16
        } else {
            self.config.history_retention
        };
        let Some(horizon) = self.drawn_timestamps.lock().draw(timestamp, now, retention) else {
            return;
        };
        if let Err(error) = self.collect_below(horizon).await {
            tracing::error!(%error, "old row versions cannot be collected");
        }
    }

    /// See [`CollectGarbage`].
    pub(super) async fn collect_garbage(&self, request: CollectGarbage) -> Result<(), Failure> {
        Ok(self.collect_below(request.watermark).await?)
    }

    async fn collect_below(&self, watermark: Timestamp) -> Result<(), StorageError> {
        for shard in self.settled_shards() {
            let mut resume = None;
            loop {
                let progress =
                    shard
                        .store
                        .collect_garbage(watermark, self.config.garbage_step_rows, resume)?;
                resume = progress.resume;
                if resume.is_none() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_as_old_as_the_clock_says_however_timestamps_leap() {
        let mut drawn = DrawnTimestamps::default();
        let mut draw = |second: u64, timestamp| {
            let now = MonotonicTime(0).after(Duration::from_secs(second));
            drawn.draw(timestamp, now, Duration::from_secs(10))
        };
        assert_eq!(draw(0, 100), None);
        assert_eq!(draw(4, 1_000_000), None);
        assert_eq!(draw(9, 1_000_001), None);
        assert_eq!(draw(10, 1_000_002), Some(100));
        assert_eq!(draw(13, 9_000_000), Some(100));
        assert_eq!(draw(19, 9_000_001), Some(1_000_001));
        assert_eq!(draw(60, 9_000_002), Some(9_000_001));
    }
}
