//! What can be tuned on a Data Node.

use std::time::Duration;

use neorunbase_replication::Timing;

/// How copies of shards keep up with each other.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationConfig {
    /// Leases, and when a follower leaves the in-sync set.
    pub timing: Timing,
    /// A follower hears of its primary at least so often.
    pub heartbeat: Duration,
    /// How long a message to a follower may take.
    pub call_deadline: Duration,
    /// Bytes of each shard's log that are kept in memory for followers that lag. Those that lag more get a copy of the shard.
    pub kept_log_bytes: usize,
    /// Between two looks at whether an in-sync set should change.
    pub in_sync_interval: Duration,
    /// Bytes a second that this node sends at most in copies of shards, all of them together.
    pub copy_bytes_per_second: u64,
    /// Bytes of one piece of a copy, unless one entry alone is larger.
    pub copy_piece_bytes: usize,
    /// A copy whose follower cannot be reached waits for it so long.
    pub copy_kept_for: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            timing: Timing {
                lease: Duration::from_millis(2_000),
                silence: Duration::from_millis(1_500),
                drift_percent: 5,
            },
            heartbeat: Duration::from_millis(400),
            call_deadline: Duration::from_millis(1_000),
            kept_log_bytes: 16 << 20,
            in_sync_interval: Duration::from_millis(250),
            copy_bytes_per_second: 64 << 20,
            copy_piece_bytes: 256 << 10,
            copy_kept_for: Duration::from_secs(120),
        }
    }
}

/// Settings of one Data Node. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct DataNodeConfig {
    /// The node's name in the cluster.
    pub name: String,
    /// Whoever waits for a lock for so long is looked after: it may be in a deadlock across nodes.
    pub deadlock_timeout: Duration,
    /// A transaction whose Coordinator was silent for so long is rolled back.
    pub abandon_after: Duration,
    /// A reader held up by a prepared transaction for so long asks the anchor about it.
    pub in_doubt_patience: Duration,
    /// How long old row versions stay readable.
    pub history_retention: Duration,
    /// Between two rounds of collecting old row versions.
    pub garbage_interval: Duration,
    /// Rows looked at in one step of a round; others get the processor in between.
    pub garbage_step_rows: usize,
    /// Between two looks at whether a checkpoint is due.
    pub checkpoint_poll: Duration,
    /// Log bytes that make a checkpoint due.
    pub checkpoint_wal_bytes: u64,
    /// A checkpoint is due after so long in any case.
    pub checkpoint_interval: Duration,
    /// The node fails when its log or registry has waited for the disk for so long: a disk that hangs must not keep a primary that
    /// serves nobody. Some session timeouts: no disk that works needs as long, and failing over is not cheap.
    /// (Zero: for ever.)
    pub disk_patience: Duration,
    /// Size of a log segment.
    pub wal_segment_bytes: u64,
    /// The largest log frame, so the largest transaction on this node.
    pub wal_max_frame_bytes: u32,
    /// Uncommitted writes that one transaction may hold on this node.
    pub transaction_memory_bytes: usize,
    /// The largest batch of a scan, whatever is asked for.
    pub scan_batch_bytes: usize,
    /// Rows that one scan request visits before it answers, so that no request runs for ever.
    pub scan_batch_visits: usize,
    /// Decoded programs that are kept.
    pub program_cache_entries: usize,
    /// Ended transactions that are remembered.
    pub outcomes_kept: usize,
    /// Copies of shards.
    pub replication: ReplicationConfig,
}

impl DataNodeConfig {
    /// The defaults, for a node called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            deadlock_timeout: Duration::from_secs(1),
            abandon_after: Duration::from_secs(5),
            in_doubt_patience: Duration::from_secs(1),
            history_retention: Duration::from_secs(300),
            garbage_interval: Duration::from_secs(10),
            garbage_step_rows: 1_000,
            checkpoint_poll: Duration::from_secs(1),
            checkpoint_wal_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(180),
            disk_patience: Duration::from_secs(10),
            wal_segment_bytes: 16 << 20,
            wal_max_frame_bytes: 512 << 20,
            transaction_memory_bytes: 2 << 30,
            scan_batch_bytes: 256 << 10,
            scan_batch_visits: 100_000,
            program_cache_entries: 4_096,
            outcomes_kept: 65_536,
            replication: ReplicationConfig::default(),
        }
    }
}
