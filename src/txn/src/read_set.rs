//! What a serializable transaction has read, shard by shard, as its Coordinator keeps it: the keys and the ranges that
//! it asked for, whatever it found there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use neorunbase_protocol::message::{ReadRange, ShardId, StorageId, TableReads};
use neorunbase_world::fault::planted;

/// Bookkeeping bytes an entry costs besides its keys.
const OVERHEAD_BYTES: usize = 64;

/// The reads of one transaction. It takes a bounded amount of memory: where it would take more, the table of which most
/// was recorded counts as read as a whole.
#[derive(Debug)]
pub struct ReadSet {
    tables: BTreeMap<(ShardId, StorageId), ReadTable>,
    bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct ReadTable {
    keys: BTreeSet<Bytes>,
    /// Index, lower bound, upper bound.
    ranges: BTreeSet<(StorageId, Bytes, Bytes)>,
    bytes: usize,
    /// All of it counts as read; then nothing else is kept.
    whole: bool,
}

impl ReadSet {
    /// Nothing read. The keys kept take about `limit_bytes` at most.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            tables: BTreeMap::new(),
            bytes: 0,
            limit_bytes,
        }
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The shards that were read.
    pub fn shards(&self) -> BTreeSet<ShardId> {
        self.tables.keys().map(|(shard, _)| *shard).collect()
    }

    /// These rows were asked for by primary key.
    pub fn read_keys(&mut self, shard: ShardId, storage: StorageId, keys: &[Bytes]) {
        for key in keys {
            let table = self.tables.entry((shard, storage)).or_default();
            if !table.whole && !table.keys.contains(key) {
                table.keys.insert(key.clone());
                let bytes = key.len() + OVERHEAD_BYTES;
                table.bytes += bytes;
                self.bytes += bytes;
                self.coarsen();
            }
        }
    }

    /// A range of the primary key (`index` 0) or of an index was asked for. An empty `upper` is the end.
    pub fn read_range(
        &mut self,
        shard: ShardId,
        storage: StorageId,
        index: StorageId,
        lower: &Bytes,
        upper: &Bytes,
    ) {
        if planted("read-set-ignores-ranges") {
            return;
        }
        let table = self.tables.entry((shard, storage)).or_default();
        if index == 0 && lower.is_empty() && upper.is_empty() {
            self.bytes -= table.become_whole();
        } else if !table.whole && table.ranges.insert((index, lower.clone(), upper.clone())) {
            let bytes = lower.len() + upper.len() + OVERHEAD_BYTES;
            table.bytes += bytes;
            self.bytes += bytes;
            self.coarsen();
        }
    }

    /// All rows of a table in a shard were asked for.
    pub fn read_table(&mut self, shard: ShardId, storage: StorageId) {
        self.read_range(shard, storage, 0, &Bytes::new(), &Bytes::new());
    }

    fn coarsen(&mut self) {
        while self.bytes > self.limit_bytes {
            let Some(largest) = self.tables.values_mut().max_by_key(|table| table.bytes) else {
                return;
            };
            let freed = largest.become_whole();
            assert!(freed > 0, "what is kept takes bytes");
            self.bytes -= freed;
        }
    }

    /// What was read of `shard`.
    pub fn of_shard(&self, shard: ShardId) -> Vec<TableReads> {
        let tables = self.tables.range((shard, 0)..=(shard, StorageId::MAX));
        tables
            .map(|((_, storage), table)| table.message(*storage))
            .collect()
    }

    /// Forgets everything: a planted bug.
    pub fn clear(&mut self) {
        self.tables.clear();
        self.bytes = 0;
    }
}

impl ReadTable {
    /// Returns how many bytes that frees.
    fn become_whole(&mut self) -> usize {
        self.whole = true;
        self.keys.clear();
        self.ranges.clear();
        std::mem::take(&mut self.bytes)
    }

    fn message(&self, storage: StorageId) -> TableReads {
        let whole = self.whole.then(ReadRange::default);
        let ranges = self.ranges.iter().map(|(index, lower, upper)| ReadRange {
            index: *index,
            lower: lower.clone(),
            upper: upper.clone(),
        });
        TableReads {
            storage,
            keys: self.keys.iter().cloned().collect(),
            ranges: whole.into_iter().chain(ranges).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::from(text.to_owned())
    }

    #[test]
    fn each_shard_gets_its_own() {
        let mut reads = ReadSet::new(10_000);
        reads.read_keys(1, 7, &[bytes("b"), bytes("a"), bytes("b")]);
        reads.read_range(1, 7, 9, &bytes("c"), &bytes("d"));
        reads.read_keys(2, 8, &[bytes("x")]);
        assert_eq!(reads.shards(), BTreeSet::from([1, 2]));
        let tables = reads.of_shard(1);
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].keys, [bytes("a"), bytes("b")]);
        let range = ReadRange {
            index: 9,
            lower: bytes("c"),
            upper: bytes("d"),
        };
        assert_eq!(tables[0].ranges, [range]);
        assert_eq!(reads.of_shard(2)[0].storage, 8);
        assert!(reads.of_shard(3).is_empty());
    }

    #[test]
    fn what_is_too_much_becomes_a_whole_table() {
        let mut reads = ReadSet::new(1_000);
        reads.read_keys(1, 7, &[bytes("kept")]);
        for number in 0..100 {
            reads.read_keys(1, 8, &[bytes(&number.to_string())]);
            assert!(reads.bytes <= 1_000);
        }
        let tables = reads.of_shard(1);
        assert_eq!(tables[0].keys, [bytes("kept")]);
        assert!(tables[1].keys.is_empty());
        assert_eq!(tables[1].ranges, [ReadRange::default()]);
    }

    #[test]
    fn a_whole_table_needs_nothing_else() {
        let mut reads = ReadSet::new(1_000);
        reads.read_keys(1, 7, &[bytes("a")]);
        reads.read_table(1, 7);
        reads.read_keys(1, 7, &[bytes("b")]);
        assert_eq!(reads.bytes, 0);
        assert!(reads.of_shard(1)[0].keys.is_empty());
        assert_eq!(reads.of_shard(1)[0].ranges, [ReadRange::default()]);
    }
}
