//! Reads the trace: processes that start and die, faults, terms, elections, and what roles log.

use std::collections::BTreeMap;

use neorunbase_fault_injection::{Fault, FaultPlan};

use super::{Lane, Mark, Span};
use crate::faulty_nodes::nodes_of;

/// More marks of a lane would only hide each other.
const MOST_MARKS: usize = 2_000;

/// What a trace tells.
#[derive(Default)]
pub struct Told {
    /// Of the whole cluster.
    cluster: Vec<Mark>,
    nodes: BTreeMap<String, (Vec<Span>, Vec<Mark>)>,
    shards: BTreeMap<u64, (Vec<Span>, Vec<Mark>)>,
    /// Where each shard is led, in which term, and since when.
    leads: BTreeMap<u64, (String, String, u64)>,
    /// Since when nodes are down.
    down: BTreeMap<String, (u64, String)>,
    /// When everything healed.
    healed: Option<u64>,
    /// The last event's time.
    pub last: u64,
}

/// Takes the story out of a trace.
pub fn read(trace: &str, plan: &FaultPlan) -> Told {
    let mut told = Told::default();
    // Faults are carried out in the order of the plan, though maybe not all.
    let mut planned = plan.faults.iter();
    let mut lasting = Vec::new();
    for line in trace.lines() {
        let Some((at, what)) = split(line) else { continue };
        told.last = at;
        let Some((subject, rest)) = what.split_once(' ') else {
            continue;
        };
        match subject {
            "node" => told.node(at, rest),
            "log" => told.log(at, rest),
            "mark" => told.mark(at, rest),
            "client" | "check" => told.cluster.push(Mark {
                at,
                kind: "info",
                text: what.to_owned(),
            }),
            "fault" if rest == "everything heals" => {
                told.healed = Some(at);
                told.cluster.push(Mark {
                    at,
                    kind: "heal",
                    text: rest.to_owned(),
                });
            }
            "fault" => {
                let found = planned.find(|scheduled| format!("{:?}", scheduled.fault) == rest);
                if let Some(scheduled) = found {
                    lasting.push((at, scheduled.fault.clone()));
                }
            }
            _ => {}
        }
    }
    let healed = told.healed.unwrap_or(told.last);
    for (at, fault) in lasting {
        let text = format!("{}: {fault:?}", fault.kind());
        let nodes = nodes_of(&fault);
        let to = (at + fault.lasts_ms() * 1_000).min(healed.max(at));
        if nodes.is_empty() {
            told.cluster.push(Mark {
                at,
                kind: "fault",
                text: text.clone(),
            });
        }
        for node in nodes {
            let (spans, marks) = told.nodes.entry(node).or_default();
            // What is down is seen by itself.
            if to <= at || matches!(fault, Fault::Kill { .. } | Fault::LongDeath { .. }) {
                marks.push(Mark {
                    at,
                    kind: "fault",
                    text: text.clone(),
                });
            } else {
                spans.push(Span {
                    from: at,
                    to,
                    kind: class(fault.kind()),
                    text: text.clone(),
                });
            }
        }
    }
    told
}

/// How a fault that lasts is drawn.
fn class(kind: &str) -> &'static str {
    match kind {
        "pause" => "paused",
        kind if kind.contains("disk") => "disk",
        kind if kind.contains("slow") => "slow",
        kind if kind.contains("cut") || kind.contains("split") || kind.contains("isolated") => "cut",
        _ => "other",
    }
}

/// `12.000345678 something`: the time in microseconds, and what.
fn split(line: &str) -> Option<(u64, &str)> {
    let (time, what) = line.split_once(' ')?;
    let (seconds, nanos) = time.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let nanos: u64 = nanos.parse().ok()?;
    Some((seconds * 1_000_000 + nanos / 1_000, what))
}

/// The value of `name=` in what was logged, up to the next space.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!(" {name}="))? + name.len() + 2;
    text[start..].split(' ').next()
}

impl Told {
    fn node(&mut self, at: u64, rest: &str) {
        let Some((node, what)) = rest.split_once(' ') else {
            return;
        };
        let (spans, marks) = self.nodes.entry(node.to_owned()).or_default();
        if what == "starts" {
            if let Some((since, text)) = self.down.remove(node) {
                spans.push(Span {
                    from: since,
                    to: at,
                    kind: "down",
                    text,
                });
            }
        } else if what.starts_with("goes down") {
            self.down.insert(node.to_owned(), (at, what.to_owned()));
            let led: Vec<u64> = self
                .leads
                .iter()
                .filter(|(_, (leader, ..))| leader == node)
                .map(|(shard, _)| *shard)
                .collect();
            for shard in led {
                self.term_ends(at, shard);
            }
        } else {
            marks.push(Mark {
                at,
                kind: "warning",
                text: what.to_owned(),
            });
        }
    }

    fn log(&mut self, at: u64, rest: &str) {
        let mut words = rest.splitn(3, ' ');
        let (Some(node), Some(level), Some(text)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let shard: Option<u64> = field(text, "shard").and_then(|shard| shard.parse().ok());
        if let Some(shard) = shard {
            if text.starts_with("begins a term as primary") {
                self.term_ends(at, shard);
                let term = field(text, "term").unwrap_or_default().to_owned();
                self.leads.insert(shard, (node.to_owned(), term, at));
            } else if text.starts_with("no longer primary")
                && self.leads.get(&shard).is_some_and(|(leader, ..)| leader == node)
            {
                self.term_ends(at, shard);
            } else if text.contains("in-sync set") || text.contains("who holds") {
                let (_, marks) = self.shards.entry(shard).or_default();
                marks.push(Mark {
                    at,
                    kind: "info",
                    text: format!("{node}: {text}"),
                });
            }
        }
        let is_election = [
            "elected",
            "leads the catalog",
            "begins a term",
            "no longer the Controller",
        ];
        let kind = if is_election.iter().any(|start| text.starts_with(start)) {
            "election"
        } else if level == "INFO" {
            "info"
        } else {
            "warning"
        };
        let (_, marks) = self.nodes.entry(node.to_owned()).or_default();
        marks.push(Mark {
            at,
            kind,
            text: text.to_owned(),
        });
    }

    fn term_ends(&mut self, at: u64, shard: u64) {
        if let Some((node, term, since)) = self.leads.remove(&shard) {
            let (spans, _) = self.shards.entry(shard).or_default();
            spans.push(Span {
                from: since,
                to: at,
                kind: "term",
                text: format!("{node}, term {term}"),
            });
        }
    }

    fn mark(&mut self, at: u64, rest: &str) {
        let Some((node, point)) = rest.split_once(' ') else {
            return;
        };
        let (_, marks) = self.nodes.entry(node.to_owned()).or_default();
        marks.push(Mark {
            at,
            kind: "point",
            text: point.to_owned(),
        });
    }

    /// The lanes of the cluster, of its nodes (`servers` first) and its shards.
    pub fn lanes(mut self, servers: &[String], end: u64) -> Vec<Lane> {
        for (node, (since, text)) in std::mem::take(&mut self.down) {
            let (spans, _) = self.nodes.entry(node).or_default();
            spans.push(Span {
                from: since,
                to: end,
                kind: "down",
                text,
            });
        }
        for shard in self.leads.keys().copied().collect::<Vec<_>>() {
            self.term_ends(end, shard);
        }
        let mut lanes = vec![Lane {
            marks: self.cluster,
            ..Lane::new("cluster", "everything")
        }];
        let mut add = |group, name: &str, (spans, mut marks): (Vec<Span>, Vec<Mark>)| {
            marks.sort_by_key(|mark| mark.at);
            marks.truncate(MOST_MARKS);
            lanes.push(Lane {
                spans,
                marks,
                ..Lane::new(group, name)
            });
        };
        for server in servers {
            add("nodes", server, self.nodes.remove(server).unwrap_or_default());
        }
        for (node, events) in self.nodes {
            add("nodes", &node, events);
        }
        for (shard, events) in self.shards {
            let name = format!("group {} shard {}", shard >> 32, shard as u32);
            add("shards", &name, events);
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use neorunbase_fault_injection::{Fault, ScheduledFault};

    use super::*;

    #[test]
    fn the_story_of_a_failover() {
        let pause = Fault::Pause {
            node: "data-2".to_owned(),
            for_ms: 9_000,
        };
        let plan = FaultPlan {
            faults: vec![ScheduledFault {
                at_ms: 10,
                fault: pause.clone(),
            }],
            final_power_loss: None,
        };
        let trace = format!(
            "0.000001000 node data-1 starts\n\
             0.500000000 log data-1 INFO begins a term as primary of the shard node=data-1 shard=4294967297 term=1\n\
             1.000000000 fault {pause:?}\n\
             2.000000000 node data-1 goes down, disk Torn, silent true\n\
             2.100000000 network something else\n\
             3.000000000 node data-1 starts\n\
             3.500000000 mark data-2 member-of-the-set-promoted\n\
             4.000000000 log data-2 INFO begins a term as primary of the shard node=data-2 shard=4294967297 term=3\n\
             5.000000000 fault everything heals\n"
        );
        let servers = ["data-1".to_owned(), "data-2".to_owned()];
        let lanes = read(&trace, &plan).lanes(&servers, 6_000_000);
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["everything", "data-1", "data-2", "group 1 shard 1"]);
        let spans = |lane: usize| -> Vec<_> {
            let spans = lanes[lane].spans.iter();
            spans.map(|span| (span.from, span.to, span.kind)).collect()
        };
        assert_eq!(spans(1), [(2_000_000, 3_000_000, "down")]);
        assert_eq!(spans(2), [(1_000_000, 5_000_000, "paused")]);
        assert_eq!(
            spans(3),
            [(500_000, 2_000_000, "term"), (4_000_000, 6_000_000, "term")]
        );
        assert_eq!(lanes[3].spans[1].text, "data-2, term 3");
        assert_eq!(lanes[2].marks[0].text, "member-of-the-set-promoted");
    }
}
