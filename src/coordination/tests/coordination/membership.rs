use std::collections::BTreeMap;

use bytes::Bytes;
use neorunbase_coordination::{MemberList, Membership};
use tokio::sync::watch;

use crate::support::{TestWorld, patient, within};

async fn shows(members: &mut watch::Receiver<BTreeMap<String, Bytes>>, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, Bytes> = expected
        .iter()
        .map(|(name, data)| ((*name).to_owned(), Bytes::copy_from_slice(data.as_bytes())))
        .collect();
    let seen = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        members.wait_for(|members| *members == expected),
    );
    let seen = seen.await.map(|_| ());
    assert!(
        seen.is_ok(),
        "expected {expected:?}, have {:?}",
        *members.borrow()
    );
}

#[tokio::test]
async fn list_follows_members_through_expiry_and_departure() {
    let world = TestWorld::new();
    let service = world.service().await;
    let observer = world.client(&service, patient()).await;
    let (clock, spawner) = (world.clock.clone(), &*world.spawner);
    let list = MemberList::start(observer.clone(), clock.clone(), spawner, "/nodes/data")
        .await
        .unwrap();
    let mut members = list.members();
    assert!(members.borrow().is_empty());

    let clients = [
        world.client(&service, patient()).await,
        world.client(&service, patient()).await,
    ];
    let join = |index: usize, name: &str, data: &'static str| {
        let data = Bytes::from(data);
        Membership::start(
            clients[index].clone(),
            clock.clone(),
            spawner,
            "/nodes/data",
            name,
            data,
        )
    };
    let first = join(0, "one", "here");
    let second = join(1, "two", "there");
    shows(&mut members, &[("one", "here"), ("two", "there")]).await;
    assert!(*first.registered().borrow());

    let mut registered = first.registered();
    service.expire_session(clients[0].session_id().unwrap());
    within(5, "expiry noticed", registered.wait_for(|registered| !registered))
        .await
        .unwrap();
    within(
        5,
        "registered anew",
        registered.wait_for(|registered| *registered),
    )
    .await
    .unwrap();
    shows(&mut members, &[("one", "here"), ("two", "there")]).await;

    // The observer's own session is lost; the list stays fresh.
    service.expire_session(observer.session_id().unwrap());
    second.leave().await.unwrap();
    shows(&mut members, &[("one", "here")]).await;

    // The same node, started again elsewhere before its old session has ended.
    let moved = join(1, "one", "moved");
    shows(&mut members, &[("one", "moved")]).await;
    drop(first);
    moved.leave().await.unwrap();
    shows(&mut members, &[]).await;
}
