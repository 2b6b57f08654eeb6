//! The Coordinator: where clients connect. It analyses statements, routes them to shards, drives transactions
//! and, while it leads, owns the catalog and the timestamp oracle.

mod as_of;
mod dropped_storages;
mod execute;
mod gateway;
mod heartbeat;
mod internal;
pub mod leadership;
mod live_definitions;
mod location;
mod metadata;
pub mod oracle;
mod router;
mod session;
mod session_core;
mod settings;
mod table_holds;
mod table_locks;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::Arc;

use neorunbase_catalog::CatalogSnapshot;
use neorunbase_catalog::schema::User;
use neorunbase_frontend::scram::ScramVerifier;
use neorunbase_protocol::message::{CollectGarbage, RequestBody, ShardId, StaleTableReply, shard_id};
use neorunbase_txn::timestamp::{TimestampSource, first_of_millisecond, milliseconds_of};
use neorunbase_types::{Result, SqlError};
use neorunbase_world::World;
use tokio::sync::mpsc;

pub use gateway::CoordinatorGateway;
pub use internal::InternalService;
pub use metadata::MetadataStore;
pub use router::Router;

use crate::cluster::{CoordinatorDirectory, NodeDirectory};
use heartbeat::Heartbeats;
use live_definitions::LiveDefinitions;
use table_holds::TableHolds;
use table_locks::TableLocks;
use transaction::{TransactionServices, timestamp_error};

/// The first user of a new cluster.
pub const FIRST_USER: &str = "admin";
/// The database's name.
pub const DATABASE: &str = "neorunbase";
/// VACUUM keeps what snapshots of the last seconds may still need.
const VACUUM_KEEPS_MS: u64 = 60_000;

/// What SQL can leave open.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorDefaults {
    /// SHARDS of tables that do not say.
    pub shards_default: u32,
    /// REPLICAS of tables that do not say.
    pub replicas_default: u32,
    /// PBKDF2 rounds of new passwords, as PostgreSQL 16's setting of this name.
    pub scram_iterations: u32,
}

/// What all sessions of a Coordinator share.
pub struct Coordinator {
    /// Everything outside.
    pub world: World,
    /// The catalog.
    pub metadata: Arc<MetadataStore>,
    /// Its name in the cluster.
    pub name: String,
    /// The other Coordinators.
    pub coordinators: Arc<CoordinatorDirectory>,
    /// Reaches shards.
    pub router: Router,
    /// Draws timestamps.
    pub timestamps: Arc<dyn TimestampSource>,
    transaction_services: Arc<TransactionServices>,
    table_locks: TableLocks,
    /// For definitions of the leader, while this Coordinator follows.
    table_holds: TableHolds,
    /// While it leads.
    live_definitions: Arc<LiveDefinitions>,
    settings: CoordinatorDefaults,
    /// One definition at a time.
    defining: tokio::sync::Mutex<()>,
}

impl Coordinator {
    /// Puts a Coordinator together.
    pub fn new(
        world: World,
        name: &str,
        metadata: Arc<MetadataStore>,
        coordinators: Arc<CoordinatorDirectory>,
        directory: Arc<NodeDirectory>,
        timestamps: Arc<dyn TimestampSource>,
        settings: CoordinatorDefaults,
    ) -> Arc<Self> {
        let heartbeats = Heartbeats::start(&world, directory.clone());
        let (stale_tables, stale_tables_heard) = mpsc::unbounded_channel();
        let router = Router::new(world.clone(), directory, stale_tables);
        let transaction_services = Arc::new(TransactionServices {
            world: world.clone(),
            router: router.clone(),
            timestamps: timestamps.clone(),
            heartbeats,
        });
        let coordinator = Arc::new(Self {
            name: name.to_owned(),
            coordinators,
            router,
            world,
            metadata,
            timestamps,
            transaction_services,
            table_locks: TableLocks::default(),
            table_holds: TableHolds::default(),
            live_definitions: Arc::default(),
            settings,
            defining: tokio::sync::Mutex::default(),
        });
        coordinator.world.spawner.spawn(
            "stale tables",
            Box::pin(follow_up(Arc::downgrade(&coordinator), stale_tables_heard)),
        );
        coordinator
    }

    /// Keeps up with whoever leads, while this Coordinator does not lead itself.
    pub async fn follow(self: Arc<Self>) {
        self.metadata.follow(&self.table_holds).await;
    }

    /// Adds the first user to the catalog of a new cluster. Without a password it gets its own name for one, which must
    /// be changed at the first login.
    fn ensure_first_user(&self, catalog: &mut CatalogSnapshot, password: Option<&str>) {
        if catalog.users.contains_key(FIRST_USER) {
            return;
        }
        let mut salt = [0; 16];
        self.world.entropy.fill(&mut salt);
        let verifier = ScramVerifier::from_password(
            password.unwrap_or(FIRST_USER),
            &salt,
            self.settings.scram_iterations,
        );
        let user = User {
            name: FIRST_USER.to_owned(),
            verifier: verifier.serialize(),
            superuser: true,
            must_change_password: password.is_none(),
        };
        catalog.users.insert(user.name.clone(), user);
    }

    /// The shards of a group; none if there is no such group.
    fn shards_of_group(&self, group: u32) -> Vec<ShardId> {
        let catalog = self.metadata.snapshot();
        let shards = catalog.groups.get(&group).map_or(0, |group| group.shards);
        (0..shards).map(|index| shard_id(group, index)).collect()
    }

    /// A number for the hidden key of a row, never used before.
    async fn next_row_id(&self) -> Result<i64> {
        let timestamp = self.timestamps.next().await.map_err(timestamp_error)?;
        i64::try_from(timestamp).map_err(|_| SqlError::internal("timestamp beyond 63 bits"))
    }

    /// Has every Data Node collect row versions that are older than a minute.
    async fn collect_garbage(&self) {
        let Ok(now) = self.timestamps.next().await else {
            return;
        };
        let watermark = first_of_millisecond(milliseconds_of(now).saturating_sub(VACUUM_KEEPS_MS));
        let directory = self.router.directory();
        for node in directory.data_nodes() {
            if let Some(channel) = directory.channel(&node) {
                let request = RequestBody::CollectGarbage(CollectGarbage { watermark });
                if let Err(error) = channel.call(request.into()).await {
                    tracing::debug!(%node, %error, "node was not told to collect garbage");
                }
            }
        }
    }
}

/// Follows up what data nodes say about tables that are old here.
async fn follow_up(
    coordinator: std::sync::Weak<Coordinator>,
    mut stale: mpsc::UnboundedReceiver<StaleTableReply>,
) {
    while let Some(table) = stale.recv().await {
        // The router, and with it the sender, belongs to the Coordinator.
        let Some(coordinator) = coordinator.upgrade() else {
            return;
        };
        coordinator.catch_up(table).await;
    }
}
