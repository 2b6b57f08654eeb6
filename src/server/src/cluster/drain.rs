//! The wish that a Data Node hold nothing: one znode a node, until somebody takes it back. The Controller sees to it.

use std::collections::BTreeSet;

use bytes::Bytes;
use neorunbase_world::Coordination;
use neorunbase_world::coordination::{CoordinationError, CreateMode, Watch, ensure_path};

use super::controller::GroupRequirement;
use super::paths;

/// Why a node is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// It is not registered, and no shard has a copy there.
    #[error("there is no data node \"{0}\"")]
    UnknownNode(String),
    /// Its copies have nowhere to go.
    #[error(
        "data node \"{node}\" cannot be drained: {wanted} other data nodes must take its copies (tables have up to \
         {wanted} copies of each shard), and {others} can: add a data node, or take back the drain of another one"
    )]
    TooFewOthers {
        /// Which.
        node: String,
        /// The most copies that a shard has.
        wanted: u32,
        /// Other nodes that are alive and not to be drained.
        others: usize,
    },
    /// The coordination service.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// What is no node's name must not become part of a path either.
fn is_name(node: &str) -> bool {
    !node.is_empty() && !node.contains('/')
}

fn drain_path(node: &str) -> String {
    format!("{}/{node}", paths::DRAINING)
}

/// The nodes that are to be emptied.
///
/// # Errors
/// As [`Coordination::children`].
pub async fn draining_nodes(coordination: &dyn Coordination) -> Result<BTreeSet<String>, CoordinationError> {
    match coordination.children(paths::DRAINING).await {
        Ok(names) => Ok(names.into_iter().collect()),
        Err(CoordinationError::NoNode(_)) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// As [`draining_nodes`], and a watch on their coming and going.
///
/// # Errors
/// As [`Coordination::children_and_watch`].
pub async fn draining_nodes_and_watch(
    coordination: &dyn Coordination,
) -> Result<(BTreeSet<String>, Watch), CoordinationError> {
    let (names, watch) = match coordination.children_and_watch(paths::DRAINING).await {
        Err(CoordinationError::NoNode(_)) => {
            ensure_path(coordination, paths::DRAINING).await?;
            coordination.children_and_watch(paths::DRAINING).await?
        }
        found => found?,
    };
    Ok((names.into_iter().collect(), watch))
}

/// Has `node` emptied, if the nodes `alive` suffice without it. Calling again is safe.
///
/// # Errors
/// [`DrainError`].
pub async fn drain(
    coordination: &dyn Coordination,
    node: &str,
    alive: &BTreeSet<String>,
    has_copies: bool,
) -> Result<(), DrainError> {
    if !is_name(node) || !alive.contains(node) && !has_copies {
        return Err(DrainError::UnknownNode(node.to_owned()));
    }
    let draining = draining_nodes(coordination).await?;
    let is_other = |name: &&String| *name != node && !draining.contains(*name);
    let others = alive.iter().filter(is_other).count();
    let wanted = most_replicas(coordination).await?;
    if others < wanted as usize {
        return Err(DrainError::TooFewOthers {
            node: node.to_owned(),
            wanted,
            others,
        });
    }
    wish_drain(coordination, node).await?;
    Ok(())
}

/// Has `node` emptied as far as that is possible. Calling again is safe.
///
/// # Errors
/// As [`Coordination::create`].
pub async fn wish_drain(coordination: &dyn Coordination, node: &str) -> Result<(), CoordinationError> {
    ensure_path(coordination, paths::DRAINING).await?;
    let created = coordination
        .create(&drain_path(node), Bytes::new(), CreateMode::Persistent)
        .await;
    match created {
        Ok(_) | Err(CoordinationError::NodeExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets `node` take copies again. Calling again is safe, and so is doing so for a node that is not (or no more) there.
///
/// # Errors
/// [`DrainError`].
pub async fn undrain(coordination: &dyn Coordination, node: &str) -> Result<(), DrainError> {
    if !is_name(node) {
        return Err(DrainError::UnknownNode(node.to_owned()));
    }
    match coordination.delete(&drain_path(node), None).await {
        Ok(()) | Err(CoordinationError::NoNode(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The most copies that a shard is to have; 1 without shards, for those to come.
async fn most_replicas(coordination: &dyn Coordination) -> Result<u32, CoordinationError> {
    let names = match coordination.children(paths::GROUPS).await {
        Err(CoordinationError::NoNode(_)) => Vec::new(),
        names => names?,
    };
    let mut most = 1;
    for name in names {
        if let Some((data, _)) = coordination.get(&format!("{}/{name}", paths::GROUPS)).await?
            && let Ok(requirement) = serde_json::from_slice::<GroupRequirement>(&data)
        {
            most = most.max(requirement.replicas);
        }
    }
    Ok(most)
}
