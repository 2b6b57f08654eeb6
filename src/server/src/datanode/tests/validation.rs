//! Read sets of serializable transactions.

use super::*;

impl TestNode {
    fn reads(
        &self,
        transaction: &TestTransaction,
        keys: &[i32],
        ranges: &[(StorageId, i32, i32)],
    ) -> ReadSetMessage {
        let ranges = ranges.iter().map(|(index, lower, upper)| ReadRange {
            index: *index,
            lower: key(*lower),
            upper: key(*upper),
        });
        ReadSetMessage {
            snapshot: transaction.snapshot,
            shards: vec![ShardReads {
                shard: self.reference(),
                tables: vec![TableReads {
                    storage: TABLE,
                    keys: keys.iter().map(|id| key(*id)).collect(),
                    ranges: ranges.collect(),
                }],
            }],
        }
    }

    async fn is_valid(
        &self,
        transaction: &TestTransaction,
        keys: &[i32],
        ranges: &[(StorageId, i32, i32)],
    ) -> bool {
        let request = Validate {
            transaction: transaction.id,
            commit_timestamp: self.cluster.oracle.draw(),
            reads: self.reads(transaction, keys, ranges),
        };
        match done(self.call(RequestBody::Validate(request)).await) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.sql_state, "40001");
                assert_eq!(
                    error.message,
                    "could not serialize access due to read/write dependencies among transactions"
                );
                assert_eq!(error.hint, "The transaction might succeed if retried.");
                false
            }
        }
    }
}

#[tokio::test]
async fn committed_changes_of_what_was_read_are_found_and_no_others() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20), (3, 30)])
        .await
        .unwrap();
    let reader = node.begin_snapshot();
    assert!(
        node.is_valid(&reader, &[1, 2, 3, 4], &[(0, 0, 9), (BY_VALUE, 0, 99)])
            .await
    );
    node.add(&node.autocommit(), 2, 100).await.unwrap(); // 20 → 120
    node.insert(&node.autocommit(), &[(5, 50)]).await.unwrap();
    node.write(&node.autocommit(), RowWriteKind::Delete, &[(3, 0, None)])
        .await
        .unwrap();
    for (keys, ranges, is_valid) in [
        (&[1, 4][..], &[][..], true),
        (&[2], &[], false),
        // Deleted.
        (&[3], &[], false),
        // Was not there.
        (&[5], &[], false),
        (&[], &[(0, 0, 2)], true),
        (&[], &[(0, 4, 9)], false),
        (&[], &[(0, 6, 9)], true),
        // The row with 10 stayed; the one with 20 left the range, 30 was deleted, 50 and 120 came.
        (&[], &[(BY_VALUE, 5, 15)], true),
        (&[], &[(BY_VALUE, 15, 25)], false),
        (&[], &[(BY_VALUE, 25, 35)], false),
        (&[], &[(BY_VALUE, 45, 55)], false),
        (&[], &[(BY_VALUE, 115, 125)], false),
        (&[], &[(BY_VALUE, 125, 999)], true),
    ] {
        assert_eq!(
            node.is_valid(&reader, keys, ranges).await,
            is_valid,
            "{keys:?} {ranges:?}"
        );
    }
    let later = node.begin_snapshot();
    assert!(
        node.is_valid(&later, &[1, 2, 3, 4, 5], &[(0, 0, 9), (BY_VALUE, 0, 999)])
            .await
    );
}

#[tokio::test]
async fn writes_that_are_being_committed_conflict_and_own_ones_do_not() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    let reader = node.begin_snapshot();
    let writer = node.begin();
    node.add(&writer, 1, 100).await.unwrap();
    node.insert(&writer, &[(3, 30)]).await.unwrap();
    // What is not prepared yet will commit above what validates now.
    assert!(node.is_valid(&reader, &[1], &[(0, 0, 9)]).await);
    node.prepare(&writer, OTHER_SHARD).await.unwrap();
    assert!(!node.is_valid(&reader, &[1], &[]).await);
    assert!(!node.is_valid(&reader, &[3], &[]).await);
    assert!(!node.is_valid(&reader, &[], &[(0, 3, 4)]).await);
    assert!(!node.is_valid(&reader, &[], &[(BY_VALUE, 105, 115)]).await);
    assert!(!node.is_valid(&reader, &[], &[(BY_VALUE, 5, 15)]).await);
    assert!(
        node.is_valid(&reader, &[2], &[(0, 2, 3), (BY_VALUE, 15, 25)])
            .await
    );
    let own = TestTransaction {
        snapshot: reader.snapshot,
        ..TestTransaction::new(writer.id)
    };
    assert!(
        node.is_valid(&own, &[1, 3], &[(0, 0, 9), (BY_VALUE, 0, 999)])
            .await
    );
    node.roll_back(&writer).await;
    assert!(node.is_valid(&reader, &[1, 3], &[(0, 0, 9)]).await);
}

#[tokio::test]
async fn prepared_writes_conflict_after_a_restart_too() {
    let mut node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let reader = node.begin_snapshot();
    let writer = node.begin();
    node.add(&writer, 1, 1).await.unwrap();
    node.prepare(&writer, OTHER_SHARD).await.unwrap();
    node.crash().await;
    node.boot().await;
    assert!(!node.is_valid(&reader, &[1], &[]).await);
    assert!(!node.is_valid(&reader, &[], &[(BY_VALUE, 5, 15)]).await);
}

#[tokio::test]
async fn one_round_commits_are_refused_as_a_whole() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    // Write skew: each reads what the other writes.
    let first = node.begin_snapshot();
    let second = node.begin_snapshot();
    assert_eq!(node.read(&first, 1).await, Ok(Some(10)));
    assert_eq!(node.read(&second, 2).await, Ok(Some(20)));
    node.add(&first, 2, 1).await.unwrap();
    node.add(&second, 1, 1).await.unwrap();
    let commit = |transaction: &TestTransaction, id| CommitLocal {
        anchor: None,
        transaction: transaction.id,
        shards: vec![node.reference()],
        last_sequence: transaction.sequence.load(Ordering::SeqCst),
        reads: Some(node.reads(transaction, &[id], &[])),
    };
    let first = commit(&first, 1);
    let second = commit(&second, 2);
    written(node.call(RequestBody::CommitLocal(first)).await).unwrap();
    let refused = written(node.call(RequestBody::CommitLocal(second)).await).unwrap_err();
    assert_eq!(refused.sql_state, "40001");
    assert_eq!(node.peek(1).await, Some(10));
    assert_eq!(node.peek(2).await, Some(21));
    // Its locks are free.
    node.add(&node.autocommit(), 1, 5).await.unwrap();
    assert_eq!(node.peek(1).await, Some(15));
}

#[tokio::test]
async fn reads_below_what_was_collected_are_not_valid() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let reader = node.begin_snapshot();
    node.write(&node.autocommit(), RowWriteKind::Delete, &[(1, 0, None)])
        .await
        .unwrap();
    let collect = CollectGarbage {
        watermark: node.cluster.oracle.draw(),
    };
    done(node.call(RequestBody::CollectGarbage(collect)).await).unwrap();
    // Nothing of the deletion is left to be seen.
    assert!(!node.is_valid(&reader, &[1], &[]).await);
    assert!(!node.is_valid(&reader, &[], &[(0, 0, 9)]).await);
    assert!(!node.is_valid(&reader, &[], &[(BY_VALUE, 0, 99)]).await);
    assert!(node.is_valid(&node.begin_snapshot(), &[1], &[(0, 0, 9)]).await);
}

impl TestNode {
    fn validate_request(&self, transaction: &TestTransaction, id: i32) -> RequestBody {
        RequestBody::Validate(Validate {
            transaction: transaction.id,
            commit_timestamp: self.cluster.oracle.draw(),
            reads: self.reads(transaction, &[id], &[]),
        })
    }
}

#[tokio::test]
async fn only_the_primary_under_its_lease_validates() {
    let mut node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let reader = node.begin_snapshot();
    let in_old_term = node.validate_request(&reader, 1);
    let shard = node.node().open_shard(SHARD).unwrap();
    shard.lease(None);
    let refused = done(node.call(node.validate_request(&reader, 1)).await).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StaleEpoch);
    shard.lease(Some(MonotonicTime(u64::MAX)));
    assert!(node.is_valid(&reader, &[1], &[]).await);
    node.crash().await;
    node.boot().await;
    let refused = done(node.call(in_old_term).await).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StaleEpoch);
    assert!(node.is_valid(&reader, &[1], &[]).await);
}

#[tokio::test]
async fn one_round_commits_need_the_terms_in_which_they_have_only_read() {
    let node = TestNode::single().await;
    let other = ShardRef {
        shard: OTHER_SHARD,
        epoch: 5,
    };
    let configuration = Configuration {
        epoch: other.epoch,
        term: other.epoch,
        ..Configuration::new(vec![node.name()])
    };
    let map = BTreeMap::from([(SHARD, node.configuration()), (OTHER_SHARD, configuration)]);
    node.node().configure(&map).await.unwrap();
    let shard = node.node().open_shard(OTHER_SHARD).unwrap();
    while shard.serving() != Some(other.epoch) {
        pause().await;
    }
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let commit = |transaction: &TestTransaction| {
        let mut reads = node.reads(transaction, &[], &[]);
        reads.shards.push(ShardReads {
            shard: other,
            tables: Vec::new(),
        });
        RequestBody::CommitLocal(CommitLocal {
            anchor: None,
            transaction: transaction.id,
            shards: vec![node.reference()],
            last_sequence: transaction.sequence.load(Ordering::SeqCst),
            reads: Some(reads),
        })
    };
    let first = node.begin_snapshot();
    node.add(&first, 1, 1).await.unwrap();
    written(node.call(commit(&first)).await).unwrap();
    assert_eq!(node.peek(1).await, Some(11));

    shard.lease(None);
    let without_lease = node.begin_snapshot();
    node.add(&without_lease, 1, 1).await.unwrap();
    let refused = written(node.call(commit(&without_lease)).await).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownTransaction);
    shard.stop();
    let after_the_term = node.begin_snapshot();
    node.add(&after_the_term, 1, 1).await.unwrap();
    let refused = written(node.call(commit(&after_the_term)).await).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownTransaction);
    // Nothing of them is there, locks neither.
    node.add(&node.autocommit(), 1, 5).await.unwrap();
    assert_eq!(node.peek(1).await, Some(16));
}
