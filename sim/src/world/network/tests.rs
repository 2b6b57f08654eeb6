#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn fabric() -> Fabric {
    let speed = LinkSpeed {
        min_micros: 500,
        max_micros: 1500,
        one_slow_in: 1000,
        one_lost_in: 0,
    };
    let nodes = ["a".to_owned(), "b".to_owned()];
    Fabric::new(&nodes, 1, speed, Trace::default())
}

fn simulate<F: Future>(future: F) -> F::Output {
    madsim::runtime::Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(future)
}

async fn pair(fabric: &Fabric) -> (Box<dyn Stream>, Box<dyn Stream>) {
    let listener = fabric.network_of("b").listen("0.0.0.0:1").await.unwrap();
    assert_eq!(listener.local_address(), "b:1");
    let network = fabric.network_of("a");
    let connecting = madsim::task::spawn(async move { network.connect("b:1").await.unwrap() });
    let (accepted, _) = listener.accept().await.unwrap();
    (connecting.await.unwrap(), accepted)
}

async fn within<T>(millis: u64, future: impl Future<Output = T>) -> Option<T> {
    madsim::time::timeout(Duration::from_millis(millis), future)
        .await
        .ok()
}

#[test]
fn carries_bytes_in_order_and_ends() {
    simulate(async {
        let (mut client, mut server) = pair(&fabric()).await;
        let data: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let sent = data.clone();
        let writing = madsim::task::spawn(async move {
            for chunk in sent.chunks(777) {
                client.write_all(chunk).await.unwrap();
            }
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert_eq!(received, data);
        assert!(server.write_all(b"x").await.is_err(), "the peer is gone");
    });
}

#[test]
fn a_hanging_cut_delivers_after_healing() {
    simulate(async {
        let fabric = fabric();
        let (mut client, mut server) = pair(&fabric).await;
        fabric.cut("a", "b", CutSilence::Hangs);
        client.write_all(b"hello").await.unwrap();
        server.write_all(b"other way").await.unwrap();
        let mut buffer = [0; 5];
        assert!(within(5_000, server.read_exact(&mut buffer)).await.is_none());
        let mut answer = [0; 9];
        within(100, client.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            within(1_000, fabric.network_of("a").connect("b:1"))
                .await
                .is_none()
        );
        fabric.heal("a", "b");
        within(1_000, server.read_exact(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&buffer, b"hello");
    });
}

#[test]
fn a_resetting_cut_breaks_connections() {
    simulate(async {
        let fabric = fabric();
        let (mut client, mut server) = pair(&fabric).await;
        fabric.cut("a", "b", CutSilence::Resets);
        assert!(client.read_u8().await.is_err());
        assert!(server.write_all(b"x").await.is_err());
        assert!(fabric.network_of("a").connect("b:1").await.is_err());
    });
}

#[test]
fn peers_of_a_killed_process_are_reset_at_once_and_of_a_dead_machine_later() {
    simulate(async {
        let fabric = fabric();
        let (mut client, _server) = pair(&fabric).await;
        fabric.node_down("b", false);
        assert!(within(200, client.read_u8()).await.unwrap().is_err());
        assert!(fabric.network_of("a").connect("b:1").await.is_err(), "refused");
        fabric.node_up("b");

        let (mut client, _server) = pair(&fabric).await;
        fabric.node_down("b", true);
        assert!(within(5_000, client.read_u8()).await.is_none());
        fabric.node_up("b");
        assert!(within(1_500, client.read_u8()).await.unwrap().is_err());
    });
}

#[test]
fn what_a_dead_process_still_does_is_not_heard_of() {
    simulate(async {
        let fabric = fabric();
        let (mut client, mut server) = pair(&fabric).await;
        let old = fabric.network_of("b");
        fabric.node_down("b", true);
        assert!(server.write_all(b"x").await.is_err());
        drop(server);
        assert!(within(1_000, client.read_u8()).await.is_none());
        assert!(old.listen("0.0.0.0:9").await.is_err());
    });
}
