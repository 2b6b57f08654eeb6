//! How connections end: politely, by mistake, by force.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use neorunbase_world::{Listener, Stream};
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc, watch};

use super::support::TestServer;
use crate::ConnectionLimits;

async fn until_closed(server: &TestServer) {
    while server.server.backends.count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.gateway.open_sessions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn terminate_and_hanging_up_close_the_session() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    client
        .put(pgwire::messages::terminate::Terminate::new())
        .send()
        .await;
    assert_eq!(client.next_shown().await, "end");
    until_closed(&server).await;
    drop(server.login().await);
    until_closed(&server).await;
    let mut client = server.login().await;
    client.query("copy in").send().await;
    drop(client);
    until_closed(&server).await;
}

#[tokio::test]
async fn impossible_frames_end_the_connection() {
    let limits = ConnectionLimits {
        message_bytes: 1000,
        ..ConnectionLimits::default()
    };
    let server = TestServer::new(limits);
    for (bytes, error) in [
        (b"Q\0\0\x03\xe9".as_slice(), "invalid message length"),
        (b"d\x7f\xff\xff\xff", "invalid message length"),
        (b"B\xff\xff\xff\xff", "invalid message length"),
        (b"S\0\0\0\x03", "invalid message length"),
        (b"E\0\0\x27\x11", "invalid message length"),
        (b"\x80", "invalid frontend message type 128"),
        (b"p\0\0\0\x05x", "invalid frontend message type 112"),
    ] {
        let mut client = server.login().await;
        client.send_bytes(bytes).await;
        let answers = client.until_ready().await;
        assert!(
            answers[0].starts_with(&format!("Error S=FATAL V=FATAL C=08P01 M={error}")),
            "{answers:?}"
        );
        assert_eq!(answers[1..], ["end"]);
    }
    let mut client = server.login().await;
    let longest = " ".repeat(995);
    assert!(client.run(&longest).await[0].contains("42601"));
    drop(client);
    until_closed(&server).await;
}

#[tokio::test]
async fn large_messages_arrive_whole() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    for length in [10_000, 1_000_000, 3_000_000, 10] {
        let text = "x".repeat(length);
        client
            .parse("", "echo", &[25])
            .bind_values("", "", &[], &[Some(text.as_bytes())], &[])
            .execute("", 0);
        client.put(pgwire::messages::extendedquery::Sync::new());
        client.send().await;
        let answers = client.until_ready().await;
        assert_eq!(answers[2].len(), "Row ".len() + length);
    }
}

#[tokio::test]
async fn a_client_that_takes_no_output_is_cut_off() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    client.query("rows 100000").send().await;
    // The client holds the connection open and reads nothing; the test's minute is 60 ms.
    until_closed(&server).await;
    drop(client);
}

#[tokio::test]
async fn administrators_terminate_connections() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut idle = server.login().await;
    let mut busy = server.login().await;
    busy.query("wait").send().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    for client in [&idle, &busy] {
        assert!(server.server.backends().terminate(client.key.unwrap().0));
    }
    let fatal = "Error S=FATAL V=FATAL C=57P01 M=terminating connection due to administrator command";
    assert_eq!(idle.until_ready().await, [fatal, "end"]);
    assert!(busy.next_shown().await.contains("57014"));
    assert_eq!(busy.until_ready().await, ["ReadyForQuery I"]);
    assert_eq!(busy.until_ready().await, [fatal, "end"]);
}

#[tokio::test]
async fn a_transaction_left_idle_for_too_long_ends_its_connection() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut outside = server.login().await;
    let mut inside = server.login().await;
    assert_eq!(inside.run("begin").await, ["BEGIN", "ReadyForQuery T"]);
    let fatal = "Error S=FATAL V=FATAL C=25P03 M=terminating connection due to idle-in-transaction timeout";
    assert_eq!(inside.until_ready().await, [fatal, "end"]);
    assert_eq!(outside.run("begin").await, ["BEGIN", "ReadyForQuery T"]);
}

struct ChannelListener(Mutex<mpsc::UnboundedReceiver<DuplexStream>>);

#[async_trait]
impl Listener for ChannelListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        match self.0.lock().await.recv().await {
            Some(stream) => Ok((Box::new(stream), "memory".to_owned())),
            None => std::future::pending().await,
        }
    }

    fn local_address(&self) -> String {
        "memory".to_owned()
    }
}

#[tokio::test]
async fn shutdown_lets_statements_end_and_tells_everyone() {
    let server = TestServer::new(ConnectionLimits::default());
    let (connect, accepted) = mpsc::unbounded_channel();
    let (shut_down, shutdown) = watch::channel(false);
    let serving = tokio::spawn(
        server
            .server
            .clone()
            .serve(Box::new(ChannelListener(Mutex::new(accepted))), shutdown),
    );
    let (near, far) = tokio::io::duplex(64 * 1024);
    connect.send(far).unwrap();
    let mut client = server.connect();
    client.stream = near;
    client.startup(&[("user", "alice")]).await;
    client.authenticate("secret").await;
    client.until_ready().await;
    client.query("wait").send().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    shut_down.send(true).unwrap();
    assert!(client.next_shown().await.contains("C=57014"));
    assert_eq!(client.until_ready().await, ["ReadyForQuery I"]);
    assert!(client.next_shown().await.contains("S=FATAL V=FATAL C=57P01"));
    assert_eq!(client.next_shown().await, "end");
    serving.await.unwrap();
    until_closed(&server).await;
}
