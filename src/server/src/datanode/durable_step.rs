//! A step that, once begun, is carried through even if the request that began it goes away.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use neorunbase_world::Spawner;

/// Awaiting it costs no task; dropping it unfinished moves the rest into one.
pub struct DurableStep<Output: Send + 'static> {
    step: Option<BoxFuture<'static, Output>>,
    spawner: Arc<dyn Spawner>,
}

impl<Output: Send + 'static> DurableStep<Output> {
    /// Wraps `step`.
    pub fn new(spawner: Arc<dyn Spawner>, step: impl Future<Output = Output> + Send + 'static) -> Self {
        Self {
            step: Some(Box::pin(step)),
            spawner,
        }
    }
}

impl<Output: Send + 'static> Future for DurableStep<Output> {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Output> {
        let Some(step) = &mut self.step else {
            return Poll::Pending; // already finished; polled against the contract of Future
        };
        let result = step.as_mut().poll(context);
        if result.is_ready() {
            self.step = None;
        }
        result
    }
}

impl<Output: Send + 'static> Drop for DurableStep<Output> {
    fn drop(&mut self) {
        if let Some(step) = self.step.take() {
            let rest = async move {
                step.await;
            };
            self.spawner.spawn("rest of a durable step", Box::pin(rest));
        }
    }
}
