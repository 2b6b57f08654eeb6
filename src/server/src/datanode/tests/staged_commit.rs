//! Staged commits; the anchor is `SHARD`.

use neorunbase_txn::transaction::Participation;

use super::super::commit::prepare_records;
use super::super::replication::Room;
use super::super::staged_commit::StagedStep;
use super::two_phase::pair;
use super::*;

/// A transaction that has written on two nodes, and the timestamp at which it is to commit.
async fn written_on_both() -> (TestNode, TestNode, TestTransaction, Timestamp) {
    let (anchor, other) = pair().await;
    let transaction = anchor.begin();
    anchor.insert(&transaction, &[(1, 10)]).await.unwrap();
    other.insert(&transaction, &[(2, 20)]).await.unwrap();
    let timestamp = anchor.cluster.oracle.draw();
    (anchor, other, transaction, timestamp)
}

impl TestNode {
    fn staged(&self, transaction: &TestTransaction) -> RequestBody {
        RequestBody::CommitLocal(CommitLocal {
            anchor: Some(SHARD),
            reads: None,
            transaction: transaction.id,
            shards: vec![self.reference()],
            last_sequence: transaction.sequence.load(Ordering::SeqCst),
        })
    }

    /// Puts the record of a staged commit into this node's log, as if its other shards had got other primaries meanwhile.
    async fn stage(&self, transaction: &TestTransaction, commit_timestamp: Timestamp) {
        let node = self.node();
        let participant = node.participant(transaction.id).unwrap();
        let participation = Participation {
            anchor: SHARD,
            participants: vec![SHARD, OTHER_SHARD],
            decides: self.shard == SHARD,
            is_staged: true,
        };
        assert!(participant.begin_staging(participation).await);
        node.mark_in_doubt(&participant);
        participant.set_commit_timestamp(commit_timestamp);
        let parts = node.parts(&participant).unwrap_or_default();
        let records = prepare_records(parts, &participant, commit_timestamp);
        let step = StagedStep {
            participant,
            is_voided: true,
        };
        let logged = node.log(records, Box::new(step), Room::OrRefuse).await;
        assert!(logged.is_ok());
    }
}

#[tokio::test]
async fn a_staged_commit_is_durable_and_repeatable() {
    let mut node = TestNode::single().await;
    let transaction = node.begin();
    node.insert(&transaction, &[(1, 10)]).await.unwrap();
    let reply = written(node.call(node.staged(&transaction)).await).unwrap();
    assert!(reply.commit_timestamp > 0);
    // Readers wait for what is decided and not written down yet.
    assert_eq!(node.peek(1).await, Some(10));
    let again = written(node.call(node.staged(&transaction)).await).unwrap();
    assert_eq!(again.commit_timestamp, reply.commit_timestamp);
    assert_eq!(node.query(&transaction, true).await, Decision::Committed);
    assert_eq!(node.node().locks.locked_keys(), 0);
    node.crash().await;
    node.boot().await;
    assert_eq!(node.peek(1).await, Some(10));
    assert_eq!(node.query(&transaction, true).await, Decision::Committed);
    node.finish(&transaction, reply.commit_timestamp, true)
        .await
        .unwrap();
    assert_eq!(node.query(&transaction, false).await, Decision::Committed);
}

#[tokio::test]
async fn what_is_prepared_everywhere_has_committed() {
    let (mut anchor, mut other, transaction, timestamp) = written_on_both().await;
    let before = TestTransaction {
        snapshot: timestamp - 1,
        ..TestTransaction::new(0)
    };
    anchor.stage(&transaction, timestamp).await;
    other.stage(&transaction, timestamp).await;
    for node in [&mut anchor, &mut other] {
        node.crash().await;
        node.boot().await;
    }
    // Its timestamp is known, so earlier snapshots need not wait.
    assert_eq!(anchor.read(&before, 1).await, Ok(None));
    assert_eq!(other.peek(2).await, Some(20));
    assert_eq!(anchor.peek(1).await, Some(10));
    assert_eq!(anchor.query(&transaction, true).await, Decision::Committed);
}

#[tokio::test]
async fn what_is_absent_in_one_shard_has_aborted() {
    let (mut anchor, mut other, transaction, timestamp) = written_on_both().await;
    anchor.stage(&transaction, timestamp).await;
    for node in [&mut anchor, &mut other] {
        node.crash().await;
        node.boot().await;
    }
    assert_eq!(anchor.peek(1).await, None);
    assert_eq!(other.peek(2).await, None);
    assert_eq!(anchor.query(&transaction, true).await, Decision::Aborted);
    anchor.insert(&anchor.autocommit(), &[(1, 11)]).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_asked_about_stays_undecided() {
    let (anchor, mut other, transaction, timestamp) = written_on_both().await;
    anchor.stage(&transaction, timestamp).await;
    other.stage(&transaction, timestamp).await;
    other.crash().await;
    assert_eq!(anchor.query(&transaction, true).await, Decision::Pending);
    other.boot().await;
    assert_eq!(anchor.query(&transaction, true).await, Decision::Committed);
    assert_eq!(anchor.peek(1).await, Some(10));
    assert_eq!(other.peek(2).await, Some(20));
}

#[tokio::test]
async fn who_has_lost_the_anchor_decides_nothing() {
    let (anchor, other, transaction, timestamp) = written_on_both().await;
    anchor.stage(&transaction, timestamp).await;
    other.stage(&transaction, timestamp).await;
    let participant = anchor.node().participant(transaction.id).unwrap();
    // As if the anchor were lost while the other shard is asked.
    participant.decides_no_more();
    let reply = anchor.node().decide_staged(&participant).await;
    assert!(reply.is_ok_and(|reply| reply.decision() == Decision::Pending));
    assert_eq!(participant.phase(), neorunbase_txn::Phase::Prepared);
    // A lost part goes with the term; the shard's log has it.
    assert!(participant.touches(SHARD));
}
