//! The last accepted version of the catalog, durable in an encrypted engine of its own.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_catalog::CatalogSnapshot;
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, EngineError, EngineKey, KeyspaceId};
use neorunbase_world::{ShardEngine, World};
use parking_lot::Mutex;

const CATALOG_KEYSPACE: KeyspaceId = KeyspaceId(1);
const SNAPSHOT_KEY: &[u8] = b"snapshot";
const TERM_KEY: &[u8] = b"term";

/// A version of the catalog and the term of the leader that made it.
#[derive(Clone, Debug)]
pub struct AcceptedCatalog {
    /// The leader's term; 0: of a new store.
    pub term: u64,
    /// The catalog.
    pub snapshot: Arc<CatalogSnapshot>,
}

impl AcceptedCatalog {
    /// Later versions are greater; two versions of one position are the same.
    pub fn position(&self) -> (u64, u64) {
        (self.term, self.snapshot.version)
    }
}

/// Keeps one [`AcceptedCatalog`].
pub struct CatalogStore {
    engine: Arc<dyn ShardEngine>,
    accepted: Mutex<AcceptedCatalog>,
}

impl CatalogStore {
    /// Opens (or creates) the store in `directory`.
    ///
    /// # Errors
    /// [`EngineError`], such as a wrong key.
    pub async fn open(world: &World, directory: &str, key: &EngineKey) -> Result<Self, EngineError> {
        let corrupt = |reason: String| EngineError::Corrupt {
            path: directory.to_owned(),
            reason,
        };
        let engine = world.engines.open(directory, key).await?;
        engine.create_keyspace(CATALOG_KEYSPACE)?;
        let term = match engine.get(CATALOG_KEYSPACE, TERM_KEY)? {
            None => 0,
            Some(encoded) => {
                let bytes =
                    <[u8; 8]>::try_from(&*encoded).map_err(|_| corrupt("unreadable term".to_owned()))?;
                u64::from_be_bytes(bytes)
            }
        };
        let snapshot = match engine.get(CATALOG_KEYSPACE, SNAPSHOT_KEY)? {
            Some(encoded) => postcard::from_bytes(&encoded)
                .map_err(|error| corrupt(format!("unreadable catalog: {error}")))?,
            None => CatalogSnapshot::new(),
        };
        let snapshot = Arc::new(snapshot);
        Ok(Self {
            engine,
            accepted: Mutex::new(AcceptedCatalog { term, snapshot }),
        })
    }

    /// What was accepted last.
    pub fn accepted(&self) -> AcceptedCatalog {
        self.accepted.lock().clone()
    }

    /// Whether anything was ever accepted.
    pub fn is_new(&self) -> bool {
        self.accepted().snapshot.version == CatalogSnapshot::new().version
    }

    /// Makes `next` durable in place of what was accepted before it, and returns it encoded. One call at a time.
    ///
    /// # Errors
    /// The engine's. Whether `next` will be found after a restart is not known then.
    pub async fn accept(&self, next: AcceptedCatalog) -> Result<Bytes, EngineError> {
        assert!(
            next.position() > self.accepted().position(),
            "accepted versions of the catalog only grow: {:?} after {:?}",
            next.position(),
            self.accepted().position()
        );
        let encoded = encode(&next.snapshot)?;
        let put = |key: &'static [u8], value: Bytes| EngineChange::Put {
            keyspace: CATALOG_KEYSPACE,
            key: Bytes::from_static(key),
            value,
        };
        self.engine.write(EngineBatch {
            changes: vec![
                put(SNAPSHOT_KEY, encoded.clone()),
                put(TERM_KEY, Bytes::copy_from_slice(&next.term.to_be_bytes())),
            ],
            applied_lsn: next.snapshot.version,
        })?;
        self.engine.flush().await?;
        *self.accepted.lock() = next;
        Ok(encoded)
    }

    /// Flushes and closes the engine.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn close(&self) -> Result<(), EngineError> {
        self.engine.close().await
    }
}

/// The catalog as stores keep it and messages carry it.
pub fn encode(snapshot: &CatalogSnapshot) -> Result<Bytes, EngineError> {
    let encoded = postcard::to_stdvec(snapshot).map_err(|error| EngineError::Corrupt {
        path: String::new(),
        reason: format!("catalog cannot be encoded: {error}"),
    })?;
    Ok(encoded.into())
}
