//! The shards that have a copy on this node, and the file that remembers them.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_kms::{Keyring, open, seal};
use neorunbase_protocol::message::ShardId;
use neorunbase_storage::shard::ShardStore;
use neorunbase_world::World;
use neorunbase_world::coordination::CoordinationError;
use neorunbase_world::disk::{read_file, replace_file};
use prost::Message;

use super::DataNode;
use super::log_record::RegistryRecord;
use super::shard::Shard;
use super::start::{StartError, open_engine};

const REGISTRY_PATH: &str = "shards.registry";
const REGISTRY_KEY: &str = "shard registry";
const NONCE_BYTES: usize = 12;

/// Why a shard cannot be held or served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its engine or the registry.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The coordination service cannot be asked who holds it.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
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

pub(super) async fn write_registry(
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
    /// The registry names a shard before the log does: replay can rely on it.
    pub(super) async fn replace_registry(
        &self,
        registry: &mut RegistryRecord,
        changed: RegistryRecord,
    ) -> Result<(), StartError> {
        if *registry != changed {
            self.write_down(&changed).await?;
            *registry = changed;
        }
        Ok(())
    }

    /// Puts `registry` on disk, whatever is there.
    pub(super) async fn write_down(&self, registry: &RegistryRecord) -> Result<(), StartError> {
        let written = write_registry(&self.world, &self.keyring, registry);
        self.registry_writes.ask(written).await
    }

    /// Opens the engine of a shard that has none here yet.
    pub(super) async fn open_new_shard(&self, shard: ShardId) -> Result<Arc<Shard>, StartError> {
        // The log seals under this key; made now, so that no append waits for the keyring's file.
        self.keyring.shard_key(shard).await?;
        let store = ShardStore::new(open_engine(&self.world, &self.keyring, shard).await?)?;
        Ok(Arc::new(Shard::new(shard, store, 0)?))
    }
}
