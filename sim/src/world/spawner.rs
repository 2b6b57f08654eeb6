//! Tasks of a simulated node.

use futures::future::BoxFuture;
use neorunbase_world::{Spawner, TaskHandle};

/// Spawns on the node whose task calls it.
pub struct SimSpawner;

impl Spawner for SimSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let abort = madsim::task::spawn(task).abort_handle();
        TaskHandle::new(move || abort.abort())
    }
}
