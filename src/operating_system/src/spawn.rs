//! Background tasks on tokio.

use futures::future::BoxFuture;
use neorunbase_world::{Spawner, TaskHandle};
use tokio::runtime::Handle;
use tracing::Instrument;

/// Starts tasks on one tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioSpawner {
    runtime: Handle,
}

impl TokioSpawner {
    /// Spawns on `runtime`, from whichever thread.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
    }

    /// Spawns on the runtime that the caller runs in.
    ///
    /// # Panics
    /// If called outside a runtime.
    pub fn current() -> Self {
        Self::new(Handle::current())
    }
}

impl Spawner for TokioSpawner {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let join = self
            .runtime
            .spawn(task.instrument(tracing::debug_span!("task", name)));
        let abort = join.abort_handle();
        TaskHandle::new(move || abort.abort())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn runs_and_aborts() {
        let spawner = TokioSpawner::current();
        let (done, outcome) = oneshot::channel();
        drop(spawner.spawn("short", Box::pin(async move { done.send(7).unwrap() })));
        assert_eq!(outcome.await.unwrap(), 7);

        let (held, dropped) = oneshot::channel::<()>();
        let handle = spawner.spawn(
            "endless",
            Box::pin(async move {
                let _held = held;
                std::future::pending::<()>().await;
            }),
        );
        handle.abort();
        let outcome = tokio::time::timeout(Duration::from_secs(5), dropped)
            .await
            .unwrap();
        assert!(outcome.is_err(), "an aborted task drops what it holds");
    }
}
