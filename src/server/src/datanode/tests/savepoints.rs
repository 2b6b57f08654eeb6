//! ROLLBACK TO SAVEPOINT takes back writes and locks, and nothing comes after it that was sent before.

use super::*;

impl TestNode {
    /// Back to just after statement `kept_sequence`; returns the request, to be sent again.
    async fn rollback_to(&self, transaction: &TestTransaction, kept_sequence: u32) -> RollbackTo {
        let request = RollbackTo {
            transaction: transaction.id,
            shards: vec![self.reference()],
            kept_sequence,
            sequence: transaction.sequence.fetch_add(1, Ordering::SeqCst) + 1,
            last_sequence: kept_sequence,
        };
        done(self.call(RequestBody::RollbackTo(request.clone())).await).unwrap();
        request
    }
}

#[tokio::test]
async fn writes_and_locks_since_the_savepoint_are_gone() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20), (3, 30)])
        .await
        .unwrap();
    let writer = node.begin();
    node.add(&writer, 1, 1).await.unwrap();
    let savepoint = writer.sequence.load(Ordering::SeqCst);
    node.add(&writer, 1, 100).await.unwrap();
    node.add(&writer, 2, 100).await.unwrap();
    node.insert(&writer, &[(4, 40)]).await.unwrap();
    let request = node.rollback_to(&writer, savepoint).await;
    assert_eq!(node.scan(&writer).await, [(1, 11), (2, 20), (3, 30)]);
    // The row that was locked before stays locked, the others are free.
    assert_eq!(node.node().locks.locked_keys(), 1);
    let other = node.autocommit();
    node.add(&other, 2, 5).await.unwrap();
    // The same request once more, late, does not take back what was done since.
    node.insert(&writer, &[(5, 50)]).await.unwrap();
    done(node.call(RequestBody::RollbackTo(request)).await).unwrap();
    node.commit(&writer).await.unwrap();
    assert_eq!(
        node.scan(&TestTransaction::new(0)).await,
        [(1, 11), (2, 25), (3, 30), (5, 50)]
    );
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn statements_that_were_taken_back_do_not_run_late() {
    let node = TestNode::single().await;
    let writer = node.begin();
    node.insert(&writer, &[(1, 10)]).await.unwrap();
    // Its request is still on the way when the savepoint is gone back to.
    let late = TestTransaction::new(writer.id);
    late.sequence.store(1, Ordering::SeqCst);
    writer.sequence.fetch_add(1, Ordering::SeqCst);
    node.rollback_to(&writer, 1).await;
    let error = node.insert(&late, &[(2, 20)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTransaction);
    node.commit(&writer).await.unwrap();
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 10)]);
}
