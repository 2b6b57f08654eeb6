//! COPY in and out.

use bytes::Bytes;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail};
use pgwire::messages::extendedquery::Sync;

use super::support::TestServer;
use crate::ConnectionLimits;

fn server() -> TestServer {
    TestServer::new(ConnectionLimits::default())
}

#[tokio::test]
async fn copy_in_takes_data_until_done() {
    let server = server();
    let mut client = server.login().await;
    client.query("copy in").send().await;
    assert_eq!(client.next_shown().await, "CopyIn [0, 0]");
    client
        .put(CopyData::new(Bytes::from_static(b"one,")))
        .flush()
        .put(Sync::new());
    client
        .put(CopyData::new(Bytes::from_static(b"two")))
        .put(CopyDone::new())
        .send()
        .await;
    assert_eq!(client.until_ready().await, ["COPY one,two", "ReadyForQuery I"]);
}

#[tokio::test]
async fn the_client_may_fail_a_copy() {
    let server = server();
    let mut client = server.login().await;
    client
        .query("copy in")
        .put(CopyFail::new("no more".to_owned()))
        .send()
        .await;
    assert_eq!(
        client.until_ready().await,
        [
            "CopyIn [0, 0]",
            "Error S=ERROR V=ERROR C=57014 M=COPY from stdin failed: no more",
            "ReadyForQuery I"
        ]
    );
}

#[tokio::test]
async fn what_follows_a_failed_copy_is_discarded() {
    let server = server();
    let mut client = server.login().await;
    client.query("copy in, then fail");
    for _ in 0..3 {
        client.put(CopyData::new(Bytes::from_static(b"x")));
    }
    client.put(CopyDone::new()).query("rows 0").send().await;
    assert_eq!(
        client.until_ready().await[1..],
        ["Error S=ERROR V=ERROR C=22P04 M=bad line", "ReadyForQuery I"]
    );
    assert_eq!(
        client.until_ready().await,
        ["Columns n/23/0", "SELECT 0", "ReadyForQuery I"]
    );
}

#[tokio::test]
async fn copy_in_through_the_extended_protocol() {
    let server = server();
    let mut client = server.login().await;
    // As libpq does: Sync right behind Execute, ignored; another one after the data.
    client
        .parse("", "copy in", &[])
        .bind("", "")
        .execute("", 0)
        .put(Sync::new());
    client
        .put(CopyData::new(Bytes::from_static(b"x")))
        .put(CopyDone::new());
    assert_eq!(
        client.sync().await,
        [
            "ParseComplete",
            "BindComplete",
            "CopyIn [0, 0]",
            "COPY x",
            "ReadyForQuery I"
        ]
    );
    client
        .parse("", "copy in, then fail", &[])
        .bind("", "")
        .execute("", 0);
    client
        .put(CopyData::new(Bytes::from_static(b"x")))
        .put(CopyData::new(Bytes::from_static(b"y")));
    client.put(CopyDone::new());
    assert_eq!(
        client.sync().await[2..],
        [
            "CopyIn [0, 0]",
            "Error S=ERROR V=ERROR C=22P04 M=bad line",
            "ReadyForQuery I"
        ]
    );
}

#[tokio::test]
async fn other_messages_during_copy_in_end_the_connection() {
    let server = server();
    let mut client = server.login().await;
    client.query("copy in").query("rows 1").send().await;
    assert_eq!(
        client.until_ready().await[1..],
        [
            "Error S=FATAL V=FATAL C=08P01 M=unexpected message type 0x51 during COPY from stdin",
            "end"
        ]
    );
}

#[tokio::test]
async fn copy_out() {
    let server = server();
    let mut client = server.login().await;
    assert_eq!(
        client.run("copy out").await,
        [
            "CopyOut [0]",
            "CopyData b\"one\\n\"",
            "CopyDone",
            "COPY 1",
            "ReadyForQuery I"
        ]
    );
}
