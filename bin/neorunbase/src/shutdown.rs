//! SIGTERM and SIGINT.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// How long tasks have after the roles were shut down.
pub const RUNTIME_GRACE: Duration = Duration::from_secs(2);
/// What shells report for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// The signals that ask for a shutdown. They are caught from when this is made.
pub struct ShutdownSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl ShutdownSignals {
    /// Starts catching the signals.
    ///
    /// # Errors
    /// The operating system's.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when one has come.
    pub async fn wait(&mut self) {
        let name = tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
    }

    /// Runs the shutdown. A second signal ends the process at once, which is safe: acknowledged writes are
    /// durable and the next start recovers.
    pub async fn unless_impatient(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = shutdown => tracing::info!("shut down"),
            () = self.wait() => {
                tracing::warn!("second signal: ending at once");
                std::process::exit(INTERRUPTED);
            }
        }
    }

    /// Runs the start. A signal during a long recovery is obeyed too; `None` then.
    pub async fn or_interrupted<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.wait() => None,
            outcome = start => Some(outcome),
        }
    }
}
