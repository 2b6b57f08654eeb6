//! Many simulations, each in a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use neorunbase_world::fault;

use crate::coverage::Coverage;
use crate::verdict::Verdict;

/// What all children are told.
#[derive(Clone, Debug)]
pub struct Children {
    /// Simulated seconds of each.
    pub seconds: u64,
    /// At a time.
    pub jobs: usize,
    /// After so much real time a child is stuck.
    pub wall_limit: Duration,
    /// Where failures are written.
    pub failures: PathBuf,
}

/// What a child said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// All it printed.
    pub output: String,
    /// What two runs of it must agree in.
    pub fingerprint: Option<Fingerprint>,
    /// Real time.
    pub took: Duration,
}

/// What two runs must agree in, beside their verdict. Everything that is not in the trace shows in the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// A hash over the events.
    pub trace: String,
    /// The next number of the random generator.
    pub unseed: String,
    /// A hash over what clients saw.
    pub histories: String,
}

impl Fingerprint {
    /// From what a simulation has printed; `None`: it did not come to its end.
    fn find(output: &str) -> Option<Self> {
        let after = |label: &str| {
            let found = output.lines().find_map(|line| line.strip_prefix(label));
            found.map(str::to_owned)
        };
        Some(Self {
            trace: after("trace hash: ")?,
            unseed: after("unseed: ")?,
            histories: after("histories hash: ")?,
        })
    }
}

impl Outcome {
    /// What it complained of first.
    pub fn first_complaint(&self) -> &str {
        let complaint = self.output.lines().find_map(|line| line.strip_prefix("  ! "));
        complaint.unwrap_or_default()
    }
}

/// What a child is to do.
#[derive(Clone, Copy, Debug)]
pub enum Task<'a> {
    /// Draw everything from a seed, and plant a bug.
    Seed(u64, Option<&'a str>),
    /// Run what is recorded there.
    Replay(&'a Path),
    /// The same, without writing anything.
    Quiet(&'a Path),
}

impl Task<'_> {
    /// As printed.
    pub fn label(&self) -> String {
        match self {
            Self::Seed(seed, _) => format!("seed {seed}"),
            Self::Replay(path) | Self::Quiet(path) => path.display().to_string(),
        }
    }
}

impl Children {
    fn command(&self, task: Task<'_>, trace: Option<&Path>) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("own executable")?);
        command.arg("--failures").arg(&self.failures);
        match task {
            Task::Seed(seed, bug) => {
                command.args(["--seed", &seed.to_string()]);
                command.args(["--seconds", &self.seconds.to_string()]);
                if let Some(bug) = bug {
                    command.args(["--bug", bug]);
                }
            }
            Task::Replay(path) => drop(command.arg("--replay").arg(path)),
            Task::Quiet(path) => drop(command.arg("--no-evidence").arg("--replay").arg(path)),
        }
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        Ok(command)
    }

    /// Runs one simulation in a child.
    pub fn run(&self, task: Task<'_>, trace: Option<&Path>) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let output_path = std::env::temp_dir().join(format!(
            "neorunbase-sim-{}-{}.out",
            std::process::id(),
            NEXT_OUTPUT.fetch_add(1, Ordering::Relaxed)
        ));
        let output_file = std::fs::File::create(&output_path).context("file for output")?;
        let mut child = self
            .command(task, trace)?
            .stdin(Stdio::null())
            .stdout(output_file.try_clone()?)
            .stderr(output_file)
            .spawn()
            .context("cannot start a simulation")?;
        let mut stuck = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > self.wall_limit {
                stuck = true;
                child.kill()?;
                break child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut output = String::from_utf8_lossy(&std::fs::read(&output_path)?).into_owned();
        // Nothing depends on it being gone.
        let _ = std::fs::remove_file(&output_path);
        let mut verdict = Verdict::from_exit_code(status.code());
        if stuck {
            verdict = Verdict::Liveness;
            output.push_str(&format!("  ! ended after {:?} of real time\n", self.wall_limit));
        }
        let fingerprint = Fingerprint::find(&output);
        Ok(Outcome {
            verdict,
            output,
            fingerprint,
            took: started.elapsed(),
        })
    }

    /// Runs all of `seeds` in their order, `jobs` at a time; `each` is told of every end and says whether to go on.
    pub fn run_all(
        &self,
        seeds: &[u64],
        bug: Option<&str>,
        each: impl Fn(u64, &Outcome) -> bool + Sync,
    ) -> anyhow::Result<BTreeMap<u64, Outcome>> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(BTreeMap::new());
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied() else {
                            return;
                        };
                        match self.run(Task::Seed(seed, bug), None) {
                            Ok(outcome) => {
                                let go_on = each(seed, &outcome);
                                lock(&outcomes).insert(seed, outcome);
                                if !go_on {
                                    next.store(seeds.len(), Ordering::Relaxed);
                                }
                            }
                            Err(error) => {
                                *lock(&failure) = Some(error);
                                next.store(seeds.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        let outcomes = std::mem::take(&mut *lock(&outcomes));
        Ok(outcomes)
    }
}

static NEXT_OUTPUT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a suite of seeds has come to.
pub struct Suite {
    /// Whether all passed.
    pub has_passed: bool,
    /// Points that none of them has reached.
    pub never_reached: Vec<String>,
}

/// Runs seeds and reports, failures first.
pub fn seeds(children: &Children, seeds: &[u64], bug: Option<&str>) -> anyhow::Result<Suite> {
    let total = seeds.len();
    let started = Instant::now();
    let finished = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let outcomes = children.run_all(seeds, bug, |seed, outcome| {
        let finished = finished.fetch_add(1, Ordering::Relaxed) + 1;
        if outcome.verdict != Verdict::Passed {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        eprintln!(
            "[{finished}/{total}, {} failed] seed {seed}: {} in {:.1} s",
            failed.load(Ordering::Relaxed),
            outcome.verdict.label(),
            outcome.took.as_secs_f64()
        );
        true
    })?;
    let points = fault::points();
    let mut coverage = Coverage::of(points.keys().copied());
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for (seed, outcome) in &outcomes {
        coverage.add(&outcome.output);
        *counts.entry(outcome.verdict).or_default() += 1;
        if outcome.verdict != Verdict::Passed {
            println!("{}", outcome.output.trim_end());
            println!();
            failures.push(format!("{seed} {}", outcome.verdict.label()));
        }
    }
    print!("{}", coverage.table());
    for (verdict, count) in &counts {
        println!("{count} of {} seeds: {}", outcomes.len(), verdict.label());
    }
    if !failures.is_empty() {
        println!("failing seeds: {}", failures.join(", "));
    }
    println!("real time: {:.0} s", started.elapsed().as_secs_f64());
    let never_reached = coverage.never_reached().into_iter().map(str::to_owned);
    Ok(Suite {
        has_passed: failures.is_empty(),
        never_reached: never_reached.collect(),
    })
}

/// Runs each task in two processes and compares what happened, event by event.
pub fn check_determinism(children: &Children, tasks: &[Task<'_>]) -> anyhow::Result<bool> {
    let mut equal = true;
    for (number, task) in tasks.iter().enumerate() {
        let trace_path = |run: u32| {
            let name = format!("neorunbase-sim-{}-{number}-{run}.trace", std::process::id());
            std::env::temp_dir().join(name)
        };
        let paths = [trace_path(1), trace_path(2)];
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| children.run(*task, Some(&paths[1])));
            let first = children.run(*task, Some(&paths[0]));
            let second = second
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")));
            (first, second)
        });
        let (first, second) = (first?, second?);
        match (&first.fingerprint, &second.fingerprint) {
            (Some(one), Some(other)) if one == other && first.verdict == second.verdict => {
                println!(
                    "{}: {} twice ({})",
                    task.label(),
                    one.trace,
                    first.verdict.label()
                );
            }
            _ => {
                equal = false;
                println!(
                    "{}: two runs differ: {:?} and {:?}",
                    task.label(),
                    first.fingerprint,
                    second.fingerprint
                );
                print_first_difference(&paths)?;
                if first.fingerprint.is_none() {
                    println!("{}", first.output);
                }
            }
        }
        for path in &paths {
            // Nothing depends on it being gone.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(equal)
}

fn print_first_difference(paths: &[PathBuf; 2]) -> anyhow::Result<()> {
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("trace {}", path.display()));
    let (one, other) = (read(&paths[0])?, read(&paths[1])?);
    let (mut lines, mut others) = (one.lines(), other.lines());
    let mut number = 0;
    let mut before = "";
    loop {
        number += 1;
        match (lines.next(), others.next()) {
            (None, None) => {
                println!("  the traces are equal; the difference is in what they do not show");
                return Ok(());
            }
            (line, other) if line == other => before = line.unwrap_or(""),
            (line, other) => {
                println!("  line {number}, after {before}");
                println!("  - {}", line.unwrap_or("(the trace ends)"));
                println!("  + {}", other.unwrap_or("(the trace ends)"));
                return Ok(());
            }
        }
    }
}
