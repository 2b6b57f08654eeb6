//! Commit timestamps, and what their bits mean.

use async_trait::async_trait;
use neorunbase_protocol::message::Timestamp;

/// Bits of a timestamp below its milliseconds.
const COUNTER_BITS: u32 = 20;

/// Why no timestamp could be had. The caller's transaction has certainly not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// No leader answered in time.
    #[error("the timestamp oracle cannot be reached: {0}")]
    Unavailable(String),
}

/// The leader Coordinator's timestamp oracle, as one node reaches it.
#[async_trait]
pub trait TimestampSource: Send + Sync {
    /// A timestamp greater than every timestamp that anybody in the cluster had received before this call began.
    /// An implementation may batch calls that wait at the same time, but must never hand out leftovers of an
    /// earlier round: readers rely on a commit timestamp being drawn after its writes were marked.
    ///
    /// # Errors
    /// [`TimestampError`].
    async fn next(&self) -> Result<Timestamp, TimestampError>;
}

/// Milliseconds since 1970 of a timestamp.
pub fn milliseconds_of(timestamp: Timestamp) -> u64 {
    timestamp >> COUNTER_BITS
}

/// The first timestamp of a millisecond.
pub fn first_of_millisecond(milliseconds: u64) -> Timestamp {
    milliseconds << COUNTER_BITS
}
