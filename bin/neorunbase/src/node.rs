//! `neorunbase node`: data nodes are listed, emptied, and used again, through the admin server of any coordinator.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::arguments::{AdminOptions, DrainOptions, NodeCommand};
use crate::http_request;

/// Between two looks at a node that is drained.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// So long the coordinator may be away meanwhile.
const MOST_FAILURES: u32 = 60;
const BAR_WIDTH: u64 = 30;

/// A data node as the admin server shows it.
#[derive(Clone, Debug, Deserialize)]
struct Node {
    name: String,
    address: String,
    labels: String,
    state: String,
    copies: u64,
    primaries: u64,
    bytes: u64,
}

/// Carries the command out.
///
/// # Errors
/// If the admin server refuses, or there is none.
pub fn run(command: &NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::List(options) => list(options),
        NodeCommand::Drain(options) => drain(options),
        NodeCommand::Undrain(options) => {
            post(&options.admin, &options.name, "undrain")?;
            writeln!(std::io::stdout(), "{} takes copies of shards again", options.name)?;
            Ok(())
        }
    }
}

fn post(admin: &AdminOptions, name: &str, what: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/nodes/{}/{what}", escaped(name));
    let (code, body) = http_request::post(&admin.admin_addr, &path)?;
    if code != 200 {
        bail!("{}", refusal(&admin.admin_addr, code, &body));
    }
    Ok(())
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

fn refusal(address: &str, code: u16, body: &str) -> String {
    match body.trim() {
        "" => format!("{address} answered {code}"),
        reason => reason.to_owned(),
    }
}

fn nodes(admin: &AdminOptions) -> anyhow::Result<Vec<Node>> {
    let (code, body) = http_request::get(&admin.admin_addr, "/api/v1/nodes")?;
    if code != 200 {
        bail!("{}", refusal(&admin.admin_addr, code, &body));
    }
    serde_json::from_str(&body).context("the list of nodes cannot be understood")
}

fn list(options: &AdminOptions) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let rows = nodes(options)?.into_iter().map(|node| {
        let numbers = [node.copies, node.primaries, node.bytes].map(|number| number.to_string());
        let [copies, primaries, bytes] = numbers;
        [
            node.name,
            node.state,
            copies,
            primaries,
            bytes,
            node.address,
            node.labels,
        ]
    });
    let head = [
        "name",
        "state",
        "copies",
        "primaries",
        "bytes",
        "address",
        "labels",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0);
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(output, "{}", line.trim_end())?;
    }
    Ok(())
}

fn drain(options: &DrainOptions) -> anyhow::Result<()> {
    let name = &options.name;
    post(&options.admin, name, "drain")?;
    if !options.wait {
        writeln!(
            std::io::stdout(),
            "{name} is being drained; `neorunbase node list` shows how far it is"
        )?;
        return Ok(());
    }
    let mut progress = Progress::new();
    let mut failures = 0;
    loop {
        match nodes(&options.admin) {
            Ok(nodes) => {
                failures = 0;
                let node = nodes.iter().find(|node| node.name == *name);
                let left = node.map_or((0, 0), |node| (node.copies, node.primaries));
                if node.is_some_and(|node| node.state == "alive") {
                    progress.end()?;
                    bail!("{name} is to take copies of shards again: somebody has taken back its drain");
                }
                progress.show(name, left)?;
                if left == (0, 0) {
                    progress.end()?;
                    writeln!(
                        std::io::stdout(),
                        "{name} holds nothing any more and can be stopped"
                    )?;
                    return Ok(());
                }
            }
            Err(error) if failures == MOST_FAILURES => {
                progress.end()?;
                return Err(error);
            }
            Err(_) => failures += 1,
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A bar on a terminal; a line for each change elsewhere.
struct Progress {
    is_terminal: bool,
    most: u64,
    shown: Option<(u64, u64)>,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            most: 0,
            shown: None,
        }
    }

    fn show(&mut self, name: &str, left: (u64, u64)) -> std::io::Result<()> {
        if self.shown == Some(left) {
            return Ok(());
        }
        self.shown = Some(left);
        let (copies, primaries) = left;
        self.most = self.most.max(copies);
        let text = format!(
            "{name}: {copies} of {} copies left, {primaries} of them primaries",
            self.most
        );
        let mut output = std::io::stderr().lock();
        if !self.is_terminal {
            return writeln!(output, "{text}");
        }
        write!(output, "\r\x1b[K[{}] {text}", bar(self.most - copies, self.most))?;
        output.flush()
    }

    fn end(&self) -> std::io::Result<()> {
        if self.is_terminal && self.shown.is_some() {
            writeln!(std::io::stderr())?;
        }
        Ok(())
    }
}

fn bar(done: u64, all: u64) -> String {
    let full = (done * BAR_WIDTH).checked_div(all).unwrap_or(BAR_WIDTH);
    let part = |sign: &str, length: u64| sign.repeat(usize::try_from(length).unwrap_or(0));
    part("#", full) + &part("-", BAR_WIDTH - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up() {
        assert_eq!(bar(0, 4), "-".repeat(30));
        assert_eq!(bar(2, 4), "#".repeat(15) + &"-".repeat(15));
        assert_eq!(bar(4, 4), "#".repeat(30));
        assert_eq!(bar(0, 0), "#".repeat(30));
    }

    #[test]
    fn names_stay_parts_of_paths() {
        assert_eq!(escaped("data-3"), "data-3");
        assert_eq!(escaped("a/b c"), "a%2Fb%20c");
    }
}
