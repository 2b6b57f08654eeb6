use std::sync::Arc;
use std::time::Duration;

use neorunbase_coordination::SessionClient;
use neorunbase_coordination::conformance::{ConformanceSession, run};

use crate::support::{TestWorld, patient};

fn session(client: Arc<SessionClient>) -> ConformanceSession {
    let coordination = client.clone();
    ConformanceSession {
        coordination,
        end: Box::new(move || Box::pin(async move { client.close().await })),
    }
}

#[tokio::test]
async fn embedded_conforms() {
    let world = TestWorld::new();
    let service = world.service().await;
    run(
        || async { session(world.client(&service, patient()).await) },
        &*world.clock,
        "/conformance",
    )
    .await;
}

#[tokio::test]
async fn journaled_and_reopened_conforms() {
    let world = TestWorld::new();
    for round in 0..3 {
        let service = world.start(Some(world.journal(1))).await.unwrap();
        let open = || async { session(world.client(&service, patient()).await) };
        run(open, &*world.clock, &format!("/round-{round}")).await;
        drop(service);
        world.disk.lose_power();
    }
}

#[tokio::test]
async fn remote_conforms() {
    let world = TestWorld::new();
    let service = world.service().await;
    let _server = world.server(&service).await;
    let open = || async { session(world.remote(world.network.clone(), patient())) };
    run(open, &*world.clock, "/conformance").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_conforms_on_several_threads() {
    let world = TestWorld::new();
    let service = world.service().await;
    let _server = world.server(&service).await;
    let open = || async { session(world.remote(world.network.clone(), patient())) };
    run(open, &*world.clock, "/conformance").await;
}

#[tokio::test]
async fn late_watches_conform() {
    let world = TestWorld::new();
    let service = world.service().await;
    service.set_watch_delay(Some(Arc::new(|_, _| Duration::from_millis(3))));
    run(
        || async { session(world.client(&service, patient()).await) },
        &*world.clock,
        "/conformance",
    )
    .await;
}
