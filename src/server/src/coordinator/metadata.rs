//! The metadata store: the catalog in an encrypted shard engine of its own, flushed before a change counts.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_catalog::CatalogSnapshot;
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, EngineError, EngineKey, KeyspaceId};
use neorunbase_world::{ShardEngine, World};
use parking_lot::RwLock;

const CATALOG_KEYSPACE: KeyspaceId = KeyspaceId(1);
const SNAPSHOT_KEY: &[u8] = b"snapshot";

/// The catalog, kept.
pub struct MetadataStore {
    engine: Arc<dyn ShardEngine>,
    current: RwLock<Arc<CatalogSnapshot>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl MetadataStore {
    /// Opens (or creates) the store in `directory`.
    ///
    /// # Errors
    /// [`EngineError`], such as a wrong key.
    pub async fn open(world: &World, directory: &str, key: &EngineKey) -> Result<Self, EngineError> {
        let engine = world.engines.open(directory, key).await?;
        engine.create_keyspace(CATALOG_KEYSPACE)?;
        let current = match engine.get(CATALOG_KEYSPACE, SNAPSHOT_KEY)? {
            Some(encoded) => postcard::from_bytes(&encoded).map_err(|error| EngineError::Corrupt {
                path: directory.to_owned(),
                reason: format!("unreadable catalog: {error}"),
            })?,
            None => CatalogSnapshot::new(),
        };
        Ok(Self {
            engine,
            current: RwLock::new(Arc::new(current)),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The catalog as it is now.
    pub fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.current.read().clone()
    }

    /// Applies `change` to a copy of the catalog, makes it durable, and only then lets others see it.
    ///
    /// # Errors
    /// `change`'s own, or `58030` if the store failed (the old catalog stands).
    pub async fn change<T>(&self, change: impl FnOnce(&mut CatalogSnapshot) -> Result<T>) -> Result<T> {
        let _one_at_a_time = self.changing.lock().await;
        let mut next = (*self.snapshot()).clone();
        let outcome = change(&mut next)?;
        next.version += 1;
        let encoded = postcard::to_stdvec(&next).map_err(SqlError::internal)?;
        let failed =
            |error: EngineError| SqlError::new(SqlState::IO_ERROR, format!("metadata store: {error}"));
        self.engine
            .write(EngineBatch {
                changes: vec![EngineChange::Put {
                    keyspace: CATALOG_KEYSPACE,
                    key: Bytes::from_static(SNAPSHOT_KEY),
                    value: encoded.into(),
                }],
                applied_lsn: next.version,
            })
            .map_err(failed)?;
        self.engine.flush().await.map_err(failed)?;
        *self.current.write() = Arc::new(next);
        Ok(outcome)
    }

    /// Flushes and closes the store.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn close(&self) -> Result<(), EngineError> {
        self.engine.close().await
    }
}
