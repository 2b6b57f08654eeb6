//! Runs a workload against a server from outside and judges what it was told.
#![cfg_attr(
    not(madsim),
    allow(
        clippy::disallowed_methods,
        reason = "a program outside the simulator, on the operating system itself"
    )
)]

#[cfg(madsim)]
fn main() {
    eprintln!("the simulator runs the workloads itself: cargo sim --seed 1");
    std::process::exit(2);
}

#[cfg(not(madsim))]
#[tokio::main]
async fn main() -> std::process::ExitCode {
    match outside::run().await {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("neorunbase-workload: {error:#}");
            std::process::ExitCode::from(2)
        }
    }
}

#[cfg(not(madsim))]
mod outside {
    use std::io::BufWriter;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::Context;
    use clap::Parser;
    use neorunbase_operating_system::{OsClock, TcpNetwork, TokioSpawner};
    use neorunbase_workloads::bank::Bank;
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

    /// Runs a workload against a PostgreSQL port and checks that the database kept its promises.
    #[derive(Parser)]
    struct Arguments {
        /// Where the servers listen, comma-separated: connections go to one after the other.
        #[arg(long, default_value = "127.0.0.1:5432")]
        address: String,
        #[arg(long, default_value = "admin")]
        user: String,
        #[arg(long, env = "NEORUNBASE_ADMIN_PASSWORD", default_value = "admin")]
        password: String,
        #[arg(long, default_value = "neorunbase")]
        database: String,
        /// bank, durability, list-append-read-committed, list-append-repeatable-read, list-append-serializable,
        /// savepoint-locks, predicate-skew, definitions, ring, registers, long-fork, counters, secondary-index,
        /// deadlocks, old-snapshots, guarded-budget, unique-index, history-reads, or all.
        #[arg(long, default_value = "all")]
        workload: String,
        /// How long clients run.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Clients of each workload.
        #[arg(long, default_value_t = 4)]
        clients: u32,
        /// Shards to ask for; 0 for a server that knows no SHARD KEY clause.
        #[arg(long, default_value_t = 8)]
        shards: u32,
        /// How long a call may take before its outcome counts as unknown.
        #[arg(long, default_value_t = 10)]
        call_seconds: u64,
        /// How long the last reading may be tried, while the server recovers.
        #[arg(long, default_value_t = 60)]
        recovery_seconds: u64,
        /// Seed of the clients' choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write the histories.
        #[arg(long)]
        history: Option<PathBuf>,
    }

    fn world() -> ClientWorld {
        ClientWorld {
            clock: Arc::new(OsClock::new()),
            spawner: Arc::new(TokioSpawner::current()),
            network: Arc::new(TcpNetwork),
        }
    }

    fn workloads(arguments: &Arguments) -> anyhow::Result<Vec<Arc<dyn Workload>>> {
        let shards = (arguments.shards > 0).then_some(arguments.shards);
        let mut all: Vec<Arc<dyn Workload>> = vec![
            Arc::new(Bank::new("bank_accounts", 20, 100, shards)),
            Arc::new(Durability::new("durable_rows", shards)),
            Arc::new(ListAppend::new(
                "lists_read_committed",
                Level::ReadCommitted,
                5,
                40,
                shards,
            )),
            Arc::new(ListAppend::new(
                "lists_repeatable_read",
                Level::RepeatableRead,
                5,
                40,
                shards,
            )),
            Arc::new(ListAppend::new(
                "lists_serializable",
                Level::Serializable,
                5,
                40,
                shards,
            )),
            Arc::new(SavepointLocks::new("savepoint_rows", shards)),
            Arc::new(PredicateSkew::new("teams", shards)),
            Arc::new(Definitions::new("defined", shards).after_earlier_runs()),
            Arc::new(Ring::new("ring_nodes", 8, shards)),
            Arc::new(Registers::new("registers", shards)),
            Arc::new(LongFork::new("written_once", shards)),
            Arc::new(Counters::new("counters", shards)),
            Arc::new(SecondaryIndex::new("categorized", shards)),
            Arc::new(Deadlocks::new("crossed", shards)),
            Arc::new(OldSnapshots::new("old_rows", shards)),
            Arc::new(GuardedBudget::new("budget", shards)),
            Arc::new(UniqueIndex::new("claims", shards)),
        ];
        // Only a server of ours knows AS OF SYSTEM TIME.
        if shards.is_some() {
            all.push(Arc::new(HistoryReads::new("remembered", shards)));
        }
        let chosen: Vec<_> = all
            .into_iter()
            .filter(|workload| arguments.workload == "all" || arguments.workload == workload.name())
            .collect();
        anyhow::ensure!(!chosen.is_empty(), "there is no workload {}", arguments.workload);
        Ok(chosen)
    }

    pub async fn run() -> anyhow::Result<bool> {
        let arguments = Arguments::parse();
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
        let world = world();
        let target = Target {
            addresses: arguments.address.split(',').map(str::to_owned).collect(),
            connections: Arc::default(),
            user: arguments.user.clone(),
            password: arguments.password.clone(),
            database: arguments.database.clone(),
            call_deadline: Duration::from_secs(arguments.call_seconds),
        };
        let patience = Duration::from_secs(arguments.recovery_seconds);
        let workloads = workloads(&arguments)?;
        let driver = Driver::default();
        for workload in &workloads {
            Driver::setup(&world, &target, &**workload, patience)
                .await
                .with_context(|| format!("cannot set up {}", workload.name()))?;
        }
        for (kind, workload) in workloads.iter().enumerate() {
            for index in 0..arguments.clients {
                let seed = arguments.seed.wrapping_mul(1_000_003) + kind as u64 * 1009 + u64::from(index);
                driver.start(
                    &world,
                    target.clone(),
                    workload.clone(),
                    index,
                    seed,
                    Duration::ZERO,
                );
            }
        }
        world.clock.sleep(Duration::from_secs(arguments.seconds)).await;
        driver.stop();
        let limit = world.clock.monotonic().after(patience);
        while driver.running() > 0 && world.clock.monotonic() < limit {
            world.clock.sleep(Duration::from_millis(10)).await;
        }
        let mut passed = true;
        for workload in &workloads {
            Driver::finish(&world, &target, &**workload, patience)
                .await
                .with_context(|| format!("cannot read the final state of {}", workload.name()))?;
            let report = workload.check();
            let (done, failed, unknown) = workload.counts();
            println!(
                "{}: {} ({done} done, {failed} failed, {unknown} unknown; {})",
                report.workload,
                if report.is_acquittal() { "passed" } else { "FAILED" },
                report.summary
            );
            for violation in &report.violations {
                println!("  {violation}");
            }
            passed &= report.is_acquittal();
            if let Some(folder) = &arguments.history {
                std::fs::create_dir_all(folder)?;
                let file = std::fs::File::create(folder.join(format!("{}.jsonl", workload.name())))?;
                workload.write_history(&mut BufWriter::new(file))?;
            }
        }
        for (client, progress) in driver.progress() {
            tracing::info!(client, ?progress, "client");
        }
        Ok(passed)
    }
}
