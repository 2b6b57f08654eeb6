//! Many simulations, each in a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::verdict::Verdict;

/// Bugs that roles can be told to have, and the checkers must find.
const BUGS: [(&str, &str); 35] = [
    ("ack-before-fsync", "the log acknowledges before its sync"),
    (
        "torn-tail-accepted",
        "recovery takes a torn log record for a good one",
    ),
    (
        "commit-one-shard",
        "a commit is applied on one of its shards only",
    ),
    ("read-uncommitted", "reads see writes that were not committed"),
    ("lock-early-release", "row locks are let go before the commit"),
    ("lost-prepared", "recovery forgets prepared transactions"),
    (
        "full-disk-keeps-tail",
        "a commit that was refused on a full disk stays in the log",
    ),
    (
        "savepoint-keeps-writes",
        "ROLLBACK TO SAVEPOINT takes no writes back",
    ),
    (
        "savepoint-keeps-locks",
        "ROLLBACK TO SAVEPOINT lets go of no lock",
    ),
    (
        "savepoint-frees-all-locks",
        "ROLLBACK TO SAVEPOINT lets go of locks from before the savepoint, too",
    ),
    (
        "ack-without-followers",
        "a primary acknowledges what is durable on itself only",
    ),
    (
        "shrink-after-ack",
        "a silent follower does not count any more before it has left the in-sync set",
    ),
    (
        "follower-acks-before-fsync",
        "a follower acknowledges entries before they are durable",
    ),
    (
        "follower-applies-uncommitted",
        "a follower applies entries that may still be overwritten",
    ),
    (
        "transactions-outlive-terms",
        "a transaction goes on in the next term without what it wrote in the one before",
    ),
    (
        "deposed-primary-acks",
        "a deposed primary acknowledges commits that the next one may not have",
    ),
    (
        "term-begun-twice",
        "a primary goes on in its old term after a restart",
    ),
    (
        "log-cut-too-early",
        "a checkpoint cuts the log below entries that are neither applied nor decided",
    ),
    (
        "revived-without-locks",
        "a new primary finds prepared transactions, but does not lock what they wrote",
    ),
    (
        "outcome-not-replayed",
        "followers forget the writes of prepared transactions that commit",
    ),
    (
        "copy-without-prepared",
        "the copy of a shard leaves out what is prepared",
    ),
    (
        "copy-misses-tail",
        "a copy of a shard is said to hold entries of the log that were not applied when it began",
    ),
    (
        "copy-resumes-at-wrong-piece",
        "a copy that was interrupted goes on behind the piece that did not arrive",
    ),
    (
        "drain-drops-before-copied",
        "a node that is drained hands its shards over to copies that are not in sync yet",
    ),
    (
        "promotion-outside-set",
        "the Controller promotes a copy that is not in the in-sync set",
    ),
    (
        "read-set-ignores-ranges",
        "SERIALIZABLE remembers the keys that were read, but no ranges",
    ),
    (
        "read-set-not-validated",
        "SERIALIZABLE commits whatever became of what was read",
    ),
    (
        "read-set-released-before-decision",
        "SERIALIZABLE validates before the commit timestamp is drawn, and nothing holds the reads after",
    ),
    (
        "read-set-ignores-marks",
        "SERIALIZABLE validates against committed versions, not against writes that are being committed",
    ),
    (
        "savepoint-forgets-reads",
        "ROLLBACK TO SAVEPOINT forgets what SERIALIZABLE has to validate",
    ),
    (
        "oracle-ignores-lease",
        "a new leader hands out timestamps while the old one may still do so",
    ),
    (
        "oracle-ignores-successor",
        "a leader raises the limit of timestamps that its successor has written",
    ),
    (
        "catalog-led-from-outside",
        "a coordinator leads the catalog though it lacks acknowledged definitions",
    ),
    (
        "catalog-acknowledged-alone",
        "a definition is acknowledged before the other coordinators have it",
    ),
    (
        "fence-ignored-by-readers",
        "rows of a truncated table are read by a coordinator that has not heard of it",
    ),
];

/// All planted bugs that have a name.
pub fn all_bugs() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUGS.into_iter().chain(ELUSIVE_BUGS)
}

/// Planted bugs that the simulator has not found in 30 seeds: what it cannot see yet. They can be named, and are not part of
/// the suite.
const ELUSIVE_BUGS: [(&str, &str); 10] = [
    (
        "oracle-outlives-lease",
        "a leader hands out timestamps though a successor may do so already",
    ),
    (
        "old-catalog-accepted",
        "a coordinator accepts the catalog of a deposed leader",
    ),
    (
        "catalog-outlives-lease",
        "a coordinator shows a catalog that may be old",
    ),
    (
        "catalog-lease-not-awaited",
        "a definition is acknowledged while a coordinator still shows the catalog before",
    ),
    (
        "fence-ignored-by-commits",
        "a transaction commits what it wrote under an old definition of a table",
    ),
    (
        "fence-does-not-wait",
        "an index is built while transactions without it are being committed",
    ),
    (
        "index-without-fence",
        "an index is built while coordinators that do not know it may write",
    ),
    (
        "stale-primary-read",
        "a primary serves reads after its leases have ended",
    ),
    (
        "term-begins-under-lease",
        "a term begins while the primary before still has a lease",
    ),
    (
        "old-term-accepted",
        "a follower takes entries of a deposed primary",
    ),
];

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
    /// Its seed.
    pub seed: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// All it printed.
    pub output: String,
    /// Its trace hash.
    pub hash: Option<String>,
    /// Real time.
    pub took: Duration,
}

impl Children {
    fn command(&self, seed: u64, bug: Option<&str>, trace: Option<&Path>) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("own executable")?);
        command.args(["--seed", &seed.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.arg("--failures").arg(&self.failures);
        if let Some(bug) = bug {
            command.args(["--bug", bug]);
        }
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        Ok(command)
    }

    /// Runs one seed in a child.
    pub fn run(&self, seed: u64, bug: Option<&str>, trace: Option<&Path>) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let output_path = std::env::temp_dir().join(format!(
            "neorunbase-sim-{}-{}.out",
            std::process::id(),
            NEXT_OUTPUT.fetch_add(1, Ordering::Relaxed)
        ));
        let output_file = std::fs::File::create(&output_path).context("file for output")?;
        let mut child = self
            .command(seed, bug, trace)?
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
            output.push_str(&format!(
                "seed {seed}: ended after {:?} of real time\n",
                self.wall_limit
            ));
        }
        let hash = output
            .lines()
            .find_map(|line| line.strip_prefix("trace hash: "))
            .map(str::to_owned);
        Ok(Outcome {
            seed,
            verdict,
            output,
            hash,
            took: started.elapsed(),
        })
    }

    /// Runs all seeds, `jobs` at a time; `each` is told of every end and says whether to go on.
    pub fn run_all(
        &self,
        seeds: Range<u64>,
        bug: Option<&str>,
        each: impl Fn(&Outcome) -> bool + Sync,
    ) -> anyhow::Result<Vec<Outcome>> {
        let next = AtomicU64::new(seeds.start);
        let outcomes = Mutex::new(Vec::new());
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return;
                        }
                        match self.run(seed, bug, None) {
                            Ok(outcome) => {
                                let go_on = each(&outcome);
                                lock(&outcomes).push(outcome);
                                if !go_on {
                                    next.store(seeds.end, Ordering::Relaxed);
                                }
                            }
                            Err(error) => {
                                *lock(&failure) = Some(error);
                                next.store(seeds.end, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        let mut outcomes = std::mem::take(&mut *lock(&outcomes));
        outcomes.sort_by_key(|outcome| outcome.seed);
        Ok(outcomes)
    }
}

static NEXT_OUTPUT: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs a range of seeds and reports, failures first.
pub fn seeds(children: &Children, range: Range<u64>, bug: Option<&str>) -> anyhow::Result<bool> {
    let total = range.end.saturating_sub(range.start);
    let started = Instant::now();
    let finished = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let outcomes = children.run_all(range, bug, |outcome| {
        let finished = finished.fetch_add(1, Ordering::Relaxed) + 1;
        if outcome.verdict != Verdict::Passed {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        eprintln!(
            "[{finished}/{total}, {} failed] seed {}: {} in {:.1} s",
            failed.load(Ordering::Relaxed),
            outcome.seed,
            outcome.verdict.label(),
            outcome.took.as_secs_f64()
        );
        true
    })?;
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for outcome in &outcomes {
        *counts.entry(outcome.verdict).or_default() += 1;
        if outcome.verdict != Verdict::Passed {
            println!("{}", outcome.output.trim_end());
            println!();
        }
    }
    let failures: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.verdict != Verdict::Passed)
        .map(|outcome| format!("{} {}", outcome.seed, outcome.verdict.label()))
        .collect();
    for (verdict, count) in &counts {
        println!("{count} of {} seeds: {}", outcomes.len(), verdict.label());
    }
    if !failures.is_empty() {
        println!("failing seeds: {}", failures.join(", "));
    }
    println!("real time: {:.0} s", started.elapsed().as_secs_f64());
    Ok(failures.is_empty())
}

/// Runs each seed in two processes and compares what happened, event by event.
pub fn check_determinism(children: &Children, range: Range<u64>, bug: Option<&str>) -> anyhow::Result<bool> {
    let mut equal = true;
    for seed in range {
        let trace_path = |run: u32| {
            let name = format!("neorunbase-sim-{}-{seed}-{run}.trace", std::process::id());
            std::env::temp_dir().join(name)
        };
        let paths = [trace_path(1), trace_path(2)];
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| children.run(seed, bug, Some(&paths[1])));
            let first = children.run(seed, bug, Some(&paths[0]));
            let second = second
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")));
            (first, second)
        });
        let (first, second) = (first?, second?);
        match (&first.hash, &second.hash) {
            (Some(one), Some(other)) if one == other && first.verdict == second.verdict => {
                println!("seed {seed}: {one} twice ({})", first.verdict.label());
            }
            _ => {
                equal = false;
                println!(
                    "seed {seed}: two runs differ: {:?} and {:?}",
                    first.hash, second.hash
                );
                print_first_difference(&paths)?;
                if first.hash.is_none() {
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

/// Finds, for each planted bug, the first seed that detects it. All must be found.
pub fn bugs(children: &Children, range: Range<u64>, only: Option<&str>) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    let mut all_found = true;
    let wanted: Vec<&str> = match only {
        Some(bug) => vec![bug],
        None => BUGS.map(|(bug, _)| bug).to_vec(),
    };
    for bug in wanted {
        let started = Instant::now();
        // A seed that fails without the bug as well has not found it.
        let found_by = |outcome: &Outcome| {
            outcome.verdict != Verdict::Passed
                && children
                    .run(outcome.seed, None, None)
                    .is_ok_and(|without| without.verdict == Verdict::Passed)
        };
        let finder = Mutex::new(BTreeSet::new());
        let outcomes = children.run_all(range.clone(), Some(bug), |outcome| {
            let found = found_by(outcome);
            if found {
                lock(&finder).insert(outcome.seed);
            }
            !found
        })?;
        let first = lock(&finder).first().copied();
        let found = outcomes.iter().find(|outcome| Some(outcome.seed) == first);
        let row = match found {
            Some(outcome) => {
                let complaint = outcome
                    .output
                    .lines()
                    .find_map(|line| line.strip_prefix("  ! "))
                    .unwrap_or("");
                let short: String = complaint.chars().take(90).collect();
                format!(
                    "{bug:<20} found by seed {:<5} {:<22} {short}",
                    outcome.seed,
                    outcome.verdict.label()
                )
            }
            None => {
                all_found = false;
                format!("{bug:<20} SURVIVED seeds {}..{}", range.start, range.end)
            }
        };
        eprintln!("{row} ({:.0} s)", started.elapsed().as_secs_f64());
        rows.push(row);
    }
    println!("planted bugs:");
    for row in rows {
        println!("  {row}");
    }
    Ok(all_found)
}
