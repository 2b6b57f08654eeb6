use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use neorunbase_coordination::{CallFate, ClientOptions, Lag};
use neorunbase_world::Coordination;
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState};
use tokio::io::AsyncWriteExt;

use crate::support::{TestWorld, patient, within};

fn hasty(session_timeout_millis: u64) -> ClientOptions {
    ClientOptions {
        session_timeout: Duration::from_millis(session_timeout_millis),
        call_deadline: Duration::from_millis(100),
    }
}

async fn reaches(client: &dyn Coordination, state: SessionState) {
    let mut session = client.session();
    within(5, "session state", session.wait_for(|now| *now == state))
        .await
        .unwrap();
}

#[tokio::test]
async fn expired_session_loses_its_nodes_and_is_replaced() {
    let world = TestWorld::new();
    let service = world.service().await;
    let client = world.client(&service, patient()).await;
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    let (_, watch) = client.get_and_watch("/").await.unwrap();
    let mut session = client.session();
    session.mark_unchanged();
    let old = client.session_id().unwrap();
    service.expire_session(old);
    within(5, "the watch", watch).await.unwrap();
    within(5, "news", session.changed()).await.unwrap();
    assert_eq!(*session.borrow_and_update(), SessionState::Expired);
    reaches(&*client, SessionState::Connected).await;
    assert_ne!(client.session_id(), Some(old));
    assert_eq!(client.get("/e").await, Ok(None));
    assert_eq!(service.sessions().await, [client.session_id().unwrap()]);
}

#[tokio::test]
async fn disconnected_session_comes_back_in_time_or_expires() {
    let world = TestWorld::new();
    let service = world.service().await;
    let client = world.client(&service, hasty(600)).await;
    let observer = world.client(&service, patient()).await;
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    let id = client.session_id().unwrap();
    // Held open although nothing is said for longer than the timeout.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (_, watch) = client.get_and_watch("/e").await.unwrap();
    service.set_disconnected(id, true);
    reaches(&*client, SessionState::Disconnected).await;
    within(5, "the watch", watch).await.unwrap();
    assert_eq!(client.get("/e").await, Err(CoordinationError::ConnectionLost));
    service.set_disconnected(id, false);
    reaches(&*client, SessionState::Connected).await;
    assert_eq!(client.session_id(), Some(id));
    assert!(observer.get("/e").await.unwrap().is_some());

    service.set_disconnected(id, true);
    let (_, gone) = observer.get_and_watch("/e").await.unwrap();
    within(5, "the ephemeral's end", gone).await.unwrap();
    assert_eq!(
        *client.session().borrow(),
        SessionState::Disconnected,
        "who is cut off does not learn of it"
    );
    service.set_disconnected(id, false);
    reaches(&*client, SessionState::Connected).await;
    assert_ne!(client.session_id(), Some(id));
}

#[tokio::test]
async fn lost_request_has_no_effect_and_lost_answer_has() {
    let world = TestWorld::new();
    let service = world.service().await;
    let client = world.client(&service, patient()).await;
    for (path, fate, exists) in [
        ("/a", CallFate::RequestLost, false),
        ("/b", CallFate::AnswerLost, true),
    ] {
        let calls = Arc::new(AtomicU32::new(0));
        service.set_call_fault(Some(Arc::new(move |_, _| {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                fate
            } else {
                CallFate::Served
            }
        })));
        let lost = client.create(path, Bytes::new(), CreateMode::Ephemeral).await;
        assert_eq!(lost, Err(CoordinationError::ConnectionLost));
        assert_eq!(
            client.get(path).await.unwrap().is_some(),
            exists,
            "the session goes on"
        );
    }
}

#[tokio::test]
async fn lagging_server_shows_the_past_in_order() {
    let world = TestWorld::new();
    let service = world.service().await;
    let late = world.client(&service, patient()).await;
    let writer = world.client(&service, patient()).await;
    let set = async |data: &'static [u8], version| {
        let data = Bytes::from_static(data);
        writer.set("/a", data, version).await.unwrap();
    };
    writer
        .create("/a", Bytes::from_static(b"0"), CreateMode::Persistent)
        .await
        .unwrap();
    let (_, mut watch) = late.get_and_watch("/a").await.unwrap();
    let session = late.session_id().unwrap();
    let stale = |millis| Lag {
        by: Duration::from_millis(millis),
        is_stale: true,
    };
    service.set_lag(session, Some(stale(300)));
    set(b"1", 0).await;
    assert_eq!(late.get("/a").await, Ok(Some((Bytes::from_static(b"0"), 0))));
    assert!(watch.try_recv().is_err(), "the watch is as late as the data");
    let (_, next_watch) = late.get_and_watch("/a").await.unwrap();
    // A refused write catches up as well.
    let refused = late.set("/a", Bytes::new(), 0).await;
    assert_eq!(refused, Err(CoordinationError::BadVersion("/a".to_owned())));
    assert!(watch.try_recv().is_ok(), "watches come before the answer");
    within(5, "the second watch", next_watch).await.unwrap();
    assert_eq!(late.get("/a").await, Ok(Some((Bytes::from_static(b"1"), 1))));
    late.create("/own", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    assert!(late.get("/own").await.unwrap().is_some(), "its own writes");

    set(b"2", 1).await;
    let (found, watch) = late.get_and_watch("/a").await.unwrap();
    assert_eq!(found.unwrap().1, 1);
    service.set_lag(session, None);
    within(5, "the watch", watch).await.unwrap();
    let (found, watch) = late.get_and_watch("/a").await.unwrap();
    assert_eq!(found.unwrap().1, 2);
    set(b"3", 2).await;
    within(5, "a watch on the server that does not lag", watch)
        .await
        .unwrap();
    let (_, watch) = late.get_and_watch("/a").await.unwrap();
    let synced = Lag {
        is_stale: false,
        ..stale(200)
    };
    service.set_lag(session, Some(synced));
    set(b"4", 3).await;
    assert_eq!(late.get("/a").await.unwrap().unwrap().1, 4, "reads are synced");
    within(5, "the watch before the data", watch).await.unwrap();
    service.expire_session(session);
    reaches(&*late, SessionState::Expired).await;
    reaches(&*late, SessionState::Connected).await;
    assert_eq!(late.get("/own").await, Ok(None));
    assert_eq!(late.get("/a").await.unwrap().unwrap().1, 4);
}

#[tokio::test]
async fn dropped_client_is_given_its_timeout() {
    let world = TestWorld::new();
    let service = world.service().await;
    let client = world.client(&service, hasty(200)).await;
    let observer = world.client(&service, patient()).await;
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    drop(client);
    let (found, gone) = observer.get_and_watch("/e").await.unwrap();
    assert!(found.is_some());
    within(5, "the ephemeral's end", gone).await.unwrap();
}

#[tokio::test]
async fn partition_loses_remote_sessions() {
    let world = TestWorld::new();
    let service = world.service().await;
    let _server = world.server(&service).await;
    let client = world.remote(world.network.clone(), hasty(400));
    let observer = world.client(&service, patient()).await;
    reaches(&*client, SessionState::Connected).await;
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (found, gone) = observer.get_and_watch("/e").await.unwrap();
    assert!(found.is_some(), "pings keep the session alive");
    world.network.cut.store(true, Ordering::Relaxed);
    assert_eq!(
        client.get("/e").await,
        Err(CoordinationError::ConnectionLost),
        "a call has its deadline"
    );
    reaches(&*client, SessionState::Disconnected).await;
    assert!(
        observer.get("/e").await.unwrap().is_some(),
        "the client knows before the service gives up"
    );
    within(5, "the ephemeral's end", gone).await.unwrap();
    let mut session = client.session();
    session.mark_unchanged();
    world.network.cut.store(false, Ordering::Relaxed);
    within(5, "news", session.changed()).await.unwrap();
    assert_eq!(*session.borrow_and_update(), SessionState::Expired);
    reaches(&*client, SessionState::Connected).await;
    assert_eq!(client.get("/e").await, Ok(None));
}

#[tokio::test]
async fn restarted_service_expires_remote_sessions() {
    let world = TestWorld::new();
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let server = world.server(&service).await;
    let client = world.remote(world.network.clone(), patient());
    reaches(&*client, SessionState::Connected).await;
    client
        .create("/p", Bytes::new(), CreateMode::Persistent)
        .await
        .unwrap();
    client
        .create("/e", Bytes::new(), CreateMode::Ephemeral)
        .await
        .unwrap();
    let old = client.session_id();
    drop((server, service));
    reaches(&*client, SessionState::Disconnected).await;
    let service = world.start(Some(world.journal(1))).await.unwrap();
    let _server = world.server(&service).await;
    reaches(&*client, SessionState::Connected).await;
    assert_ne!(client.session_id(), old);
    assert!(client.get("/p").await.unwrap().is_some());
    assert_eq!(client.get("/e").await, Ok(None));
}

#[tokio::test]
async fn stranger_on_the_port_disturbs_nobody() {
    use neorunbase_world::Network;
    let world = TestWorld::new();
    let service = world.service().await;
    let _server = world.server(&service).await;
    let client = world.remote(world.network.clone(), patient());
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 3, 255, 255, 255],
        &[255; 64],
        &[0, 0],
    ] {
        let mut stream = world.network.connect("server:1").await.unwrap();
        stream.write_all(garbage).await.unwrap();
    }
    client
        .create("/a", Bytes::new(), CreateMode::Persistent)
        .await
        .unwrap();
    let too_much = Bytes::from(vec![0; 2 << 20]);
    let refused = client.set("/a", too_much, 0).await;
    assert!(matches!(refused, Err(CoordinationError::Other(_))), "{refused:?}");
    let much = Bytes::from(vec![7; 1 << 19]);
    client.set("/a", much.clone(), 0).await.unwrap();
    assert_eq!(client.get("/a").await, Ok(Some((much, 1))));
}
