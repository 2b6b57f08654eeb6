//! Consistent views and the cursors over them.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineCursor, EngineError, EngineSnapshot, KeyspaceId};
use parking_lot::RwLock;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, Snapshot};

use crate::engine_error;
use crate::keyspaces::{Keyspaces, PREFIX_BYTES};

pub(crate) struct RocksDbSnapshot {
    path: Arc<str>,
    read_options: ReadOptions,
    /// Really borrows from `database`, hence declared (and dropped) before it, and never handed out.
    snapshot: Snapshot<'static>,
    database: Arc<DB>,
    /// Those of now: what was dropped since the snapshot was taken cannot be seen in it.
    keyspaces: Arc<RwLock<Keyspaces>>,
}

impl RocksDbSnapshot {
    pub(crate) fn new(path: Arc<str>, database: Arc<DB>, keyspaces: Arc<RwLock<Keyspaces>>) -> Self {
        // SAFETY: the snapshot borrows the `DB` inside the `Arc`, whose address does not change and which this
        // value keeps alive; fields are dropped in order of declaration, so the snapshot goes first. The
        // extended lifetime stays inside this module: every use goes through `&self`.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(database.snapshot()) };
        let mut read_options = ReadOptions::default();
        read_options.set_snapshot(&snapshot);
        Self {
            path,
            read_options,
            snapshot,
            database,
            keyspaces,
        }
    }
}

impl EngineSnapshot for RocksDbSnapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let incarnation = self.keyspaces.read().incarnation(keyspace)?;
        let value = self
            .database
            .get_pinned_opt(incarnation.key(key), &self.read_options)
            .map_err(|error| engine_error(&self.path, error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan<'a>(
        &'a self,
        keyspace: KeyspaceId,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<Box<dyn EngineCursor + 'a>, EngineError> {
        let incarnation = self.keyspaces.read().incarnation(keyspace)?;
        let mut read_options = ReadOptions::default();
        read_options.set_iterate_lower_bound(incarnation.key(lower));
        read_options.set_iterate_upper_bound(match upper {
            [] => incarnation.end().to_vec(),
            upper => incarnation.key(upper),
        });
        let iterator = self.snapshot.raw_iterator_opt(read_options);
        Ok(Box::new(RocksDbCursor {
            path: &self.path,
            iterator,
            reverse,
            position: Position::BeforeFirst,
        }))
    }
}

#[derive(Clone, Copy)]
enum Position {
    BeforeFirst,
    AtEntry,
    AtEnd,
}

struct RocksDbCursor<'a> {
    path: &'a str,
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    reverse: bool,
    position: Position,
}

impl EngineCursor for RocksDbCursor<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, EngineError> {
        match (self.position, self.reverse) {
            (Position::BeforeFirst, false) => self.iterator.seek_to_first(),
            (Position::BeforeFirst, true) => self.iterator.seek_to_last(),
            (Position::AtEntry, false) => self.iterator.next(),
            (Position::AtEntry, true) => self.iterator.prev(),
            (Position::AtEnd, _) => return Ok(None),
        }
        if !self.iterator.valid() {
            self.position = Position::AtEnd;
            // Invalid means the end or an error: only the status tells.
            self.iterator
                .status()
                .map_err(|error| engine_error(self.path, error))?;
            return Ok(None);
        }
        self.position = Position::AtEntry;
        let entry = self.iterator.item();
        // Its bounds see to it that there is a prefix.
        Ok(entry.map(|(key, value)| (&key[PREFIX_BYTES..], value)))
    }
}

/// The view of an engine that was closed already.
pub(crate) struct ClosedSnapshot {
    pub(crate) path: Arc<str>,
}

impl ClosedSnapshot {
    fn error(&self) -> EngineError {
        EngineError::Io(format!("{}: the engine is closed", self.path))
    }
}

impl EngineSnapshot for ClosedSnapshot {
    fn get(&self, _: KeyspaceId, _: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Err(self.error())
    }

    fn scan<'a>(
        &'a self,
        _: KeyspaceId,
        _: &[u8],
        _: &[u8],
        _: bool,
    ) -> Result<Box<dyn EngineCursor + 'a>, EngineError> {
        Err(self.error())
    }
}
