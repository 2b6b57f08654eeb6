//! What the statements of one session share.

use std::sync::Arc;

use super::Coordinator;

/// The session's fixed part.
pub struct SessionCore {
    /// The process it runs in.
    pub coordinator: Arc<Coordinator>,
    /// Who logged in.
    pub user: String,
    /// As BackendKeyData reports it.
    pub process_id: i32,
}
