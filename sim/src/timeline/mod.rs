//! What happened in a simulation, as one HTML page that a person can read: nodes, shards and clients as lanes over
//! simulated time.

mod events;
mod operations;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::configuration::Configuration;
use crate::simulation::Findings;
use crate::verdict::Verdict;

/// Self-contained: nothing is loaded from anywhere.
const PAGE: &str = include_str!("page.html");
/// Where the data goes.
const PLACE: &str = "/*DATA*/";

/// All that is known of a simulation.
pub struct Story<'a> {
    /// What was decided before.
    pub configuration: &'a Configuration,
    /// The planted bug.
    pub bug: Option<&'a str>,
    /// What came of it.
    pub findings: &'a Findings,
    /// The trace's lines.
    pub trace: &'a str,
    /// Names of workloads, with their histories as JSON lines.
    pub histories: &'a [(String, String)],
    /// The command that does it again.
    pub reproduce: &'a str,
}

/// A row of the page.
#[derive(Serialize)]
struct Lane {
    group: &'static str,
    name: String,
    spans: Vec<Span>,
    marks: Vec<Mark>,
    /// From, to (microseconds), outcome, what: of clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operations: Vec<operations::Operation>,
}

impl Lane {
    fn new(group: &'static str, name: &str) -> Self {
        Self {
            group,
            name: name.to_owned(),
            spans: Vec::new(),
            marks: Vec::new(),
            operations: Vec::new(),
        }
    }
}

/// Something that lasts. Times are in microseconds since the simulation began.
#[derive(Debug, PartialEq, Serialize)]
struct Span {
    from: u64,
    to: u64,
    kind: &'static str,
    text: String,
}

/// Something that happens.
#[derive(Debug, PartialEq, Serialize)]
struct Mark {
    at: u64,
    kind: &'static str,
    text: String,
}

/// A transaction that a checker names.
#[derive(Serialize)]
struct Suspect {
    label: String,
    lane: usize,
    from: u64,
    to: u64,
    text: String,
}

#[derive(Serialize)]
struct Data<'a> {
    title: String,
    has_passed: bool,
    verdict: &'static str,
    complaints: &'a [String],
    summary: &'a [String],
    facts: Vec<(&'static str, String)>,
    reproduce: &'a str,
    end: u64,
    lanes: Vec<Lane>,
    suspects: Vec<Suspect>,
}

/// The page.
///
/// # Errors
/// It cannot be written as JSON.
pub fn page(story: &Story<'_>) -> anyhow::Result<String> {
    let findings = story.findings;
    let end = u64::try_from(findings.simulated.as_micros()).unwrap_or(u64::MAX);
    let told = events::read(story.trace, &story.configuration.plan);
    let end = end.max(told.last);
    let mut lanes = told.lanes(&story.configuration.server_names(), end);
    let suspects = operations::add(&mut lanes, story.histories, &findings.complaints, end);
    let data = Data {
        title: format!(
            "seed {}{}",
            story.configuration.seed,
            story.bug.map_or_else(String::new, |bug| format!(" with {bug}"))
        ),
        has_passed: findings.verdict == Verdict::Passed,
        verdict: findings.verdict.label(),
        complaints: &findings.complaints,
        summary: &findings.summary,
        facts: facts(story.configuration),
        reproduce: story.reproduce,
        end,
        lanes,
        suspects,
    };
    // Within a script element only this could end it.
    let data = serde_json::to_string(&data)?.replace("</", "<\\/");
    Ok(PAGE.replacen(PLACE, &data, 1))
}

fn facts(configuration: &Configuration) -> Vec<(&'static str, String)> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for scheduled in &configuration.plan.faults {
        *kinds.entry(scheduled.fault.kind()).or_default() += 1;
    }
    let faults: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} × {kind}"))
        .collect();
    vec![
        ("coordinators", configuration.coordinators.to_string()),
        ("data nodes", configuration.data_nodes.to_string()),
        ("shards", configuration.shards.to_string()),
        ("replicas", configuration.replicas.to_string()),
        ("clients of each workload", configuration.clients.to_string()),
        ("planned faults", faults.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_page_holds_its_data_and_cannot_be_broken_by_it() {
        let configuration = Configuration::draw(3, Duration::from_secs(5));
        let findings = Findings {
            verdict: Verdict::Correctness,
            complaints: vec!["lists: G1c: T0 </script> T1".to_owned()],
            summary: Vec::new(),
            unseed: 0,
            simulated: Duration::from_secs(9),
        };
        let history = concat!(
            r#"{"client":0,"invoked_micros":10,"completed_micros":30,"outcome":"done","operation":{"read":1}}"#,
            "\n",
            r#"{"client":0,"invoked_micros":40,"completed_micros":null,"outcome":"unknown","error":"x","operation":{}}"#,
            "\n",
        );
        let page = page(&Story {
            configuration: &configuration,
            bug: None,
            findings: &findings,
            trace: "0.000000001 node data-1 starts\n",
            histories: &[("lists".to_owned(), history.to_owned())],
            reproduce: "cargo sim --seed 3",
        })
        .unwrap();
        assert!(!page.contains(PLACE));
        assert!(page.contains(r#"T0 <\/script> T1"#));
        let from = page.find(r#"type="application/json">"#).unwrap();
        let rest = &page[from + r#"type="application/json">"#.len()..];
        let data: serde_json::Value = serde_json::from_str(&rest[..rest.find("</script>").unwrap()]).unwrap();
        assert_eq!(data["suspects"].as_array().unwrap().len(), 2);
        assert_eq!(data["end"], 9_000_000);
        // Nothing is loaded from elsewhere.
        assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("<link"));
    }
}
