//! Runs the clients of workloads until told to stop, reconnecting as often as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{CallError, Client, ClientWorld, Target};
use crate::workload::{Step, Workload};

/// What a client experienced so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Operations that were served.
    pub served: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Connections that broke or could not be made.
    pub broken: u64,
    /// When the last operation was served, in nanoseconds of the client's clock.
    pub last_served_nanos: Option<u64>,
    /// The last error.
    pub last_error: Option<String>,
}

/// Starts clients and watches them.
#[derive(Clone, Default)]
pub struct Driver {
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<BTreeMap<String, Progress>>>,
    running: Arc<Mutex<usize>>,
}

impl Driver {
    /// Sets `workload` up, trying again until it works or `patience` has passed.
    ///
    /// # Errors
    /// The last error.
    pub async fn setup(
        world: &ClientWorld,
        target: &Target,
        workload: &dyn Workload,
        patience: Duration,
    ) -> Result<(), CallError> {
        retry(world, target, patience, async |client: &Client| {
            workload.setup(client).await
        })
        .await
    }

    /// Lets `workload` read its final state, trying again until it works or `patience` has passed.
    ///
    /// # Errors
    /// The last error.
    pub async fn finish(
        world: &ClientWorld,
        target: &Target,
        workload: &dyn Workload,
        patience: Duration,
    ) -> Result<(), CallError> {
        retry(world, target, patience, async |client: &Client| {
            workload.finish(client).await
        })
        .await
    }

    /// Starts client `index` of `workload`; `pause` is the longest time between two operations.
    pub fn start(
        &self,
        world: &ClientWorld,
        target: Target,
        workload: Arc<dyn Workload>,
        index: u32,
        seed: u64,
        pause: Duration,
    ) {
        let name = format!("{}/{index}", workload.name());
        self.progress.lock().insert(name.clone(), Progress::default());
        *self.running.lock() += 1;
        let driver = self.clone();
        let client_world = world.clone();
        world.spawner.spawn(
            "workload-client",
            Box::pin(async move {
                let mut random = SmallRng::seed_from_u64(seed);
                driver
                    .client(
                        &client_world,
                        &target,
                        &*workload,
                        index,
                        &name,
                        &mut random,
                        pause,
                    )
                    .await;
                *driver.running.lock() -= 1;
            }),
        );
    }

    async fn client(
        &self,
        world: &ClientWorld,
        target: &Target,
        workload: &dyn Workload,
        index: u32,
        name: &str,
        random: &mut SmallRng,
        pause: Duration,
    ) {
        let mut connection: Option<Client> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = &connection else {
                match Client::connect(world, target).await {
                    Ok(client) => connection = Some(client),
                    Err(error) => {
                        self.note(name, |progress| {
                            progress.broken += 1;
                            progress.last_error = Some(error.to_string());
                        });
                        world
                            .clock
                            .sleep(Duration::from_millis(random.random_range(50..500)))
                            .await;
                    }
                }
                continue;
            };
            match workload.step(client, index, random).await {
                Step::Served => {
                    let now = world.clock.monotonic().0;
                    self.note(name, |progress| {
                        progress.served += 1;
                        progress.last_served_nanos = Some(now);
                    });
                }
                Step::Refused(error) => self.note(name, |progress| {
                    progress.refused += 1;
                    progress.last_error = Some(error);
                }),
                Step::Broken(error) => {
                    connection = None;
                    self.note(name, |progress| {
                        progress.broken += 1;
                        progress.last_error = Some(error);
                    });
                }
            }
            let longest = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            if longest > 0 {
                world
                    .clock
                    .sleep(Duration::from_micros(random.random_range(0..=longest)))
                    .await;
            }
        }
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.progress.lock().get_mut(name) {
            change(progress);
        }
    }

    /// Tells all clients to stop after their current operation.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Clients that have not stopped yet.
    pub fn running(&self) -> usize {
        *self.running.lock()
    }

    /// What each client experienced, by `workload/index`.
    pub fn progress(&self) -> BTreeMap<String, Progress> {
        self.progress.lock().clone()
    }
}

async fn retry(
    world: &ClientWorld,
    target: &Target,
    patience: Duration,
    attempt: impl AsyncFn(&Client) -> Result<(), CallError>,
) -> Result<(), CallError> {
    let give_up = world.clock.monotonic().after(patience);
    loop {
        let result = match Client::connect(world, target).await {
            Ok(client) => attempt(&client).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if world.clock.monotonic() >= give_up => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "trying again");
                world.clock.sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
