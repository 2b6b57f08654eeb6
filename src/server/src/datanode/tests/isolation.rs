//! What concurrent transactions may and may not see.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_are_never_lost() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 0)]).await.unwrap();
    let mut clients = Vec::new();
    for client in 0..6 {
        let node = node.clone();
        clients.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 30 {
                // Autocommit, READ COMMITTED and REPEATABLE READ by turns.
                let added = match (client + done) % 3 {
                    0 => node.add(&node.autocommit(), 1, 1).await.map(|_| ()),
                    kind => {
                        let transaction = if kind == 1 {
                            node.begin()
                        } else {
                            node.begin_snapshot()
                        };
                        match node.add(&transaction, 1, 1).await {
                            Ok(_) => node.commit(&transaction).await.map(|_| ()),
                            Err(error) => {
                                node.roll_back(&transaction).await;
                                Err(error)
                            }
                        }
                    }
                };
                match added {
                    Ok(()) => done += 1,
                    Err(error) => assert_eq!(error.sql_state, "40001", "{error:?}"),
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(node.peek(1).await, Some(180));
}

#[tokio::test]
async fn a_snapshot_stays_the_same() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    let reader = node.begin_snapshot();
    assert_eq!(node.read(&reader, 1).await, Ok(Some(10)));
    node.add(&node.autocommit(), 1, 1).await.unwrap();
    node.insert(&node.autocommit(), &[(3, 30)]).await.unwrap();
    node.write(&node.autocommit(), RowWriteKind::Delete, &[(2, 0, None)])
        .await
        .unwrap();
    assert_eq!(node.scan(&reader).await, [(1, 10), (2, 20)]);
    assert_eq!(node.read(&reader, 3).await, Ok(None));
    // What changed since cannot be changed from here.
    let error = node.add(&reader, 1, 1).await.unwrap_err();
    assert_eq!(error.sql_state, "40001");
    assert_eq!(
        error.message,
        "could not serialize access due to concurrent update"
    );
    let error = node.add(&reader, 2, 1).await.unwrap_err();
    assert_eq!(error.sql_state, "40001");
    assert_eq!(node.add(&reader, 3, 1).await, Ok(0));
}

#[tokio::test]
async fn write_skew_is_allowed_under_repeatable_read() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 1), (2, 1)]).await.unwrap();
    let (first, second) = (node.begin_snapshot(), node.begin_snapshot());
    assert_eq!(node.scan(&first).await, node.scan(&second).await);
    node.add(&first, 1, -1).await.unwrap();
    node.add(&second, 2, -1).await.unwrap();
    node.commit(&first).await.unwrap();
    node.commit(&second).await.unwrap();
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 0), (2, 0)]);
}

#[tokio::test]
async fn read_committed_looks_again_after_a_wait() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let holder = node.begin();
    node.add(&holder, 1, 1).await.unwrap();
    let waiting = {
        let node = node.clone();
        tokio::spawn(async move { node.add(&node.autocommit(), 1, 100).await })
    };
    pause().await;
    assert!(!waiting.is_finished());
    node.commit(&holder).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(1));
    assert_eq!(node.peek(1).await, Some(111));
}

#[tokio::test]
async fn an_update_of_a_row_that_stops_matching_changes_nothing() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let holder = node.begin();
    node.add(&holder, 1, 1).await.unwrap();
    let waiting = {
        let node = node.clone();
        tokio::spawn(async move {
            // UPDATE … WHERE value = 10, over all rows
            let sum = call(Function::Add, [input(1), number(100)], SqlType::Integer);
            let filter = call(Function::Equal, [input(1), number(10)], SqlType::Boolean);
            let program = WriteProgram {
                inputs: inputs(),
                filter: Some(filter),
                assignments: vec![(2, sum)],
                ..Default::default()
            };
            let program = ProgramRef::new(program.encode());
            let request = ModifyRows {
                program,
                ..node.modify(&node.autocommit())
            };
            written(node.call(RequestBody::ModifyRows(request)).await)
        })
    };
    pause().await;
    node.commit(&holder).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().affected, 0);
    assert_eq!(node.peek(1).await, Some(11));
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn readers_wait_for_a_commit_that_their_snapshot_may_include() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let early = node.begin_snapshot();
    node.cluster.oracle.delay_ms.store(150, Ordering::SeqCst);
    let writer = {
        let node = node.clone();
        tokio::spawn(async move { node.add(&node.autocommit(), 1, 1).await })
    };
    pause().await;
    // The commit timestamp is drawn but has not arrived: this snapshot is above it.
    let late = node.begin_snapshot();
    let late_read = {
        let node = node.clone();
        tokio::spawn(async move { (node.read(&late, 1).await, node.scan(&late).await) })
    };
    assert_eq!(node.read(&early, 1).await, Ok(Some(10)));
    assert_eq!(writer.await.unwrap(), Ok(1));
    assert_eq!(late_read.await.unwrap(), (Ok(Some(11)), vec![(1, 11)]));
}

#[tokio::test]
async fn deadlocks_are_found_and_one_survives() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    let (first, second) = (Arc::new(node.begin()), node.begin());
    node.add(&first, 1, 1).await.unwrap();
    node.add(&second, 2, 1).await.unwrap();
    let waiting = {
        let (node, first) = (node.clone(), first.clone());
        tokio::spawn(async move { node.add(&first, 2, 1).await })
    };
    pause().await;
    let error = node.add(&second, 1, 1).await.unwrap_err();
    assert_eq!(
        (error.sql_state.as_str(), error.message.as_str()),
        ("40P01", "deadlock detected")
    );
    node.roll_back(&second).await;
    assert_eq!(waiting.await.unwrap(), Ok(1));
    node.commit(&first).await.unwrap();
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 11), (2, 21)]);
}

#[tokio::test]
async fn locking_reads_wait_skip_or_fail() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    let holder = node.begin();
    assert_eq!(
        node.read_locked(&holder, 1, LockMode::Exclusive, LockWait::Wait)
            .await,
        Ok(Some(10))
    );
    let other = TestTransaction {
        lock_timeout_ms: 50,
        ..node.begin()
    };
    let error = node
        .read_locked(&other, 1, LockMode::Share, LockWait::NoWait)
        .await
        .unwrap_err();
    assert_eq!(error.sql_state, "55P03");
    assert_eq!(
        node.read_locked(&other, 1, LockMode::Share, LockWait::SkipLocked)
            .await,
        Ok(None)
    );
    let error = node
        .read_locked(&other, 1, LockMode::Share, LockWait::Wait)
        .await
        .unwrap_err();
    assert_eq!(error.message, "canceling statement due to lock timeout");
    let skipping = ScanRows {
        lock: LockMode::Exclusive.into(),
        wait: LockWait::SkipLocked.into(),
        ..node.scan_request(&other)
    };
    assert_eq!(node.scan_all(skipping).await.unwrap(), [(2, 20)]);
    // Plain reads do not care.
    assert_eq!(node.read(&other, 1).await, Ok(Some(10)));
    node.commit(&holder).await.unwrap();
    assert_eq!(
        node.read_locked(&other, 1, LockMode::Exclusive, LockWait::NoWait)
            .await,
        Ok(Some(10))
    );
    node.roll_back(&other).await;
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn rollback_frees_a_statement_that_waits() {
    let node = Arc::new(TestNode::single().await);
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let (holder, waiter) = (node.begin(), Arc::new(node.begin()));
    node.add(&holder, 1, 1).await.unwrap();
    let waiting = {
        let (node, waiter) = (node.clone(), waiter.clone());
        tokio::spawn(async move { node.add(&waiter, 1, 1).await })
    };
    pause().await;
    node.roll_back(&waiter).await;
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        ErrorKind::UnknownTransaction
    );
    node.commit(&holder).await.unwrap();
    assert_eq!(node.peek(1).await, Some(11));
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn collected_snapshots_are_refused() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let old = node.begin_snapshot();
    node.add(&node.autocommit(), 1, 1).await.unwrap();
    let watermark = node.cluster.oracle.draw();
    expect_done(
        node.call(RequestBody::CollectGarbage(CollectGarbage { watermark }))
            .await,
    );
    assert_eq!(node.read(&old, 1).await.unwrap_err().sql_state, "72000");
    let error = node.scan_all(node.scan_request(&old)).await.unwrap_err();
    assert_eq!(
        (error.sql_state.as_str(), error.message.as_str()),
        ("72000", "snapshot too old")
    );
    assert_eq!(node.read(&node.begin_snapshot(), 1).await, Ok(Some(11)));
}
