//! Random operations on the engine in memory and on plain ordered maps, with crashes: both must agree.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use neorunbase_storage::memory_engine::MemoryEngineFactory;
use neorunbase_world::shard_engine::{
    EngineBatch, EngineChange, EngineError, EngineKey, EngineSnapshot, KeyspaceId, ShardEngine,
    ShardEngineFactory,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Create(u64),
    Drop(u64),
    /// Keyspace, key, and the new value (`None`: delete). Changes of missing keyspaces are left out.
    Write(Vec<(u64, Vec<u8>, Option<u8>)>),
    Flush,
    TakeSnapshot,
    CheckSnapshots(Vec<u8>, Vec<u8>, bool),
    Crash,
    /// Dropped without a close.
    Forget,
    Restart,
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4_u8, 0..4)
}

fn operation() -> impl Strategy<Value = Operation> {
    let change = (0..4_u64, any_key(), prop::option::of(any::<u8>()));
    prop_oneof![
        2 => (0..4_u64).prop_map(Operation::Create),
        1 => (0..4_u64).prop_map(Operation::Drop),
        10 => prop::collection::vec(change, 0..8).prop_map(Operation::Write),
        2 => Just(Operation::Flush),
        2 => Just(Operation::TakeSnapshot),
        2 => (any_key(), any_key(), any::<bool>())
            .prop_map(|(lower, upper, reverse)| Operation::CheckSnapshots(lower, upper, reverse)),
        2 => Just(Operation::Crash),
        1 => Just(Operation::Forget),
        1 => Just(Operation::Restart),
    ]
}

type Keyspace = BTreeMap<Vec<u8>, u8>;

#[derive(Clone, Default)]
struct Image {
    keyspaces: BTreeMap<u64, Keyspace>,
    lsn: u64,
}

fn scan(
    view: &dyn EngineSnapshot,
    keyspace: u64,
    lower: &[u8],
    upper: &[u8],
    reverse: bool,
) -> Vec<(Vec<u8>, u8)> {
    let mut cursor = view.scan(KeyspaceId(keyspace), lower, upper, reverse).unwrap();
    let mut found = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        found.push((key.to_vec(), value[0]));
    }
    found
}

fn check(engine: &dyn ShardEngine, live: &Image, durable: &Image) {
    let keyspaces: Vec<KeyspaceId> = live.keyspaces.keys().copied().map(KeyspaceId).collect();
    assert_eq!(engine.keyspaces(), keyspaces);
    assert_eq!(
        (engine.applied_lsn(), engine.durable_lsn()),
        (live.lsn, durable.lsn)
    );
    let view = engine.snapshot();
    let mut bytes = 0;
    for (keyspace, content) in &live.keyspaces {
        let expected: Vec<(Vec<u8>, u8)> = content.iter().map(|(key, value)| (key.clone(), *value)).collect();
        assert_eq!(scan(&*view, *keyspace, b"", b"", false), expected);
        for (key, value) in content {
            assert_eq!(
                engine.get(KeyspaceId(*keyspace), key).unwrap().as_deref(),
                Some(&[*value][..])
            );
            bytes += key.len() as u64 + 1;
        }
    }
    assert_eq!(engine.approximate_bytes(), bytes);
}

async fn run(operations: Vec<Operation>) {
    let factory = MemoryEngineFactory::new();
    let key = EngineKey {
        version: 1,
        secret: [3; 32],
    };
    let mut engine: Arc<dyn ShardEngine> = factory.open("shard", &key).await.unwrap();
    let (mut live, mut durable) = (Image::default(), Image::default());
    let mut snapshots: Vec<(Arc<dyn EngineSnapshot>, Image)> = Vec::new();
    // Keyspaces are numbered anew when they are created again, as the users do.
    let mut numbers = [0_u64, 1, 2, 3];
    for operation in operations {
        match operation {
            Operation::Create(slot) => {
                let keyspace = numbers[slot as usize];
                engine.create_keyspace(KeyspaceId(keyspace)).unwrap();
                live.keyspaces.entry(keyspace).or_default();
                durable.keyspaces.entry(keyspace).or_default();
            }
            Operation::Drop(slot) => {
                let keyspace = numbers[slot as usize];
                numbers[slot as usize] += 4;
                engine.drop_keyspace(KeyspaceId(keyspace)).unwrap();
                live.keyspaces.remove(&keyspace);
                durable.keyspaces.remove(&keyspace);
                let missing = engine.get(KeyspaceId(keyspace), b"");
                assert!(matches!(missing, Err(EngineError::UnknownKeyspace(_))));
            }
            Operation::Write(changes) => {
                live.lsn += 1;
                let mut batch = EngineBatch {
                    changes: Vec::new(),
                    applied_lsn: live.lsn,
                };
                for (slot, key, value) in changes {
                    let number = numbers[slot as usize];
                    let Some(content) = live.keyspaces.get_mut(&number) else {
                        continue;
                    };
                    let keyspace = KeyspaceId(number);
                    match value {
                        Some(value) => {
                            content.insert(key.clone(), value);
                            let value = Bytes::from(vec![value]);
                            batch.changes.push(EngineChange::Put {
                                keyspace,
                                key: key.into(),
                                value,
                            });
                        }
                        None => {
                            content.remove(&key);
                            batch.changes.push(EngineChange::Delete {
                                keyspace,
                                key: key.into(),
                            });
                        }
                    }
                }
                engine.write(batch).unwrap();
                assert!(
                    engine
                        .write(EngineBatch {
                            changes: vec![],
                            applied_lsn: live.lsn - 1
                        })
                        .is_err()
                );
            }
            Operation::Flush => {
                engine.flush().await.unwrap();
                durable = live.clone();
            }
            Operation::TakeSnapshot => snapshots.push((engine.snapshot(), live.clone())),
            Operation::CheckSnapshots(lower, upper, reverse) => {
                for (view, image) in snapshots.drain(..) {
                    for keyspace in live.keyspaces.keys() {
                        let content = image.keyspaces.get(keyspace).cloned().unwrap_or_default();
                        let mut expected: Vec<(Vec<u8>, u8)> = content
                            .into_iter()
                            .filter(|(key, _)| *key >= lower && (upper.is_empty() || *key < upper))
                            .collect();
                        if reverse {
                            expected.reverse();
                        }
                        assert_eq!(scan(&*view, *keyspace, &lower, &upper, reverse), expected);
                    }
                }
            }
            Operation::Crash | Operation::Forget | Operation::Restart => {
                snapshots.clear();
                assert!(factory.open("shard", &key).await.is_err(), "it is open");
                match operation {
                    Operation::Crash => {
                        factory.crash_all();
                        assert!(engine.flush().await.is_err());
                        live = durable.clone();
                    }
                    Operation::Forget => live = durable.clone(),
                    _ => {
                        engine.close().await.unwrap();
                        durable = live.clone();
                    }
                }
                drop(engine);
                let wrong = EngineKey {
                    version: 1,
                    secret: [4; 32],
                };
                assert!(matches!(
                    factory.open("shard", &wrong).await,
                    Err(EngineError::Corrupt { .. })
                ));
                engine = factory.open("shard", &key).await.unwrap();
            }
        }
        check(&*engine, &live, &durable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("NEORUNBASE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn agrees_with_the_model(operations in prop::collection::vec(operation(), 1..60)) {
        block_on(run(operations));
    }
}
