//! Accepting connections, and letting them go at shutdown.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_world::{Clock, Entropy, Listener, Spawner, World};
use tokio::sync::{Semaphore, watch};

use crate::cancel::Backends;
use crate::connection;
use crate::session::Gateway;

/// What connections may use.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Sessions, and connections on their way to one; more get `53300`.
    pub connections: usize,
    /// From accept to the end of authentication.
    pub authentication_timeout: Duration,
    /// A client that takes no output for this long is cut off.
    pub write_stall_timeout: Duration,
    /// The longest message that an authenticated client may send.
    pub message_bytes: usize,
    /// At shutdown, how long running statements have before they are cancelled, and then once more before
    /// they are left behind.
    pub shutdown_grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1_000,
            authentication_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(90),
            message_bytes: 256 * 1024 * 1024,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// The PostgreSQL wire server.
pub struct Server {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) gateway: Arc<dyn Gateway>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) backends: Arc<Backends>,
    pub(crate) slots: Arc<Semaphore>,
    /// Salts of users that do not exist are derived from this.
    pub(crate) mock_secret: [u8; 32],
    spawner: Arc<dyn Spawner>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Server")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without listeners yet.
    pub fn new(world: &World, gateway: Arc<dyn Gateway>, limits: ConnectionLimits) -> Arc<Self> {
        Self::from_parts(
            world.clock.clone(),
            world.entropy.clone(),
            world.spawner.clone(),
            gateway,
            limits,
        )
    }

    pub(crate) fn from_parts(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        spawner: Arc<dyn Spawner>,
        gateway: Arc<dyn Gateway>,
        limits: ConnectionLimits,
    ) -> Arc<Self> {
        let mut mock_secret = [0; 32];
        entropy.fill(&mut mock_secret);
        let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let backends = Backends::new(entropy.clone());
        Arc::new(Self {
            clock,
            entropy,
            gateway,
            limits,
            backends,
            slots,
            mock_secret,
            spawner,
        })
    }

    /// The connections, to cancel or terminate some.
    pub fn backends(&self) -> Arc<Backends> {
        self.backends.clone()
    }

    /// Accepts connections until `shutdown` turns true, then ends those that exist and returns.
    pub async fn serve(self: Arc<Self>, listener: Box<dyn Listener>, mut shutdown: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = until_true(&mut shutdown) => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    // Most likely out of file descriptors: others have to close before this can go on.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.clock.sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // As many again may be starting up, so that refusals and cancel requests get through at the limit.
            if self.backends.count() >= self.limits.connections.saturating_mul(2).saturating_add(16) {
                continue;
            }
            let backend = self.backends.register();
            let task = connection::run(self.clone(), stream, backend);
            self.spawner.spawn("pg-connection", Box::pin(task));
        }
        drop(listener);
        self.backends.terminate_when_idle();
        if !self.wait_until_empty().await {
            self.backends.cancel_all();
            self.wait_until_empty().await;
        }
    }

    /// Waits for the connections to end; false if some outlast the grace time.
    async fn wait_until_empty(&self) -> bool {
        let deadline = self.clock.monotonic().after(self.limits.shutdown_grace);
        while self.backends.count() > 0 {
            if self.clock.monotonic() >= deadline {
                return false;
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

/// Returns once `flag` is true; never, if its sender goes away before.
async fn until_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|value| *value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Serves PostgreSQL clients on `listener` until `shutdown` turns true.
pub async fn serve(
    world: World,
    listener: Box<dyn Listener>,
    gateway: Arc<dyn Gateway>,
    limits: ConnectionLimits,
    shutdown: watch::Receiver<bool>,
) {
    Server::new(&world, gateway, limits)
        .serve(listener, shutdown)
        .await;
}
