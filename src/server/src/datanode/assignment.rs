//! Which shards this node serves, under which epochs, and the file that remembers it.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_kms::{Keyring, open, seal};
use neorunbase_protocol::message::{AssignShards, ShardId};
use neorunbase_storage::shard::ShardStore;
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::World;
use neorunbase_world::disk::{read_file, replace_file};
use prost::Message;

use super::DataNode;
use super::failure::Failure;
use super::log_record::{RegisteredShard, RegistryRecord};
use super::shard::Shard;
use super::start::{StartError, open_engine};

const REGISTRY_PATH: &str = "shards.registry";
const REGISTRY_KEY: &str = "shard registry";
const NONCE_BYTES: usize = 12;

/// Why a shard cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It was served under a later epoch already.
    #[error("shard {shard:#x} was served under epoch {known} already, so epoch {refused} is stale")]
    StaleEpoch {
        /// The shard.
        shard: ShardId,
        /// The highest epoch seen.
        known: u64,
        /// What was asked.
        refused: u64,
    },
    /// Its engine or the registry.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn registry_error(reason: impl std::fmt::Display) -> StartError {
    StartError::Registry {
        path: REGISTRY_PATH.to_owned(),
        reason: reason.to_string(),
    }
}

/// The registry as it is on disk; empty for a new node.
pub(super) async fn read_registry(world: &World, keyring: &Keyring) -> Result<RegistryRecord, StartError> {
    let Some(content) = read_file(&*world.disk, REGISTRY_PATH)
        .await
        .map_err(registry_error)?
    else {
        return Ok(RegistryRecord::default());
    };
    let key = keyring.named_key(REGISTRY_KEY).await?;
    let damaged = || registry_error("its content does not verify");
    let (nonce, sealed) = content.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
    let plaintext = open(&key.secret, *nonce, REGISTRY_KEY.as_bytes(), sealed).ok_or_else(damaged)?;
    RegistryRecord::decode(plaintext.as_slice()).map_err(registry_error)
}

async fn write_registry(
    world: &World,
    keyring: &Keyring,
    registry: &RegistryRecord,
) -> Result<(), StartError> {
    let key = keyring.named_key(REGISTRY_KEY).await?;
    let mut nonce = [0; NONCE_BYTES];
    world.entropy.fill(&mut nonce);
    let mut content = nonce.to_vec();
    content.extend(seal(
        &key.secret,
        nonce,
        REGISTRY_KEY.as_bytes(),
        &registry.encode_to_vec(),
    ));
    replace_file(&*world.disk, REGISTRY_PATH, Bytes::from(content))
        .await
        .map_err(registry_error)
}

impl DataNode {
    /// Begins to serve `shard` as its primary under `epoch`, creating it if new. Serving under the current epoch
    /// again changes nothing.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve_shard(&self, shard: ShardId, epoch: u64) -> Result<(), ServeError> {
        self.serve_shards(&[(shard, epoch)]).await
    }

    /// As [`serve_shard`](Self::serve_shard), for many: the registry is written once.
    ///
    /// # Errors
    /// [`ServeError`]; none of them is served newly then.
    pub async fn serve_shards(&self, wanted: &[(ShardId, u64)]) -> Result<(), ServeError> {
        let mut registry = self.registry.lock().await;
        let mut changed = registry.clone();
        for (shard, epoch) in wanted {
            match changed.shards.binary_search_by_key(shard, |known| known.shard) {
                Ok(position) => {
                    let known = &mut changed.shards[position].epoch;
                    if *known > *epoch {
                        return Err(ServeError::StaleEpoch {
                            shard: *shard,
                            known: *known,
                            refused: *epoch,
                        });
                    }
                    *known = *epoch;
                }
                Err(position) => {
                    changed.shards.insert(
                        position,
                        RegisteredShard {
                            shard: *shard,
                            epoch: *epoch,
                        },
                    );
                }
            }
        }
        for (shard, epoch) in wanted {
            if self.open_shard(*shard).is_err() {
                self.create_shard(*shard, *epoch).await?;
            }
        }
        self.replace_registry(&mut registry, changed).await?;
        for (shard, epoch) in wanted {
            if let Ok(shard) = self.open_shard(*shard) {
                shard.serve(*epoch);
            }
        }
        Ok(())
    }

    /// The registry names a shard before the log does: replay can rely on it.
    async fn replace_registry(
        &self,
        registry: &mut RegistryRecord,
        changed: RegistryRecord,
    ) -> Result<(), StartError> {
        if *registry != changed {
            write_registry(&self.world, &self.keyring, &changed).await?;
            *registry = changed;
        }
        Ok(())
    }

    async fn create_shard(&self, shard: ShardId, epoch: u64) -> Result<(), StartError> {
        // The log seals under this key; made now, so that no append waits for the keyring's file.
        self.keyring.shard_key(shard).await?;
        let store = ShardStore::new(open_engine(&self.world, &self.keyring, shard).await?)?;
        let opened = Arc::new(Shard::new(shard, store, epoch)?);
        self.shards.write().insert(shard, opened);
        Ok(())
    }

    /// Serves `shard` no more. Its data stays.
    pub fn stop_serving(&self, shard: ShardId) {
        if let Ok(shard) = self.open_shard(shard) {
            shard.stop();
        }
    }

    /// The shards that have an engine here, with the highest epoch each was served under.
    pub fn known_shards(&self) -> Vec<(ShardId, u64)> {
        self.shards
            .read()
            .values()
            .map(|shard| (shard.id, shard.epoch()))
            .collect()
    }

    /// The shards that are served now, with their epochs.
    pub fn served_shards(&self) -> Vec<(ShardId, u64)> {
        let shards = self.shards.read();
        shards
            .values()
            .filter_map(|shard| shard.serving().map(|epoch| (shard.id, epoch)))
            .collect()
    }

    /// See [`AssignShards`].
    pub(super) async fn assign_shards(&self, request: AssignShards) -> Result<(), Failure> {
        let internal = |error: &dyn std::fmt::Display| {
            Failure::Sql(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                error.to_string(),
            ))
        };
        {
            let mut registry = self.registry.lock().await;
            if request.controller_epoch < registry.controller_epoch {
                return Err(internal(&format!(
                    "controller epoch {} is stale, {} was obeyed already",
                    request.controller_epoch, registry.controller_epoch
                )));
            }
            let changed = RegistryRecord {
                controller_epoch: request.controller_epoch,
                ..registry.clone()
            };
            self.replace_registry(&mut registry, changed)
                .await
                .map_err(|error| internal(&error))?;
        }
        let mut wanted: Vec<_> = request
            .shards
            .iter()
            .map(|assigned| (assigned.shard, assigned.epoch))
            .collect();
        wanted.sort_unstable();
        self.serve_shards(&wanted)
            .await
            .map_err(|error| internal(&error))?;
        for (shard, _) in self.served_shards() {
            if wanted
                .binary_search_by_key(&shard, |(wanted, _)| *wanted)
                .is_err()
            {
                self.stop_serving(shard);
            }
        }
        Ok(())
    }
}
