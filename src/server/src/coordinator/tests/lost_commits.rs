//! COMMIT in one round, when its request or its answer is lost.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Far less than what a Coordinator waits for an outcome.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Commits one change while the n-th request to commit meets the n-th of `fates`, and those after it none. Returns the
/// outcome and how many requests there were.
async fn commit_with(cluster: &Cluster, fates: Vec<Fate>) -> (Result<Vec<i32>>, u32) {
    let mut session = cluster.connect().await;
    session.run("BEGIN").await.unwrap();
    session.run("UPDATE t SET v = v + 1 WHERE id = 1").await.unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let (counter, mut fates) = (asked.clone(), fates.into_iter());
    cluster.decide(move |body| {
        if !matches!(body, RequestBody::CommitLocal(_)) {
            return Fate::Answered;
        }
        counter.fetch_add(1, Ordering::SeqCst);
        fates.next().unwrap_or(Fate::Answered)
    });
    let committed = tokio::time::timeout(AT_ONCE, session.run("COMMIT")).await;
    let committed = committed.expect("what became of a commit is learnt at once");
    (committed, asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_lost_request_to_commit_is_sent_again() {
    let cluster = Cluster::with_table().await;
    let (committed, requests) = commit_with(&cluster, vec![Fate::RequestLost]).await;
    committed.unwrap();
    assert_eq!(requests, 2);
    assert_eq!(cluster.values().await, [1, 0]);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_carried_out_once() {
    let cluster = Cluster::with_table().await;
    let (committed, requests) = commit_with(&cluster, vec![Fate::AnswerLost, Fate::AnswerLost]).await;
    committed.unwrap();
    assert_eq!(requests, 3);
    assert_eq!(cluster.values().await, [1, 0]);
}

#[tokio::test]
async fn a_commit_that_is_unknown_when_asked_again_may_have_been_carried_out() {
    let cluster = Cluster::with_table().await;
    let fates = vec![Fate::AnswerLost, Fate::Refused(ErrorKind::UnknownTransaction)];
    let (committed, _) = commit_with(&cluster, fates).await;
    committed.unwrap();
    assert_eq!(cluster.values().await, [1, 0]);
}

#[tokio::test]
async fn a_commit_that_is_refused_at_once_has_failed() {
    let cluster = Cluster::with_table().await;
    let (committed, requests) =
        commit_with(&cluster, vec![Fate::Refused(ErrorKind::UnknownTransaction)]).await;
    assert_eq!(state(committed), SqlState::SERIALIZATION_FAILURE);
    assert_eq!(requests, 1);
}
