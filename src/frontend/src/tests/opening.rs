//! From the first byte to the first ReadyForQuery.

use std::time::Duration;

use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::{GssEncRequest, SASLInitialResponse, SecretKey, SslRequest};

use super::support::TestServer;
use crate::ConnectionLimits;

fn server() -> TestServer {
    TestServer::new(ConnectionLimits::default())
}

#[tokio::test]
async fn logs_in_and_reports_parameters() {
    let server = server();
    let mut client = server.connect();
    client.put(GssEncRequest::new()).send().await;
    assert_eq!(client.read_byte().await, b'N');
    client.put(SslRequest::new()).send().await;
    assert_eq!(client.read_byte().await, b'N');
    client
        .startup(&[
            ("user", "alice"),
            ("application_name", "test"),
            ("options", "-c a=b"),
            ("client_encoding", "UTF8"),
        ])
        .await;
    client.authenticate("secret").await;
    let answers = client.until_ready().await;
    assert_eq!(answers[..2], ["Authentication", "Authentication"]);
    for expected in [
        "server_version: 15.8",
        "client_encoding: UTF8",
        "TimeZone: UTC+1",
        "application_name: test",
        "session_authorization: alice",
        "test.parameters: application_name,client_encoding,a",
    ] {
        assert!(
            answers.contains(&expected.to_owned()),
            "{expected} in {answers:?}"
        );
    }
    assert!(client.key.is_some_and(|(process_id, _)| process_id > 0));
}

#[tokio::test]
async fn newer_minor_versions_and_protocol_options_are_negotiated() {
    let server = server();
    for (minor, option) in [(2, "search_path"), (0, "_pq_.compression")] {
        let mut client = server.connect();
        client
            .startup_with_minor(minor, &[("user", "alice"), (option, "x")])
            .await;
        assert_eq!(client.next_shown().await, "NegotiateProtocolVersion");
        client.authenticate("secret").await;
        assert_eq!(client.until_ready().await.last().unwrap(), "ReadyForQuery I");
    }
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_look_alike() {
    let server = server();
    for (user, password) in [("alice", "Secret"), ("mallory", "secret")] {
        let mut client = server.connect();
        client.startup(&[("user", user)]).await;
        client.authenticate(password).await;
        let expected =
            format!("Error S=FATAL V=FATAL C=28P01 M=password authentication failed for user \"{user}\"");
        assert_eq!(client.until_ready().await, [expected, "end".to_owned()]);
    }
    assert_eq!(
        server
            .gateway
            .open_sessions
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn refuses_what_it_cannot_serve() {
    let server = server();
    for (parameters, error) in [
        (
            vec![("database", "x")],
            "C=28000 M=no PostgreSQL user name specified in startup packet",
        ),
        (
            vec![("user", "alice"), ("replication", "database")],
            "C=0A000 M=the replication protocol is not supported",
        ),
        (
            vec![("user", "alice"), ("client_encoding", "LATIN1")],
            "C=0A000 M=client encoding \"LATIN1\" is not supported H=Set client_encoding to UTF8.",
        ),
    ] {
        let mut client = server.connect();
        client.startup(&parameters).await;
        assert_eq!(
            client.until_ready().await,
            [format!("Error S=FATAL V=FATAL {error}"), "end".to_owned()]
        );
    }
    let mut client = server.connect();
    client
        .startup(&[("user", "alice"), ("database", "missing")])
        .await;
    client.authenticate("secret").await;
    assert_eq!(
        client.until_ready().await[2..],
        [
            "Error S=FATAL V=FATAL C=3D000 M=database \"missing\" does not exist",
            "end"
        ]
    );
    let mut client = server.connect();
    client.startup(&[("user", "alice")]).await;
    client.next().await.unwrap();
    client
        .put(SASLInitialResponse::new("SCRAM-SHA-256-PLUS".to_owned(), None))
        .send()
        .await;
    assert!(
        client
            .next_shown()
            .await
            .contains("invalid SASL authentication mechanism")
    );
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_and_the_end() {
    let server = server();
    let too_long = 10_001_i32.to_be_bytes();
    let cases: [(&[u8], &str); 8] = [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "C=08P01 M=invalid length of startup packet",
        ),
        (
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            "C=08P01 M=invalid length of startup packet",
        ),
        (b"\0\0\0\x07\0\0\0", "C=08P01 M=invalid length of startup packet"),
        (b"\xff\xff\xff\xff", "C=08P01 M=invalid length of startup packet"),
        (&too_long, "C=08P01 M=invalid length of startup packet"),
        (
            b"\0\0\0\x08\0\x02\0\0",
            "C=0A000 M=unsupported frontend protocol 2.0: server supports 3.0 to 3.0",
        ),
        (
            b"\0\0\0\x0e\0\x03\0\0user\0a",
            "C=08P01 M=invalid startup packet layout: expected terminator as last byte",
        ),
        (
            b"\0\0\0\x10\0\x03\0\0user\0a\0x",
            "C=08P01 M=invalid startup packet layout: expected terminator as last byte",
        ),
    ];
    for (bytes, error) in cases {
        let mut client = server.connect();
        client.send_bytes(bytes).await;
        assert_eq!(
            client.until_ready().await,
            [format!("Error S=FATAL V=FATAL {error}"), "end".to_owned()]
        );
    }
}

#[tokio::test]
async fn queries_before_authentication_are_refused() {
    let server = server();
    let mut client = server.connect();
    client.startup(&[("user", "alice")]).await;
    client.next().await.unwrap();
    client.query("rows 1").send().await;
    assert!(
        client
            .next_shown()
            .await
            .contains("C=08P01 M=invalid frontend message type 81")
    );
    // A password message that announces megabytes is refused before they arrive.
    let mut client = server.connect();
    client.startup(&[("user", "alice")]).await;
    client.next().await.unwrap();
    client.send_bytes(b"p\0\x10\0\0").await;
    assert!(
        client
            .next_shown()
            .await
            .contains("C=08P01 M=invalid message length")
    );
    assert_eq!(client.next_shown().await, "end");
}

#[tokio::test]
async fn bytes_sent_along_with_an_encryption_request_drop_the_connection() {
    let server = server();
    let mut client = server.connect();
    client.send_bytes(b"\0\0\0\x08\x04\xd2\x16\x2fX").await;
    assert_eq!(client.next_shown().await, "end");
}

#[tokio::test]
async fn startup_has_a_deadline() {
    let server = server();
    let mut client = server.connect();
    client.send_bytes(b"\0\0").await;
    assert_eq!(
        client.until_ready().await,
        [
            "Error S=FATAL V=FATAL C=57014 M=canceling authentication due to timeout",
            "end"
        ]
    );
    assert_eq!(server.server.backends.count(), 0);
}

#[tokio::test]
async fn connections_are_limited_and_their_places_return() {
    let server = TestServer::new(ConnectionLimits {
        connections: 1,
        ..ConnectionLimits::default()
    });
    let first = server.login().await;
    let mut second = server.connect();
    second.startup(&[("user", "alice")]).await;
    assert_eq!(
        second.until_ready().await,
        [
            "Error S=FATAL V=FATAL C=53300 M=sorry, too many clients already",
            "end"
        ]
    );
    drop(first);
    while server.server.slots.available_permits() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.login().await;
}

#[tokio::test]
async fn cancel_requests_need_the_secret() {
    let server = server();
    let mut client = server.login().await;
    let (process_id, secret) = client.key.unwrap();
    client.query("wait").send().await;
    for secret in [secret ^ 1, secret] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut canceller = server.connect();
        canceller
            .put(CancelRequest::new(process_id, SecretKey::I32(secret)))
            .send()
            .await;
        assert_eq!(canceller.next_shown().await, "end");
    }
    assert_eq!(
        client.until_ready().await,
        [
            "Error S=ERROR V=ERROR C=57014 M=canceling statement due to user request",
            "ReadyForQuery I"
        ]
    );
}
