use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use neorunbase_coordination::{CallFate, ClientOptions, Election, current_epoch, current_leader};
use parking_lot::Mutex;

use crate::support::{TestWorld, patient, within};

const TIMEOUT: Duration = Duration::from_millis(400);

fn election(world: &TestWorld, client: &Arc<neorunbase_coordination::SessionClient>, name: &str) -> Election {
    Election::new(
        client.clone(),
        world.clock.clone(),
        &*world.entropy,
        TIMEOUT,
        "/offices/one",
        name,
    )
}

#[tokio::test]
async fn office_passes_on_in_order() {
    let world = TestWorld::new();
    let service = world.service().await;
    let clients = [
        world.client(&service, patient()).await,
        world.client(&service, patient()).await,
        world.client(&service, patient()).await,
    ];
    let observer = world.client(&service, patient()).await;
    assert_eq!(current_leader(&*observer, "/offices/one").await, Ok(None));
    let first = election(&world, &clients[0], "first").with_data(Bytes::from("address-1"));
    let (second, third) = (
        election(&world, &clients[1], "second"),
        election(&world, &clients[2], "third"),
    );
    let leadership = first.campaign().await.unwrap();
    assert_eq!(leadership.epoch, 1);
    let leader = current_leader(&*observer, "/offices/one").await;
    assert_eq!(leader, Ok(Some(("first".to_owned(), Bytes::from("address-1")))));

    let waiting = tokio::spawn(async move { second.campaign().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let last = tokio::spawn(async move { third.campaign().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished() && !last.is_finished());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), leadership.lost())
            .await
            .is_err()
    );
    service.expire_session(clients[0].session_id().unwrap());
    within(5, "loss", leadership.lost()).await;
    let leadership = within(5, "the second's turn", waiting).await.unwrap();
    assert_eq!(leadership.epoch, 2);
    assert!(!last.is_finished());
    assert_eq!(leadership.while_held(async { 7 }).await, Some(7));
    leadership.resign().await.unwrap();
    assert_eq!(within(5, "the third's turn", last).await.unwrap().epoch, 3);
    assert_eq!(current_epoch(&*observer, "/offices/one").await, Ok(3));
}

#[tokio::test]
async fn leader_steps_down_before_its_session_can_expire() {
    let world = TestWorld::new();
    let service = world.service().await;
    let _server = world.server(&service).await;
    let options = ClientOptions::with_session_timeout(TIMEOUT);
    let remote = world.remote(world.network.clone(), options);
    let observer = world.client(&service, patient()).await;
    let leadership = election(&world, &remote, "cut off").campaign().await.unwrap();
    let second = election(&world, &observer, "second");
    world.network.cut.store(true, Ordering::Relaxed);
    let steps_down = async {
        leadership.lost().await;
        world.clock_now()
    };
    let takes_over = async {
        let leadership = second.campaign().await.unwrap();
        (leadership.epoch, world.clock_now())
    };
    let (left, (epoch, taken)) =
        within(10, "hand-over", async { tokio::join!(steps_down, takes_over) }).await;
    assert_eq!(epoch, 2);
    assert!(left < taken, "two leaders for {:?}", left.since(taken));
}

/// Sessions expire, connections break and answers get lost at random while five candidates run for office.
#[tokio::test]
async fn epochs_have_one_leader_each_and_grow() {
    let world = Arc::new(TestWorld::new());
    let service = Arc::new(world.service().await);
    let random = {
        let state = AtomicU64::new(42);
        move || {
            let next = state
                .load(Ordering::Relaxed)
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.store(next, Ordering::Relaxed);
            next >> 33
        }
    };
    let random = Arc::new(random);
    let dice = random.clone();
    service.set_call_fault(Some(Arc::new(move |_, _| match dice() % 20 {
        0 => CallFate::RequestLost,
        1 => CallFate::AnswerLost,
        _ => CallFate::Served,
    })));
    let dice = random.clone();
    service.set_watch_delay(Some(Arc::new(move |_, _| Duration::from_millis(dice() % 20))));

    let leaders: Arc<Mutex<BTreeMap<u64, Vec<String>>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let mut candidates = Vec::new();
    let mut clients = Vec::new();
    for number in 0..5 {
        let client = world
            .client(&service, ClientOptions::with_session_timeout(TIMEOUT))
            .await;
        clients.push(client.clone());
        let (world, leaders, over, dice) = (world.clone(), leaders.clone(), over.clone(), random.clone());
        candidates.push(tokio::spawn(async move {
            let name = format!("candidate-{number}");
            let election = election(&world, &client, &name);
            let mut own_last = 0;
            while !over.load(Ordering::Relaxed) {
                let campaign = tokio::time::timeout(Duration::from_secs(2), election.campaign()).await;
                let Ok(leadership) = campaign else { continue };
                let leadership = leadership.unwrap();
                assert!(leadership.epoch > own_last);
                own_last = leadership.epoch;
                leaders
                    .lock()
                    .entry(leadership.epoch)
                    .or_default()
                    .push(name.clone());
                let term = Duration::from_millis(dice() % 60);
                if leadership.while_held(tokio::time::sleep(term)).await.is_some() {
                    let _ = leadership.resign().await;
                }
            }
        }));
    }
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let victim = &clients[(random() % 5) as usize];
        let Some(session) = victim.session_id() else {
            continue;
        };
        match random() % 3 {
            0 => service.expire_session(session),
            1 => service.set_disconnected(session, true),
            _ => {}
        }
        if random().is_multiple_of(2) {
            service.set_disconnected(session, false);
        }
        // Whoever was cut off may come back under any session.
        if random().is_multiple_of(4) {
            for client in &clients {
                if let Some(session) = client.session_id() {
                    service.set_disconnected(session, false);
                }
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    service.set_call_fault(None);
    for client in &clients {
        if let Some(session) = client.session_id() {
            service.set_disconnected(session, false);
        }
    }
    for candidate in candidates {
        within(20, "a candidate's end", candidate).await.unwrap();
    }
    let leaders = leaders.lock().clone();
    assert!(leaders.len() >= 10, "only {} terms", leaders.len());
    for (epoch, names) in &leaders {
        assert_eq!(names.len(), 1, "epoch {epoch} has several leaders: {names:?}");
    }
    let observer = world.client(&service, patient()).await;
    let last = current_epoch(&*observer, "/offices/one").await.unwrap();
    assert!(leaders.keys().next_back().is_some_and(|epoch| *epoch <= last));
}
