//! Random operations on RocksDB and on ordered maps, with crashes: both must agree after each.

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(not(madsim))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_rocksdb_engine::{RocksDbEngineFactory, RocksDbOptions};
use neorunbase_world::shard_engine::{
    EngineBatch, EngineChange, EngineKey, EngineSnapshot, KeyspaceId, ShardEngine, ShardEngineFactory,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Create(u64),
    Drop(u64),
    /// Keyspace, key, and the new value's size (`None`: delete). Changes of missing keyspaces are left out.
    Write(Vec<(u64, u8, Option<u16>)>),
    Flush,
    TakeSnapshot,
    /// Bounds of a scan over each held snapshot, which is then let go.
    CheckSnapshots(u8, u8, bool),
    /// Dropped without a close, then opened again.
    Crash,
    /// Closed, then opened again.
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    let keyspace = 0..4_u64;
    let value = prop_oneof![
        3 => (0..40_u16).prop_map(Some),
        // Large ones fill the small write buffer, so that RocksDB flushes by itself.
        2 => (8_000..40_000_u16).prop_map(Some),
        2 => Just(None),
    ];
    let change = (keyspace.clone(), 0..24_u8, value);
    prop_oneof![
        3 => keyspace.clone().prop_map(Operation::Create),
        1 => keyspace.prop_map(Operation::Drop),
        12 => proptest::collection::vec(change, 0..8).prop_map(Operation::Write),
        2 => Just(Operation::Flush),
        2 => Just(Operation::TakeSnapshot),
        2 => (0..26_u8, 0..26_u8, any::<bool>()).prop_map(|(lower, upper, reverse)| {
            Operation::CheckSnapshots(lower, upper, reverse)
        }),
        2 => Just(Operation::Crash),
        1 => Just(Operation::Restart),
    ]
}

/// A keyspace created anew is another one, whatever its number.
type Generation = u32;
type Content = BTreeMap<(u64, Generation, Vec<u8>), Vec<u8>>;

#[derive(Default)]
struct Model {
    live: BTreeMap<u64, Generation>,
    next_generation: Generation,
    /// The content after each batch that a crash may still fall back to, by log position; never empty.
    states: BTreeMap<u64, Content>,
}

impl Model {
    fn latest(&self) -> (u64, &Content) {
        let (lsn, content) = self.states.last_key_value().unwrap();
        (*lsn, content)
    }

    /// What `content` shows of `keyspace`.
    fn visible(&self, content: &Content, keyspace: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let generation = self.live[&keyspace];
        content
            .iter()
            .filter(|((space, of, _), _)| *space == keyspace && *of == generation)
            .map(|((_, _, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

fn key_bytes(key: u8) -> Vec<u8> {
    // Some keys are prefixes of others.
    let mut bytes = vec![b'a' + key / 3];
    bytes.extend(std::iter::repeat_n(b'x', usize::from(key % 3)));
    bytes
}

fn scan(
    view: &dyn EngineSnapshot,
    keyspace: u64,
    lower: &[u8],
    upper: &[u8],
    reverse: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = view.scan(KeyspaceId(keyspace), lower, upper, reverse).unwrap();
    let mut found = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        found.push((key.to_vec(), value.to_vec()));
    }
    found
}

fn check_content(engine: &dyn ShardEngine, model: &Model) {
    let live: Vec<_> = model.live.keys().copied().map(KeyspaceId).collect();
    assert_eq!(engine.keyspaces(), live);
    let (lsn, content) = model.latest();
    assert_eq!(engine.applied_lsn(), lsn);
    let durable = engine.durable_lsn();
    assert!(
        model.states.contains_key(&durable),
        "durable position {durable} is that of a batch"
    );
    let view = engine.snapshot();
    for keyspace in model.live.keys() {
        assert_eq!(
            scan(&*view, *keyspace, b"", b"", false),
            model.visible(content, *keyspace)
        );
    }
}

async fn run(operations: Vec<Operation>) {
    let directory = tempfile::tempdir().unwrap();
    let options = RocksDbOptions {
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 64 << 10,
        ..RocksDbOptions::default()
    };
    let factory = RocksDbEngineFactory::new(directory.path().to_owned(), options);
    let key = EngineKey {
        version: 1,
        secret: [3; 32],
    };
    let mut engine: Arc<dyn ShardEngine> = factory.open("shard", &key).await.unwrap();
    let mut model = Model::default();
    model.states.insert(0, Content::new());
    let mut snapshots: Vec<(Arc<dyn EngineSnapshot>, Content)> = Vec::new();
    let mut counter = 0_u64;

    for operation in operations {
        match operation {
            Operation::Create(keyspace) => {
                engine.create_keyspace(KeyspaceId(keyspace)).unwrap();
                if !model.live.contains_key(&keyspace) {
                    model.next_generation += 1;
                    model.live.insert(keyspace, model.next_generation);
                }
            }
            Operation::Drop(keyspace) => {
                engine.drop_keyspace(KeyspaceId(keyspace)).unwrap();
                model.live.remove(&keyspace);
            }
            Operation::Write(changes) => {
                let (lsn, mut content) = (model.latest().0, model.latest().1.clone());
                let mut batch = EngineBatch {
                    changes: Vec::new(),
                    applied_lsn: lsn + 1 + counter % 3,
                };
                for (keyspace, key, size) in changes {
                    let Some(generation) = model.live.get(&keyspace) else {
                        continue;
                    };
                    let at = (keyspace, *generation, key_bytes(key));
                    let (keyspace, key) = (KeyspaceId(keyspace), Bytes::from(key_bytes(key)));
                    counter += 1;
                    match size {
                        Some(size) => {
                            let mut value = counter.to_be_bytes().to_vec();
                            value.resize(8 + usize::from(size), counter as u8);
                            content.insert(at, value.clone());
                            batch.changes.push(EngineChange::Put {
                                keyspace,
                                key,
                                value: value.into(),
                            });
                        }
                        None => {
                            content.remove(&at);
                            batch.changes.push(EngineChange::Delete { keyspace, key });
                        }
                    }
                }
                model.states.insert(batch.applied_lsn, content);
                engine.write(batch).unwrap();
            }
            Operation::Flush => {
                engine.flush().await.unwrap();
                assert_eq!(engine.durable_lsn(), model.latest().0);
            }
            Operation::TakeSnapshot => snapshots.push((engine.snapshot(), model.latest().1.clone())),
            Operation::CheckSnapshots(lower, upper, reverse) => {
                let (lower, upper) = (
                    key_bytes(lower),
                    if upper == 25 { vec![] } else { key_bytes(upper) },
                );
                for (view, content) in snapshots.drain(..) {
                    for keyspace in model.live.keys() {
                        let mut expected = model.visible(&content, *keyspace);
                        for (key, value) in &expected {
                            assert_eq!(
                                view.get(KeyspaceId(*keyspace), key).unwrap().as_deref(),
                                Some(&value[..])
                            );
                        }
                        expected.retain(|(key, _)| *key >= lower && (upper.is_empty() || *key < upper));
                        if reverse {
                            expected.reverse();
                        }
                        assert_eq!(scan(&*view, *keyspace, &lower, &upper, reverse), expected);
                    }
                }
            }
            Operation::Crash => {
                snapshots.clear();
                let durable = engine.durable_lsn();
                drop(engine);
                engine = factory.open("shard", &key).await.unwrap();
                let kept = engine.applied_lsn();
                assert!(
                    kept >= durable,
                    "{kept} after a crash, though {durable} was durable"
                );
                assert!(
                    model.states.contains_key(&kept),
                    "{kept} is not the position of a batch"
                );
                model.states.split_off(&(kept + 1));
            }
            Operation::Restart => {
                snapshots.clear();
                engine.close().await.unwrap();
                drop(engine);
                engine = factory.open("shard", &key).await.unwrap();
                assert_eq!(engine.durable_lsn(), model.latest().0);
            }
        }
        check_content(&*engine, &model);
        // A keyspace that is gone cannot come back, whichever state a crash falls back to.
        let live: BTreeSet<_> = model.live.values().copied().collect();
        for content in model.states.values_mut() {
            content.retain(|(_, generation, _), _| live.contains(generation));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("NEORUNBASE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_model(operations in proptest::collection::vec(operation(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}
