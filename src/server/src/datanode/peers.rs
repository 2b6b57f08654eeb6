//! How this node finds the others.

use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_protocol::Channel;
use neorunbase_protocol::message::{ShardId, ShardRef};

/// The cluster's shard map, as far as a Data Node needs it.
#[async_trait]
pub trait PeerDirectory: Send + Sync {
    /// The primary of `shard` and the epoch it serves under; `None` if that is not known now.
    async fn channel_for_shard(&self, shard: ShardId) -> Option<(Arc<dyn Channel>, ShardRef)>;

    /// The names of all data nodes.
    fn data_nodes(&self) -> Vec<String>;

    /// The data node called `name`; `None` if it is not known.
    async fn channel_to(&self, name: &str) -> Option<Arc<dyn Channel>>;
}
