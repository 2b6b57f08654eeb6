//! Who may lead the catalog: the znode that names the leader's term and the Coordinators in sync.

use std::collections::BTreeSet;

use bytes::Bytes;
use neorunbase_world::Coordination;
use neorunbase_world::coordination::{CoordinationError, CreateMode, Version};
use serde::{Deserialize, Serialize};

use crate::cluster::paths;

/// The znode's content, changed only by versioned compare-and-set: by the leader, or by the one that replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogConfiguration {
    /// Counts the leaders.
    pub term: u64,
    /// The leader's name.
    pub leader: String,
    /// Coordinators that have every acknowledged change, the leader among them. Only they may lead next.
    pub in_sync: BTreeSet<String>,
}

impl CatalogConfiguration {
    /// What is there; `None`: no Coordinator has ever led.
    ///
    /// # Errors
    /// As [`Coordination::get`].
    pub async fn read(coordination: &dyn Coordination) -> Result<Option<(Self, Version)>, CoordinationError> {
        let Some((data, version)) = coordination.get(paths::CATALOG).await? else {
            return Ok(None);
        };
        let configuration = serde_json::from_slice(&data).map_err(unreadable)?;
        Ok(Some((configuration, version)))
    }

    /// Replaces the znode if its version is `expected` (`None`: if there is none). The new version.
    ///
    /// # Errors
    /// `BadVersion`: somebody else has changed it. `ConnectionLost`, `SessionExpired`: it is not known whether this did.
    pub async fn write(
        &self,
        coordination: &dyn Coordination,
        expected: Option<Version>,
    ) -> Result<Version, CoordinationError> {
        let data = Bytes::from(serde_json::to_vec(self).map_err(unreadable)?);
        let written = match expected {
            Some(version) => coordination.set(paths::CATALOG, data, version).await,
            None => coordination
                .create(paths::CATALOG, data, CreateMode::Persistent)
                .await
                .map(|_| 0),
        };
        match written {
            Ok(version) if expected.is_some() => Ok(version),
            // An earlier try may have been carried out though it was not answered. A term has one leader, who makes one
            // change at a time: the same content is its own.
            Ok(_) | Err(CoordinationError::BadVersion(_) | CoordinationError::NodeExists(_)) => {
                match Self::read(coordination).await? {
                    Some((found, version)) if found == *self => Ok(version),
                    _ => Err(CoordinationError::BadVersion(paths::CATALOG.to_owned())),
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn unreadable(error: serde_json::Error) -> CoordinationError {
    CoordinationError::Other(format!("{}: {error}", paths::CATALOG))
}
