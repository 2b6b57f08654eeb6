//! The extended query protocol.

use std::sync::atomic::Ordering;

use super::support::TestServer;
use crate::ConnectionLimits;

fn server() -> TestServer {
    TestServer::new(ConnectionLimits::default())
}

#[tokio::test]
async fn parse_describe_bind_execute() {
    let server = server();
    let mut client = server.login().await;
    client.parse("s", "echo", &[23, 25]).describe(b'S', "s");
    client
        .bind_values("", "s", &[0, 0], &[Some(b"7"), None], &[])
        .describe(b'P', "")
        .execute("", 0);
    assert_eq!(
        client.sync().await,
        [
            "ParseComplete",
            "Parameters [23, 25]",
            "Columns echo/23/0 echo/25/0",
            "BindComplete",
            "Columns echo/23/0 echo/25/0",
            "Row 7 NULL",
            "SELECT 1",
            "ReadyForQuery I"
        ]
    );
    // The statement outlives the Sync; a statement without a result describes itself as NoData.
    client
        .bind_values("", "s", &[], &[Some(b"8"), Some(b"x")], &[])
        .execute("", 0);
    client
        .parse("", "begin", &[])
        .describe(b'S', "")
        .bind("", "")
        .describe(b'P', "")
        .execute("", 0);
    assert_eq!(
        client.sync().await,
        [
            "BindComplete",
            "Row 8 x",
            "SELECT 1",
            "ParseComplete",
            "Parameters []",
            "NoData",
            "BindComplete",
            "NoData",
            "BEGIN",
            "ReadyForQuery T"
        ]
    );
    client.parse("", "", &[]).bind("", "").execute("", 0);
    assert_eq!(
        client.sync().await[2..],
        ["EmptyQueryResponse", "ReadyForQuery T"]
    );
}

#[tokio::test]
async fn formats_one_for_all_or_one_each() {
    let server = server();
    let mut client = server.login().await;
    client.parse("s", "echo", &[23, 25]);
    client
        .bind_values("", "s", &[1], &[Some(b"\0\0\0\x05"), Some(b"x")], &[1])
        .describe(b'P', "")
        .execute("", 0);
    client
        .bind_values("", "s", &[1, 0], &[Some(b"\0\0\0\x05"), Some(b"x")], &[0, 1])
        .describe(b'P', "");
    client.execute("", 0);
    assert_eq!(
        client.sync().await[1..],
        [
            "BindComplete",
            "Columns echo/23/1 echo/25/1",
            "Row \\x00\\x00\\x00\\x05 x",
            "SELECT 1",
            "BindComplete",
            "Columns echo/23/0 echo/25/1",
            "Row 5 x",
            "SELECT 1",
            "ReadyForQuery I"
        ]
    );
    for (formats, values, results, error) in [
        (
            vec![0, 0, 0],
            2,
            vec![],
            "bind message has 3 parameter formats but 2 parameters",
        ),
        (
            vec![],
            1,
            vec![],
            "bind message supplies 1 parameters, but prepared statement \"s\" requires 2",
        ),
        (
            vec![],
            2,
            vec![0, 0, 0],
            "bind message has 3 result formats but query has 2 columns",
        ),
        (vec![7], 2, vec![], "unsupported format code: 7"),
        (vec![], 2, vec![7], "unsupported format code: 7"),
    ] {
        client
            .bind_values("", "s", &formats, &vec![Some(b"1".as_slice()); values], &results)
            .execute("", 0);
        let answers = client.sync().await;
        assert!(answers[0].ends_with(error), "{answers:?}");
        assert_eq!(answers[1..], ["ReadyForQuery I"]);
    }
    client.bind_values("", "s", &[], &[Some(b"x"), None], &[]);
    assert!(client.sync().await[0].contains("C=22P02 M=invalid input syntax for type integer: \"x\""));
    client.bind_values("", "s", &[], &[None, Some(b"a\0b")], &[]);
    assert!(client.sync().await[0].contains("C=22021"));
}

#[tokio::test]
async fn several_portals_suspend_and_go_on() {
    let server = server();
    let mut client = server.login().await;
    client.run("begin").await;
    client
        .parse("s", "rows 5", &[])
        .bind("a", "s")
        .bind("b", "s")
        .execute("a", 2)
        .execute("b", 4);
    assert_eq!(
        client.sync().await[3..],
        [
            "Row 0",
            "Row 1",
            "PortalSuspended",
            "Row 0",
            "Row 1",
            "Row 2",
            "Row 3",
            "PortalSuspended",
            "ReadyForQuery T"
        ]
    );
    client
        .execute("a", 0)
        .execute("b", 1)
        .execute("b", 1)
        .execute("a", 1)
        .close(b'P', "a")
        .execute("a", 0);
    assert_eq!(
        client.sync().await,
        [
            "Row 2",
            "Row 3",
            "Row 4",
            "SELECT 3",
            "Row 4",
            "SELECT 1",
            "SELECT 0",
            "SELECT 0",
            "CloseComplete",
            "Error S=ERROR V=ERROR C=34000 M=portal \"a\" does not exist",
            "ReadyForQuery E"
        ]
    );
}

#[tokio::test]
async fn portals_die_with_their_transaction() {
    let server = server();
    let mut client = server.login().await;
    let gone = "Error S=ERROR V=ERROR C=34000 M=portal \"p\" does not exist";
    client.parse("s", "rows 5", &[]).bind("p", "s").execute("p", 1);
    assert_eq!(client.sync().await.last().unwrap(), "ReadyForQuery I");
    client.execute("p", 1);
    assert_eq!(client.sync().await[0], gone);

    client.run("begin").await;
    client.bind("p", "s").execute("p", 1);
    client.sync().await;
    client
        .parse("c", "commit", &[])
        .bind("", "c")
        .execute("", 0)
        .execute("p", 1);
    assert_eq!(
        client.sync().await,
        ["ParseComplete", "BindComplete", "COMMIT", gone, "ReadyForQuery I"]
    );

    client.run("begin").await;
    client.bind("p", "s").execute("p", 1);
    client.sync().await;
    client.run("commit").await;
    client.execute("p", 1);
    assert_eq!(client.sync().await[0], gone);
}

#[tokio::test]
async fn names_must_exist_and_not_exist() {
    let server = server();
    let mut client = server.login().await;
    client.run("begin").await;
    client.parse("s", "rows 1", &[]).bind("p", "s");
    client.sync().await;
    client.parse("s", "rows 1", &[]);
    assert!(client.sync().await[0].ends_with("C=42P05 M=prepared statement \"s\" already exists"));
    client.bind("p", "s");
    assert!(client.sync().await[0].ends_with("C=42P03 M=cursor \"p\" already exists"));
    client.bind("", "nope");
    assert!(client.sync().await[0].ends_with("C=26000 M=prepared statement \"nope\" does not exist"));
    client.describe(b'S', "nope");
    assert!(client.sync().await[0].ends_with("C=26000 M=prepared statement \"nope\" does not exist"));
    client.describe(b'P', "nope");
    assert!(client.sync().await[0].ends_with("C=34000 M=portal \"nope\" does not exist"));
    // Closing what does not exist is fine; closing a statement frees its name.
    client
        .close(b'S', "nope")
        .close(b'P', "nope")
        .close(b'S', "s")
        .parse("s", "rows 1", &[]);
    assert_eq!(
        client.sync().await[..4],
        ["CloseComplete", "CloseComplete", "CloseComplete", "ParseComplete"]
    );
}

#[tokio::test]
async fn a_simple_query_destroys_the_unnamed_statement_and_portal() {
    let server = server();
    let mut client = server.login().await;
    client.run("begin").await;
    client.parse("", "rows 1", &[]).bind("", "");
    client.sync().await;
    client.run("rows 0").await;
    client.bind("", "");
    assert!(client.sync().await[0].ends_with("C=26000 M=unnamed prepared statement does not exist"));
    client.execute("", 0);
    assert!(client.sync().await[0].ends_with("C=34000 M=portal \"\" does not exist"));
    // So does a Parse that fails.
    client.parse("", "rows 1", &[]).parse("", "bad", &[]);
    assert!(client.sync().await[1].contains("42601"));
    client.bind("", "");
    assert!(client.sync().await[0].contains("26000"));
}

#[tokio::test]
async fn after_an_error_the_rest_of_the_batch_is_skipped() {
    let server = server();
    let mut client = server.login().await;
    client
        .parse("", "rows 1", &[])
        .bind("", "")
        .execute("", 0)
        .parse("", "bad", &[])
        .bind("", "")
        .execute("", 0);
    client.query("rows 1").flush().close(b'S', "");
    client.put(pgwire::messages::extendedquery::Sync::new());
    client.parse("", "rows 1", &[]).bind("", "").execute("", 0);
    client.put(pgwire::messages::extendedquery::Sync::new());
    client.send().await;
    assert_eq!(
        client.until_ready().await,
        [
            "ParseComplete",
            "BindComplete",
            "Row 0",
            "SELECT 1",
            "Error S=ERROR V=ERROR C=42601 M=syntax error at or near \"bad\"",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        client.until_ready().await,
        [
            "ParseComplete",
            "BindComplete",
            "Row 0",
            "SELECT 1",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(server.gateway.syncs.load(Ordering::SeqCst), 2);
    assert_eq!(
        server.gateway.failures.load(Ordering::SeqCst),
        0,
        "the session knew of its own error"
    );
    client.bind("", "nope");
    client.sync().await;
    assert_eq!(server.gateway.failures.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn flush_sends_what_there_is() {
    let server = server();
    let mut client = server.login().await;
    client
        .parse("", "rows 1", &[])
        .describe(b'S', "")
        .flush()
        .send()
        .await;
    assert_eq!(client.next_shown().await, "ParseComplete");
    assert_eq!(client.next_shown().await, "Parameters []");
    assert_eq!(client.next_shown().await, "Columns n/23/0");
    client.bind("", "").execute("", 0);
    assert_eq!(client.sync().await[1..], ["Row 0", "SELECT 1", "ReadyForQuery I"]);
}

#[tokio::test]
async fn a_finished_command_cannot_be_run_again() {
    let server = server();
    let mut client = server.login().await;
    client
        .parse("", "notice", &[])
        .bind("", "")
        .execute("", 0)
        .execute("", 0);
    assert!(
        client
            .sync()
            .await
            .iter()
            .any(|answer| answer.ends_with("C=55000 M=portal \"\" cannot be run"))
    );
}

#[tokio::test]
async fn malformed_bodies_are_errors_within_the_batch() {
    let server = server();
    let mut client = server.login().await;
    for (bytes, error) in [
        (
            b"P\0\0\0\x06x\0".as_slice(),
            "C=08P01 M=invalid string in message",
        ),
        (b"B\0\0\0\x06\0\0", "C=08P01 M=insufficient data left in message"),
        (b"D\0\0\0\x06Z\0", "C=08P01 M=invalid DESCRIBE message subtype 90"),
        (b"C\0\0\0\x04", "C=08P01 M=insufficient data left in message"),
        (b"E\0\0\0\x0a\0\0\0\0\0\0", "C=08P01 M=invalid message format"),
    ] {
        client.send_bytes(bytes).await;
        assert_eq!(
            client.sync().await,
            [
                format!("Error S=ERROR V=ERROR {error}"),
                "ReadyForQuery I".to_owned()
            ]
        );
    }
}
