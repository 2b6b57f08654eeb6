//! `cargo sim`'s arguments, and what is printed.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::bug_hunt;
use crate::configuration::Configuration;
use crate::many::{self, Children, Task};
use crate::observation::Logs;
use crate::planted::{self, PlantedBug};
use crate::recording::Recording;
use crate::regressions;
use crate::shrink::{self, Limits};
use crate::single::{self, Wishes};
use crate::verdict::Verdict;
use crate::world::now_nanos;

const USAGE_ERROR: u8 = 2;
const NOT_COVERED: u8 = 6;

/// Runs a whole NeorunBase cluster in one process: simulated time, network and disks, faults drawn from the seed.
///
/// Exit codes: 0 passed, 2 usage, 3 crash, 4 liveness, 5 correctness (or runs that differ, or a bug that was not found),
/// 6 a point of the code that no seed has reached (--require-coverage).
#[derive(Parser)]
#[command(name = "cargo sim")]
struct Arguments {
    /// Run this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds, each in a process of its own: A..B, without B. Ends with what they have covered.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Run the seeds in this file as well as those of --seeds: one a line, and what it has found.
    #[arg(long, conflicts_with_all = ["seed", "bugs"])]
    regressions: Option<PathBuf>,
    /// Run again what a failure has written (its folder, or its plan.json): nothing is drawn.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "regressions", "bugs", "minutes", "seconds", "bug"])]
    replay: Option<PathBuf>,
    /// Make the failure of --seed or --replay smaller, and write the evidence of what is left of it.
    #[arg(long, conflicts_with_all = ["seeds", "regressions", "bugs", "check_determinism"])]
    shrink: bool,
    /// Simulations that --shrink may run.
    #[arg(long, default_value_t = 300)]
    shrink_runs: usize,
    /// Real minutes that --shrink may take.
    #[arg(long, default_value_t = 30)]
    shrink_minutes: u64,
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
    #[arg(long, value_parser = PossibleValuesParser::new(planted::all().map(|bug| bug.name)))]
    bug: Option<String>,
    /// Name the bugs that can be planted.
    #[arg(long)]
    list_bugs: bool,
    /// Look for each planted bug (or the one of --bug) in these seeds: A..B; fails if one is not found.
    #[arg(long, value_parser = parse_range)]
    bugs: Option<Range<u64>>,
    /// With --bugs: also those that the suite does not ask for.
    #[arg(long, requires = "bugs")]
    elusive: bool,
    /// With --bugs: write what came of it to this Markdown file; rows of other bugs stay.
    #[arg(long, requires = "bugs")]
    table: Option<PathBuf>,
    /// Run --seed, --seeds or --replay twice, in two processes each, and compare what happened.
    #[arg(long)]
    check_determinism: bool,
    /// With --seeds: fail if there is a point in the code (`sometimes!`) that none of them has reached.
    #[arg(long, requires = "seeds")]
    require_coverage: bool,
    /// Write the trace here.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Write the timeline, a page for a browser, here (failures have one in their folder).
    #[arg(long)]
    timeline: Option<PathBuf>,
    /// Where folders of failures go: plan, trace, histories, timeline.
    #[arg(long, default_value = "target-sim/failures")]
    failures: PathBuf,
    /// Write nothing on failure.
    #[arg(long)]
    no_evidence: bool,
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
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cargo sim: {error:#}");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

/// What roles log goes into the trace; to the terminal, stamped with simulated time, only if asked for by `RUST_LOG`.
fn initialize_logs() {
    struct SimulatedTime;
    impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
        fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            let now = now_nanos();
            write!(writer, "{}.{:06}", now / 1_000_000_000, now / 1000 % 1_000_000)
        }
    }
    let terminal = std::env::var_os("RUST_LOG").is_some().then(|| {
        tracing_subscriber::fmt::layer()
            .with_timer(SimulatedTime)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .with_filter(EnvFilter::from_default_env())
    });
    let ours = Targets::new().with_target("neorunbase", Level::INFO);
    tracing_subscriber::registry()
        .with(terminal)
        .with(Logs.with_filter(ours))
        .init();
}

fn exit_code(all_well: bool) -> u8 {
    if all_well {
        Verdict::Passed.exit_code()
    } else {
        Verdict::Correctness.exit_code()
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.list_bugs {
        for PlantedBug { name, what, .. } in planted::all() {
            println!("{name:<32} {what}");
        }
        return Ok(0);
    }
    let children = Children {
        seconds: simulated_seconds(arguments)?,
        jobs: arguments.jobs,
        wall_limit: Duration::from_secs(arguments.wall_seconds),
        failures: arguments.failures.clone(),
    };
    if let Some(range) = &arguments.bugs {
        return hunt(arguments, &children, range);
    }
    let bug = arguments.bug.as_deref();
    let seeds = seeds(arguments)?;
    if arguments.check_determinism {
        let tasks: Vec<Task<'_>> = match (arguments.seed, &arguments.replay) {
            _ if !seeds.is_empty() => seeds.iter().map(|seed| Task::Seed(*seed, bug)).collect(),
            (Some(seed), _) => vec![Task::Seed(seed, bug)],
            (None, Some(path)) => vec![Task::Replay(path)],
            (None, None) => anyhow::bail!("say --seed N, --seeds A..B or --replay PATH"),
        };
        return many::check_determinism(&children, &tasks).map(exit_code);
    }
    if !seeds.is_empty() {
        let suite = many::seeds(&children, &seeds, bug)?;
        let is_covered = suite.never_reached.is_empty();
        if arguments.require_coverage && !is_covered {
            eprintln!(
                "cargo sim: none of the seeds has reached {}",
                suite.never_reached.join(", ")
            );
        }
        return Ok(if suite.has_passed && arguments.require_coverage && !is_covered {
            NOT_COVERED
        } else {
            exit_code(suite.has_passed)
        });
    }
    one(arguments, &children)
}

/// Those of `--seeds`, then those of `--regressions`.
fn seeds(arguments: &Arguments) -> anyhow::Result<Vec<u64>> {
    let mut seeds: Vec<u64> = arguments.seeds.clone().unwrap_or_default().collect();
    if let Some(file) = &arguments.regressions {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let regressions = regressions::parse(&text).with_context(|| format!("in {}", file.display()))?;
        for seed in regressions {
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
    }
    Ok(seeds)
}

fn hunt(arguments: &Arguments, children: &Children, range: &Range<u64>) -> anyhow::Result<u8> {
    let is_wanted = |bug: &PlantedBug| arguments.bug.as_ref().is_none_or(|name| name == bug.name);
    let everything = arguments.elusive || arguments.bug.is_some();
    let elusive = planted::ELUSIVE_BUGS.iter().filter(|_| everything);
    let wanted: Vec<PlantedBug> = planted::BUGS
        .iter()
        .chain(elusive)
        .copied()
        .filter(is_wanted)
        .collect();
    let survivors = bug_hunt::hunt(children, range, &wanted, arguments.table.as_deref())?;
    if !survivors.is_empty() {
        eprintln!("cargo sim: not found: {}", survivors.join(", "));
    }
    Ok(exit_code(survivors.is_empty()))
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

fn one(arguments: &Arguments, children: &Children) -> anyhow::Result<u8> {
    let (recording, name, command) = match (&arguments.replay, arguments.seed) {
        (Some(path), _) => {
            let name = path.canonicalize().ok();
            let name = name.as_ref().and_then(|path| path.file_stem());
            let name = name.map_or_else(|| "replay".to_owned(), |name| name.to_string_lossy().into_owned());
            let command = format!("cargo sim --replay {}", path.display());
            (Recording::read(path)?, name, command)
        }
        (None, Some(seed)) => {
            let bug = arguments.bug.clone();
            let suffix = |before: &str| {
                let bug = bug.as_ref();
                bug.map_or_else(String::new, |bug| format!("{before}{bug}"))
            };
            let name = format!("seed-{seed}{}", suffix("-"));
            let seconds = children.seconds;
            let command = format!("cargo sim --seed {seed} --seconds {seconds}{}", suffix(" --bug "));
            let configuration = Configuration::draw(seed, Duration::from_secs(seconds));
            (Recording { bug, configuration }, name, command)
        }
        (None, None) => anyhow::bail!("say --seed N, --seeds A..B or --replay PATH; --help tells more"),
    };
    if arguments.shrink {
        let limits = Limits {
            runs: arguments.shrink_runs,
            wall: Duration::from_secs(60 * arguments.shrink_minutes),
        };
        let name = if name.starts_with("shrunk-") {
            name
        } else {
            format!("shrunk-{name}")
        };
        let folder = shrink::shrink(children, limits, recording, &name)?;
        println!("the smallest failure: cargo sim --replay {}", folder.display());
        return Ok(0);
    }
    let wishes = Wishes {
        command,
        trace: arguments.trace.clone(),
        timeline: arguments.timeline.clone(),
        evidence: (!arguments.no_evidence).then(|| arguments.failures.join(name)),
    };
    single::run(&recording, &wishes).map(Verdict::exit_code)
}
