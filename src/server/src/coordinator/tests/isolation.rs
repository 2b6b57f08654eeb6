//! What a transaction sees, and what it is validated for.

use super::*;

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

#[tokio::test]
async fn reads_after_a_switch_to_read_only_count_if_something_was_written() {
    let cluster = Cluster::with_table().await;
    let (mut first, mut second) = (cluster.connect().await, cluster.connect().await);
    for (session, written) in [(&mut first, 1), (&mut second, 2)] {
        session.run(BEGIN).await.unwrap();
        let update = format!("UPDATE t SET v = 1 WHERE id = {written}");
        session.run(&update).await.unwrap();
        session.run("SET TRANSACTION READ ONLY").await.unwrap();
    }
    assert_eq!(first.run("SELECT v FROM t WHERE id = 2").await.unwrap(), [0]);
    assert_eq!(second.run("SELECT v FROM t WHERE id = 1").await.unwrap(), [0]);
    first.run("COMMIT").await.unwrap();
    assert_eq!(state(second.run("COMMIT").await), SqlState::SERIALIZATION_FAILURE);
    assert_eq!(cluster.values().await, [1, 0]);
}

#[tokio::test]
async fn what_has_read_as_read_only_cannot_write_later() {
    let cluster = Cluster::with_table().await;
    let mut session = cluster.connect().await;
    session.run(&format!("{BEGIN} READ ONLY")).await.unwrap();
    session.run("SELECT v FROM t WHERE id = 1").await.unwrap();
    let switched = session.run("SET TRANSACTION READ WRITE").await;
    assert_eq!(state(switched), SqlState::ACTIVE_SQL_TRANSACTION);
    session.run("ROLLBACK").await.unwrap();
    session.run(BEGIN).await.unwrap();
    session.run("SET TRANSACTION READ ONLY").await.unwrap();
    session.run("SAVEPOINT s").await.unwrap();
    session.run("SELECT v FROM t WHERE id = 1").await.unwrap();
    session.run("ROLLBACK TO s").await.unwrap();
    let switched = session.run("SET transaction_read_only = off").await;
    assert_eq!(state(switched), SqlState::ACTIVE_SQL_TRANSACTION);
}

#[tokio::test]
async fn a_pipeline_has_one_snapshot_from_its_first_select_on() {
    let cluster = Cluster::with_table().await;
    let (mut reader, mut writer) = (cluster.connect().await, cluster.connect().await);
    let isolation = "SET default_transaction_isolation = 'repeatable read'";
    reader.run(isolation).await.unwrap();
    let select = "SELECT v FROM t WHERE id = 1";
    assert_eq!(reader.execute(select).await.unwrap(), [0]);
    writer.run("UPDATE t SET v = 1 WHERE id = 1").await.unwrap();
    assert_eq!(reader.execute(select).await.unwrap(), [0]);
    reader.sync().await.unwrap();
    assert_eq!(reader.execute(select).await.unwrap(), [1]);
    reader.sync().await.unwrap();
}

#[tokio::test]
async fn the_first_select_of_a_serializable_pipeline_is_validated() {
    let cluster = Cluster::with_table().await;
    let (mut first, mut second) = (cluster.connect().await, cluster.connect().await);
    for (session, read, written) in [(&mut first, 2, 1), (&mut second, 1, 2)] {
        let isolation = "SET default_transaction_isolation = 'serializable'";
        session.run(isolation).await.unwrap();
        let select = format!("SELECT v FROM t WHERE id = {read}");
        assert_eq!(session.execute(&select).await.unwrap(), [0]);
        let update = format!("UPDATE t SET v = 1 WHERE id = {written}");
        session.execute(&update).await.unwrap();
    }
    first.sync().await.unwrap();
    assert_eq!(state(second.sync().await), SqlState::SERIALIZATION_FAILURE);
    assert_eq!(cluster.values().await, [1, 0]);
}
