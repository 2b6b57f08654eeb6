//! One simulation in this process, and the evidence of its failure.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use neorunbase_world::fault;
use serde_json::json;

use crate::recording::Recording;
use crate::simulation::{self, Findings};
use crate::timeline;
use crate::trace::Trace;
use crate::verdict::Verdict;

/// What to do with what happens.
pub struct Wishes {
    /// How it was asked for: the one command that does it again.
    pub command: String,
    /// Where the trace goes, whatever the verdict.
    pub trace: Option<PathBuf>,
    /// Where the timeline goes, whatever the verdict.
    pub timeline: Option<PathBuf>,
    /// Where the evidence of a failure goes, if it is wanted.
    pub evidence: Option<PathBuf>,
}

/// Runs `recording` and prints what came of it.
pub fn run(recording: &Recording, wishes: &Wishes) -> anyhow::Result<Verdict> {
    if let Some(bug) = &recording.bug {
        fault::plant(bug);
    }
    let configuration = &recording.configuration;
    let trace = Trace::keeping_lines(true);
    let started = Instant::now();
    let (findings, histories) = simulation::run(configuration, &trace);
    let took = started.elapsed().as_secs_f64();
    let (hash, events) = trace.digest();
    let simulated = findings.simulated.as_secs_f64();

    println!("seed {}: {}", configuration.seed, findings.verdict.label());
    for complaint in &findings.complaints {
        println!("  ! {complaint}");
    }
    println!("  workloads: {}", configuration.workloads.join(" "));
    for line in &findings.summary {
        println!("  {line}");
    }
    println!(
        "  {simulated:.1} simulated seconds in {took:.1} s ({:.1} a second), {events} events",
        simulated / took.max(0.001)
    );
    let points = fault::points();
    let reached: Vec<&str> = points
        .iter()
        .filter(|(_, reached)| **reached)
        .map(|(name, _)| *name)
        .collect();
    println!("reached: {}", reached.join(" "));
    println!("trace hash: {hash}");
    println!("unseed: {:016x}", findings.unseed);
    println!("histories hash: {}", histories.digest()?);

    let text = trace.take_text().unwrap_or_default();
    if let Some(path) = &wishes.trace {
        std::fs::write(path, &text).with_context(|| format!("trace {}", path.display()))?;
    }
    let has_failed = findings.verdict != Verdict::Passed;
    let evidence = wishes.evidence.as_ref().filter(|_| has_failed);
    if evidence.is_some() || wishes.timeline.is_some() {
        let histories = histories.to_json_lines()?;
        let page = timeline::page(&timeline::Story {
            configuration,
            bug: recording.bug.as_deref(),
            findings: &findings,
            trace: &text,
            histories: &histories,
            reproduce: &wishes.command,
        })?;
        if let Some(path) = &wishes.timeline {
            std::fs::write(path, &page).with_context(|| format!("timeline {}", path.display()))?;
        }
        if let Some(folder) = evidence {
            write_evidence(folder, recording, &findings, &wishes.command)
                .and_then(|()| write_story(folder, &text, &histories, &page))
                .with_context(|| format!("evidence in {}", folder.display()))?;
            println!("evidence: {}", folder.display());
            println!("replay: cargo sim --replay {}", folder.display());
        }
    }
    println!("reproduce: {}", wishes.command);
    Ok(findings.verdict)
}

fn write_evidence(
    folder: &Path,
    recording: &Recording,
    findings: &Findings,
    command: &str,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    recording.write(folder)?;
    let verdict = json!({
        "verdict": findings.verdict,
        "complaints": findings.complaints,
        "summary": findings.summary,
        "reproduce": command,
        "replay": format!("cargo sim --replay {}", folder.display()),
    });
    std::fs::write(
        folder.join("verdict.json"),
        serde_json::to_string_pretty(&verdict)?,
    )?;
    Ok(())
}

fn write_story(folder: &Path, trace: &str, histories: &[(String, String)], page: &str) -> anyhow::Result<()> {
    std::fs::write(folder.join("trace.txt"), trace)?;
    std::fs::write(folder.join("timeline.html"), page)?;
    for (workload, lines) in histories {
        std::fs::write(folder.join(format!("history-{workload}.jsonl")), lines)?;
    }
    Ok(())
}
