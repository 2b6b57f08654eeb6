//! Microseconds a call, to be run by hand: `cargo test --release -p neorunbase-rocksdb-engine --test speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(not(madsim))]

use std::time::Instant;

use bytes::Bytes;
use neorunbase_rocksdb_engine::{RocksDbEngineFactory, RocksDbOptions};
use neorunbase_world::shard_engine::{EngineBatch, EngineChange, EngineKey, KeyspaceId, ShardEngineFactory};

const ROWS: u64 = 200_000;
const SPACE: KeyspaceId = KeyspaceId(1);

fn row_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
}

fn report(what: &str, count: u64, since: Instant) {
    println!(
        "{what}: {:.2} µs",
        since.elapsed().as_secs_f64() * 1e6 / count as f64
    );
}

#[tokio::test]
#[ignore = "a measurement"]
async fn microseconds_a_call() {
    let directory = tempfile::tempdir().unwrap();
    let factory = RocksDbEngineFactory::new(directory.path().to_owned(), RocksDbOptions::default());
    let key = EngineKey {
        version: 1,
        secret: [1; 32],
    };
    let engine = factory.open("shard", &key).await.unwrap();
    engine.create_keyspace(SPACE).unwrap();

    let start = Instant::now();
    for number in 0..ROWS {
        let change = EngineChange::Put {
            keyspace: SPACE,
            key: row_key(number),
            value: Bytes::from(vec![number as u8; 100]),
        };
        engine
            .write(EngineBatch {
                changes: vec![change],
                applied_lsn: number,
            })
            .unwrap();
    }
    report("write of one row", ROWS, start);
    let start = Instant::now();
    engine.flush().await.unwrap();
    report("flush, a row", ROWS, start);

    for pass in ["page cache", "block cache"] {
        let start = Instant::now();
        for number in (0..ROWS).step_by(2) {
            assert!(engine.get(SPACE, &row_key(number)).unwrap().is_some());
        }
        report(&format!("get from {pass}"), ROWS / 2, start);
    }
    let start = Instant::now();
    for number in 0..ROWS / 2 {
        assert!(engine.get(SPACE, &row_key(number + ROWS)).unwrap().is_none());
    }
    report("get of a missing key", ROWS / 2, start);
    let start = Instant::now();
    for number in 0..ROWS / 4 {
        let view = engine.snapshot();
        assert!(
            view.scan(SPACE, &row_key(number), b"", false)
                .unwrap()
                .next()
                .unwrap()
                .is_some()
        );
    }
    report("snapshot, scan, first row", ROWS / 4, start);
    let view = engine.snapshot();
    let start = Instant::now();
    let mut cursor = view.scan(SPACE, b"", b"", false).unwrap();
    let mut count = 0;
    while cursor.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, ROWS);
    report("scan, a row", ROWS, start);
    let start = Instant::now();
    for _ in 0..1000 {
        assert!(engine.durable_lsn() > 0);
    }
    report("durable_lsn", 1000, start);
}
