//! One simulation from start to verdict: set up, break things, heal, expect progress, lose power, judge.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use madsim::rand::RngCore;
use neorunbase_fault_injection::{DiskCrash, Nemesis};
use neorunbase_workloads::bank::Bank;
use neorunbase_workloads::checker::history_reads::Expectations;
use neorunbase_workloads::counters::Counters;
use neorunbase_workloads::deadlocks::Deadlocks;
use neorunbase_workloads::definitions::Definitions;
use neorunbase_workloads::durability::Durability;
use neorunbase_workloads::guarded_budget::GuardedBudget;
use neorunbase_workloads::history_reads::HistoryReads;
use neorunbase_workloads::list_append::{Level, ListAppend};
use neorunbase_workloads::long_fork::LongFork;
use neorunbase_workloads::old_snapshots::OldSnapshots;
use neorunbase_workloads::predicate_skew::PredicateSkew;
use neorunbase_workloads::registers::Registers;
use neorunbase_workloads::ring::Ring;
use neorunbase_workloads::savepoint_locks::SavepointLocks;
use neorunbase_workloads::secondary_index::SecondaryIndex;
use neorunbase_workloads::unique_index::UniqueIndex;
use neorunbase_workloads::{ClientWorld, Driver, Target, Workload};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;
use crate::configuration::Configuration;
use crate::observation;
use crate::replicas::Differences;
use crate::roles::{PASSWORD, POSTGRESQL_PORT};
use crate::trace::{Trace, trace};
use crate::verdict::Verdict;
use crate::world::now_nanos;
use crate::writability::unwritable_tables;

/// A cluster that nothing breaks must accept its first tables within this.
const SETUP_LIMIT: Duration = Duration::from_secs(60);
/// How long one statement of it may take.
const SETUP_CALL_LIMIT: Duration = Duration::from_secs(20);
/// After everything healed each client must be served within this.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// After a power loss the last reading must succeed within this.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// After everything healed all shards must have all their copies again within this.
const REPAIR_LIMIT: Duration = Duration::from_secs(90);
/// Then they must be spread over zones and nodes within this.
const PLACEMENT_LIMIT: Duration = Duration::from_secs(180);
/// The last reading of a whole table may take so long.
const READING_LIMIT: Duration = Duration::from_secs(30);
/// Beyond the length of the run: something spins.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// What a simulation found.
pub struct Findings {
    /// How it ended.
    pub verdict: Verdict,
    /// What is wrong, if anything.
    pub complaints: Vec<String>,
    /// What happened, in a few lines.
    pub summary: Vec<String>,
    /// The next number of the seeded generator: differs if two runs ever drew differently.
    pub unseed: u64,
    /// Simulated time.
    pub simulated: Duration,
}

#[derive(Default)]
struct Notes {
    workloads: Vec<Arc<dyn Workload>>,
    summary: Vec<String>,
    simulated: Duration,
    unseed: u64,
}

/// Runs the simulation that `configuration` describes.
pub fn run(configuration: &Configuration, trace: &Trace) -> (Findings, Histories) {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let panics = catch_panic_messages();
    // DataFusion asks how much stack is left; the answer must be learned where threads' attributes can be read.
    let _ = stacker::remaining_stack();
    let mut runtime =
        madsim::runtime::Runtime::with_seed_and_config(configuration.seed, madsim::Config::default());
    runtime.set_time_limit(Duration::from_millis(configuration.length_ms) + TIME_LIMIT);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(simulate(configuration, trace, &notes))
    }));
    // The roles' tasks are dropped with the runtime, which is of no interest any more and may panic.
    std::mem::forget(runtime);
    let (verdict, complaints) = match result {
        Ok((verdict, complaints)) => (verdict, complaints),
        Err(_) => (Verdict::Crash, panics.lock().clone()),
    };
    let notes = std::mem::take(&mut *notes.lock());
    let findings = Findings {
        verdict,
        complaints,
        summary: notes.summary,
        unseed: notes.unseed,
        simulated: notes.simulated,
    };
    (findings, Histories(notes.workloads))
}

/// The workloads with what their clients saw.
pub struct Histories(Vec<Arc<dyn Workload>>);

impl Histories {
    /// A hash over all that clients saw.
    pub fn digest(&self) -> std::io::Result<String> {
        let mut hash = Sha256::new();
        for (name, lines) in self.to_json_lines()? {
            hash.update(name.as_bytes());
            hash.update(lines.as_bytes());
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The name of each workload with its history as JSON lines.
    pub fn to_json_lines(&self) -> std::io::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for workload in &self.0 {
            let mut output = Vec::new();
            workload.write_history(&mut output)?;
            let lines = String::from_utf8_lossy(&output).into_owned();
            all.push((workload.name().to_owned(), lines));
        }
        Ok(all)
    }
}

fn catch_panic_messages() -> Arc<Mutex<Vec<String>>> {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let caught = messages.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let time = now_nanos();
        let what = info.to_string().replace('\n', " ");
        caught.lock().push(format!("at {} ms: {what}", time / 1_000_000));
        before(info);
    }));
    messages
}

fn workloads(configuration: &Configuration) -> Vec<Arc<dyn Workload>> {
    let shards = Some(configuration.shards);
    let is_damage_expected = configuration.plan.damages_disks();
    let lists = |table, level| {
        Arc::new(ListAppend::new(
            table,
            level,
            configuration.lists,
            configuration.longest_list,
            shards,
        ))
    };
    vec![
        Arc::new(Bank::new("bank_accounts", configuration.accounts, 100, shards)),
        Arc::new(Durability::new("durable_rows", shards)),
        lists("lists_read_committed", Level::ReadCommitted),
        lists("lists_repeatable_read", Level::RepeatableRead),
        lists("lists_serializable", Level::Serializable),
        Arc::new(SavepointLocks::new("savepoint_rows", shards)),
        Arc::new(PredicateSkew::new("teams", shards)),
        Arc::new(Definitions::new("defined", shards)),
        Arc::new(Ring::new("ring_nodes", configuration.accounts, shards)),
        Arc::new(Registers::new("registers", shards)),
        Arc::new(LongFork::new("written_once", shards)),
        Arc::new(Counters::new("counters", shards)),
        Arc::new(SecondaryIndex::new("categorized", shards)),
        Arc::new(Deadlocks::new("crossed", shards).expecting_damage(is_damage_expected)),
        Arc::new(HistoryReads::new("remembered", shards).expecting(Expectations {
            is_damage_expected,
            clocks_apart_ms: configuration.clocks_apart_ms(),
        })),
        Arc::new(OldSnapshots::new("old_rows", shards)),
        Arc::new(GuardedBudget::new("budget", shards)),
        Arc::new(UniqueIndex::new("claims", shards)),
    ]
}

/// The names of all workloads that there are.
pub fn workload_names(configuration: &Configuration) -> Vec<String> {
    let all = workloads(configuration);
    all.iter().map(|workload| workload.name().to_owned()).collect()
}

async fn simulate(
    configuration: &Configuration,
    trace: &Trace,
    notes: &Mutex<Notes>,
) -> (Verdict, Vec<String>) {
    observation::begin(trace);
    let cluster = Cluster::start(configuration, trace);
    let mut workloads = workloads(configuration);
    workloads.retain(|workload| configuration.workloads.iter().any(|name| name == workload.name()));
    notes.lock().workloads.clone_from(&workloads);
    let outcome = drama(configuration, trace, &cluster, &workloads, notes).await;
    let mut notes = notes.lock();
    for workload in &workloads {
        let (done, failed, unknown) = workload.counts();
        let line = format!(
            "{}: {done} done, {failed} failed, {unknown} unknown",
            workload.name()
        );
        notes.summary.push(line);
    }
    if configuration.buggify {
        notes.summary.push(describe_buggify());
    }
    let (messages, bytes) = cluster.traffic();
    notes
        .summary
        .push(format!("network: {messages} messages, {bytes} bytes"));
    notes.simulated = Duration::from_nanos(now_nanos());
    notes.unseed = madsim::rand::thread_rng().next_u64();
    match outcome {
        Ok(()) => (Verdict::Passed, Vec::new()),
        // Who waits for ever may have been shown something impossible before, which says more.
        Err((Verdict::Liveness, complaints)) => match violations(&workloads) {
            violations if violations.is_empty() => (Verdict::Liveness, complaints),
            violations => (Verdict::Correctness, [violations, complaints].concat()),
        },
        Err(end) => end,
    }
}

fn violations(workloads: &[Arc<dyn Workload>]) -> Vec<String> {
    let mut violations = Vec::new();
    for workload in workloads {
        let found = workload.check().violations;
        violations.extend(found.iter().map(|what| format!("{}: {what}", workload.name())));
    }
    violations
}

fn stuck(what: String) -> (Verdict, Vec<String>) {
    (Verdict::Liveness, vec![what])
}

async fn drama(
    configuration: &Configuration,
    trace: &Trace,
    cluster: &Arc<Cluster>,
    workloads: &[Arc<dyn Workload>],
    notes: &Mutex<Notes>,
) -> Result<(), (Verdict, Vec<String>)> {
    let machines: Vec<ClientWorld> = configuration
        .client_names()
        .iter()
        .map(|name| cluster.client_world(name))
        .collect();
    let target = Target {
        addresses: configuration
            .coordinator_names()
            .iter()
            .map(|name| format!("{name}:{POSTGRESQL_PORT}"))
            .collect(),
        connections: Arc::default(),
        user: "admin".to_owned(),
        password: PASSWORD.to_owned(),
        database: "neorunbase".to_owned(),
        call_deadline: Duration::from_millis(configuration.call_deadline_ms),
    };
    // Not what the seed draws for the clients: definitions that take long for each call would begin from the start for ever.
    let patient = Target {
        call_deadline: SETUP_CALL_LIMIT,
        ..target.clone()
    };
    for workload in workloads {
        Driver::setup(&machines[0], &patient, &**workload, SETUP_LIMIT)
            .await
            .map_err(|error| stuck(format!("{} could not be set up: {error}", workload.name())))?;
        trace!(trace, "client {} is set up", workload.name());
    }

    let driver = Driver::default();
    let pause = Duration::from_millis(configuration.pause_ms);
    let mut number = 0;
    for workload in workloads {
        for index in 0..configuration.clients {
            let world = &machines[number % machines.len()];
            let seed = configuration
                .seed
                .wrapping_mul(0x9e37_79b9)
                .wrapping_add(number as u64);
            driver.start(world, target.clone(), workload.clone(), index, seed, pause);
            number += 1;
        }
    }
    let faults = Nemesis::new(&**cluster)
        .run(&configuration.plan, configuration.length_ms)
        .await;
    notes
        .lock()
        .summary
        .push(describe_faults(&faults, configuration.plan.final_power_loss));

    everybody_progresses(&driver).await.map_err(stuck)?;
    driver.stop();
    if !within(PROGRESS_LIMIT, async || driver.running() == 0).await {
        return Err(stuck(
            "clients do not end although their calls have deadlines".to_owned(),
        ));
    }
    everything_is_written(&machines[0], &target, trace).await?;
    copies_agree(cluster).await?;
    copies_are_well_placed(cluster).await?;
    if let Some(disk) = configuration.plan.final_power_loss {
        cluster.power_cycle(disk).await;
    }
    let mut complaints = Vec::new();
    let target = Target {
        call_deadline: READING_LIMIT,
        ..target
    };
    for workload in workloads {
        let read = Driver::finish(&machines[0], &target, &**workload, RECOVERY_LIMIT).await;
        if let Err(error) = read {
            complaints.push(format!(
                "{}: the final state cannot be read: {error}",
                workload.name()
            ));
            continue;
        }
        let report = workload.check();
        trace!(trace, "check {} {}", workload.name(), report.summary);
        notes
            .lock()
            .summary
            .push(format!("{}: {}", workload.name(), report.summary));
        if !report.is_complete {
            complaints.push(format!("{}: the final state was never read", workload.name()));
        }
        if !report.violations.is_empty() {
            return Err((Verdict::Correctness, violations(workloads)));
        }
    }
    if !complaints.is_empty() {
        return Err((Verdict::Liveness, complaints));
    }
    if configuration.plan.final_power_loss.is_some() {
        everything_is_written(&machines[0], &target, trace).await?;
        copies_agree(cluster).await?;
    }
    Ok(())
}

async fn everything_is_written(
    world: &ClientWorld,
    target: &Target,
    trace: &Trace,
) -> Result<(), (Verdict, Vec<String>)> {
    match unwritable_tables(world, target, trace).await {
        complaints if complaints.is_empty() => Ok(()),
        complaints => Err((Verdict::Liveness, complaints)),
    }
}

fn describe_faults(faults: &BTreeMap<&'static str, u32>, last: Option<DiskCrash>) -> String {
    let mut parts: Vec<String> = faults
        .iter()
        .map(|(kind, count)| format!("{count} × {kind}"))
        .collect();
    if let Some(disk) = last {
        parts.push(format!("power loss at the end ({disk:?})"));
    }
    if parts.is_empty() {
        return "faults: none".to_owned();
    }
    format!("faults: {}", parts.join(", "))
}

fn describe_buggify() -> String {
    let (active, passed) = neorunbase_world::fault::buggified();
    let counts: Vec<String> = active
        .iter()
        .map(|(name, fired)| format!("{fired} × {name}"))
        .collect();
    format!(
        "buggify: {} of {passed} sites: {}",
        active.len(),
        counts.join(", ")
    )
}

async fn within(limit: Duration, done: impl AsyncFn() -> bool) -> bool {
    let steps = limit.as_millis() / 50;
    for _ in 0..steps {
        if done().await {
            return true;
        }
        madsim::time::sleep(Duration::from_millis(50)).await;
    }
    done().await
}

/// Once clients are quiet every shard has all its copies again, and they are equal.
async fn copies_agree(cluster: &Cluster) -> Result<(), (Verdict, Vec<String>)> {
    let mut last = None;
    let deadline = now_nanos() + u64::try_from(REPAIR_LIMIT.as_nanos()).unwrap_or(u64::MAX);
    while now_nanos() < deadline {
        last = cluster.differences_of_copies().await;
        if last.as_ref().is_some_and(Differences::is_empty) {
            return Ok(());
        }
        madsim::time::sleep(Duration::from_millis(500)).await;
    }
    match last {
        Some(Differences { missing, unequal }) if missing.is_empty() => Err((Verdict::Correctness, unequal)),
        Some(Differences { missing, .. }) => Err((Verdict::Liveness, missing)),
        None => Err(stuck(
            "the coordination service cannot be asked who holds the shards".to_owned(),
        )),
    }
}

/// Copies move until they are spread as well as they can be, and no node holds much more than another. They are equal then,
/// too.
async fn copies_are_well_placed(cluster: &Cluster) -> Result<(), (Verdict, Vec<String>)> {
    let mut last = None;
    let deadline = now_nanos() + u64::try_from(PLACEMENT_LIMIT.as_nanos()).unwrap_or(u64::MAX);
    while now_nanos() < deadline {
        last = cluster.misplaced_copies().await;
        if last.as_ref().is_some_and(Vec::is_empty) {
            return copies_agree(cluster).await;
        }
        madsim::time::sleep(Duration::from_millis(500)).await;
    }
    Err((
        Verdict::Liveness,
        last.unwrap_or_else(|| vec!["the coordination service cannot be asked where copies are".to_owned()]),
    ))
}

async fn everybody_progresses(driver: &Driver) -> Result<(), String> {
    let healed = now_nanos();
    let waiting = || {
        let mut waiting = driver.progress();
        waiting.retain(|_, progress| progress.last_served_nanos.is_none_or(|at| at <= healed));
        waiting
    };
    if within(PROGRESS_LIMIT, async || waiting().is_empty()).await {
        return Ok(());
    }
    let waiting: Vec<String> = waiting()
        .into_iter()
        .map(|(client, progress)| {
            let error = progress.last_error.unwrap_or_else(|| "no error".to_owned());
            format!("{client} (served {} before; {error})", progress.served)
        })
        .collect();
    Err(format!(
        "not served within {} s after everything healed: {}",
        PROGRESS_LIMIT.as_secs(),
        waiting.join("; ")
    ))
}
