//! One-round commits, statements and their errors.

use super::*;

#[tokio::test]
async fn autocommit_writes_are_read_back() {
    let node = TestNode::single().await;
    assert_eq!(
        node.insert(&node.autocommit(), &[(1, 10), (2, 20), (3, 30)])
            .await,
        Ok(3)
    );
    assert_eq!(node.peek(2).await, Some(20));
    assert_eq!(node.peek(9).await, None);
    assert_eq!(node.add(&node.autocommit(), 2, 5).await, Ok(1));
    assert_eq!(node.add(&node.autocommit(), 9, 5).await, Ok(0));
    assert_eq!(
        node.scan(&TestTransaction::new(0)).await,
        [(1, 10), (2, 25), (3, 30)]
    );
    // Deleted rows and rows that never were do not count.
    let reply = node
        .write(
            &node.autocommit(),
            RowWriteKind::Delete,
            &[(1, 0, None), (9, 0, None)],
        )
        .await
        .unwrap();
    assert_eq!(reply.affected, 1);
    assert!(reply.commit_timestamp > 0);
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(2, 25), (3, 30)]);
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn scans_go_in_batches_both_ways_and_stop_at_the_limit() {
    let node = TestNode::single().await;
    let all: Vec<_> = (0..100).map(|id| (id, id * 2)).collect();
    node.insert(&node.autocommit(), &all).await.unwrap();
    let reader = TestTransaction::new(0);
    let small = || ScanRows {
        batch_bytes: 50,
        ..node.scan_request(&reader)
    };
    assert_eq!(node.scan_all(small()).await.unwrap(), all);
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    assert_eq!(
        node.scan_all(ScanRows {
            reverse: true,
            ..small()
        })
        .await
        .unwrap(),
        reversed
    );
    let limited = ScanRows {
        limit: 42,
        lower: key(10),
        ..small()
    };
    assert_eq!(node.scan_all(limited).await.unwrap(), all[10..52]);
}

#[tokio::test]
async fn duplicate_keys_are_refused_with_postgresql_words() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let error = node
        .insert(&node.autocommit(), &[(2, 20), (1, 11)])
        .await
        .unwrap_err();
    assert_eq!(error.sql_state, "23505");
    assert_eq!(
        error.message,
        "duplicate key value violates unique constraint \"t_pkey\""
    );
    assert_eq!(error.detail, "Key (id)=(1) already exists.");
    // All or nothing.
    assert_eq!(node.peek(2).await, None);
    let error = node
        .insert(&node.autocommit(), &[(3, 1), (3, 2)])
        .await
        .unwrap_err();
    assert_eq!(error.sql_state, "23505");
    let rows = [(1, 0, None), (4, 40, None)];
    let reply = node
        .write(&node.autocommit(), RowWriteKind::InsertOrSkip, &rows)
        .await
        .unwrap();
    assert_eq!((reply.affected, reply.skipped), (1, vec![0]));
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_nobody_else_does() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (3, 30)])
        .await
        .unwrap();
    let writer = node.begin();
    node.insert(&writer, &[(2, 20)]).await.unwrap();
    node.add(&writer, 3, 1).await.unwrap();
    node.write(&writer, RowWriteKind::Delete, &[(1, 0, None)])
        .await
        .unwrap();
    assert_eq!(node.read(&writer, 2).await, Ok(Some(20)));
    assert_eq!(node.scan(&writer).await, [(2, 20), (3, 31)]);
    let reversed = ScanRows {
        reverse: true,
        ..node.scan_request(&writer)
    };
    assert_eq!(node.scan_all(reversed).await.unwrap(), [(3, 31), (2, 20)]);
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 10), (3, 30)]);
    assert_eq!(node.scan(&node.begin_snapshot()).await, [(1, 10), (3, 30)]);
    // A deleted row may come back within the transaction.
    node.insert(&writer, &[(1, 11)]).await.unwrap();
    node.commit(&writer).await.unwrap();
    assert_eq!(
        node.scan(&TestTransaction::new(0)).await,
        [(1, 11), (2, 20), (3, 31)]
    );
}

#[tokio::test]
async fn rollback_leaves_nothing() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let writer = node.begin();
    node.insert(&writer, &[(2, 20)]).await.unwrap();
    node.add(&writer, 1, 1).await.unwrap();
    node.roll_back(&writer).await;
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 10)]);
    assert_eq!(node.node().locks.locked_keys(), 0);
    // It is over: nothing may be added to it or committed.
    let error = node.insert(&writer, &[(3, 30)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTransaction);
    let error = node.commit(&writer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTransaction);
}

#[tokio::test]
async fn repeated_requests_get_the_first_answer() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let once = node.autocommit();
    assert_eq!(node.add(&once, 1, 5).await, Ok(1));
    assert_eq!(node.add(&once, 1, 5).await, Ok(1));
    assert_eq!(node.peek(1).await, Some(15));
    let writer = node.begin();
    node.add(&writer, 1, 1).await.unwrap();
    let first = node.commit(&writer).await.unwrap();
    assert_eq!(node.commit(&writer).await, Ok(first));
    assert_eq!(node.query(&writer, true).await, Decision::Committed);
}

#[tokio::test]
async fn only_the_current_term_is_served() {
    let mut node = TestNode::single().await;
    let writer = node.begin();
    node.insert(&writer, &[(1, 10)]).await.unwrap();
    let before = node.configuration();
    node.term = 5;
    node.configure(node.configuration()).await;
    node.serves(5).await;
    // What it wrote in the earlier term is lost.
    let error = node.insert(&writer, &[(2, 20)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTransaction);
    let error = node.commit(&writer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTransaction);
    node.insert(&node.autocommit(), &[(1, 11)]).await.unwrap();
    // An old configuration changes nothing.
    node.configure(before).await;
    assert_eq!(node.node().served_shards(), [(SHARD, 5)]);
    let elsewhere = Configuration {
        epoch: 6,
        term: 6,
        ..Configuration::new(vec!["another".to_owned()])
    };
    // It serves no more, though the copy stays: nobody can be asked whether that is the latest configuration.
    let map = BTreeMap::from([(SHARD, elsewhere)]);
    assert!(node.node().configure(&map).await.is_err());
    assert_eq!(node.node().served_shards(), []);
    let error = node.insert(&node.autocommit(), &[(3, 30)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleEpoch);
}

#[tokio::test]
async fn silent_transactions_are_rolled_back_and_live_ones_are_not() {
    let node = TestNode::single().await;
    let (silent, alive) = (node.begin(), node.begin());
    node.insert(&silent, &[(1, 10)]).await.unwrap();
    node.insert(&alive, &[(2, 20)]).await.unwrap();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let heartbeat = Heartbeat {
            transactions: vec![alive.id],
        };
        expect_done(node.call(RequestBody::Heartbeat(heartbeat)).await);
    }
    assert_eq!(
        node.commit(&silent).await.unwrap_err().kind(),
        ErrorKind::UnknownTransaction
    );
    node.commit(&alive).await.unwrap();
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(2, 20)]);
}

#[tokio::test]
async fn too_large_a_transaction_is_refused_and_rolled_back() {
    let node = TestNode::single().await;
    let writer = node.begin();
    for batch in 0..20 {
        let rows: Vec<_> = (0..2000).map(|id| (batch * 2000 + id, id)).collect();
        node.insert(&writer, &rows).await.unwrap();
    }
    let error = node.commit(&writer).await.unwrap_err();
    assert_eq!(error.sql_state, "54000");
    assert_eq!(node.scan(&TestTransaction::new(0)).await, []);
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn a_failed_log_stops_writes_but_not_reads() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    node.disk.fail_after(0);
    let error = node.insert(&node.autocommit(), &[(2, 20)]).await.unwrap_err();
    assert_eq!(
        error.sql_state, "08007",
        "the next start may find the record in the log"
    );
    let error = node.insert(&node.autocommit(), &[(3, 30)]).await.unwrap_err();
    assert_eq!(error.sql_state, "58030");
    assert!(node.read(&TestTransaction::new(0), 1).await.is_ok());
    assert!(node.node().failure().is_some());
}

#[tokio::test]
async fn a_dropped_request_leaves_nothing_half_done() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 0)]).await.unwrap();
    node.cluster.oracle.delay_ms.store(5, Ordering::SeqCst);
    let mut done = 0;
    for round in 0..40_u64 {
        let transaction = Arc::new(node.autocommit());
        let call = {
            let (node, transaction) = (node.clone(), transaction.clone());
            tokio::spawn(async move { node.add(&transaction, 1, 1).await })
        };
        tokio::time::sleep(Duration::from_micros(round * 300)).await;
        call.abort();
        let _ = call.await;
        // It has happened or it will never: ask until that is known.
        let outcome = loop {
            match node.query(&transaction, true).await {
                Decision::Pending => pause().await,
                outcome => break outcome,
            }
        };
        if outcome == Decision::Committed {
            done += 1;
        }
        assert_eq!(node.peek(1).await, Some(done), "after round {round}: {outcome:?}");
    }
    assert!(done > 0 && done < 40, "both outcomes occurred: {done}");
    assert_eq!(node.node().locks.locked_keys(), 0);
    assert_eq!(node.node().transactions.lock().len(), 0);
}
