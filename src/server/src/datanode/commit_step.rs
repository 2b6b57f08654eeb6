//! What follows from commit and prepare records.

use std::sync::Arc;

use neorunbase_protocol::message::{ShardId, Timestamp, WrittenReply};
use neorunbase_txn::Outcome;

use super::commit::Part;
use super::replication::{Committed, LoggedStep};
use super::together::Together;
use super::{DataNode, Participant};

/// A one-round commit on its way into the log.
pub(super) struct CommitStep {
    pub participant: Arc<Participant>,
    pub parts: Vec<Part>,
    pub commit_timestamp: Timestamp,
    /// To be remembered for a repeated request.
    pub reply: Option<WrittenReply>,
    pub _together: Option<Together>,
}

impl LoggedStep for CommitStep {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        if node.apply_parts(&self.parts, self.commit_timestamp, committed, |_| Vec::new()) {
            let outcome = Outcome::Committed(self.commit_timestamp);
            node.settle(&self.participant, outcome, self.reply);
        }
    }

    fn refused(self: Box<Self>, node: &DataNode) {
        node.settle(&self.participant, Outcome::Aborted, None);
    }

    fn voided(&mut self, node: &DataNode, shard: ShardId) {
        assert!(
            self.parts.len() == 1,
            "a commit of several shards in one round took shard {shard:#x} for one without other copies"
        );
        node.lose(&self.participant);
    }
}

/// A prepare record on its way into the log.
pub(super) struct PrepareStep {
    pub participant: Arc<Participant>,
}

impl LoggedStep for PrepareStep {
    fn committed(self: Box<Self>, _: &DataNode, committed: &mut Committed<'_>) {
        committed.keep_prepares();
        self.participant.prepared();
    }

    fn refused(self: Box<Self>, node: &DataNode) {
        node.settle(&self.participant, Outcome::Aborted, None);
    }

    fn voided(&mut self, node: &DataNode, shard: ShardId) {
        node.void_prepare(&self.participant, shard);
    }
}
