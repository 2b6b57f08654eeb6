//! A transaction's uncommitted writes on one node, in key order so that scans can merge them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_protocol::message::{ShardId, StorageId};

/// Bookkeeping bytes a write costs besides its key and row.
const OVERHEAD_BYTES: usize = 96;

/// An index entry that a written row will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The index.
    pub index: StorageId,
    /// Index key ‖ primary key.
    pub entry: Bytes,
}

/// Writes of one table in one shard.
#[derive(Debug)]
pub struct TableWrites<Table> {
    /// What the node knows of the table.
    pub table: Arc<Table>,
    /// The newest row by primary key; `None`: deleted.
    pub rows: BTreeMap<Bytes, Option<Bytes>>,
}

/// Writes in one shard.
#[derive(Debug)]
pub struct ShardWrites<Table> {
    tables: BTreeMap<StorageId, TableWrites<Table>>,
    /// For each index: entry to primary key. Entries of rows that were overwritten since remain: hints only.
    entries: BTreeMap<StorageId, BTreeMap<Bytes, Bytes>>,
}

/// All uncommitted writes of a transaction.
#[derive(Debug)]
pub struct WriteSet<Table> {
    shards: BTreeMap<ShardId, ShardWrites<Table>>,
    bytes: usize,
}

impl<Table> Default for WriteSet<Table> {
    fn default() -> Self {
        Self {
            shards: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<Table> Default for ShardWrites<Table> {
    fn default() -> Self {
        Self {
            tables: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }
}

/// What a row and its entries count for in the memory limit.
pub fn write_bytes(key: &[u8], row: Option<&Bytes>) -> usize {
    key.len() + row.map_or(0, Bytes::len) + OVERHEAD_BYTES
}

impl<Table> WriteSet<Table> {
    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// About how much memory the writes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The shards written to, ascending.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardWrites<Table>)> {
        self.shards.iter().map(|(shard, writes)| (*shard, writes))
    }

    /// Writes in one shard.
    pub fn shard(&self, shard: ShardId) -> Option<&ShardWrites<Table>> {
        self.shards.get(&shard)
    }

    /// Sets (or, with `None`, deletes) a row.
    pub fn put(
        &mut self,
        shard: ShardId,
        storage: StorageId,
        table: &Arc<Table>,
        key: Bytes,
        row: Option<Bytes>,
        entries: impl IntoIterator<Item = IndexEntry>,
    ) {
        let writes = self.shards.entry(shard).or_default();
        for IndexEntry { index, entry } in entries {
            self.bytes += entry.len() + OVERHEAD_BYTES;
            writes
                .entries
                .entry(index)
                .or_default()
                .insert(entry, key.clone());
        }
        let table_writes = writes.tables.entry(storage).or_insert_with(|| TableWrites {
            table: table.clone(),
            rows: BTreeMap::new(),
        });
        table_writes.table = table.clone();
        self.bytes += write_bytes(&key, row.as_ref());
        table_writes.rows.insert(key, row);
    }

    /// Adds later writes; where both wrote a row, theirs win.
    pub fn absorb(&mut self, later: Self) {
        self.bytes += later.bytes;
        if self.shards.is_empty() {
            self.shards = later.shards;
            return;
        }
        for (shard, mut writes) in later.shards {
            let mine = self.shards.entry(shard).or_default();
            for (storage, mut table) in std::mem::take(&mut writes.tables) {
                match mine.tables.get_mut(&storage) {
                    Some(my_table) => {
                        my_table.table = table.table;
                        my_table.rows.append(&mut table.rows);
                    }
                    None => {
                        mine.tables.insert(storage, table);
                    }
                }
            }
            for (index, mut entries) in writes.entries {
                mine.entries.entry(index).or_default().append(&mut entries);
            }
        }
    }

    /// What the transaction itself wrote at `key`: `None` nothing, `Some(None)` a deletion.
    pub fn get(&self, shard: ShardId, storage: StorageId, key: &[u8]) -> Option<&Option<Bytes>> {
        self.shards.get(&shard)?.tables.get(&storage)?.rows.get(key)
    }

    /// Whether a scan of `storage` has anything to merge.
    pub fn touches(&self, shard: ShardId, storage: StorageId) -> bool {
        self.shards
            .get(&shard)
            .is_some_and(|writes| writes.tables.contains_key(&storage))
    }
}

impl<Table> ShardWrites<Table> {
    /// Written tables, ascending by storage.
    pub fn tables(&self) -> impl Iterator<Item = (StorageId, &TableWrites<Table>)> {
        self.tables.iter().map(|(storage, writes)| (*storage, writes))
    }

    /// Index entries of written rows.
    pub fn entries(&self) -> impl Iterator<Item = (StorageId, &BTreeMap<Bytes, Bytes>)> {
        self.entries.iter().map(|(index, entries)| (*index, entries))
    }

    /// The first write of `storage` within the bounds (the last, if `reverse`).
    pub fn next_row(
        &self,
        storage: StorageId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
    ) -> Option<(&Bytes, &Option<Bytes>)> {
        next_in(&self.tables.get(&storage)?.rows, lower, upper, reverse)
    }

    /// The first entry of `index` within the bounds (the last, if `reverse`), and the primary key it is for.
    pub fn next_entry(
        &self,
        index: StorageId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
    ) -> Option<(&Bytes, &Bytes)> {
        next_in(self.entries.get(&index)?, lower, upper, reverse)
    }
}

fn next_in<'a, Value>(
    map: &'a BTreeMap<Bytes, Value>,
    lower: Bound<&[u8]>,
    upper: Bound<&[u8]>,
    reverse: bool,
) -> Option<(&'a Bytes, &'a Value)> {
    // BTreeMap::range panics on bounds that cross.
    if let (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) =
        (lower, upper)
        && low >= high
    {
        return None;
    }
    let mut range = map.range::<[u8], _>((lower, upper));
    if reverse { range.next_back() } else { range.next() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_come_in_order_and_last_write_wins() {
        let mut writes = WriteSet::<()>::default();
        let table = Arc::new(());
        for (key, row) in [("b", Some("1")), ("a", Some("2")), ("b", None)] {
            let row = row.map(|row: &str| Bytes::from(row.to_owned()));
            writes.put(1, 7, &table, Bytes::from(key.to_owned()), row, []);
        }
        assert_eq!(writes.get(1, 7, b"b"), Some(&None));
        assert_eq!(writes.get(1, 7, b"c"), None);
        let shard = writes.shard(1).unwrap();
        let first = shard
            .next_row(7, Bound::Unbounded, Bound::Unbounded, false)
            .unwrap();
        assert_eq!(first.0.as_ref(), b"a");
        let after = shard
            .next_row(7, Bound::Excluded(b"a"), Bound::Unbounded, false)
            .unwrap();
        assert_eq!(after, (&Bytes::from_static(b"b"), &None));
        assert!(
            shard
                .next_row(7, Bound::Excluded(b"b"), Bound::Excluded(b"b"), false)
                .is_none()
        );
        let last = shard
            .next_row(7, Bound::Unbounded, Bound::Excluded(b"b"), true)
            .unwrap();
        assert_eq!(last.0.as_ref(), b"a");
    }
}
