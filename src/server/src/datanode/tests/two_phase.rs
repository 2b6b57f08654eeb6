//! Two-phase commit between two nodes; the anchor is `SHARD`, on the first.

use super::*;

pub(super) async fn pair() -> (TestNode, TestNode) {
    let cluster = Cluster::default();
    (
        TestNode::start(&cluster, SHARD).await,
        TestNode::start(&cluster, OTHER_SHARD).await,
    )
}

impl TestNode {
    /// Undecided transactions in the log of the shard.
    fn prepared(&self) -> usize {
        self.node().replicas.lock().shards[&self.shard].prepared.len()
    }
}

/// A transaction with a write on each node, prepared on both.
async fn prepared(anchor: &TestNode, other: &TestNode) -> TestTransaction {
    let transaction = anchor.begin();
    anchor.insert(&transaction, &[(1, 10)]).await.unwrap();
    other.insert(&transaction, &[(2, 20)]).await.unwrap();
    anchor.prepare(&transaction, SHARD).await.unwrap();
    other.prepare(&transaction, SHARD).await.unwrap();
    transaction
}

#[tokio::test]
async fn both_commit_at_one_timestamp() {
    let (anchor, other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    other.prepare(&transaction, SHARD).await.unwrap();
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    assert_eq!(anchor.peek(1).await, Some(10));
    other.finish(&transaction, timestamp, false).await.unwrap();
    anchor.finish(&transaction, timestamp, true).await.unwrap();
    assert_eq!(other.peek(2).await, Some(20));
    // Everything once more: the same answers.
    anchor.decide(&transaction, timestamp).await.unwrap();
    other.finish(&transaction, timestamp, false).await.unwrap();
    assert_eq!(anchor.query(&transaction, true).await, Decision::Committed);
    let before = TestTransaction {
        snapshot: timestamp - 1,
        ..TestTransaction::new(0)
    };
    let at = TestTransaction {
        snapshot: timestamp,
        ..TestTransaction::new(0)
    };
    assert_eq!(other.read(&before, 2).await, Ok(None));
    assert_eq!(other.read(&at, 2).await, Ok(Some(20)));
}

#[tokio::test]
async fn readers_of_a_prepared_row_wait_for_the_outcome() {
    let (anchor, other) = pair().await;
    let other = Arc::new(other);
    let transaction = prepared(&anchor, &other).await;
    let before = other.begin_snapshot();
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    let newest = {
        let other = other.clone();
        tokio::spawn(async move { other.peek(2).await })
    };
    // The commit was acknowledged, though this node has not heard of it: the reader asks the anchor.
    assert_eq!(newest.await.unwrap(), Some(20));
    assert_eq!(other.read(&before, 2).await, Ok(None));
}

#[tokio::test]
async fn a_restarted_participant_learns_the_commit() {
    let (anchor, mut other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    other.crash().await;
    other.boot().await;
    assert_eq!(other.prepared(), 1);
    // Its locks are back.
    let intruder = TestTransaction {
        lock_timeout_ms: 20,
        ..other.begin()
    };
    let blocked = other.insert(&intruder, &[(2, 99)]).await.unwrap_err();
    assert!(
        ["55P03", "40001"].contains(&blocked.sql_state.as_str()),
        "{blocked:?}"
    );
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(other.peek(2).await, Some(20));
    assert_eq!(other.prepared(), 0);
    assert_eq!(other.node().locks.locked_keys(), 0);
    other.crash().await;
    other.boot().await;
    assert_eq!(other.peek(2).await, Some(20));
}

#[tokio::test]
async fn a_restarted_anchor_remembers_its_decision() {
    let (mut anchor, other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    anchor.node().checkpoint().await;
    anchor.crash().await;
    anchor.boot().await;
    assert_eq!(anchor.peek(1).await, Some(10));
    assert_eq!(anchor.query(&transaction, true).await, Decision::Committed);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(other.peek(2).await, Some(20));
}

#[tokio::test]
async fn a_decision_outlives_its_telling() {
    let (mut anchor, other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    anchor.node().close_decisions(Duration::ZERO).await;
    assert_eq!(other.peek(2).await, Some(20));
    assert_eq!(other.prepared(), 0);
    anchor.node().sweep().await;
    anchor.crash().await;
    anchor.boot().await;
    // Its Coordinator may still be asking.
    assert_eq!(anchor.query(&transaction, true).await, Decision::Committed);
    anchor.decide(&transaction, timestamp).await.unwrap();
}

#[tokio::test]
async fn rows_that_were_only_locked_stay_so_until_the_outcome() {
    let (anchor, other) = pair().await;
    other.insert(&other.autocommit(), &[(2, 20)]).await.unwrap();
    for (row, is_told) in [(1, true), (3, false)] {
        let transaction = anchor.begin();
        other
            .read_locked(&transaction, 2, LockMode::Exclusive, LockWait::Wait)
            .await
            .unwrap();
        anchor.insert(&transaction, &[(row, 10)]).await.unwrap();
        anchor.prepare(&transaction, SHARD).await.unwrap();
        other.prepare(&transaction, SHARD).await.unwrap();
        let next = other.begin();
        let lock = |wait| other.read_locked(&next, 2, LockMode::Exclusive, wait);
        let refused = lock(LockWait::NoWait).await.unwrap_err();
        assert_eq!(refused.sql_state, "55P03");
        // What it holds there is no decision.
        assert_eq!(other.prepared(), 0);
        let timestamp = anchor.cluster.oracle.draw();
        anchor.decide(&transaction, timestamp).await.unwrap();
        if is_told {
            other.finish(&transaction, timestamp, false).await.unwrap();
            lock(LockWait::NoWait).await.unwrap();
        } else {
            // The Coordinator is dead; the node asks the anchor when it is tired of waiting.
            lock(LockWait::Wait).await.unwrap();
        }
        other.roll_back(&next).await;
        anchor.finish(&transaction, timestamp, true).await.unwrap();
    }
    assert_eq!(other.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn nobody_waits_for_a_dead_coordinator() {
    let (anchor, other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    assert_eq!(anchor.query(&transaction, true).await, Decision::Pending);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(anchor.query(&transaction, false).await, Decision::Aborted);
    // The Coordinator was only slow. Too late.
    let late = anchor
        .decide(&transaction, anchor.cluster.oracle.draw())
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::UnknownTransaction);
    assert_eq!((anchor.peek(1).await, other.peek(2).await), (None, None));
    assert_eq!(other.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn an_abort_presumed_for_a_stranger_stands() {
    let (mut anchor, _other) = pair().await;
    let transaction = anchor.begin();
    assert_eq!(anchor.query(&transaction, false).await, Decision::Unknown);
    assert_eq!(anchor.query(&transaction, true).await, Decision::Aborted);
    for _ in 0..2 {
        let late = anchor.insert(&transaction, &[(1, 10)]).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::UnknownTransaction);
        let late = anchor.prepare(&transaction, SHARD).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::UnknownTransaction);
        anchor.crash().await;
        anchor.boot().await;
    }
    assert_eq!(anchor.query(&transaction, false).await, Decision::Aborted);
}

#[tokio::test]
async fn a_checkpoint_keeps_what_is_prepared() {
    let (anchor, mut other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    for id in 100..200 {
        other.insert(&other.autocommit(), &[(id, id)]).await.unwrap();
        let heartbeat = || {
            RequestBody::Heartbeat(Heartbeat {
                transactions: vec![transaction.id],
            })
        };
        expect_done(anchor.call(heartbeat()).await);
    }
    other.node().checkpoint().await;
    other.crash().await;
    other.boot().await;
    let timestamp = anchor.cluster.oracle.draw();
    anchor.decide(&transaction, timestamp).await.unwrap();
    other.finish(&transaction, timestamp, false).await.unwrap();
    assert_eq!(other.peek(2).await, Some(20));
}

#[tokio::test]
async fn an_abort_before_the_decision_reaches_everybody() {
    let (anchor, other) = pair().await;
    let transaction = prepared(&anchor, &other).await;
    anchor.decide(&transaction, 0).await.unwrap();
    other.finish(&transaction, 0, false).await.unwrap();
    assert_eq!((anchor.peek(1).await, other.peek(2).await), (None, None));
    let late = anchor
        .decide(&transaction, anchor.cluster.oracle.draw())
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::UnknownTransaction);
}
