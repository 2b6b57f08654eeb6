use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use neorunbase_coordination::{ClientOptions, JournalError};
use neorunbase_world::Coordination;
use neorunbase_world::coordination::{CoordinationError, CreateMode};

use crate::support::{JOURNAL, TestWorld, patient};

/// Leaves `/a` at version 3 holding "third", an ephemeral `/e`, and `/b` deleted again.
async fn filled() -> TestWorld {
    let world = TestWorld::new();
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let client = world.client(&service, patient()).await;
    client
        .create("/a", Bytes::from("needle"), CreateMode::Persistent)
        .await
        .unwrap();
    client
        .create("/b", Bytes::new(), CreateMode::Persistent)
        .await
        .unwrap();
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    client.delete("/b", None).await.unwrap();
    for (expected, data) in ["first", "second", "third"].into_iter().enumerate() {
        client
            .set("/a", Bytes::from(data), expected as i32)
            .await
            .unwrap();
    }
    drop(service);
    world.disk.lose_power();
    world
}

async fn a_of(world: &TestWorld) -> Option<(Bytes, i32)> {
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let client = world.client(&service, patient()).await;
    assert_eq!(client.get("/e").await, Ok(None), "sessions die with the process");
    assert_eq!(client.get("/b").await, Ok(None));
    client.get("/a").await.unwrap()
}

#[tokio::test]
async fn answered_changes_survive_a_power_loss() {
    let world = filled().await;
    assert_eq!(a_of(&world).await, Some((Bytes::from("third"), 3)));
    let content = world.disk.content(JOURNAL);
    assert!(
        !content.windows(6).any(|window| window == b"needle"),
        "the journal holds plaintext"
    );
}

#[tokio::test]
async fn torn_end_is_cut_at_every_length() {
    let world = filled().await;
    let whole = world.disk.content(JOURNAL);
    let last = whole.windows(4).rposition(|window| window == b"NRCJ").unwrap();
    for length in last..whole.len() {
        world
            .disk
            .change(JOURNAL, |content| *content = whole[..length].to_vec());
        assert_eq!(
            a_of(&world).await,
            Some((Bytes::from("second"), 2)),
            "cut at {length} of {}",
            whole.len()
        );
        assert_eq!(world.disk.content(JOURNAL), whole[..last]);
    }
    // Zeros instead of the last frame, as of a file that was extended but not written.
    world.disk.change(JOURNAL, |content| {
        *content = whole.clone();
        content[last..].fill(0);
    });
    assert_eq!(a_of(&world).await, Some((Bytes::from("second"), 2)));
}

#[tokio::test]
async fn damage_before_the_end_is_refused() {
    let world = filled().await;
    let whole = world.disk.content(JOURNAL);
    let last = whole.windows(4).rposition(|window| window == b"NRCJ").unwrap();
    for position in 0..last {
        world.disk.change(JOURNAL, |content| {
            content.clone_from(&whole);
            content[position] ^= 0x10;
        });
        let opened = world.start(Some(world.journal(1))).await;
        assert!(
            matches!(opened, Err(JournalError::Corrupt { .. })),
            "damage at {position} of {last}"
        );
    }
    // Whole frames that are missing, or in another order.
    let starts: Vec<usize> = (0..whole.len() - 4)
        .filter(|start| whole[*start..].starts_with(b"NRCJ"))
        .collect();
    world.disk.change(JOURNAL, |content| {
        content.clone_from(&whole);
        content.drain(starts[1]..starts[2]);
    });
    assert!(matches!(
        world.start(Some(world.journal(1))).await,
        Err(JournalError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn another_key_is_refused() {
    let world = filled().await;
    let opened = world.start(Some(world.journal(2))).await;
    assert!(matches!(opened, Err(JournalError::Corrupt { .. })));
    assert_eq!(a_of(&world).await, Some((Bytes::from("third"), 3)));
}

#[tokio::test]
async fn long_journal_is_compacted() {
    let world = TestWorld::new();
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let client = world.client(&service, patient()).await;
    client
        .create("/a", Bytes::new(), CreateMode::Persistent)
        .await
        .unwrap();
    for version in 0..200 {
        client
            .set("/a", Bytes::from(vec![version as u8; 20_000]), version)
            .await
            .unwrap();
    }
    assert!(world.disk.content(JOURNAL).len() < 1_500_000);
    drop(service);
    world.disk.lose_power();
    let found = a_of(&world).await;
    assert_eq!(found, Some((Bytes::from(vec![199; 20_000]), 200)));
}

#[tokio::test]
async fn failed_sync_stops_the_service() {
    let world = TestWorld::new();
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let options = ClientOptions {
        call_deadline: Duration::from_millis(200),
        ..ClientOptions::with_session_timeout(Duration::from_secs(20))
    };
    let client = world.client(&service, options).await;
    client
        .create("/a", Bytes::new(), CreateMode::Persistent)
        .await
        .unwrap();
    world.disk.syncs_fail.store(true, Ordering::Relaxed);
    assert_eq!(
        client.set("/a", Bytes::from("x"), 0).await,
        Err(CoordinationError::ConnectionLost)
    );
    world.disk.syncs_fail.store(false, Ordering::Relaxed);
    assert_eq!(
        client.get("/a").await,
        Err(CoordinationError::ConnectionLost),
        "nothing is served any more"
    );
}
