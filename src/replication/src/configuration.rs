//! Who holds a shard: what its znode says, and the changes that are allowed.

use serde::{Deserialize, Serialize};

/// A shard's znode. Each change is a versioned write that raises `epoch` by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Grows with every change.
    pub epoch: u64,
    /// The epoch at which `primary` became it (or began anew after a restart).
    pub term: u64,
    /// The node that serves reads and writes.
    pub primary: String,
    /// Nodes that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<String>,
    /// All nodes that hold, or are about to hold, a copy.
    pub replicas: Vec<String>,
    /// The member that the primary is asked to hand the shard over to.
    #[serde(default)]
    pub handover: Option<String>,
    /// Whether the term's primary was handed the shard by the one before, which reads no more: its leases mean nothing.
    #[serde(default)]
    pub is_handed_over: bool,
}

impl Configuration {
    /// A new shard on `replicas`, the first of which is its primary and alone in sync.
    ///
    /// # Panics
    /// Without a replica.
    pub fn new(replicas: Vec<String>) -> Self {
        let primary = replicas[0].clone();
        Self {
            epoch: 1,
            term: 1,
            in_sync: vec![primary.clone()],
            primary,
            replicas,
            handover: None,
            is_handed_over: false,
        }
    }

    /// Whether `node` holds every acknowledged write.
    pub fn is_in_sync(&self, node: &str) -> bool {
        self.in_sync.iter().any(|member| member == node)
    }

    /// With `node`, which must be in sync, as primary of a new term. The old primary leaves the set: what it acknowledges
    /// from now on is nothing, and it must catch up before it is trusted again.
    pub fn promoted(&self, node: &str) -> Option<Self> {
        if !self.is_in_sync(node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.term = next.epoch;
        next.handover = None;
        next.is_handed_over = false;
        if self.primary != node {
            next.in_sync.retain(|member| *member != self.primary);
            next.primary = node.to_owned();
        }
        Some(next)
    }

    /// Without `node` in the set. The primary cannot leave it.
    pub fn without(&self, node: &str) -> Option<Self> {
        if self.primary == node || !self.is_in_sync(node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.in_sync.retain(|member| member != node);
        next.handover = next.handover.filter(|next| next != node);
        Some(next)
    }

    /// With the wish that the primary hand the shard over to `node`, which must be in sync.
    pub fn handing_over(&self, node: &str) -> Option<Self> {
        if self.primary == node || !self.is_in_sync(node) || self.handover.is_some() {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.handover = Some(node.to_owned());
        Some(next)
    }

    /// With `node` as primary of a new term, as the primary itself proposes it: it must neither read nor write any more
    /// before it does.
    pub fn handed_over(&self, node: &str) -> Option<Self> {
        let mut next = self.promoted(node)?;
        next.is_handed_over = self.primary != node;
        Some(next)
    }

    /// Without the replica `node`, in sync or not. The primary stays.
    pub fn dropping(&self, node: &str) -> Option<Self> {
        if self.primary == node || !self.replicas.iter().any(|replica| replica == node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.in_sync.retain(|member| member != node);
        next.replicas.retain(|replica| replica != node);
        next.handover = next.handover.filter(|next| next != node);
        Some(next)
    }

    /// As it is, under another epoch: what others are about to make of this one comes to nothing.
    pub fn renumbered(&self) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next
    }

    /// With the replica `node`, which has caught up, in the set.
    pub fn with(&self, node: &str) -> Option<Self> {
        if self.is_in_sync(node) || !self.replicas.iter().any(|replica| replica == node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.in_sync.push(node.to_owned());
        Some(next)
    }

    /// With another replica, which has nothing yet.
    pub fn with_replica(&self, node: &str) -> Option<Self> {
        if self.replicas.iter().any(|replica| replica == node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.replicas.push(node.to_owned());
        Some(next)
    }

    /// Without a replica that is not in sync.
    pub fn without_replica(&self, node: &str) -> Option<Self> {
        if self.is_in_sync(node) || !self.replicas.iter().any(|replica| replica == node) {
            return None;
        }
        let mut next = self.clone();
        next.epoch += 1;
        next.replicas.retain(|replica| replica != node);
        Some(next)
    }
}
