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
    /// What it knew when the first of these writes was made: all of them must be good under what holds now.
    pub first_table: Arc<Table>,
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
    /// What revocable statements changed, oldest first.
    undo: Vec<Undo>,
}

/// What a row was before a revocable statement changed it. (Index entries stay: they are hints only.)
#[derive(Debug)]
struct Undo {
    /// The statement.
    sequence: u32,
    shard: ShardId,
    storage: StorageId,
    key: Bytes,
    /// `None`: not written by this transaction.
    before: Option<Option<Bytes>>,
}

impl<Table> Default for WriteSet<Table> {
    fn default() -> Self {
        Self {
            shards: BTreeMap::new(),
            bytes: 0,
            undo: Vec::new(),
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

    /// Forgets the writes in one shard.
    pub fn remove_shard(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
        self.undo.retain(|undo| undo.shard != shard);
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
            first_table: table.clone(),
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

    /// As [`absorb`](Self::absorb), for writes of statement `sequence` that [`revoke_after`](Self::revoke_after) can
    /// take back.
    pub fn absorb_revocable(&mut self, sequence: u32, later: Self) {
        for (shard, writes) in &later.shards {
            for (storage, table) in &writes.tables {
                for key in table.rows.keys() {
                    let before = self.get(*shard, *storage, key).cloned();
                    self.bytes += write_bytes(key, before.as_ref().and_then(Option::as_ref));
                    self.undo.push(Undo {
                        sequence,
                        shard: *shard,
                        storage: *storage,
                        key: key.clone(),
                        before,
                    });
                }
            }
        }
        self.absorb(later);
    }

    /// Takes back, newest first, what revocable statements with numbers above `sequence` wrote.
    pub fn revoke_after(&mut self, sequence: u32) {
        while let Some(undo) = self.undo.pop_if(|undo| undo.sequence > sequence) {
            let Some(writes) = self.shards.get_mut(&undo.shard) else {
                continue;
            };
            let Some(table) = writes.tables.get_mut(&undo.storage) else {
                continue;
            };
            let before_bytes = write_bytes(&undo.key, undo.before.as_ref().and_then(Option::as_ref));
            let revoked = match undo.before {
                Some(before) => table.rows.insert(undo.key.clone(), before),
                None => table.rows.remove(&undo.key),
            };
            let revoked_bytes = write_bytes(&undo.key, revoked.as_ref().and_then(Option::as_ref));
            self.bytes = self.bytes.saturating_sub(before_bytes + revoked_bytes);
            if table.rows.is_empty() {
                writes.tables.remove(&undo.storage);
            }
            if writes.tables.is_empty() {
                self.shards.remove(&undo.shard);
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model that keeps a copy of everything at each statement.
        #[test]
        fn revoking_brings_back_what_was(
            steps in proptest::collection::vec((0_u8..4, 0_u8..6, proptest::option::of(0_u8..9)), 1..60),
        ) {
            let table = Arc::new(());
            let mut writes = WriteSet::<()>::default();
            let mut model: BTreeMap<u8, Option<u8>> = BTreeMap::new();
            let mut versions = vec![model.clone()];
            for (kind, key, row) in steps {
                if kind == 0 {
                    // Back to a statement chosen by the key.
                    let kept = usize::from(key) % versions.len();
                    writes.revoke_after(u32::try_from(kept).unwrap());
                    versions.truncate(kept + 1);
                    model = versions[kept].clone();
                } else {
                    let mut later = WriteSet::default();
                    let bytes = |value: u8| Bytes::copy_from_slice(&[value]);
                    later.put(u64::from(key % 2), 7, &table, bytes(key), row.map(bytes), []);
                    writes.absorb_revocable(u32::try_from(versions.len()).unwrap(), later);
                    model.insert(key, row);
                    versions.push(model.clone());
                }
                let mut found = BTreeMap::new();
                for (_, shard) in writes.shards() {
                    for (_, table) in shard.tables() {
                        prop_assert!(!table.rows.is_empty());
                        found.extend(table.rows.iter().map(|(key, row)| (key[0], row.as_ref().map(|row| row[0]))));
                    }
                }
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(writes.is_empty(), model.is_empty());
            }
            writes.revoke_after(0);
            prop_assert_eq!(writes.bytes(), 0);
        }
    }

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
