//! The simple query protocol.

use super::support::TestServer;
use crate::ConnectionLimits;

#[tokio::test]
async fn rows_errors_notices_and_transaction_status() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    assert_eq!(
        client.run("rows 2").await,
        ["Columns n/23/0", "Row 0", "Row 1", "SELECT 2", "ReadyForQuery I"]
    );
    assert_eq!(client.run("").await, ["EmptyQueryResponse", "ReadyForQuery I"]);
    assert_eq!(client.run("begin").await, ["BEGIN", "ReadyForQuery T"]);
    assert_eq!(
        client.run("oops").await,
        [
            "Error S=ERROR V=ERROR C=42601 M=syntax error at or near \"oops\" D=d H=h P=1",
            "ReadyForQuery E"
        ]
    );
    assert_eq!(client.run("commit").await, ["COMMIT", "ReadyForQuery I"]);
    assert_eq!(
        client.run("notice").await,
        [
            "Notice S=NOTICE V=NOTICE C=00000 M=careful",
            "TimeZone: CET",
            "DO",
            "ReadyForQuery I"
        ]
    );
}

#[tokio::test]
async fn pipelined_queries_are_answered_in_order() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    client.query("rows 1").query("oops").query("begin").send().await;
    assert_eq!(client.until_ready().await[2..], ["SELECT 1", "ReadyForQuery I"]);
    assert_eq!(client.until_ready().await[1..], ["ReadyForQuery I"]);
    assert_eq!(client.until_ready().await, ["BEGIN", "ReadyForQuery T"]);
}

#[tokio::test]
async fn long_results_stream_through_a_narrow_pipe() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.connect_with_buffer(100);
    client.startup(&[("user", "alice")]).await;
    client.authenticate("secret").await;
    client.until_ready().await;
    let answers = client.run("rows 20000").await;
    assert_eq!(answers.len(), 20_003);
    assert_eq!(answers[20_000], "Row 19999");
}

#[tokio::test]
async fn bad_utf8_is_an_error_that_the_session_hears_of() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    client.run("begin").await;
    client.send_bytes(b"Q\0\0\0\x07\xff\xff\0").await;
    let answers = client.until_ready().await;
    assert!(
        answers[0].contains("C=22021 M=invalid byte sequence for encoding \"UTF8\": 0xff"),
        "{answers:?}"
    );
    assert_eq!(answers[1..], ["ReadyForQuery E"]);
    assert_eq!(
        server.gateway.failures.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn function_calls_are_refused() {
    let server = TestServer::new(ConnectionLimits::default());
    let mut client = server.login().await;
    client.send_bytes(b"F\0\0\0\x08\0\0\0\0").await;
    assert_eq!(
        client.until_ready().await,
        [
            "Error S=ERROR V=ERROR C=0A000 M=the function call message is not supported",
            "ReadyForQuery I"
        ]
    );
}
