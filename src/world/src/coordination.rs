//! The coordination service: ZooKeeper's data model, cut down to what the cluster needs.
//!
//! Paths look like `/shards/17`. A session is a liveness hint, never a lock: whatever must not happen twice
//! is guarded by a version checked here or an epoch checked by the resource itself.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

/// A znode's data version: 0 when created, one more with each set.
pub type Version = i32;

/// How long a node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    /// Until deleted.
    Persistent,
    /// Until deleted or the creating session ends.
    Ephemeral,
    /// As `Ephemeral`, with a ten-digit number appended that grows with each creation under the parent.
    EphemeralSequential,
}

/// The state of this client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// In touch with the service.
    Connected,
    /// Out of touch; the session may or may not have expired already. Act as if it had where it matters.
    Disconnected,
    /// Gone, its ephemeral nodes with it. The client opens a new session by itself; owners must register anew.
    Expired,
}

/// What a call can report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    /// The path (or the parent of one to create) does not exist.
    #[error("no node at {0}")]
    NoNode(String),
    /// The path exists already.
    #[error("a node exists at {0}")]
    NodeExists(String),
    /// The expected version is not the current one: somebody else was first.
    #[error("version of {0} has changed")]
    BadVersion(String),
    /// The node to delete has children.
    #[error("{0} has children")]
    NotEmpty(String),
    /// The answer was lost: the call may or may not have taken effect.
    #[error("connection to the coordination service was lost")]
    ConnectionLost,
    /// The session is gone; nothing of this call took effect.
    #[error("session with the coordination service has expired")]
    SessionExpired,
    /// Anything else, in words.
    #[error("coordination service: {0}")]
    Other(String),
}

/// A one-time notice that something changed; also fires when the session is lost, so that nobody waits forever.
/// Being told is a hint to read again, not news in itself.
pub type Watch = oneshot::Receiver<()>;

/// One client of the coordination service.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// Creates `path` and returns its name (with the number, if sequential). The parent must exist.
    ///
    /// # Errors
    /// `NodeExists`, `NoNode` (parent), `ConnectionLost` (outcome unknown), `SessionExpired`.
    async fn create(&self, path: &str, data: Bytes, mode: CreateMode) -> Result<String, CoordinationError>;

    /// Data and version of `path`, or `None` if there is no such node.
    ///
    /// # Errors
    /// `ConnectionLost`, `SessionExpired`.
    async fn get(&self, path: &str) -> Result<Option<(Bytes, Version)>, CoordinationError>;

    /// As [`get`](Coordination::get), with a watch on the node's creation, change or deletion, set in the same step.
    ///
    /// # Errors
    /// `ConnectionLost`, `SessionExpired`.
    async fn get_and_watch(&self, path: &str)
    -> Result<(Option<(Bytes, Version)>, Watch), CoordinationError>;

    /// Replaces the data of `path` if its version is `expected`, and returns the new version.
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `ConnectionLost` (outcome unknown), `SessionExpired`.
    async fn set(&self, path: &str, data: Bytes, expected: Version) -> Result<Version, CoordinationError>;

    /// Deletes `path` if its version is `expected` (`None`: whatever it is).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `NotEmpty`, `ConnectionLost` (outcome unknown), `SessionExpired`.
    async fn delete(&self, path: &str, expected: Option<Version>) -> Result<(), CoordinationError>;

    /// Names (not paths) of the children of `path`, sorted.
    ///
    /// # Errors
    /// `NoNode`, `ConnectionLost`, `SessionExpired`.
    async fn children(&self, path: &str) -> Result<Vec<String>, CoordinationError>;

    /// As [`children`](Coordination::children), with a watch on children coming and going, set in the same step.
    ///
    /// # Errors
    /// `NoNode`, `ConnectionLost`, `SessionExpired`.
    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch), CoordinationError>;

    /// The state of this client's session, now and as it changes.
    fn session(&self) -> watch::Receiver<SessionState>;
}

/// Creates `path` and its missing parents as persistent, empty nodes.
///
/// # Errors
/// `ConnectionLost`, `SessionExpired`; calling again is safe.
pub async fn ensure_path(coordination: &dyn Coordination, path: &str) -> Result<(), CoordinationError> {
    let mut prefix = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        prefix.push('/');
        prefix.push_str(name);
        match coordination
            .create(&prefix, Bytes::new(), CreateMode::Persistent)
            .await
        {
            Ok(_) | Err(CoordinationError::NodeExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
