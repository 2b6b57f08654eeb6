//! A shard engine in memory with the crash semantics of the real one, for the simulator and for tests.
//!
//! Each engine has a live image and a durable one. A flush copies the one over the other at once, for all
//! keyspaces. A crash leaves the durable image. The images are persistent maps: copies share their nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use imbl::OrdMap;
use imbl::ordmap::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use neorunbase_world::shard_engine::{
    EngineBatch, EngineChange, EngineCursor, EngineError, EngineKey, EngineSnapshot, KeyspaceId, ShardEngine,
    ShardEngineFactory,
};
use parking_lot::Mutex;

/// What an engine holds at one instant.
#[derive(Clone, Default)]
struct Image {
    keyspaces: OrdMap<KeyspaceId, OrdMap<Bytes, Bytes>>,
    applied_lsn: u64,
    bytes: u64,
}

#[derive(Default)]
struct EngineState {
    live: Image,
    durable: Image,
    /// Why the engine can be used no more.
    ended: Option<&'static str>,
}

/// One engine's files, as it were.
struct StoredEngine {
    key: EngineKey,
    durable: Image,
    open: Weak<MemoryEngine>,
}

type Stored = Arc<Mutex<BTreeMap<String, StoredEngine>>>;

/// A shard engine in memory.
pub struct MemoryEngine {
    path: String,
    state: Arc<Mutex<EngineState>>,
    stored: Stored,
}

impl std::fmt::Debug for MemoryEngine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MemoryEngine({})", self.path)
    }
}

/// Engines on a disk that is in no machine now.
#[derive(Default)]
pub struct EnginesElsewhere(BTreeMap<String, StoredEngine>);

/// One node's engines in memory. They outlive the engines that it opens, as files do.
#[derive(Clone, Default)]
pub struct MemoryEngineFactory {
    stored: Stored,
}

impl std::fmt::Debug for MemoryEngineFactory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MemoryEngineFactory")
    }
}

impl MemoryEngineFactory {
    /// A node without engines.
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine at `path` loses what was not flushed; who has it open can use it no more.
    pub fn crash(&self, path: &str) {
        if let Some(engine) = self.stored.lock().get_mut(path) {
            engine.crash();
        }
    }

    /// What the engine at `path` holds now, if it is open.
    pub fn look_into(&self, path: &str) -> Option<Arc<dyn EngineSnapshot>> {
        let stored = self.stored.lock();
        Some(stored.get(path)?.open.upgrade()?.snapshot())
    }

    /// [`crash`](Self::crash) of all engines, and nothing is left of them: the node gets another disk.
    pub fn wipe(&self) {
        self.put_in(EnginesElsewhere::default());
    }

    /// [`crash`](Self::crash) of all engines: the node has those of another disk from now on. Returns those that it had.
    pub fn put_in(&self, engines: EnginesElsewhere) -> EnginesElsewhere {
        self.crash_all();
        EnginesElsewhere(std::mem::replace(&mut *self.stored.lock(), engines.0))
    }

    /// [`crash`](Self::crash) of all engines: the node's power fails.
    pub fn crash_all(&self) {
        for engine in self.stored.lock().values_mut() {
            engine.crash();
        }
    }
}

impl StoredEngine {
    fn crash(&mut self) {
        if let Some(engine) = std::mem::take(&mut self.open).upgrade() {
            engine.state.lock().ended = Some("the node crashed");
        }
    }
}

#[async_trait]
impl ShardEngineFactory for MemoryEngineFactory {
    async fn open(&self, path: &str, key: &EngineKey) -> Result<Arc<dyn ShardEngine>, EngineError> {
        let mut stored = self.stored.lock();
        let engine = stored.entry(path.to_owned()).or_insert_with(|| StoredEngine {
            key: key.clone(),
            durable: Image::default(),
            open: Weak::new(),
        });
        if engine.open.strong_count() > 0 {
            return Err(EngineError::Io(format!("{path} is open already")));
        }
        if engine.key != *key {
            return Err(EngineError::Corrupt {
                path: path.to_owned(),
                reason: "it was written with another key".to_owned(),
            });
        }
        let state = EngineState {
            live: engine.durable.clone(),
            durable: engine.durable.clone(),
            ended: None,
        };
        let opened = Arc::new(MemoryEngine {
            path: path.to_owned(),
            state: Arc::new(Mutex::new(state)),
            stored: self.stored.clone(),
        });
        engine.open = Arc::downgrade(&opened);
        Ok(opened)
    }

    async fn destroy(&self, path: &str) -> Result<(), EngineError> {
        let mut stored = self.stored.lock();
        if stored
            .get(path)
            .is_some_and(|engine| engine.open.strong_count() > 0)
        {
            return Err(EngineError::Io(format!("{path} is open")));
        }
        stored.remove(path);
        Ok(())
    }
}

impl EngineState {
    fn usable(&self) -> Result<(), EngineError> {
        match self.ended {
            None => Ok(()),
            Some(reason) => Err(EngineError::Io(reason.to_owned())),
        }
    }
}

impl MemoryEngine {
    /// Runs `change` on the state and stores it, unless the engine is closed or crashed. Takes the locks in
    /// the order that a crash takes them in.
    fn change_durably(&self, change: impl FnOnce(&mut EngineState)) -> Result<(), EngineError> {
        let mut stored = self.stored.lock();
        let mut state = self.state.lock();
        state.usable()?;
        change(&mut state);
        if let Some(stored) = stored.get_mut(&self.path) {
            stored.durable = state.durable.clone();
        }
        Ok(())
    }
}

#[async_trait]
impl ShardEngine for MemoryEngine {
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.change_durably(|state| {
            for image in [&mut state.live, &mut state.durable] {
                image.keyspaces.entry(keyspace).or_default();
            }
        })
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.change_durably(|state| {
            for image in [&mut state.live, &mut state.durable] {
                if let Some(dropped) = image.keyspaces.remove(&keyspace) {
                    image.bytes -= dropped
                        .iter()
                        .map(|(key, value)| entry_bytes(key, value))
                        .sum::<u64>();
                }
            }
        })
    }

    fn keyspaces(&self) -> Vec<KeyspaceId> {
        self.state.lock().live.keyspaces.keys().copied().collect()
    }

    fn write(&self, batch: EngineBatch) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.usable()?;
        let live = &mut state.live;
        if batch.applied_lsn < live.applied_lsn {
            return Err(EngineError::Io(format!(
                "a batch of log position {} after {}",
                batch.applied_lsn, live.applied_lsn
            )));
        }
        for change in &batch.changes {
            let (EngineChange::Put { keyspace, .. } | EngineChange::Delete { keyspace, .. }) = change;
            if !live.keyspaces.contains_key(keyspace) {
                return Err(EngineError::UnknownKeyspace(keyspace.0));
            }
        }
        for change in batch.changes {
            let (keyspace, key, value) = match change {
                EngineChange::Put { keyspace, key, value } => (keyspace, key, Some(value)),
                EngineChange::Delete { keyspace, key } => (keyspace, key, None),
            };
            let Some(content) = live.keyspaces.get_mut(&keyspace) else {
                return Err(EngineError::UnknownKeyspace(keyspace.0));
            };
            if let Some(value) = &value {
                live.bytes += entry_bytes(&key, value);
            }
            let before = match value {
                Some(value) => content.insert(key.clone(), value),
                None => content.remove(&key),
            };
            if let Some(before) = before {
                live.bytes -= entry_bytes(&key, &before);
            }
        }
        live.applied_lsn = batch.applied_lsn;
        Ok(())
    }

    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.lock();
        state.usable()?;
        let content = state.live.keyspaces.get(&keyspace);
        let content = content.ok_or(EngineError::UnknownKeyspace(keyspace.0))?;
        Ok(content.get(key).cloned())
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(MemorySnapshot {
            image: self.state.lock().live.clone(),
            state: self.state.clone(),
        })
    }

    fn applied_lsn(&self) -> u64 {
        self.state.lock().live.applied_lsn
    }

    fn durable_lsn(&self) -> u64 {
        self.state.lock().durable.applied_lsn
    }

    async fn flush(&self) -> Result<(), EngineError> {
        self.change_durably(|state| state.durable = state.live.clone())
    }

    fn approximate_bytes(&self) -> u64 {
        self.state.lock().live.bytes
    }

    async fn close(&self) -> Result<(), EngineError> {
        let mut stored = self.stored.lock();
        let mut state = self.state.lock();
        state.usable()?;
        state.durable = state.live.clone();
        state.ended = Some("the engine was closed");
        if let Some(stored) = stored.get_mut(&self.path) {
            stored.durable = state.durable.clone();
            stored.open = Weak::new();
        }
        Ok(())
    }
}

fn entry_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

struct MemorySnapshot {
    image: Image,
    /// Knows the keyspaces that were made since: to this view they are empty.
    state: Arc<Mutex<EngineState>>,
}

static EMPTY: OnceLock<OrdMap<Bytes, Bytes>> = OnceLock::new();

impl MemorySnapshot {
    fn content(&self, keyspace: KeyspaceId) -> Result<&OrdMap<Bytes, Bytes>, EngineError> {
        match self.image.keyspaces.get(&keyspace) {
            Some(content) => Ok(content),
            None if self.state.lock().live.keyspaces.contains_key(&keyspace) => {
                Ok(EMPTY.get_or_init(OrdMap::new))
            }
            None => Err(EngineError::UnknownKeyspace(keyspace.0)),
        }
    }
}

impl EngineSnapshot for MemorySnapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.content(keyspace)?.get(key).cloned())
    }

    fn scan<'a>(
        &'a self,
        keyspace: KeyspaceId,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<Box<dyn EngineCursor + 'a>, EngineError> {
        use std::ops::Bound;
        let content = self.content(keyspace)?;
        let (first, lower) = (lower, Bound::Included(lower));
        let upper = if upper.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(upper.max(first))
        };
        let entries = content.range::<_, [u8]>((lower, upper));
        Ok(Box::new(MemoryCursor { entries, reverse }))
    }
}

struct MemoryCursor<'a> {
    entries: RangedIter<'a, Bytes, Bytes, DefaultSharedPtr>,
    reverse: bool,
}

impl EngineCursor for MemoryCursor<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, EngineError> {
        let entry = if self.reverse {
            self.entries.next_back()
        } else {
            self.entries.next()
        };
        Ok(entry.map(|(key, value)| (key.as_ref(), value.as_ref())))
    }
}
