//! `cargo sim`'s arguments, and what is printed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::configuration::Configuration;
use crate::many::{self, Children, all_bugs};
use crate::simulation;
use crate::trace::Trace;
use crate::verdict::Verdict;
use crate::world::now_nanos;

const USAGE_ERROR: u8 = 2;

/// Runs a whole NeorunBase cluster in one process: simulated time, network and disks, faults drawn from the seed.
/// Exit codes: 0 passed, 2 usage, 3 crash, 4 liveness, 5 correctness.
#[derive(Parser)]
#[command(name = "cargo sim")]
struct Arguments {
    /// Run this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds, each in a process of its own: A..B, without B.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// How many processes at a time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
    /// Simulated minutes that clients run.
    #[arg(long)]
    minutes: Option<f64>,
    /// Simulated seconds that clients run, instead of minutes.
    #[arg(long)]
    seconds: Option<u64>,
    /// Plant a bug: the checkers must find it.
    #[arg(long, value_parser = PossibleValuesParser::new(all_bugs().map(|(name, _)| name)))]
    bug: Option<String>,
    /// Name the bugs that can be planted.
    #[arg(long)]
    list_bugs: bool,
    /// Look for each planted bug (or the one of --bug) in these seeds: A..B; fails if one is not found.
    #[arg(long, value_parser = parse_range)]
    bugs: Option<Range<u64>>,
    /// Run --seed or --seeds twice, in two processes each, and compare what happened.
    #[arg(long)]
    check_determinism: bool,
    /// Write the trace here.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Where plan, trace and history of failures go.
    #[arg(long, default_value = "target-sim/failures")]
    failures: PathBuf,
    /// Real seconds after which a process of --seeds is stuck.
    #[arg(long, default_value_t = 900)]
    wall_seconds: u64,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("write it as A..B")?;
    let number = |text: &str| {
        text.trim()
            .parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    let range = number(start)?..number(end)?;
    if range.is_empty() {
        return Err(format!("{text} is empty"));
    }
    Ok(range)
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    initialize_logs();
    match dispatch(&arguments) {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            eprintln!("cargo sim: {error:#}");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

/// Logs only if asked for by `RUST_LOG`, stamped with simulated time.
fn initialize_logs() {
    struct SimulatedTime;
    impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
        fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            let now = now_nanos();
            write!(writer, "{}.{:06}", now / 1_000_000_000, now / 1000 % 1_000_000)
        }
    }
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_timer(SimulatedTime)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<Verdict> {
    if arguments.list_bugs {
        for (name, what) in all_bugs() {
            println!("{name:<20} {what}");
        }
        return Ok(Verdict::Passed);
    }
    let children = Children {
        seconds: simulated_seconds(arguments)?,
        jobs: arguments.jobs,
        wall_limit: Duration::from_secs(arguments.wall_seconds),
        failures: arguments.failures.clone(),
    };
    let all_well = |well| {
        if well {
            Verdict::Passed
        } else {
            Verdict::Correctness
        }
    };
    let bug = arguments.bug.as_deref();
    if let Some(range) = arguments.bugs.clone() {
        return many::bugs(&children, range, bug).map(all_well);
    }
    let range = match (&arguments.seeds, arguments.seed) {
        (Some(range), _) => Some(range.clone()),
        (None, Some(seed)) if arguments.check_determinism => Some(seed..seed + 1),
        (None, _) => None,
    };
    if let Some(range) = range {
        if arguments.check_determinism {
            return many::check_determinism(&children, range, bug).map(all_well);
        }
        return many::seeds(&children, range, bug).map(all_well);
    }
    let seed = arguments
        .seed
        .context("say --seed N or --seeds A..B; --help tells more")?;
    one(arguments, seed, children.seconds)
}

fn simulated_seconds(arguments: &Arguments) -> anyhow::Result<u64> {
    let minutes = arguments.minutes.unwrap_or(1.0);
    anyhow::ensure!(
        (0.0..=100_000.0).contains(&minutes),
        "--minutes {minutes} makes no sense"
    );
    // Bounded above, and fractions of a second do not matter.
    let seconds = Duration::from_secs_f64(minutes * 60.0).as_secs();
    Ok(arguments.seconds.unwrap_or(seconds).max(1))
}

fn one(arguments: &Arguments, seed: u64, seconds: u64) -> anyhow::Result<Verdict> {
    if let Some(bug) = &arguments.bug {
        neorunbase_world::fault::plant(bug);
    }
    let configuration = Configuration::draw(seed, Duration::from_secs(seconds));
    let trace = Trace::keeping_lines(true);
    let started = Instant::now();
    let (findings, histories) = simulation::run(&configuration, &trace);
    let took = started.elapsed();
    let (hash, events) = trace.digest();
    let bug = arguments
        .bug
        .as_ref()
        .map_or_else(String::new, |bug| format!(" --bug {bug}"));
    let reproduce = format!("cargo sim --seed {seed} --seconds {seconds}{bug}");

    println!("seed {seed}: {}", findings.verdict.label());
    for complaint in &findings.complaints {
        println!("  ! {complaint}");
    }
    for line in &findings.summary {
        println!("  {line}");
    }
    let simulated = findings.simulated.as_secs_f64();
    println!(
        "  {simulated:.1} simulated seconds in {:.1} s ({:.1} a second), {events} events",
        took.as_secs_f64(),
        simulated / took.as_secs_f64().max(0.001)
    );
    println!("trace hash: {hash}");
    println!("unseed: {:016x}", findings.unseed);
    let text = trace.take_text().unwrap_or_default();
    if let Some(path) = &arguments.trace {
        std::fs::write(path, &text).with_context(|| format!("trace {}", path.display()))?;
    }
    if findings.verdict != Verdict::Passed {
        let name = arguments
            .bug
            .as_ref()
            .map_or_else(|| format!("seed-{seed}"), |bug| format!("seed-{seed}-{bug}"));
        let folder = arguments.failures.join(name);
        let evidence = json!({
            "configuration": configuration,
            "verdict": findings.verdict,
            "complaints": findings.complaints,
            "summary": findings.summary,
            "reproduce": reproduce,
        });
        write_evidence(&folder, &evidence, &text, &histories)
            .with_context(|| format!("evidence in {}", folder.display()))?;
        println!("evidence: {}", folder.display());
    }
    println!("reproduce: {reproduce}");
    Ok(findings.verdict)
}

fn write_evidence(
    folder: &Path,
    evidence: &serde_json::Value,
    trace: &str,
    histories: &simulation::Histories,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(
        folder.join("verdict.json"),
        serde_json::to_string_pretty(evidence)?,
    )?;
    std::fs::write(folder.join("trace.txt"), trace)?;
    histories.write(folder)?;
    Ok(())
}
