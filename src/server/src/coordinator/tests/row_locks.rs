//! Row locks of statements that fail.

use super::*;

/// A query that is no simple one locks row 1, then waits for row 2 until it is cancelled.
const LOCKS_BOTH: &str = "SELECT a.v FROM t a, (VALUES (1)) b (one) FOR UPDATE OF a";
/// Locks both rows and fails then.
const FAILS: &str = "UPDATE t SET v = 1 / u.zero FROM (VALUES (0)) u (zero)";

async fn is_locked(cluster: &Cluster, id: i32) -> bool {
    let mut session = cluster.connect().await;
    session.run("BEGIN").await.unwrap();
    let select = format!("SELECT v FROM t WHERE id = {id} FOR UPDATE NOWAIT");
    let locked = match session.run(&select).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.state, SqlState::LOCK_NOT_AVAILABLE);
            true
        }
    };
    session.run("ROLLBACK").await.unwrap();
    locked
}

#[tokio::test]
async fn a_cancelled_query_leaves_no_lock_behind() {
    let cluster = Cluster::with_table().await;
    let (mut holder, mut session) = (cluster.connect().await, cluster.connect().await);
    holder.run("BEGIN").await.unwrap();
    holder.run("UPDATE t SET v = 1 WHERE id = 2").await.unwrap();
    session.run("SET statement_timeout = 300").await.unwrap();
    for savepoint in [true, false] {
        session.run("BEGIN").await.unwrap();
        if savepoint {
            session.run("SAVEPOINT s").await.unwrap();
        }
        assert_eq!(state(session.run(LOCKS_BOTH).await), SqlState::QUERY_CANCELED);
        if savepoint {
            session.run("ROLLBACK TO s").await.unwrap();
        }
        assert!(!is_locked(&cluster, 1).await, "with a savepoint: {savepoint}");
        session.run("ROLLBACK").await.unwrap();
    }
    assert_eq!(state(session.run(LOCKS_BOTH).await), SqlState::QUERY_CANCELED);
    assert!(!is_locked(&cluster, 1).await);
}

#[tokio::test]
async fn a_failed_update_by_query_leaves_no_lock_behind() {
    let cluster = Cluster::with_table().await;
    let mut session = cluster.connect().await;
    for savepoint in [true, false] {
        session.run("BEGIN").await.unwrap();
        if savepoint {
            session.run("SAVEPOINT s").await.unwrap();
        }
        assert_eq!(state(session.run(FAILS).await), SqlState::DIVISION_BY_ZERO);
        if savepoint {
            session.run("ROLLBACK TO s").await.unwrap();
        }
        assert!(!is_locked(&cluster, 1).await, "with a savepoint: {savepoint}");
        session.run("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn locks_from_before_a_savepoint_stay() {
    let cluster = Cluster::with_table().await;
    let mut session = cluster.connect().await;
    session.run("BEGIN").await.unwrap();
    session
        .run("SELECT v FROM t WHERE id = 1 FOR UPDATE")
        .await
        .unwrap();
    session.run("SAVEPOINT s").await.unwrap();
    assert_eq!(state(session.run(FAILS).await), SqlState::DIVISION_BY_ZERO);
    session.run("ROLLBACK TO s").await.unwrap();
    assert!(is_locked(&cluster, 1).await);
    assert!(!is_locked(&cluster, 2).await);
    session.run("COMMIT").await.unwrap();
    assert!(!is_locked(&cluster, 1).await);
}

#[tokio::test]
async fn an_update_by_query_alone_commits_and_leaves_no_lock_behind() {
    let cluster = Cluster::with_table().await;
    let mut session = cluster.connect().await;
    let update = session.run("UPDATE t SET v = u.seven FROM (VALUES (7)) u (seven) WHERE id = 2");
    tokio::time::timeout(Duration::from_secs(3), update)
        .await
        .expect("it has nobody to wait for")
        .unwrap();
    assert!(!is_locked(&cluster, 1).await);
    assert_eq!(cluster.values().await, [0, 7]);
}
