//! Calls to a node, whether it lives in this process or behind the network.

use async_trait::async_trait;

use crate::message::{Request, Response};

/// Why a call got no answer. What the node itself reports travels inside [`Response`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was certainly not delivered: nothing happened.
    #[error("node at {0} cannot be reached")]
    Unreachable(String),
    /// The connection broke or the deadline passed after sending: the request may have been carried out.
    #[error("no answer from the node at {0}")]
    OutcomeUnknown(String),
}

/// A way to call one node. Shared by all sessions of a Coordinator; calls run concurrently.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Sends `request` and returns the node's answer.
    ///
    /// # Errors
    /// [`CallError`].
    async fn call(&self, request: Request) -> Result<Response, CallError>;
}

/// The serving side: a role that answers requests. Implemented by Data Nodes and Coordinators.
#[async_trait]
pub trait RequestHandler: Send + Sync {
    /// Answers `request`; errors become [`Response::error`].
    async fn handle(&self, request: Request) -> Response;
}
