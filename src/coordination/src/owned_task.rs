//! A background task that stops when its owner goes away.

use neorunbase_world::TaskHandle;

/// Aborts its task when dropped.
pub(crate) struct OwnedTask(pub(crate) TaskHandle);

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
