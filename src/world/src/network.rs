//! Byte streams between processes: TCP in production, the simulated network in the simulator.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a process listens, as `host:port`.
pub type NodeAddress = String;

/// An ordered, reliable byte stream that may hang or break at any time.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A bound server socket.
#[async_trait]
pub trait Listener: Send + Sync {
    /// The next connection and its peer's address.
    ///
    /// # Errors
    /// The operating system's error; the listener stays usable.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, NodeAddress)>;

    /// The address actually bound (the port is known even if 0 was asked for).
    fn local_address(&self) -> NodeAddress;
}

/// The network as one node sees it.
#[async_trait]
pub trait Network: Send + Sync {
    /// Starts listening on `address`.
    ///
    /// # Errors
    /// The operating system's error, such as an address in use.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;

    /// Connects to `address`. May hang: callers set a deadline.
    ///
    /// # Errors
    /// The operating system's error, such as a refused connection.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>>;
}
