//! The HTTP requests that the command line makes.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};

const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_ANSWER_BYTES: u64 = 64 << 20;

/// Fetches `path` from the server at `address`: its status code and body.
///
/// # Errors
/// If there is no HTTP answer.
pub fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    request(address, "GET", path, "")
}

/// Posts an empty JSON object to `path` of the server at `address`: the status code and body of the answer.
///
/// # Errors
/// If there is no HTTP answer.
pub fn post(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let content = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    request(address, "POST", path, &format!("{content}\r\n{{}}"))
}

/// `rest`: further header lines, and the body behind an empty one.
fn request(address: &str, method: &str, path: &str, rest: &str) -> anyhow::Result<(u16, String)> {
    let resolved = address
        .to_socket_addrs()
        .with_context(|| format!("{address} is not HOST:PORT"))?
        .next()
        .with_context(|| format!("{address} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE)
        .with_context(|| format!("no admin server answers at {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // With version 1.0 the server neither chunks its answer nor keeps the connection.
    let rest = if rest.is_empty() { "\r\n" } else { rest };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n{rest}"
    )?;
    let mut answer = Vec::new();
    stream
        .take(LARGEST_ANSWER_BYTES)
        .read_to_end(&mut answer)
        .with_context(|| format!("the admin server at {address} did not finish its answer"))?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{address} does not speak HTTP"))
}

fn parse(answer: &str) -> anyhow::Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no header")?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        bail!("no status line");
    }
    let code = words
        .next()
        .and_then(|code| code.parse().ok())
        .context("no status code")?;
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("well formed");
        assert_eq!(answer, (200, "{}".to_owned()));
        assert!(parse("SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse("").is_err());
    }
}
