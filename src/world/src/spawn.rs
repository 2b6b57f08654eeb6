//! Background tasks.

use futures::future::BoxFuture;

/// A running background task. Dropping the handle detaches the task.
pub struct TaskHandle {
    abort: Box<dyn Fn() + Send + Sync>,
}

impl TaskHandle {
    /// Wraps the runtime's own way to stop a task.
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            abort: Box::new(abort),
        }
    }

    /// Stops the task at its next await point.
    pub fn abort(&self) {
        (self.abort)();
    }
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TaskHandle")
    }
}

/// Starts tasks on the node's executor; they die with the node.
pub trait Spawner: Send + Sync {
    /// Starts `task` in the background. `name` shows up in traces.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle;
}
