//! Waits for row locks on two nodes.

use super::*;

async fn pair() -> (Arc<TestNode>, Arc<TestNode>) {
    let cluster = Cluster::default();
    let (one, other) = (
        TestNode::start(&cluster, SHARD).await,
        TestNode::start(&cluster, OTHER_SHARD).await,
    );
    for node in [&one, &other] {
        node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    }
    (Arc::new(one), Arc::new(other))
}

/// Adds 1 to row 1 behind the test's back.
fn spawn_add(
    node: &Arc<TestNode>,
    transaction: &Arc<TestTransaction>,
) -> tokio::task::JoinHandle<Result<u64, ErrorReply>> {
    let (node, transaction) = (node.clone(), transaction.clone());
    tokio::spawn(async move { node.add(&transaction, 1, 1).await })
}

/// The Coordinators of the transactions live.
async fn live(nodes: [&Arc<TestNode>; 2], transactions: &[&Arc<TestTransaction>], milliseconds: u64) {
    for _ in 0..milliseconds / 50 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let transactions: Vec<_> = transactions.iter().map(|transaction| transaction.id).collect();
        for node in nodes {
            let transactions = transactions.clone();
            expect_done(
                node.call(RequestBody::Heartbeat(Heartbeat { transactions }))
                    .await,
            );
        }
    }
}

#[tokio::test]
async fn of_a_cycle_over_two_nodes_just_the_youngest_dies() {
    let (one, other) = pair().await;
    let (older, younger) = (Arc::new(one.begin()), Arc::new(one.begin()));
    one.add(&older, 1, 1).await.unwrap();
    other.add(&younger, 1, 1).await.unwrap();
    let older_waits = spawn_add(&other, &older);
    let younger_waits = spawn_add(&one, &younger);
    live([&one, &other], &[&older, &younger], 1_000).await;
    assert!(younger_waits.is_finished() && !older_waits.is_finished());
    let error = younger_waits.await.unwrap().unwrap_err();
    assert_eq!(
        (error.sql_state.as_str(), error.message.as_str()),
        ("40P01", "deadlock detected")
    );
    one.roll_back(&younger).await;
    other.roll_back(&younger).await;
    assert_eq!(older_waits.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_long_wait_without_a_cycle_goes_on() {
    let (one, other) = pair().await;
    let (holder, waiter) = (Arc::new(one.begin()), Arc::new(one.begin()));
    one.add(&holder, 1, 1).await.unwrap();
    other.add(&waiter, 1, 1).await.unwrap();
    let waiting = spawn_add(&one, &waiter);
    live([&one, &other], &[&holder, &waiter], 1_500).await;
    assert!(!waiting.is_finished());
    one.commit(&holder).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(1));
}
