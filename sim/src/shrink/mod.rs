//! A failing simulation made smaller: fewer faults, a shorter run, fewer workloads, clients and nodes, and the same failure.
//!
//! Whatever is left out changes what happens everywhere else, so an alternative that does not fail proves nothing. Each is
//! therefore given a second chance with another seed for everything that is not in its configuration.

mod ddmin;
mod simpler;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::configuration::Configuration;
use crate::many::{Children, Outcome, Task};
use crate::recording::Recording;
use crate::verdict::{Verdict, anomaly};

/// Seeds that an alternative is tried with.
const CHANCES: u64 = 2;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Simulations, at most.
    pub runs: usize,
    /// Real time, at most.
    pub wall: Duration,
}

/// What all the smaller failures must have in common with the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    verdict: Verdict,
    anomaly: String,
}

impl Failure {
    fn of(outcome: &Outcome) -> Option<Self> {
        (outcome.verdict != Verdict::Passed).then(|| Self {
            verdict: outcome.verdict,
            anomaly: anomaly(outcome.first_complaint()),
        })
    }
}

struct Shrinking<'a> {
    children: &'a Children,
    limits: Limits,
    started: Instant,
    runs: usize,
    failure: Failure,
    scratch: PathBuf,
    best: Recording,
}

/// Shrinks `recording`, and writes the evidence of the smallest failure to a folder in `failures` called `name`. Returns
/// that folder.
///
/// # Errors
/// It does not fail, or a simulation cannot be started.
pub fn shrink(
    children: &Children,
    limits: Limits,
    recording: Recording,
    name: &str,
) -> anyhow::Result<PathBuf> {
    let scratch = std::env::temp_dir().join(format!("neorunbase-shrink-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let result = shrink_in(children, limits, recording, name, &scratch);
    // Nothing depends on it being gone.
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

fn shrink_in(
    children: &Children,
    limits: Limits,
    recording: Recording,
    name: &str,
    scratch: &Path,
) -> anyhow::Result<PathBuf> {
    let started = Instant::now();
    let first = scratch.join("first.json");
    recording.write(&first)?;
    let outcome = children.run(Task::Quiet(&first), None)?;
    let failure = Failure::of(&outcome).context("there is nothing to shrink: the simulation passes")?;
    println!("the failure: {} ({})", failure.verdict.label(), failure.anomaly);
    println!("before:      {}", describe(&recording.configuration));
    let mut shrinking = Shrinking {
        children,
        limits,
        started,
        runs: 1,
        failure,
        scratch: scratch.to_owned(),
        best: recording,
    };
    shrinking.run()?;
    let Shrinking { best, runs, .. } = shrinking;
    println!(
        "after:       {} ({runs} runs, {:.0} s)",
        describe(&best.configuration),
        started.elapsed().as_secs_f64()
    );
    std::fs::create_dir_all(&children.failures)?;
    let folder = children.failures.join(name);
    std::fs::create_dir_all(&folder)?;
    best.write(&folder)?;
    let last = children.run(Task::Replay(&folder), None)?;
    print!("{}", last.output);
    anyhow::ensure!(
        last.verdict != Verdict::Passed,
        "the smallest failure does not fail again: runs of one configuration differ"
    );
    Ok(folder)
}

/// A configuration in one line.
fn describe(configuration: &Configuration) -> String {
    format!(
        "{} faults, {:.1} s, {} × {} clients, {} coordinators, {} data nodes, {} shards, {} replicas",
        configuration.plan.faults.len() + usize::from(configuration.plan.final_power_loss.is_some()),
        Duration::from_millis(configuration.length_ms).as_secs_f64(),
        configuration.workloads.join("+"),
        configuration.clients,
        configuration.coordinators,
        configuration.data_nodes,
        configuration.shards,
        configuration.replicas,
    )
}

impl Shrinking<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let before = self.best.configuration.clone();
            self.shorten()?;
            self.leave_workloads_out()?;
            self.leave_faults_out()?;
            self.make_smaller()?;
            if self.best.configuration == before || self.is_over() {
                return Ok(());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.runs >= self.limits.runs || self.started.elapsed() >= self.limits.wall
    }

    fn shorten(&mut self) -> anyhow::Result<()> {
        while self
            .first_failing("shorter", &simpler::shorter(&self.best.configuration))?
            .is_some()
        {}
        Ok(())
    }

    fn leave_faults_out(&mut self) -> anyhow::Result<()> {
        let base = self.best.configuration.clone();
        let faults = base.plan.faults.clone();
        self.minimize("fewer faults", &faults, |part| {
            Some(simpler::with_faults(&base, part))
        })
    }

    fn leave_workloads_out(&mut self) -> anyhow::Result<()> {
        let base = self.best.configuration.clone();
        let workloads = base.workloads.clone();
        // Without any, nothing can be found.
        self.minimize("fewer workloads", &workloads, |part| {
            (!part.is_empty()).then(|| simpler::with_workloads(&base, part))
        })
    }

    fn minimize<T: Clone>(
        &mut self,
        what: &str,
        items: &[T],
        build: impl Fn(Vec<T>) -> Option<Configuration>,
    ) -> anyhow::Result<()> {
        let mut problem = None;
        ddmin::ddmin(items, |alternatives| {
            let built: Option<Vec<_>> = alternatives.iter().map(|part| build(part.clone())).collect();
            self.first_failing(what, &built?).unwrap_or_else(|error| {
                problem = Some(error);
                None
            })
        });
        problem.map_or(Ok(()), Err)
    }

    fn make_smaller(&mut self) -> anyhow::Result<()> {
        // Each step is one from what the ones before have left.
        let names: Vec<_> = simpler::smaller(&self.best.configuration)
            .into_iter()
            .map(|(what, _)| what)
            .collect();
        for what in names {
            let alternatives = simpler::smaller(&self.best.configuration);
            if let Some((_, alternatives)) = alternatives.into_iter().find(|(name, _)| *name == what) {
                self.first_failing(what, &alternatives)?;
            }
        }
        Ok(())
    }

    /// Runs the alternatives, as many at a time as there are jobs, until one of them fails as the first run did: that is
    /// the best one then. `None`: none does, or the limits are reached.
    fn first_failing(&mut self, what: &str, alternatives: &[Configuration]) -> anyhow::Result<Option<usize>> {
        for chance in 0..CHANCES {
            let mut next = 0;
            while next < alternatives.len() {
                if self.is_over() {
                    return Ok(None);
                }
                let batch = &alternatives[next..alternatives.len().min(next + self.children.jobs.max(1))];
                if let Some((index, recording)) = self.run_batch(batch, chance)? {
                    self.best = recording;
                    println!(
                        "[{:>3} runs, {:>4.0} s] {what}: {}",
                        self.runs,
                        self.started.elapsed().as_secs_f64(),
                        describe(&self.best.configuration)
                    );
                    return Ok(Some(next + index));
                }
                next += batch.len();
            }
        }
        Ok(None)
    }

    fn run_batch(
        &mut self,
        batch: &[Configuration],
        chance: u64,
    ) -> anyhow::Result<Option<(usize, Recording)>> {
        let mut written = Vec::new();
        for (index, configuration) in batch.iter().enumerate() {
            let mut recording = Recording {
                bug: self.best.bug.clone(),
                configuration: configuration.clone(),
            };
            recording.configuration.seed = configuration.seed.wrapping_add(chance);
            let path = self.scratch.join(format!("{index}.json"));
            recording.write(&path)?;
            written.push((path, recording));
        }
        let children = self.children;
        let outcomes: Vec<anyhow::Result<Outcome>> = std::thread::scope(|scope| {
            let running: Vec<_> = written
                .iter()
                .map(|(path, _)| scope.spawn(move || children.run(Task::Quiet(path), None)))
                .collect();
            let join = |run: std::thread::ScopedJoinHandle<'_, _>| {
                run.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            };
            running.into_iter().map(join).collect()
        });
        self.runs += outcomes.len();
        for (index, (outcome, (_, recording))) in outcomes.into_iter().zip(written).enumerate() {
            if Failure::of(&outcome?).as_ref() == Some(&self.failure) {
                return Ok(Some((index, recording)));
            }
        }
        Ok(None)
    }
}
