//! What a shard engine promises, on the real RocksDB with encrypted files.

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(not(madsim))]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_rocksdb_engine::{RocksDbEngineFactory, RocksDbOptions};
use neorunbase_world::shard_engine::{
    EngineBatch, EngineChange, EngineError, EngineKey, EngineSnapshot, KeyspaceId, ShardEngine,
    ShardEngineFactory,
};

const PATH: &str = "shards/17";
const ROWS: KeyspaceId = KeyspaceId(4);
const INDEX: KeyspaceId = KeyspaceId(12_345_678_901);

fn key() -> EngineKey {
    EngineKey {
        version: 2,
        secret: [9; 32],
    }
}

struct Node {
    directory: tempfile::TempDir,
    factory: RocksDbEngineFactory,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = RocksDbOptions {
            block_cache_bytes: 8 << 20,
            ..RocksDbOptions::default()
        };
        let factory = RocksDbEngineFactory::new(directory.path().to_owned(), options);
        Self { directory, factory }
    }

    async fn open(&self) -> Arc<dyn ShardEngine> {
        self.factory.open(PATH, &key()).await.unwrap()
    }

    async fn refused(&self, key: &EngineKey) -> String {
        match self.factory.open(PATH, key).await {
            Err(error @ EngineError::Corrupt { .. }) => error.to_string(),
            Err(error) => panic!("unexpected error {error}"),
            Ok(_) => panic!("opened"),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        files_below(self.directory.path())
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files
}

fn put(keyspace: KeyspaceId, key: &str, value: &str) -> EngineChange {
    EngineChange::Put {
        keyspace,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(keyspace: KeyspaceId, key: &str) -> EngineChange {
    EngineChange::Delete {
        keyspace,
        key: Bytes::copy_from_slice(key.as_bytes()),
    }
}

fn write(engine: &dyn ShardEngine, applied_lsn: u64, changes: Vec<EngineChange>) {
    engine.write(EngineBatch { changes, applied_lsn }).unwrap();
}

fn scan(view: &dyn EngineSnapshot, keyspace: KeyspaceId, lower: &str, upper: &str, reverse: bool) -> String {
    let mut cursor = view
        .scan(keyspace, lower.as_bytes(), upper.as_bytes(), reverse)
        .unwrap();
    let mut found = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        found.push(format!(
            "{}={}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value)
        ));
    }
    assert!(cursor.next().unwrap().is_none(), "the end stays the end");
    found.join(" ")
}

fn get(engine: &dyn ShardEngine, keyspace: KeyspaceId, key: &str) -> Option<Bytes> {
    engine.get(keyspace, key.as_bytes()).unwrap()
}

#[tokio::test]
async fn reads_what_was_written() {
    let node = Node::new();
    let engine = node.open().await;
    assert_eq!((engine.applied_lsn(), engine.durable_lsn()), (0, 0));
    engine.create_keyspace(ROWS).unwrap();
    engine.create_keyspace(ROWS).unwrap();
    engine.create_keyspace(INDEX).unwrap();
    assert_eq!(engine.keyspaces(), [ROWS, INDEX]);

    write(
        &*engine,
        10,
        vec![
            put(ROWS, "b", "2"),
            put(ROWS, "a", "1"),
            put(INDEX, "x", "a"),
            put(ROWS, "c", "3"),
        ],
    );
    write(
        &*engine,
        10,
        vec![put(ROWS, "d", "4"), put(ROWS, "d", "5"), delete(ROWS, "c")],
    );
    assert_eq!(get(&*engine, ROWS, "d").unwrap(), "5");
    assert_eq!(get(&*engine, ROWS, "c"), None);
    assert_eq!(get(&*engine, ROWS, "x"), None);
    assert_eq!(get(&*engine, INDEX, "x").unwrap(), "a");
    assert!(engine.approximate_bytes() > 0);

    for flushed in [false, true] {
        if flushed {
            engine.flush().await.unwrap();
        }
        assert_eq!(engine.durable_lsn(), if flushed { 10 } else { 0 });
        let view = engine.snapshot();
        assert_eq!(scan(&*view, ROWS, "", "", false), "a=1 b=2 d=5");
        assert_eq!(scan(&*view, ROWS, "", "", true), "d=5 b=2 a=1");
        assert_eq!(scan(&*view, ROWS, "b", "d", false), "b=2");
        assert_eq!(scan(&*view, ROWS, "a\0", "d\0", true), "d=5 b=2");
        assert_eq!(scan(&*view, ROWS, "", "a", true), "");
        assert_eq!(scan(&*view, ROWS, "z", "", false), "");
        assert_eq!(scan(&*view, ROWS, "d", "a", true), "");
        assert_eq!(view.get(ROWS, b"b").unwrap().unwrap(), "2");
    }
}

#[tokio::test]
async fn a_snapshot_stands_still_and_outlives_the_engine() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1"), put(ROWS, "b", "1")]);
    let view = engine.snapshot();
    let mut cursor = view.scan(ROWS, b"", b"", false).unwrap();
    write(
        &*engine,
        2,
        vec![put(ROWS, "a", "2"), delete(ROWS, "b"), put(ROWS, "c", "2")],
    );
    engine.flush().await.unwrap();
    assert_eq!(cursor.next().unwrap(), Some((&b"a"[..], &b"1"[..])));
    drop(cursor);
    assert_eq!(scan(&*view, ROWS, "", "", false), "a=1 b=1");
    assert_eq!(scan(&*engine.snapshot(), ROWS, "", "", false), "a=2 c=2");

    engine.close().await.unwrap();
    assert_eq!(scan(&*view, ROWS, "", "", true), "b=1 a=1");
    assert!(engine.get(ROWS, b"a").is_err());
    assert!(
        engine
            .write(EngineBatch {
                changes: vec![],
                applied_lsn: 3
            })
            .is_err()
    );
    assert!(engine.snapshot().get(ROWS, b"a").is_err());
    assert!(
        node.factory.open(PATH, &key()).await.is_err(),
        "the files are still in use"
    );
    drop(view);
    assert_eq!(node.open().await.applied_lsn(), 2);
}

#[tokio::test]
async fn keyspaces_come_and_go_durably() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    engine.create_keyspace(INDEX).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1"), put(INDEX, "a", "1")]);
    engine.flush().await.unwrap();
    engine.drop_keyspace(INDEX).unwrap();
    engine.drop_keyspace(INDEX).unwrap();
    assert!(matches!(engine.get(INDEX, b"a"), Err(EngineError::UnknownKeyspace(id)) if id == INDEX.0));
    let unknown = EngineBatch {
        changes: vec![put(ROWS, "a", "9"), put(INDEX, "a", "9")],
        applied_lsn: 2,
    };
    assert!(matches!(
        engine.write(unknown),
        Err(EngineError::UnknownKeyspace(_))
    ));
    assert_eq!(
        (get(&*engine, ROWS, "a").unwrap(), engine.applied_lsn()),
        (Bytes::from("1"), 1)
    );
    drop(engine);

    let engine = node.open().await;
    assert_eq!(engine.keyspaces(), [ROWS]);
    engine.create_keyspace(INDEX).unwrap();
    drop(engine);
    let engine = node.open().await;
    assert_eq!(engine.keyspaces(), [ROWS, INDEX]);
    assert_eq!(get(&*engine, INDEX, "a"), None, "a new keyspace is empty");
}

#[tokio::test]
async fn much_is_dropped_as_a_whole_and_the_neighbours_stay() {
    let node = Node::new();
    let engine = node.open().await;
    let spaces = [KeyspaceId(1), KeyspaceId(2), KeyspaceId(3)];
    for space in spaces {
        engine.create_keyspace(space).unwrap();
    }
    for lsn in 1..=3_000 {
        let key = format!("{lsn:05}");
        let changes = spaces.map(|space| put(space, &key, &"x".repeat(500)));
        write(&*engine, lsn, changes.to_vec());
    }
    engine.flush().await.unwrap();
    engine.drop_keyspace(spaces[1]).unwrap();
    engine.create_keyspace(spaces[1]).unwrap();
    for _ in 0..2 {
        let view = engine.snapshot();
        let count = |space| scan(&*view, space, "", "", false).split_whitespace().count();
        assert_eq!(spaces.map(count), [3_000, 0, 3_000]);
        engine.flush().await.unwrap();
    }
    write(&*engine, 3_001, vec![put(spaces[1], "00007", "new")]);
    engine.close().await.unwrap();
    let engine = node.open().await;
    assert_eq!(scan(&*engine.snapshot(), spaces[1], "", "", true), "00007=new");
}

#[tokio::test]
async fn a_lost_list_of_keyspaces_is_damage() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1")]);
    engine.close().await.unwrap();
    drop(engine);
    let list = node.directory.path().join(PATH).join("KEYSPACES");
    let content = std::fs::read(&list).unwrap();
    std::fs::remove_file(&list).unwrap();
    let lost = node.refused(&key()).await;
    assert!(lost.contains("list of its keyspaces is missing"), "{lost}");
    std::fs::write(&list, content).unwrap();
    assert_eq!(get(&*node.open().await, ROWS, "a").unwrap(), "1");
}

#[tokio::test]
async fn a_crash_keeps_exactly_the_flushed_batches() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    engine.create_keyspace(INDEX).unwrap();
    write(&*engine, 5, vec![put(ROWS, "a", "1"), put(INDEX, "i", "1")]);
    engine.flush().await.unwrap();
    write(
        &*engine,
        9,
        vec![put(ROWS, "a", "2"), put(INDEX, "i", "2"), put(ROWS, "b", "2")],
    );
    assert_eq!((engine.applied_lsn(), engine.durable_lsn()), (9, 5));
    // Dropped without a close: nothing is flushed on the way out.
    drop(engine);

    let engine = node.open().await;
    assert_eq!((engine.applied_lsn(), engine.durable_lsn()), (5, 5));
    assert_eq!(scan(&*engine.snapshot(), ROWS, "", "", false), "a=1");
    assert_eq!(scan(&*engine.snapshot(), INDEX, "", "", false), "i=1");
    let backwards = EngineBatch {
        changes: vec![],
        applied_lsn: 4,
    };
    assert!(
        engine.write(backwards).is_err(),
        "replay starts at the applied position"
    );
    write(&*engine, 9, vec![put(ROWS, "a", "2")]);
    engine.close().await.unwrap();

    let engine = node.open().await;
    assert_eq!((engine.applied_lsn(), engine.durable_lsn()), (9, 9));
    assert_eq!(scan(&*engine.snapshot(), ROWS, "", "", false), "a=2");
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1")]);
    engine.close().await.unwrap();

    let wrong = node
        .refused(&EngineKey {
            version: 2,
            secret: [8; 32],
        })
        .await;
    assert!(
        wrong.contains("wrong encryption key") && wrong.contains(PATH),
        "{wrong}"
    );
    let other = node
        .refused(&EngineKey {
            version: 3,
            secret: [9; 32],
        })
        .await;
    assert!(other.contains("key version 2, but version 3"), "{other}");
    assert_eq!(
        get(&*node.open().await, ROWS, "a").unwrap(),
        "1",
        "refusing did no harm"
    );

    let current = node.directory.path().join(PATH).join("CURRENT");
    std::fs::write(&current, "MANIFEST-000005\n").unwrap();
    let plain = node.refused(&key()).await;
    assert!(
        plain.contains("shorter than an encrypted file's header"),
        "{plain}"
    );
    std::fs::write(&current, "x".repeat(5000)).unwrap();
    let plain = node.refused(&key()).await;
    assert!(plain.contains("not encrypted"), "{plain}");
    std::fs::remove_file(&current).unwrap();
    let lost = node.refused(&key()).await;
    assert!(lost.contains("CURRENT is missing"), "{lost}");
}

#[tokio::test]
async fn damage_is_found_and_never_served() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", &"1".repeat(1000))]);
    engine.close().await.unwrap();
    for file in node
        .files()
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "sst"))
    {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[4096 + 20] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    // With a cache that does not have it from before.
    let factory = RocksDbEngineFactory::new(node.directory.path().to_owned(), RocksDbOptions::default());
    match factory.open(PATH, &key()).await {
        Err(EngineError::Corrupt { .. }) => {}
        Err(error) => panic!("unexpected error {error}"),
        Ok(engine) => {
            let outcome = engine.get(ROWS, b"a");
            assert!(matches!(outcome, Err(EngineError::Corrupt { .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_readable_on_disk() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    let marker = "MarkerThatMustNotLeak";
    for lsn in 1..200 {
        let name = format!("{marker}{lsn:05}");
        write(&*engine, lsn, vec![put(ROWS, &name, &name.repeat(9))]);
    }
    engine.flush().await.unwrap();
    // What RocksDB itself writes into its own files: table properties, options, the manifest's comparator.
    let telltale = [
        "MarkerThat",
        "applied_lsn",
        "rocksdb.",
        "bytewise",
        "MANIFEST",
        "write_buffer_size",
    ];
    let leaks = |files: Vec<PathBuf>| {
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            for text in telltale {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text} in {}", file.display());
            }
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.starts_with("LOG"), "an info log at {}", file.display());
        }
    };
    leaks(node.files());
    engine.close().await.unwrap();
    leaks(node.files());
}

#[tokio::test]
async fn destroys_an_engine() {
    let node = Node::new();
    node.factory.destroy(PATH).await.unwrap();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    engine.close().await.unwrap();
    engine.close().await.unwrap();
    node.factory.destroy(PATH).await.unwrap();
    assert!(node.files().is_empty());
    assert!(node.open().await.keyspaces().is_empty());
    for path in ["../elsewhere", "/etc", "", "a/../b"] {
        assert!(node.factory.open(path, &key()).await.is_err(), "{path}");
        assert!(node.factory.destroy(path).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_power_loss_may_tear_the_unused_log() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1")]);
    engine.flush().await.unwrap();
    drop(engine);
    for (length, filler) in [(0, 0), (100, 0), (5000, 0), (100, 7)] {
        let logs: Vec<_> = node
            .files()
            .into_iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
            .collect();
        assert!(!logs.is_empty());
        for log in logs {
            std::fs::write(log, vec![filler; length]).unwrap();
        }
        let engine = node.open().await;
        assert_eq!(
            get(&*engine, ROWS, "a").unwrap(),
            "1",
            "{length} bytes of {filler}"
        );
        drop(engine);
    }
}

#[tokio::test]
async fn zeros_after_the_manifest_do_no_harm() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1")]);
    engine.flush().await.unwrap();
    drop(engine);
    // Each opening begins a new file: some of them end in a byte that is enciphered to zero.
    let rounds = 400;
    for round in 0..rounds {
        for file in node.files() {
            if file
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("MANIFEST")
            {
                let length = file.metadata().unwrap().len();
                let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                file.set_len(length + 1000 * (round % 50 + 1)).unwrap();
            }
        }
        let opened = tokio::time::timeout(
            std::time::Duration::from_secs(30),
            node.factory.open(PATH, &key()),
        )
        .await;
        match opened.expect("opening ends") {
            Ok(engine) => assert_eq!(get(&*engine, ROWS, "a").unwrap(), "1"),
            Err(error) => panic!("round {round}: {error}"),
        }
    }
}

/// RocksDB itself says too early that a flush is done if another one is under way.
#[tokio::test]
async fn a_flush_waits_for_those_under_way() {
    let options = RocksDbOptions {
        write_buffer_bytes: 64 << 10,
        ..RocksDbOptions::default()
    };
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let factory = RocksDbEngineFactory::new(directory.path().to_owned(), options.clone());
        let engine = factory.open(PATH, &key()).await.unwrap();
        engine.create_keyspace(ROWS).unwrap();
        // Fills the buffer: the next write starts a flush of this one.
        write(&*engine, 1, vec![put(ROWS, "a", &"1".repeat(32_740))]);
        write(&*engine, 3, vec![]);
        engine.flush().await.unwrap();
        assert_eq!(engine.durable_lsn(), 3);
        drop(engine);
        assert_eq!(
            factory.open(PATH, &key()).await.unwrap().applied_lsn(),
            3,
            "round {round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_and_new_keyspaces_beside_writes_keep_batches_whole() {
    for round in 0..4_u64 {
        let node = Node::new();
        let engine = node.open().await;
        let writer = {
            let engine = Arc::clone(&engine);
            tokio::task::spawn_blocking(move || {
                for lsn in 1..=600_u64 + round * 37 {
                    if lsn % 50 == 1 {
                        engine.create_keyspace(KeyspaceId(lsn)).unwrap();
                    }
                    // The same number everywhere.
                    let changes = engine
                        .keyspaces()
                        .into_iter()
                        .map(|space| put(space, "key", &lsn.to_string()))
                        .collect();
                    write(&*engine, lsn, changes);
                }
            })
        };
        let mut flushed = 0;
        while !writer.is_finished() {
            engine.flush().await.unwrap();
            assert!(engine.durable_lsn() >= flushed);
            flushed = engine.durable_lsn();
        }
        writer.await.unwrap();
        drop(engine);

        let engine = node.open().await;
        let applied = engine.applied_lsn();
        assert!(
            applied >= flushed && applied > 0,
            "{applied} after {flushed} was flushed"
        );
        for space in engine.keyspaces() {
            let expected = (space.0 <= applied).then(|| Bytes::from(applied.to_string()));
            assert_eq!(
                get(&*engine, space, "key"),
                expected,
                "keyspace {} at {applied}",
                space.0
            );
        }
    }
}

#[tokio::test]
async fn a_failed_flush_is_told_and_stops_writes() {
    let node = Node::new();
    let engine = node.open().await;
    engine.create_keyspace(ROWS).unwrap();
    write(&*engine, 1, vec![put(ROWS, "a", "1")]);
    engine.flush().await.unwrap();
    write(&*engine, 2, vec![put(ROWS, "a", "2")]);
    // As a disk that is pulled.
    std::fs::remove_dir_all(node.directory.path().join(PATH)).unwrap();
    let limit = std::time::Duration::from_secs(30);
    let outcome = tokio::time::timeout(limit, engine.flush())
        .await
        .expect("it does not hang");
    assert!(
        matches!(outcome, Err(EngineError::Io(_) | EngineError::Corrupt { .. })),
        "{outcome:?}"
    );
    assert_eq!(engine.durable_lsn(), 1);
    let refused = engine
        .write(EngineBatch {
            changes: vec![],
            applied_lsn: 3,
        })
        .unwrap_err()
        .to_string();
    assert!(refused.contains("writes stopped"), "{refused}");
    assert!(engine.flush().await.is_err());
    assert!(
        tokio::time::timeout(limit, engine.close())
            .await
            .expect("it does not hang")
            .is_err()
    );
}
