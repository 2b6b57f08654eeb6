//! Consistent views and the cursors over them.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::shard_engine::{EngineCursor, EngineError, EngineSnapshot, KeyspaceId};
use rocksdb::{BoundColumnFamily, DB, DBRawIteratorWithThreadMode, ReadOptions, Snapshot};

use crate::engine_error;

/// The column family of `keyspace`.
pub(crate) fn column_family(
    database: &DB,
    keyspace: KeyspaceId,
) -> Result<Arc<BoundColumnFamily<'_>>, EngineError> {
    let mut digits = [0; 20];
    database
        .cf_handle(decimal(keyspace.0, &mut digits))
        .ok_or(EngineError::UnknownKeyspace(keyspace.0))
}

/// `number` in decimal, without asking the allocator: this runs for every read.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).expect("digits are ASCII")
}

pub(crate) struct RocksDbSnapshot {
    path: Arc<str>,
    read_options: ReadOptions,
    /// Really borrows from `database`, hence declared (and dropped) before it, and never handed out.
    snapshot: Snapshot<'static>,
    database: Arc<DB>,
}

impl RocksDbSnapshot {
    pub(crate) fn new(path: Arc<str>, database: Arc<DB>) -> Self {
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
        }
    }
}

impl EngineSnapshot for RocksDbSnapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = column_family(&self.database, keyspace)?;
        let value = self
            .database
            .get_pinned_cf_opt(&family, key, &self.read_options)
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
        let family = column_family(&self.database, keyspace)?;
        let mut read_options = ReadOptions::default();
        if !lower.is_empty() {
            read_options.set_iterate_lower_bound(lower);
        }
        if !upper.is_empty() {
            read_options.set_iterate_upper_bound(upper);
        }
        let iterator = self.snapshot.raw_iterator_cf_opt(&family, read_options);
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
        Ok(self.iterator.item())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_decimals() {
        for number in [0, 7, 10, 999, 1_000, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
    }
}
