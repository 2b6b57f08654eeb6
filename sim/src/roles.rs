//! What runs on the simulated servers. Each function starts a role and returns what keeps it running.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use neorunbase_coordination::{EmbeddedService, JournalLocation, JournalSealer, RemoteServer};
use neorunbase_kms::MasterKey;
use neorunbase_replication::Timing;
use neorunbase_server::daemon::{
    CoordinatorHandle, CoordinatorSettings, DataNodeHandle, DataNodeSettings, start_coordinator,
    start_data_node,
};
use neorunbase_server::datanode::DataNodeConfig;
use neorunbase_server::datanode::config::ReplicationConfig;
use neorunbase_world::World;

use crate::configuration::{COORDINATION, Configuration, Knobs};

/// Where the coordination service listens.
pub const COORDINATION_PORT: u16 = 2181;
/// Where the Coordinator speaks PostgreSQL.
pub const POSTGRESQL_PORT: u16 = 5432;
const INTERNAL_PORT: u16 = 7000;
const MASTER_KEY: &str = "a master key for simulated disks, forty characters";
/// The first user's password.
pub const PASSWORD: &str = "simulated";

/// A running role; it stops when this is dropped, as if its process was killed.
#[async_trait]
pub trait Role: Send + Sync {
    /// What the process does when it is asked to end.
    async fn shut_down(&self);

    /// Returns when the process ends by itself, with the reason.
    async fn failed(&self) -> String {
        std::future::pending().await
    }
}

/// Keeps a role running.
pub type Running = Box<dyn Role>;

struct CoordinationRole {
    service: Arc<EmbeddedService>,
    _server: RemoteServer,
}

#[async_trait]
impl Role for CoordinationRole {
    async fn shut_down(&self) {
        self.service.stop().await;
    }
}

struct CoordinatorRole(Arc<CoordinatorHandle>);

#[async_trait]
impl Role for CoordinatorRole {
    async fn shut_down(&self) {
        self.0.shutdown().await;
    }
}

struct DataNodeRole(Arc<DataNodeHandle>);

#[async_trait]
impl Role for DataNodeRole {
    async fn shut_down(&self) {
        self.0.shutdown().await;
    }

    async fn failed(&self) -> String {
        self.0.failed().await
    }
}

fn master_key() -> anyhow::Result<MasterKey> {
    MasterKey::from_text(MASTER_KEY).context("master key")
}

/// Seals the journal of the coordination service, which stands in for ZooKeeper here: real ones do not have it.
struct Sealer([u8; 32]);

impl Sealer {
    fn nonce(sequence: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&sequence.to_le_bytes());
        nonce
    }
}

impl JournalSealer for Sealer {
    fn seal(&self, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        neorunbase_kms::seal(&self.0, Self::nonce(sequence), &[], plaintext)
    }

    fn open(&self, sequence: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        neorunbase_kms::open(&self.0, Self::nonce(sequence), &[], sealed)
    }
}

/// The coordination service with its journal. The service is returned too, for faults.
pub async fn coordination(world: &World) -> anyhow::Result<(Arc<EmbeddedService>, Running)> {
    let journal = JournalLocation {
        disk: world.disk.clone(),
        path: "coordination.journal".to_owned(),
        sealer: Arc::new(Sealer(master_key()?.derive("coordination journal"))),
    };
    let service = EmbeddedService::start(
        world.clock.clone(),
        world.entropy.clone(),
        world.spawner.clone(),
        Some(journal),
    )
    .await
    .context("coordination service")?;
    let server = RemoteServer::start(
        &service,
        &*world.network,
        world.clock.clone(),
        world.spawner.clone(),
        &format!("{COORDINATION}:{COORDINATION_PORT}"),
    )
    .await
    .context("coordination server")?;
    let service = Arc::new(service);
    let running = CoordinationRole {
        service: service.clone(),
        _server: server,
    };
    Ok((service, Box::new(running)))
}

/// A Coordinator.
pub async fn coordinator(world: World, name: &str, configuration: &Configuration) -> anyhow::Result<Running> {
    let settings = CoordinatorSettings {
        name: name.to_owned(),
        pg_address: format!("{name}:{POSTGRESQL_PORT}"),
        internal_address: format!("{name}:{INTERNAL_PORT}"),
        session_timeout: Duration::from_millis(configuration.session_timeout_ms),
        shards_default: configuration.shards,
        replicas_default: configuration.replicas,
        admin_password: Some(PASSWORD.to_owned()),
        max_connections: 200,
        // Guessing passwords is no fault of the plan's, and every connection would pay for it.
        scram_iterations: 1,
        grace_period: Duration::from_millis(configuration.knobs.grace_ms),
    };
    let handle = start_coordinator(world, settings, &master_key()?).await?;
    Ok(Box::new(CoordinatorRole(handle)))
}

/// A Data Node.
pub async fn data_node(world: World, name: &str, configuration: &Configuration) -> anyhow::Result<Running> {
    let knobs = &configuration.knobs;
    let settings = DataNodeSettings {
        internal_address: format!("{name}:{INTERNAL_PORT}"),
        session_timeout: Duration::from_millis(configuration.session_timeout_ms),
        labels: configuration.labels_of(name),
        node: DataNodeConfig {
            deadlock_timeout: Duration::from_millis(knobs.deadlock_timeout_ms),
            abandon_after: Duration::from_millis(knobs.abandon_after_ms),
            in_doubt_patience: Duration::from_millis(knobs.in_doubt_patience_ms),
            history_retention: Duration::from_millis(knobs.history_retention_ms),
            garbage_interval: Duration::from_millis(knobs.garbage_interval_ms),
            checkpoint_poll: Duration::from_millis(500),
            checkpoint_wal_bytes: knobs.checkpoint_wal_bytes,
            checkpoint_interval: Duration::from_millis(knobs.checkpoint_interval_ms),
            // Slow disks take up to 300 ms for a sync, those that hang 5 s.
            disk_patience: Duration::from_secs(3),
            wal_segment_bytes: knobs.wal_segment_bytes,
            wal_max_frame_bytes: 8 << 20,
            scan_batch_visits: knobs.scan_batch_visits,
            replication: replication(knobs),
            ..DataNodeConfig::new(name)
        },
    };
    let handle = start_data_node(world, settings, &master_key()?, None).await?;
    Ok(Box::new(DataNodeRole(handle)))
}

fn replication(knobs: &Knobs) -> ReplicationConfig {
    let lease = Duration::from_millis(knobs.lease_ms);
    ReplicationConfig {
        timing: Timing {
            lease,
            silence: Duration::from_millis(knobs.silence_ms),
            ..ReplicationConfig::default().timing
        },
        heartbeat: lease / 5,
        kept_log_bytes: knobs.kept_log_bytes,
        copy_bytes_per_second: knobs.copy_bytes_per_second,
        copy_piece_bytes: knobs.copy_piece_bytes,
        copy_kept_for: Duration::from_millis(knobs.copy_kept_ms),
        ..ReplicationConfig::default()
    }
}
