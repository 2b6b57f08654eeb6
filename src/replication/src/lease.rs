//! Leases: for how long a follower promises not to begin a term, and how each side reckons it.

use std::time::Duration;

use neorunbase_world::MonotonicTime;

/// How long things take, the same for all nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a granted lease lasts.
    pub lease: Duration,
    /// A follower that has not answered for so long is to leave the in-sync set.
    pub silence: Duration,
    /// By how much the clocks of two nodes may differ in rate. Beyond it stale reads are possible.
    pub drift_percent: u32,
}

impl Timing {
    /// When a lease ends for the primary that asked for it at `asked`: early.
    pub(crate) fn held_until(&self, asked: MonotonicTime) -> MonotonicTime {
        asked.after(self.lease * 100 / (100 + self.drift_percent))
    }

    /// When a lease ends for the follower that granted it at `granted`: late.
    pub(crate) fn granted_until(&self, granted: MonotonicTime) -> MonotonicTime {
        granted.after(self.lease * (100 + self.drift_percent) / 100)
    }
}
