//! What breaks, when, and for how long.

use serde::{Deserialize, Serialize};

/// A process, by the name of its machine.
pub type NodeName = String;

/// What becomes of writes that were not synced when a machine went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskCrash {
    /// All there: only the process died, the page cache lived on.
    Kept,
    /// None of them reached the platter.
    Lost,
    /// Some did, in any order, some of them in part.
    Torn,
}

/// How a cut shows to those who have connections over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutSilence {
    /// Connections hang; what was sent arrives once the link heals.
    Hangs,
    /// Connections are reset at once.
    Resets,
}

/// One thing that breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// A node goes down and comes back.
    Kill {
        /// Which.
        node: NodeName,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
        /// What its disk keeps.
        disk: DiskCrash,
        /// Peers hear nothing, as if the machine lost power, instead of seeing connections close.
        silent: bool,
    },
    /// A Data Node dies and stays dead for so long that its copies are made elsewhere; nothing brings it up before.
    LongDeath {
        /// Which.
        node: NodeName,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
        /// What its disk keeps.
        disk: DiskCrash,
        /// It comes back with an empty disk, if no shard counts on it any more.
        is_replaced: bool,
    },
    /// All nodes lose power at the same instant and come back.
    PowerLoss {
        /// How long they stay down, in milliseconds.
        down_ms: u64,
        /// What their disks keep.
        disk: DiskCrash,
    },
    /// Nothing passes from one node to another.
    Cut {
        /// From whom.
        from: NodeName,
        /// To whom.
        to: NodeName,
        /// The other direction too.
        both_ways: bool,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// A node is cut off from everybody.
    Isolate {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// Some nodes hear nothing from the others, nor the others from them: both sides have something to say.
    Split {
        /// One side; clients may be on it, too.
        side: Vec<NodeName>,
        /// Links between the sides that hold.
        spared: Vec<(NodeName, NodeName)>,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// Everything between two nodes takes longer.
    SlowLink {
        /// One end.
        one: NodeName,
        /// The other end.
        other: NodeName,
        /// Added to each delivery, in milliseconds.
        delay_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Syncs of a node's disk take longer.
    SlowDisk {
        /// Which.
        node: NodeName,
        /// Added to each sync, in milliseconds.
        delay_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// No file of a node can grow.
    FullDisk {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// A node's next sync fails; its process restarts after it has noticed.
    SyncError {
        /// Which.
        node: NodeName,
    },
    /// A machine crashes in the middle of one of its next syncs, when what is at stake is between memory and platter.
    CrashInSync {
        /// Which.
        node: NodeName,
        /// How many syncs it still completes.
        after_syncs: u32,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
        /// What its disk keeps.
        disk: DiskCrash,
    },
    /// A node stands still, as in a long garbage collection or a migration, and goes on as if nothing was.
    Pause {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// An operator has a Data Node emptied, and changes his mind later.
    Drain {
        /// Which.
        node: NodeName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The coordination service declares a node's session dead.
    ExpireSession {
        /// Whose.
        node: NodeName,
    },
    /// A node's connection to the coordination service is closed, and kept from coming back for a while. Its session runs on.
    Disconnect {
        /// Whose.
        node: NodeName,
        /// How many times.
        times: u32,
        /// From one time to the next, in milliseconds.
        apart_ms: u64,
        /// For how long each time, in milliseconds.
        for_ms: u64,
    },
    /// A node is served by a server of the coordination service that is behind the others: watches and answers are late.
    Lag {
        /// Which.
        node: NodeName,
        /// By how much, in milliseconds.
        lag_ms: u64,
        /// Whether reads do not wait until the server has caught up, but show the past.
        is_stale: bool,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// A node is cut off from the coordination service and its peers, but not from those whom it serves: a primary, or a
    /// leader, that does not hear of its successor.
    Lonely {
        /// Which.
        node: NodeName,
        /// The peers that it is cut off from.
        peers: Vec<NodeName>,
        /// Those whom it serves and who do not hear of its successor either: what they know of the cluster stands still.
        blind: Vec<NodeName>,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// What connections notice.
        silence: CutSilence,
    },
    /// A node stands still for longer than its leases, and is still asked when it goes on.
    Zombie {
        /// Which.
        node: NodeName,
        /// Those who do not hear of its successor.
        blind: Vec<NodeName>,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Nodes are cut off from everybody one after the other, and come back in another order.
    Swizzle {
        /// In the order in which they are cut off.
        nodes: Vec<Swizzled>,
        /// What connections notice.
        silence: CutSilence,
    },
    /// All servers restart one after the other, each when the one before is back.
    RollingRestart {
        /// In this order.
        nodes: Vec<NodeName>,
        /// They are asked to shut down, instead of being killed.
        is_graceful: bool,
        /// How long each stays down, in milliseconds.
        down_ms: u64,
    },
    /// A machine goes down, and when it comes back a bit of its log is another one. Nothing happens where that could be the
    /// only copy.
    BitRot {
        /// Which.
        node: NodeName,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
    },
    /// A machine goes down and comes back with an empty disk, before anybody has given its copies up. (Where it had the only
    /// one, it has to refuse that disk, and gets the one before back.)
    ReplacedDisk {
        /// Which.
        node: NodeName,
        /// How long it stays down, in milliseconds.
        down_ms: u64,
    },
    /// A node's disk does not answer: every sync that begins takes this long.
    HungDisk {
        /// Which.
        node: NodeName,
        /// How long each sync takes, in milliseconds.
        hangs_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Packets between two nodes get lost now and then: what was sent is late, and so is all that follows it.
    LossyLink {
        /// One end.
        one: NodeName,
        /// The other end.
        other: NodeName,
        /// One delivery in so many.
        one_in: u32,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Some of a node's connections are reset, each by itself.
    Reset {
        /// Whose.
        node: NodeName,
        /// How many of them, at most.
        connections: u32,
    },
}

/// A node of [`Fault::Swizzle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swizzled {
    /// Which.
    pub node: NodeName,
    /// When it is cut off, in milliseconds after the fault begins.
    pub from_ms: u64,
    /// When it comes back, in milliseconds after the fault begins.
    pub until_ms: u64,
}

impl Fault {
    /// Names the kind in summaries.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill {
                disk: DiskCrash::Kept,
                ..
            } => "process kill",
            Self::Kill { .. } => "machine crash",
            Self::LongDeath {
                is_replaced: true, ..
            } => "long death with a new disk",
            Self::LongDeath { .. } => "long death",
            Self::PowerLoss { .. } => "power loss of all",
            Self::Cut { both_ways: true, .. } => "cut link",
            Self::Cut { .. } => "cut one way",
            Self::Isolate { .. } => "isolated node",
            Self::Split { .. } => "split network",
            Self::SlowLink { .. } => "slow link",
            Self::SlowDisk { .. } => "slow disk",
            Self::FullDisk { .. } => "full disk",
            Self::SyncError { .. } => "failed sync",
            Self::CrashInSync { .. } => "crash in a sync",
            Self::Pause { .. } => "pause",
            Self::Drain { .. } => "drain",
            Self::ExpireSession { .. } => "expired session",
            Self::Disconnect { .. } => "disconnected session",
            Self::Lag { .. } => "lagging coordination",
            Self::Lonely { .. } => "lonely node",
            Self::Zombie { .. } => "zombie",
            Self::Swizzle { .. } => "swizzle",
            Self::RollingRestart { .. } => "rolling restart",
            Self::BitRot { .. } => "bit rot",
            Self::ReplacedDisk { .. } => "replaced disk",
            Self::HungDisk { .. } => "hung disk",
            Self::LossyLink { .. } => "lossy link",
            Self::Reset { .. } => "reset connections",
        }
    }

    /// How long the fault lasts, in milliseconds.
    pub fn lasts_ms(&self) -> u64 {
        match self {
            Self::Kill { down_ms, .. }
            | Self::LongDeath { down_ms, .. }
            | Self::PowerLoss { down_ms, .. } => *down_ms,
            Self::Cut { for_ms, .. }
            | Self::Isolate { for_ms, .. }
            | Self::Split { for_ms, .. }
            | Self::SlowLink { for_ms, .. }
            | Self::SlowDisk { for_ms, .. }
            | Self::HungDisk { for_ms, .. }
            | Self::FullDisk { for_ms, .. }
            | Self::Drain { for_ms, .. }
            | Self::Pause { for_ms, .. }
            | Self::Lag { for_ms, .. }
            | Self::Lonely { for_ms, .. }
            | Self::Zombie { for_ms, .. }
            | Self::LossyLink { for_ms, .. } => *for_ms,
            Self::Disconnect {
                times,
                apart_ms,
                for_ms,
                ..
            } => u64::from(times.saturating_sub(1)) * apart_ms + for_ms,
            Self::Swizzle { nodes, .. } => nodes.iter().map(|node| node.until_ms).max().unwrap_or(0),
            Self::SyncError { .. }
            | Self::CrashInSync { .. }
            | Self::ExpireSession { .. }
            | Self::RollingRestart { .. }
            | Self::BitRot { .. }
            | Self::ReplacedDisk { .. }
            | Self::Reset { .. } => 0,
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledFault {
    /// Milliseconds after the clients have started.
    pub at_ms: u64,
    /// What breaks then.
    pub fault: Fault,
}

/// Everything that will break, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// In order of time.
    pub faults: Vec<ScheduledFault>,
    /// At the end, before the last reading, everything loses power once more.
    pub final_power_loss: Option<DiskCrash>,
}

/// What there is to break.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The Coordinators.
    pub coordinators: Vec<NodeName>,
    /// The Data Nodes.
    pub data_nodes: Vec<NodeName>,
    /// Whether the shards have several copies.
    pub is_replicated: bool,
    /// The node of the coordination service: crashed rarely, as it is a quorum in the real world.
    pub coordination: Vec<NodeName>,
    /// Nodes of clients: only their links break.
    pub clients: Vec<NodeName>,
    /// After this a Data Node that is away is taken to be gone, in milliseconds.
    pub given_up_after_ms: u64,
}

impl FaultPlan {
    /// Whether what is on a disk gets damaged.
    pub fn damages_disks(&self) -> bool {
        let damages = |fault: &ScheduledFault| matches!(fault.fault, Fault::BitRot { .. });
        self.faults.iter().any(damages)
    }
}

impl Topology {
    /// Nodes with a disk and a session that may be killed.
    pub fn servers(&self) -> Vec<NodeName> {
        self.coordinators
            .iter()
            .chain(&self.data_nodes)
            .cloned()
            .collect()
    }
}
