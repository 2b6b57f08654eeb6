//! Index walks, unique values, and bulk writes.

use super::*;

impl TestNode {
    async fn scan_by_value(&self, transaction: &TestTransaction, from: i32, to: i32) -> Vec<(i32, i32)> {
        let request = ScanRows {
            index: BY_VALUE,
            lower: key(from),
            upper: key(to),
            ..self.scan_request(transaction)
        };
        let forward = self.scan_all(request.clone()).await.unwrap();
        let small = ScanRows {
            batch_bytes: 1,
            ..request.clone()
        };
        assert_eq!(
            self.scan_all(small).await.unwrap(),
            forward,
            "batches change nothing"
        );
        let mut backward = self
            .scan_all(ScanRows {
                reverse: true,
                ..request
            })
            .await
            .unwrap();
        backward.reverse();
        assert_eq!(backward, forward, "the direction changes nothing");
        forward
    }
}

#[tokio::test]
async fn index_walks_show_each_row_once_as_the_view_has_it() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10), (2, 20), (3, 30), (4, 40)])
        .await
        .unwrap();
    let old = node.begin_snapshot();
    node.add(&node.autocommit(), 1, 15).await.unwrap(); // 10 → 25: both in the range below
    node.add(&node.autocommit(), 4, 60).await.unwrap(); // 40 → 100: out of it
    let newest = TestTransaction::new(0);
    assert_eq!(
        node.scan_by_value(&newest, 0, 50).await,
        [(2, 20), (1, 25), (3, 30)]
    );
    assert_eq!(
        node.scan_by_value(&old, 0, 50).await,
        [(1, 10), (2, 20), (3, 30), (4, 40)]
    );
    let writer = node.begin();
    node.insert(&writer, &[(5, 22)]).await.unwrap();
    node.add(&writer, 3, -25).await.unwrap();
    node.write(&writer, RowWriteKind::Delete, &[(2, 0, None)])
        .await
        .unwrap();
    assert_eq!(
        node.scan_by_value(&writer, 0, 50).await,
        [(3, 5), (5, 22), (1, 25)]
    );
    assert_eq!(
        node.scan_by_value(&newest, 0, 50).await,
        [(2, 20), (1, 25), (3, 30)]
    );
    node.commit(&writer).await.unwrap();
    assert_eq!(
        node.scan_by_value(&newest, 0, 50).await,
        [(3, 5), (5, 22), (1, 25)]
    );
}

#[tokio::test]
async fn an_update_along_an_index_meets_each_row_once() {
    let node = TestNode::single().await;
    let rows: Vec<_> = (0..20).map(|id| (id, id)).collect();
    node.insert(&node.autocommit(), &rows).await.unwrap();
    let writer = node.begin();
    node.insert(&writer, &[(20, 20)]).await.unwrap();
    let request = ModifyRows {
        index: BY_VALUE,
        lower: key(0),
        program: add_program(1000),
        ..node.modify(&writer)
    };
    let reply = written(node.call(RequestBody::ModifyRows(request)).await).unwrap();
    assert_eq!(reply.affected, 21);
    node.commit(&writer).await.unwrap();
    let moved: Vec<_> = (0..=20).map(|id| (id, id + 1000)).collect();
    assert_eq!(node.scan(&TestTransaction::new(0)).await, moved);
}

#[tokio::test]
async fn unique_values_are_unique() {
    let node = Arc::new(TestNode::single().await);
    let insert = RowWriteKind::Insert;
    node.write(
        &node.autocommit(),
        insert,
        &[(1, 0, Some("a")), (2, 0, None), (3, 0, None)],
    )
    .await
    .unwrap();
    let error = node
        .write(&node.autocommit(), insert, &[(4, 0, Some("a"))])
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "duplicate key value violates unique constraint \"t_tag_key\""
    );
    assert_eq!(error.detail, "Key (tag)=(a) already exists.");
    let twice = [(4, 0, Some("b")), (5, 0, Some("b"))];
    assert_eq!(
        node.write(&node.autocommit(), insert, &twice)
            .await
            .unwrap_err()
            .sql_state,
        "23505"
    );
    // Whoever wants a value that is being given up waits for the outcome.
    let giver = node.begin();
    node.write(&giver, RowWriteKind::Put, &[(1, 0, Some("z"))])
        .await
        .unwrap();
    let taker = {
        let node = node.clone();
        tokio::spawn(async move { node.write(&node.autocommit(), insert, &[(6, 0, Some("a"))]).await })
    };
    pause().await;
    assert!(!taker.is_finished());
    node.commit(&giver).await.unwrap();
    assert_eq!(taker.await.unwrap().unwrap().affected, 1);
    // The value itself may be taken over within one transaction.
    let swapper = node.begin();
    node.write(&swapper, RowWriteKind::Delete, &[(6, 0, None)])
        .await
        .unwrap();
    node.write(&swapper, insert, &[(7, 0, Some("a"))]).await.unwrap();
    node.commit(&swapper).await.unwrap();
    let skipped = node
        .write(
            &node.autocommit(),
            RowWriteKind::InsertOrSkip,
            &[(8, 0, Some("a"))],
        )
        .await
        .unwrap();
    assert_eq!((skipped.affected, skipped.skipped), (0, vec![0]));
    assert_eq!(node.node().locks.locked_keys(), 0);
}

#[tokio::test]
async fn bulk_writes_and_index_builds_find_duplicates() {
    let node = TestNode::single().await;
    let bulk = |rows: Vec<RowWrite>, build_index| BulkWrite {
        shard: node.reference(),
        table: table(),
        rows,
        commit_timestamp: 5 << 20,
        build_index,
    };
    let row = |id, value| row_write(RowWriteKind::Insert, &(id, value, None));
    let rows = bulk(vec![row(1, 10), row(2, 20)], 0);
    assert_eq!(
        written(node.call(RequestBody::BulkWrite(rows)).await)
            .unwrap()
            .affected,
        2
    );
    let again = bulk(vec![row(3, 30), row(2, 20)], 0);
    assert_eq!(
        written(node.call(RequestBody::BulkWrite(again)).await)
            .unwrap_err()
            .sql_state,
        "23505"
    );
    assert_eq!(node.scan(&TestTransaction::new(0)).await, [(1, 10), (2, 20)]);
    written(
        node.call(RequestBody::BulkWrite(bulk(Vec::new(), BY_VALUE)))
            .await,
    )
    .unwrap();
    assert_eq!(
        node.scan_by_value(&TestTransaction::new(0), 0, 100).await,
        [(1, 10), (2, 20)]
    );
}

#[tokio::test]
async fn an_index_whose_old_entries_were_collected_does_not_hide_rows() {
    let node = TestNode::single().await;
    node.insert(&node.autocommit(), &[(1, 10)]).await.unwrap();
    let old = node.begin_snapshot();
    node.add(&node.autocommit(), 1, 90).await.unwrap();
    let watermark = node.cluster.oracle.draw();
    expect_done(
        node.call(RequestBody::CollectGarbage(CollectGarbage { watermark }))
            .await,
    );
    // The entry of 10 is gone, and with it the only way to the row.
    let request = ScanRows {
        index: BY_VALUE,
        lower: key(0),
        upper: key(50),
        ..node.scan_request(&old)
    };
    let error = node.scan_all(request).await.unwrap_err();
    assert_eq!(error.sql_state, "72000");
}
