//! Row versions in a shard engine against a plain list of versions for each row: random commits, reads at
//! random snapshots, scans of rows and indexes both ways, garbage collection, index builds, crashes and replay.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use neorunbase_storage::StorageError;
use neorunbase_storage::descriptor::{IndexDescriptor, KeyColumn, TableDescriptor};
use neorunbase_storage::key::{encode_index_key, encode_key, split_index_entry};
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_storage::row::{decode_columns, encode_row};
use neorunbase_storage::shard::{
    GarbageCursor, HISTORY_KEYSPACE, RangeChange, RowChange, RowVersion, ShardStore, index_entry,
};
use neorunbase_types::{Datum, SqlType};
use neorunbase_world::shard_engine::{EngineKey, KeyspaceId, ShardEngineFactory};
use proptest::prelude::*;

const TABLE: u64 = 10;
const FIRST_INDEX: u64 = 11;
const LATE_INDEX: u64 = 12;

fn column(column: u32, descending: bool) -> KeyColumn {
    KeyColumn {
        column,
        name: format!("c{column}"),
        sql_type: SqlType::Integer,
        descending,
        missing: Datum::Null,
    }
}

fn index(storage: u64, columns: Vec<KeyColumn>) -> IndexDescriptor {
    IndexDescriptor {
        storage,
        name: format!("i{storage}"),
        columns,
        unique: false,
    }
}

fn table(with_late_index: bool) -> Arc<TableDescriptor> {
    let mut indexes = vec![index(FIRST_INDEX, vec![column(2, false)])];
    if with_late_index {
        indexes.push(index(LATE_INDEX, vec![column(3, true), column(2, false)]));
    }
    Arc::new(TableDescriptor {
        storage: TABLE,
        table_name: "t".to_owned(),
        schema_name: "public".to_owned(),
        primary_key_name: "t_pkey".to_owned(),
        primary_key: vec![column(1, false)],
        indexes,
        version: 1,
    })
}

/// A row's indexed columns; `None` of them is NULL.
type Values = (Option<i32>, i32);

fn key_of(id: i32) -> Bytes {
    encode_key(&[Datum::Integer(id)])
}

fn datums(id: i32, values: Values) -> [Datum; 3] {
    [
        Datum::Integer(id),
        values.0.map_or(Datum::Null, Datum::Integer),
        Datum::Integer(values.1),
    ]
}

fn row_of(id: i32, values: Values) -> Bytes {
    let datums = datums(id, values);
    encode_row(&[(1, &datums[0]), (2, &datums[1]), (3, &datums[2])])
}

fn values_of(row: &[u8]) -> (i32, Values) {
    let mut out = Vec::new();
    let null = Datum::Null;
    decode_columns(row, &[(1, &null), (2, &null), (3, &null)], &mut out).unwrap();
    let integer = |datum: &Datum| match datum {
        Datum::Integer(value) => Some(*value),
        _ => None,
    };
    (
        integer(&out[0]).unwrap(),
        (integer(&out[1]), integer(&out[2]).unwrap()),
    )
}

#[derive(Clone, Debug)]
enum Operation {
    /// Each row's new values (`None`: delete), and whether the commit comes in a second part as well.
    Commit(BTreeMap<i32, Option<Values>>, bool),
    ReadAll(u16),
    Scan(i32, i32, u16, bool),
    ScanIndex(u16, bool),
    /// Moves the watermark to this share of what is committed; budget of each step; steps at most.
    Collect(u16, usize, usize),
    CollectAll(u16),
    BuildLateIndex(usize),
    Flush,
    Crash,
    ChangedSince(i32, i32, u16),
}

fn any_values() -> impl Strategy<Value = Option<Values>> {
    prop_oneof![
        3 => (prop::option::weighted(0.8, 0..3_i32), 0..3_i32).prop_map(Some),
        1 => Just(None),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (prop::collection::btree_map(0..6_i32, any_values(), 1..4), prop::bool::weighted(0.1))
            .prop_map(|(rows, twice)| Operation::Commit(rows, twice)),
        2 => any::<u16>().prop_map(Operation::ReadAll),
        2 => (-1..7_i32, -1..7_i32, any::<u16>(), any::<bool>())
            .prop_map(|(lower, upper, at, reverse)| Operation::Scan(lower, upper, at, reverse)),
        2 => (any::<u16>(), any::<bool>()).prop_map(|(at, reverse)| Operation::ScanIndex(at, reverse)),
        2 => (any::<u16>(), 1..5_usize, 1..4_usize)
            .prop_map(|(share, budget, steps)| Operation::Collect(share, budget, steps)),
        1 => any::<u16>().prop_map(Operation::CollectAll),
        1 => (1..5_usize).prop_map(Operation::BuildLateIndex),
        1 => Just(Operation::Flush),
        2 => Just(Operation::Crash),
        1 => (-1..7_i32, -1..7_i32, any::<u16>())
            .prop_map(|(lower, upper, at)| Operation::ChangedSince(lower, upper, at)),
    ]
}

struct LoggedCommit {
    lsn: u64,
    commit_timestamp: u64,
    rows: BTreeMap<i32, Option<Values>>,
    with_late_index: bool,
}

struct Harness {
    factory: MemoryEngineFactory,
    store: ShardStore,
    log: Vec<LoggedCommit>,
    versions: BTreeMap<i32, Vec<(u64, Option<Values>)>>,
    timestamp: u64,
    watermark: u64,
    garbage: Option<GarbageCursor>,
    late_index: LateIndex,
}

#[derive(Clone, Copy, PartialEq)]
enum LateIndex {
    None,
    Built,
}

const KEY: EngineKey = EngineKey {
    version: 1,
    secret: [1; 32],
};

impl Harness {
    fn new() -> Self {
        let factory = MemoryEngineFactory::new();
        let engine = block_on(factory.open("shard", &KEY)).unwrap();
        let store = ShardStore::new(engine).unwrap();
        store.ensure_storage(TABLE).unwrap();
        store.ensure_storage(FIRST_INDEX).unwrap();
        Self {
            factory,
            store,
            log: Vec::new(),
            versions: BTreeMap::new(),
            timestamp: 0,
            watermark: 0,
            garbage: None,
            late_index: LateIndex::None,
        }
    }

    /// A readable snapshot: 0 now and then, else between the watermark and a bit after the newest commit.
    fn snapshot(&self, share: u16) -> u64 {
        if share.is_multiple_of(8) {
            return 0;
        }
        let span = self.timestamp + 2 - self.watermark;
        (self.watermark + u64::from(share) % (span + 1)).max(1)
    }

    fn expected(&self, id: i32, snapshot: u64) -> Option<(u64, Values)> {
        let visible = if snapshot == 0 { u64::MAX } else { snapshot };
        let (commit_timestamp, values) = *self
            .versions
            .get(&id)?
            .iter()
            .rev()
            .find(|version| version.0 <= visible)?;
        Some((commit_timestamp, values?))
    }

    fn changes(rows: &BTreeMap<i32, Option<Values>>, with_late_index: bool) -> Vec<RowChange> {
        let table = table(with_late_index);
        rows.iter()
            .map(|(id, values)| RowChange {
                table: table.clone(),
                key: key_of(*id),
                row: values.map(|values| row_of(*id, values)),
            })
            .collect()
    }

    fn commit(&mut self, rows: BTreeMap<i32, Option<Values>>, commit_timestamp: u64) {
        let with_late_index = self.late_index == LateIndex::Built;
        let lsn = self.store.engine().applied_lsn() + 1;
        let fact = (
            Bytes::from("decision"),
            Some(Bytes::from(commit_timestamp.to_string())),
        );
        self.store
            .apply(
                &Self::changes(&rows, with_late_index),
                commit_timestamp,
                lsn,
                &[fact],
            )
            .unwrap();
        for (id, values) in &rows {
            let versions = self.versions.entry(*id).or_default();
            if values.is_none() && versions.last().is_none_or(|last| last.1.is_none()) {
                continue;
            }
            versions.retain(|version| version.0 != commit_timestamp);
            versions.push((commit_timestamp, *values));
        }
        self.log.push(LoggedCommit {
            lsn,
            commit_timestamp,
            rows,
            with_late_index,
        });
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Commit(rows, twice) => {
                self.timestamp += 2;
                let again: BTreeMap<_, _> = rows
                    .iter()
                    .map(|(id, values)| (*id, values.map(|(a, b)| (Some(b), a.unwrap_or(7)))))
                    .collect();
                self.commit(rows, self.timestamp);
                if twice {
                    self.commit(again, self.timestamp);
                }
                let result = self
                    .store
                    .apply(&[], self.timestamp, self.store.engine().applied_lsn(), &[]);
                assert!(matches!(result, Err(StorageError::AlreadyApplied { .. })));
            }
            Operation::ReadAll(share) => {
                let snapshot = self.snapshot(share);
                for id in 0..6 {
                    let found = self.store.read_at(TABLE, &key_of(id), snapshot).unwrap();
                    assert_eq!(
                        found,
                        self.store
                            .snapshot()
                            .read_at(TABLE, &key_of(id), snapshot)
                            .unwrap()
                    );
                    let found = found.and_then(
                        |RowVersion {
                             commit_timestamp,
                             row,
                         }| { Some((commit_timestamp, values_of(&row?).1)) },
                    );
                    assert_eq!(found, self.expected(id, snapshot), "row {id} at {snapshot}");
                }
                if self.watermark > 1 {
                    let old = self.store.read_at(TABLE, &key_of(0), self.watermark - 1);
                    assert!(matches!(old, Err(StorageError::SnapshotTooOld { .. })));
                }
                let decision = self.store.system_scan(b"dec").unwrap();
                assert_eq!(decision.len(), usize::from(!self.log.is_empty()));
            }
            Operation::Scan(lower, upper, share, reverse) => {
                let snapshot = self.snapshot(share);
                let upper_key = if upper == 6 { Bytes::new() } else { key_of(upper) };
                let mut scan = self
                    .store
                    .scan(TABLE, &key_of(lower), &upper_key, snapshot, reverse)
                    .unwrap();
                let mut found = Vec::new();
                while let Some((key, version)) = scan.next().unwrap() {
                    let (id, values) = values_of(&version.row.unwrap());
                    assert_eq!(key, key_of(id));
                    found.push((id, (version.commit_timestamp, values)));
                }
                let mut expected: Vec<_> = (lower..upper)
                    .filter_map(|id| Some((id, self.expected(id, snapshot)?)))
                    .collect();
                if reverse {
                    expected.reverse();
                }
                assert_eq!(found, expected, "at {snapshot}");
            }
            Operation::ScanIndex(share, reverse) => {
                let snapshot = self.snapshot(share);
                for index in &table(self.late_index == LateIndex::Built).indexes {
                    self.check_index(index, snapshot, reverse);
                }
            }
            Operation::Collect(share, budget, steps) => {
                self.raise_watermark(share);
                for _ in 0..steps {
                    let progress = self
                        .store
                        .collect_garbage(self.watermark, budget, self.garbage.take())
                        .unwrap();
                    self.garbage = progress.resume;
                    if self.garbage.is_none() {
                        break;
                    }
                }
            }
            Operation::CollectAll(share) => {
                self.raise_watermark(share);
                self.collect_all();
                self.check_nothing_is_left();
            }
            Operation::BuildLateIndex(budget) => {
                if self.late_index == LateIndex::None {
                    self.store.ensure_storage(LATE_INDEX).unwrap();
                    let index = table(true).indexes[1].clone();
                    let mut resume = None;
                    loop {
                        resume = self
                            .store
                            .build_index(TABLE, &index, budget, resume)
                            .unwrap()
                            .resume;
                        if resume.is_none() {
                            break;
                        }
                    }
                    block_on(self.store.engine().flush()).unwrap();
                    self.late_index = LateIndex::Built;
                    let newest: Vec<Values> = (0..6).filter_map(|id| Some(self.expected(id, 0)?.1)).collect();
                    let without_null: Vec<_> = newest.iter().filter(|values| values.0.is_some()).collect();
                    let distinct: BTreeSet<_> = without_null.iter().collect();
                    let duplicate = self.store.first_duplicate(TABLE, &index).unwrap();
                    assert_eq!(duplicate.is_some(), distinct.len() < without_null.len());
                }
            }
            Operation::Flush => block_on(self.store.engine().flush()).unwrap(),
            Operation::Crash => {
                self.factory.crash_all();
                self.garbage = None;
                let engine = block_on(self.factory.open("shard", &KEY)).unwrap();
                self.store = ShardStore::new(engine).unwrap();
                let applied = self.store.engine().applied_lsn();
                for commit in self.log.iter().filter(|commit| commit.lsn > applied) {
                    let changes = Self::changes(&commit.rows, commit.with_late_index);
                    let fact = (
                        Bytes::from("decision"),
                        Some(Bytes::from(commit.commit_timestamp.to_string())),
                    );
                    self.store
                        .replay(&changes, commit.commit_timestamp, commit.lsn, &[fact])
                        .unwrap();
                }
                // What a node tells its shards when it starts.
                self.store.collect_garbage(self.watermark, 1, None).unwrap();
            }
            Operation::ChangedSince(lower, upper, share) => {
                let after = self.snapshot(share).max(self.watermark);
                let view = self.store.snapshot();
                let mut from = key_of(lower);
                let found = loop {
                    match view
                        .changed_since(TABLE, &from, &key_of(upper), after, 2)
                        .unwrap()
                    {
                        RangeChange::Changed(key) => break Some(key),
                        RangeChange::Unchanged => break None,
                        RangeChange::NotYet { resume } => {
                            assert!(resume > from);
                            from = resume;
                        }
                    }
                };
                let expected = (lower..upper).find(|id| {
                    self.versions
                        .get(id)
                        .is_some_and(|versions| versions.last().is_some_and(|last| last.0 > after))
                });
                assert_eq!(found, expected.map(key_of));
            }
        }
    }

    fn raise_watermark(&mut self, share: u16) {
        let target = self.timestamp * u64::from(share) / u64::from(u16::MAX);
        self.watermark = self.watermark.max(target);
    }

    fn collect_all(&mut self) {
        self.garbage = None;
        loop {
            let progress = self
                .store
                .collect_garbage(self.watermark, 3, self.garbage.take())
                .unwrap();
            self.garbage = progress.resume;
            if self.garbage.is_none() {
                break;
            }
        }
    }

    fn check_index(&self, index: &IndexDescriptor, snapshot: u64, reverse: bool) {
        let view = self.store.snapshot();
        let mut scan = view.scan_index(index.storage, b"", b"", reverse).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = scan.next().unwrap() {
            let (_, primary_key) = split_index_entry(&entry, index.columns.len()).unwrap();
            let version = view.read_at(TABLE, primary_key, snapshot).unwrap();
            if let Some(row) = version.and_then(|version| version.row)
                && index_entry(index, primary_key, &row).unwrap() == entry
            {
                found.push(entry);
            }
        }
        let mut expected: Vec<Bytes> = (0..6)
            .filter_map(|id| {
                let datums = datums(id, self.expected(id, snapshot)?.1);
                let columns = index
                    .columns
                    .iter()
                    .map(|column| (&datums[column.column as usize - 1], column.descending));
                let mut entry = encode_index_key(columns).to_vec();
                entry.extend_from_slice(&key_of(id));
                Some(Bytes::from(entry))
            })
            .collect();
        expected.sort();
        if reverse {
            expected.reverse();
        }
        assert_eq!(found, expected, "index {} at {snapshot}", index.storage);
    }

    /// After a whole pass exactly what snapshots from the watermark on can see is left.
    fn check_nothing_is_left(&self) {
        let count = |keyspace: KeyspaceId| {
            let view = self.store.engine().snapshot();
            let mut cursor = view.scan(keyspace, b"", b"", false).unwrap();
            let mut count = 0;
            while cursor.next().unwrap().is_some() {
                count += 1;
            }
            count
        };
        let (mut rows, mut history, mut perhaps) = (0, 0, 0);
        let mut entries: BTreeMap<u64, BTreeSet<Bytes>> = BTreeMap::new();
        for (id, versions) in &self.versions {
            for (position, (timestamp, values)) in versions.iter().enumerate() {
                let next = versions.get(position + 1);
                let needed = match next {
                    Some(next) => next.0 > self.watermark,
                    None => values.is_some() || *timestamp > self.watermark,
                };
                if !needed {
                    continue;
                }
                if next.is_some() && values.is_none() && *timestamp <= self.watermark {
                    // It may have gone before the row was inserted again.
                    perhaps += 1;
                } else if next.is_some() {
                    history += 1;
                } else {
                    rows += 1;
                }
                if values.is_none() && *timestamp > self.watermark && next.is_none() {
                    history += 1; // its deletion marker
                } else if next.is_some()
                    && versions
                        .iter()
                        .rfind(|version| version.1.is_none())
                        .is_some_and(|last| last == &(*timestamp, *values))
                    && *timestamp > self.watermark
                {
                    history += 1; // the marker of the last deletion, of a row that lives again
                }
                if let Some(values) = values {
                    for index in &table(self.late_index == LateIndex::Built).indexes {
                        let entry = index_entry(index, &key_of(*id), &row_of(*id, *values)).unwrap();
                        entries.entry(index.storage).or_default().insert(entry);
                    }
                }
            }
        }
        assert_eq!(count(KeyspaceId(TABLE)), rows);
        let found = count(HISTORY_KEYSPACE);
        assert!(
            (history..=history + perhaps).contains(&found),
            "{found} old versions, not {history} + {perhaps}"
        );
        for index in &table(self.late_index == LateIndex::Built).indexes {
            let expected = entries.get(&index.storage).map_or(0, BTreeSet::len);
            assert_eq!(
                count(KeyspaceId(index.storage)),
                expected,
                "entries of index {}",
                index.storage
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("NEORUNBASE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn agrees_with_lists_of_versions(operations in prop::collection::vec(operation(), 1..60)) {
        let mut harness = Harness::new();
        for operation in operations {
            harness.run(operation);
        }
        harness.run(Operation::CollectAll(u16::MAX));
        for id in 0..6 {
            harness.run(Operation::ReadAll(id * 8 + 1));
        }
        harness.run(Operation::ScanIndex(0, false));
    }
}

#[test]
fn dropped_storages_are_skipped_and_their_history_goes() {
    let mut harness = Harness::new();
    harness.commit([(1, Some((Some(1), 1)))].into(), 10);
    harness.commit([(1, Some((Some(2), 1)))].into(), 20);
    harness.store.drop_storage(FIRST_INDEX).unwrap();
    harness.commit([(1, Some((Some(3), 1)))].into(), 30);
    harness.store.drop_storage(TABLE).unwrap();
    assert!(!harness.store.has_storage(TABLE));
    harness.commit([(1, None)].into(), 40);
    let missing = harness.store.newest(TABLE, &key_of(1));
    assert!(matches!(missing, Err(StorageError::UnknownStorage(TABLE))));
    harness.run(Operation::Crash);
    harness.collect_all();
    let view = harness.store.engine().snapshot();
    assert!(
        view.scan(HISTORY_KEYSPACE, b"", b"", false)
            .unwrap()
            .next()
            .unwrap()
            .is_none()
    );
    let unknown = harness
        .store
        .apply(&Harness::changes(&[(1, None)].into(), false), 50, 99, &[]);
    assert!(matches!(unknown, Err(StorageError::UnknownStorage(TABLE))));
}

#[test]
fn commits_out_of_order_are_refused() {
    let mut harness = Harness::new();
    harness.commit([(1, Some((Some(1), 1)))].into(), 10);
    let changes = Harness::changes(&[(1, None)].into(), false);
    let refused = harness.store.apply(&changes, 9, 2, &[]);
    assert!(matches!(
        refused,
        Err(StorageError::CommitOutOfOrder {
            commit_timestamp: 9,
            newest: 10
        })
    ));
}
