//! Collection of old row versions, a little at a time.

use neorunbase_protocol::message::{CollectGarbage, Timestamp};
use neorunbase_storage::StorageError;
use neorunbase_txn::timestamp::{first_of_millisecond, milliseconds_of};

use super::DataNode;
use super::failure::Failure;

impl DataNode {
    /// Collects what is older than the configured retention.
    pub(super) async fn collect_garbage_round(&self) {
        let now = match self.timestamps.next().await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%error, "no garbage is collected while the timestamp oracle is away");
                return;
            }
        };
        let retention = u64::try_from(self.config.history_retention.as_millis()).unwrap_or(u64::MAX);
        let oldest = milliseconds_of(now).saturating_sub(retention);
        if let Err(error) = self.collect_below(first_of_millisecond(oldest)).await {
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
