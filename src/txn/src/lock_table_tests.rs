#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use neorunbase_world::MonotonicTime;

use super::*;

/// Real time of the runtime, which the tests pause.
struct RuntimeClock;

#[async_trait]
impl Clock for RuntimeClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(0)
    }
    fn wall_clock_unix_micros(&self) -> i64 {
        0
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

const WAIT: WaitPolicy = WaitPolicy::WaitUpTo(Duration::from_secs(5));

fn key(name: &str) -> LockKey {
    LockKey {
        shard: 1,
        storage: 1024,
        key: Bytes::from(name.to_owned()),
    }
}

async fn lock(
    table: &LockTable,
    owner: u64,
    name: &str,
    strength: LockStrength,
) -> Result<Granted, LockError> {
    table
        .lock(&RuntimeClock, owner, &key(name), strength, WAIT, pending())
        .await
}

fn spawn_lock(
    table: &Arc<LockTable>,
    owner: u64,
    name: &'static str,
    strength: LockStrength,
) -> tokio::task::JoinHandle<Result<Granted, LockError>> {
    let table = table.clone();
    tokio::spawn(async move { lock(&table, owner, name, strength).await })
}

async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

use LockStrength::{Exclusive, Share};

#[tokio::test]
async fn shares_coexist_and_exclusive_excludes() {
    let table = LockTable::default();
    assert_eq!(lock(&table, 1, "a", Share).await, Ok(Granted::New));
    assert_eq!(lock(&table, 2, "a", Share).await, Ok(Granted::New));
    assert_eq!(table.try_lock(3, &key("a"), Exclusive), None);
    table.release(1, [&key("a")]);
    assert_eq!(table.try_lock(2, &key("a"), Exclusive), Some(Granted::Upgraded));
    assert_eq!(table.try_lock(2, &key("a"), Share), Some(Granted::Held));
    assert_eq!(table.try_lock(3, &key("a"), Share), None);
    let refused = table
        .lock(&RuntimeClock, 3, &key("a"), Share, WaitPolicy::NoWait, pending())
        .await;
    assert_eq!(refused, Err(LockError::NotAvailable));
    table.release(2, [&key("a")]);
    assert_eq!(table.locked_keys(), 0);
}

#[tokio::test]
async fn waiters_are_served_in_order() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Exclusive).await.unwrap();
    let second = spawn_lock(&table, 2, "a", Exclusive);
    settle().await;
    let third = spawn_lock(&table, 3, "a", Share);
    settle().await;
    // A newcomer does not overtake those who wait.
    table.release(1, [&key("a")]);
    assert_eq!(table.try_lock(4, &key("a"), Share), None);
    assert_eq!(second.await.unwrap(), Ok(Granted::New));
    assert!(!third.is_finished());
    table.release(2, [&key("a")]);
    assert_eq!(third.await.unwrap(), Ok(Granted::New));
    assert_eq!(table.waiting(), 0);
}

#[tokio::test]
async fn a_cycle_fails_the_newcomer() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Exclusive).await.unwrap();
    lock(&table, 2, "b", Exclusive).await.unwrap();
    let first = spawn_lock(&table, 1, "b", Exclusive);
    settle().await;
    assert_eq!(lock(&table, 2, "a", Exclusive).await, Err(LockError::Deadlock));
    table.release(2, [&key("b"), &key("a")]);
    assert_eq!(first.await.unwrap(), Ok(Granted::New));
}

#[tokio::test]
async fn two_upgrades_deadlock() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Share).await.unwrap();
    lock(&table, 2, "a", Share).await.unwrap();
    let first = spawn_lock(&table, 1, "a", Exclusive);
    settle().await;
    assert_eq!(lock(&table, 2, "a", Exclusive).await, Err(LockError::Deadlock));
    table.release(2, [&key("a")]);
    assert_eq!(first.await.unwrap(), Ok(Granted::Upgraded));
}

#[tokio::test]
async fn an_upgrade_goes_before_those_who_wait() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Share).await.unwrap();
    let other = spawn_lock(&table, 2, "a", Exclusive);
    settle().await;
    assert_eq!(lock(&table, 1, "a", Exclusive).await, Ok(Granted::Upgraded));
    table.release(1, [&key("a")]);
    assert_eq!(other.await.unwrap(), Ok(Granted::New));
}

#[tokio::test]
async fn queue_order_counts_as_waiting() {
    // 1 holds a share of a; 2 waits to write a; 3 queues behind 2 while holding b; 1 wants b: 1 → 3 → 2 → 1.
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Share).await.unwrap();
    lock(&table, 3, "b", Exclusive).await.unwrap();
    let second = spawn_lock(&table, 2, "a", Exclusive);
    settle().await;
    let third = spawn_lock(&table, 3, "a", Share);
    settle().await;
    assert_eq!(lock(&table, 1, "b", Exclusive).await, Err(LockError::Deadlock));
    table.release(1, [&key("a")]);
    assert_eq!(second.await.unwrap(), Ok(Granted::New));
    table.release(2, [&key("a")]);
    assert_eq!(third.await.unwrap(), Ok(Granted::New));
}

#[tokio::test]
async fn timeouts_and_dropped_waits_leave_the_queue() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Exclusive).await.unwrap();
    let short = WaitPolicy::WaitUpTo(Duration::from_millis(5));
    let result = table
        .lock(&RuntimeClock, 2, &key("a"), Share, short, pending())
        .await;
    assert_eq!(result, Err(LockError::TimedOut));
    let dropped = spawn_lock(&table, 3, "a", Exclusive);
    settle().await;
    assert_eq!(table.waiting(), 1);
    dropped.abort();
    let _ = dropped.await;
    assert_eq!(table.waiting(), 0);
    let cancelled = table
        .lock(&RuntimeClock, 4, &key("a"), Share, WAIT, async {})
        .await;
    assert_eq!(cancelled, Err(LockError::Cancelled));
    table.release(1, [&key("a")]);
    assert_eq!(table.locked_keys(), 0);
}

#[tokio::test]
async fn a_victim_of_a_wider_deadlock_stops_waiting() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Exclusive).await.unwrap();
    let second = spawn_lock(&table, 2, "a", Exclusive);
    settle().await;
    let third = spawn_lock(&table, 3, "a", Exclusive);
    settle().await;
    let edges = table.edges(MonotonicTime(0));
    let pairs: Vec<_> = edges.iter().map(|edge| (edge.waiter, edge.blocker)).collect();
    assert_eq!(pairs, [(2, 1), (3, 1), (3, 2)]);
    assert!(table.is_waiting_since(MonotonicTime(0)));
    assert!(!table.break_deadlock(1), "it does not wait");
    assert!(table.break_deadlock(2));
    assert_eq!(second.await.unwrap(), Err(LockError::Deadlock));
    let left = table.edges(MonotonicTime(0));
    assert_eq!(left.len(), 1);
    assert!(edges.contains(&left[0]), "the other wait is the same one");
    table.release(1, [&key("a")]);
    assert_eq!(third.await.unwrap(), Ok(Granted::New));
    assert_eq!(table.waiting(), 0);
}

#[tokio::test]
async fn a_wait_without_a_limit_goes_on() {
    let table = Arc::new(LockTable::default());
    lock(&table, 1, "a", Exclusive).await.unwrap();
    let waiting = {
        let table = table.clone();
        tokio::spawn(async move {
            let wait = WaitPolicy::Wait;
            table
                .lock(&RuntimeClock, 2, &key("a"), Exclusive, wait, pending())
                .await
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    table.release(1, [&key("a")]);
    assert_eq!(waiting.await.unwrap(), Ok(Granted::New));
}
