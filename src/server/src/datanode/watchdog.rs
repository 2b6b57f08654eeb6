//! A disk that does not answer any more. Heartbeats and leases would go on for ever: nobody would take over the node's shards.

use std::sync::Arc;

use super::DataNode;

/// Looks that find the log (or the registry) waiting for the same answer of the disk, until the disk is taken to hang.
/// Looks, not a span of time: whoever stops the whole process for a while does not make the disk hang.
const LOOKS: u32 = 10;

impl DataNode {
    /// Fails the node when its log or registry has waited for the disk for too long.
    pub(super) fn start_watchdog(self: &Arc<Self>) {
        let watched = Arc::downgrade(self);
        let (clock, patience) = (self.world.clock.clone(), self.config.disk_patience);
        if patience.is_zero() {
            return;
        }
        let task = async move {
            let mut waits = [(None, 0); 2];
            while waits.iter().all(|(_, looks)| *looks < LOOKS) {
                clock.sleep(patience / LOOKS).await;
                let node = watched.upgrade();
                let Some(node) = node.filter(|node| node.failure().is_none()) else {
                    return;
                };
                let unanswered = [node.wal.unanswered(), node.registry_writes.unanswered()];
                for ((waits_for, looks), unanswered) in waits.iter_mut().zip(unanswered) {
                    let is_the_same = unanswered.is_some() && unanswered == *waits_for;
                    *looks = if is_the_same { *looks + 1 } else { 0 };
                    *waits_for = unanswered;
                }
            }
            let Some(node) = watched.upgrade() else { return };
            neorunbase_world::sometimes!("hung-disk-noticed");
            node.fail(format!(
                "the disk hangs: a write or sync of the log or registry was not answered within {} seconds",
                patience.as_secs_f64()
            ));
        };
        let task = self
            .world
            .spawner
            .spawn("data node disk watchdog", Box::pin(task));
        self.tasks.lock().push(task);
    }
}
