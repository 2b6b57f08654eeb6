//! Crashes and restarts of one node.

use super::*;

#[tokio::test]
async fn acknowledged_commits_survive_and_others_vanish() {
    let mut node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20)])
        .await
        .unwrap();
    let committed = node.begin();
    node.add(&committed, 1, 1).await.unwrap();
    let timestamp = node.commit(&committed).await.unwrap();
    let open = node.begin();
    node.insert(&open, &[(3, 30)]).await.unwrap();
    node.crash().await;
    node.boot().await;
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 11), (2, 20)]);
    assert_eq!(node.commit(&committed).await, Ok(timestamp));
    // The open transaction lost its write: neither may it commit nor, in the term that its Coordinator knows, go on.
    node.term -= 1;
    assert_eq!(
        node.commit(&open).await.unwrap_err().kind(),
        ErrorKind::UnknownTransaction
    );
    assert_eq!(
        node.insert(&open, &[(4, 40)]).await.unwrap_err().kind(),
        ErrorKind::StaleEpoch
    );
    node.term += 1;
    node.insert(&node.autocommit(), &[(5, 50)]).await.unwrap();
    let by_value = ScanRows {
        index: BY_VALUE,
        ..node.scan_request(&TestTransaction::new(0))
    };
    assert_eq!(
        node.scan_all(by_value).await.unwrap(),
        [(1, 11), (2, 20), (5, 50)]
    );
}

#[tokio::test]
async fn checkpoints_cut_the_log_and_lose_nothing() {
    let mut node = TestNode::single().await;
    let mut expected = Vec::new();
    for round in 0..6 {
        for id in 0..20 {
            let id = round * 20 + id;
            node.insert(&node.autocommit(), &[(id, round)]).await.unwrap();
            expected.push((id, round));
        }
        let before = node.node().wal.bytes();
        node.node().checkpoint().await;
        if round > 0 {
            assert!(node.node().wal.bytes() < before, "the log is cut");
        }
        if round % 2 == 1 {
            node.insert(&node.autocommit(), &[(1000 + round, round)])
                .await
                .unwrap();
            expected.push((1000 + round, round));
            node.crash().await;
            node.boot().await;
        }
        expected.sort_unstable();
        assert_eq!(node.scan(&TestTransaction::new(0)).await, expected);
    }
}

#[tokio::test]
async fn a_clean_stop_replays_nothing() {
    let mut node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    node.node().close().await;
    node.crash().await;
    node.boot().await;
    assert_eq!(node.peek(1).await, Some(10));
}

#[tokio::test]
async fn writes_to_dropped_storages_do_not_hold_up_replay() {
    let mut node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let change = ChangeStorage {
        shard: node.reference(),
        create: vec![2000],
        drop: vec![TABLE, BY_VALUE, BY_TAG],
    };
    expect_done(node.call(RequestBody::ChangeStorage(change)).await);
    let error = node.read(&TestTransaction::new(0), 1).await.unwrap_err();
    assert_eq!(error.sql_state, "40001");
    node.crash().await;
    node.boot().await;
    assert!(node.node().failure().is_none());
}

#[tokio::test]
async fn random_crashes_keep_what_was_acknowledged() {
    let mut node = TestNode::single().await;
    let mut acknowledged = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    for round in 0..25 {
        let left = 3 + u64::from(round as u32 * 7 % 40);
        node.disk.fail_after(left);
        for id in 0..12 {
            let id = round * 100 + id;
            match node.insert(&node.autocommit(), &[(id, id), (id + 50, id)]).await {
                Ok(_) => acknowledged.extend([(id, id), (id + 50, id)]),
                Err(_) => unknown.extend([(id, id), (id + 50, id)]),
            }
        }
        node.crash().await;
        node.boot().await;
        let found: BTreeMap<_, _> = node.scan(&TestTransaction::new(0)).await.into_iter().collect();
        for (id, value) in &acknowledged {
            assert_eq!(
                found.get(id),
                Some(value),
                "acknowledged row {id} is lost in round {round}"
            );
        }
        for (id, value) in &found {
            assert!(
                acknowledged.contains_key(id) || unknown.get(id) == Some(value),
                "row {id} from nowhere"
            );
            let sibling = if id % 100 < 50 { id + 50 } else { id - 50 };
            assert!(
                found.contains_key(&sibling),
                "half of a transaction in round {round}"
            );
        }
    }
}

#[tokio::test]
async fn a_commit_that_was_forgotten_is_not_taken_for_an_abort() {
    let mut node = TestNode::single().await;
    let committed = node.begin();
    node.insert(&committed, &[(1, 10)]).await.unwrap();
    node.commit(&committed).await.unwrap();
    let ask = |node: &TestNode, transaction: &TestTransaction| {
        RequestBody::QueryDecision(QueryDecision {
            transaction: transaction.id,
            anchor: node.reference(),
            abort_if_abandoned: true,
            one_round: true,
        })
    };
    let decision = |response: Response| match response.body {
        Some(ResponseBody::Decision(reply)) => reply.decision(),
        other => panic!("{other:?}"),
    };
    // All is in the engine, and the log that told of it is cut.
    for id in 100..300 {
        node.insert(&node.autocommit(), &[(id, id)]).await.unwrap();
    }
    node.node().close().await;
    node.crash().await;
    node.boot().await;
    assert_eq!(node.peek(1).await, Some(10));
    let answer = node.call(ask(&node, &committed)).await;
    assert_eq!(decision(answer), Decision::Unknown);
    let again = TestTransaction {
        autocommit: true,
        ..TestTransaction::new(committed.id)
    };
    let context = StatementContext {
        repeated: true,
        ..again.context()
    };
    let request = WriteRows {
        shard: node.reference(),
        context,
        table: table(),
        writes: vec![row_write(RowWriteKind::Put, &(1, 11, None))],
    };
    let error = written(node.call(RequestBody::WriteRows(request)).await).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    // Of what began since, it would know.
    node.node().date_memory().await;
    let stranger = node.begin();
    let answer = node.call(ask(&node, &stranger)).await;
    assert_eq!(decision(answer), Decision::Aborted);
}

#[tokio::test]
async fn a_repeated_statement_is_carried_out_once() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let statement = node.autocommit();
    let request = ModifyRows {
        keys: vec![key(1)],
        program: add_program(1),
        ..node.modify(&statement)
    };
    let mut repeated = request.clone();
    repeated.context.repeated = true;
    let first = written(node.call(RequestBody::ModifyRows(request)).await).unwrap();
    let second = written(node.call(RequestBody::ModifyRows(repeated)).await).unwrap();
    assert_eq!(first, second);
    assert_eq!(node.peek(1).await, Some(11));
}
