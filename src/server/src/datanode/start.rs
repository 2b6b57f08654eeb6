//! Opening a Data Node's directory, and its background tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use neorunbase_kms::{KeyError, Keyring, MasterKey};
use neorunbase_protocol::message::{ShardId, TransactionId};
use neorunbase_storage::StorageError;
use neorunbase_storage::shard::ShardStore;
use neorunbase_storage::wal::{Lsn, ShardKeys, Wal, WalError, WalOptions};
use neorunbase_txn::{LockTable, Outcomes, Phase, TimestampSource};
use neorunbase_world::World;
use neorunbase_world::disk::Asking;
use neorunbase_world::shard_engine::{EngineError, EngineKey, ShardEngine};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::program_cache::ProgramCache;
use super::registry::{read_registry, write_registry};
use super::replication::{Copies, Replicas};
use super::shard::{Shard, engine_path};
use super::{DataNode, DataNodeConfig, Participant, PeerDirectory};

const KEYRING_PATH: &str = "keyring";
const WAL_DIRECTORY: &str = "wal";
/// Between two rounds of looking after abandoned transactions.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Why a Data Node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The master key or the keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The write-ahead log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A shard's engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A shard's content.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The shard registry.
    #[error("shard registry {path}: {reason}")]
    Registry {
        /// Its file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The log speaks of a shard that the registry does not list.
    #[error("log position {lsn} is of shard {shard:#x}, which this node does not have")]
    UnknownShard {
        /// The shard.
        shard: ShardId,
        /// Where.
        lsn: Lsn,
    },
    /// A record that verified but makes no sense.
    #[error("log position {lsn} of shard {shard:#x} cannot be understood")]
    MalformedRecord {
        /// The shard.
        shard: ShardId,
        /// Where; 0: in the shard's system keyspace.
        lsn: Lsn,
    },
    /// Entries are missing in a shard's log.
    #[error("the log of shard {shard:#x} has entry {sequence}, but not the one before it")]
    Gap {
        /// The shard.
        shard: ShardId,
        /// The entry.
        sequence: u64,
    },
    /// The node's disk is not the one that the cluster counts on.
    #[error(
        "this disk is not the one that data node \"{node}\" had before, and nobody else has all of shards {}: their data \
         are on the disk before. Start the node on that disk (its data directory). If it is lost, so are they; this disk \
         can serve other shards under another node name",
        shards.iter().map(|shard| format!("{shard:#x}")).collect::<Vec<_>>().join(", ")
    )]
    OtherDisk {
        /// The node.
        node: String,
        /// Shards of which it was the only member in sync.
        shards: Vec<ShardId>,
    },
    /// Two prepared transactions hold one lock.
    #[error("transaction {transaction} was prepared with a lock that another prepared transaction holds")]
    ConflictingPrepares {
        /// The second of them.
        transaction: TransactionId,
    },
}

/// The engine of a shard, under a key of its own.
pub(super) async fn open_engine(
    world: &World,
    keyring: &Keyring,
    shard: ShardId,
) -> Result<Arc<dyn ShardEngine>, StartError> {
    let path = engine_path(shard);
    let key = keyring.named_key(&path).await?;
    let key = EngineKey {
        version: key.version,
        secret: key.secret,
    };
    Ok(world.engines.open(&path, &key).await?)
}

impl DataNode {
    /// Opens the node's directory (creating it if new), replays its log and starts its background tasks. The node
    /// serves no shard until told to ([`configure`](Self::configure)).
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(
        world: World,
        config: DataNodeConfig,
        master_key: &MasterKey,
        timestamps: Arc<dyn TimestampSource>,
        peers: Arc<dyn PeerDirectory>,
    ) -> Result<Arc<Self>, StartError> {
        let keyring = Keyring::open(
            world.disk.clone(),
            world.entropy.clone(),
            KEYRING_PATH,
            master_key,
        )
        .await?;
        let keyring = Arc::new(keyring);
        let mut registry = read_registry(&world, &keyring).await?;
        if registry.disk == 0 {
            registry.disk = world.entropy.next_u64().max(1);
            write_registry(&world, &keyring, &registry).await?;
        }
        let mut shards = BTreeMap::new();
        let mut log_from = BTreeMap::new();
        for known in &registry.shards {
            let counts_not = known.installing || known.dropped;
            log_from.insert(known.shard, if counts_not { Lsn::MAX } else { known.log_from });
            if counts_not {
                tracing::info!(
                    shard = known.shard,
                    "an unfinished or unwanted copy of the shard is given up"
                );
                world.engines.destroy(&engine_path(known.shard)).await?;
            }
            if known.dropped {
                continue;
            }
            let store = ShardStore::new(open_engine(&world, &keyring, known.shard).await?)?;
            shards.insert(
                known.shard,
                Arc::new(Shard::new(known.shard, store, known.begun)?),
            );
        }
        let options = WalOptions {
            directory: WAL_DIRECTORY.to_owned(),
            segment_bytes: config.wal_segment_bytes,
            max_frame_bytes: config.wal_max_frame_bytes,
        };
        let keys: Arc<dyn ShardKeys> = keyring.clone();
        let (wal, recovered) = Wal::open(&world, options, keys).await?;
        if registry.shards.iter().any(|known| known.installing) {
            for known in registry.shards.iter_mut().filter(|known| known.installing) {
                known.installing = false;
                known.log_from = wal.next_lsn();
            }
            write_registry(&world, &keyring, &registry).await?;
        }
        let node = Arc::new_cyclic(|shared| Self {
            keyring,
            wal,
            timestamps,
            peers,
            shards: RwLock::new(shards),
            transactions: Mutex::new(BTreeMap::new()),
            outcomes: Mutex::new(Outcomes::new(config.outcomes_kept)),
            remembers_since: AtomicU64::new(TransactionId::MAX),
            memory_is_new: AtomicBool::new(true),
            revived: Mutex::new(BTreeMap::new()),
            unresolved: Mutex::new(Vec::new()),
            presumed: Mutex::new(BTreeSet::new()),
            replicas: Mutex::new(Replicas::default()),
            unsent: Notify::new(),
            terms_due: Notify::new(),
            shippers: Mutex::new(BTreeSet::new()),
            last_shipped: Mutex::new(BTreeMap::new()),
            copies: Copies::default(),
            incoming: Mutex::new(BTreeMap::new()),
            receiving: tokio::sync::Mutex::new(()),
            decisions: Mutex::new(BTreeMap::new()),
            forgettable: Mutex::new(Vec::new()),
            drawn_timestamps: Mutex::default(),
            locks: LockTable::new(world.entropy.next_u64()),
            programs: ProgramCache::new(config.program_cache_entries),
            last_checkpoint: AtomicU64::new(world.clock.monotonic().0),
            checkpointed_below: AtomicU64::new(0),
            failure: OnceLock::new(),
            failed: Notify::new(),
            registry: tokio::sync::Mutex::new(registry),
            registry_writes: Asking::default(),
            bulk: tokio::sync::Mutex::new(()),
            tasks: Mutex::new(Vec::new()),
            shared: shared.clone(),
            world,
            config,
        });
        node.recover(recovered, &log_from)?;
        node.start_tasks();
        Ok(node)
    }

    fn start_tasks(self: &Arc<Self>) {
        self.start_watchdog();
        self.start_task("data node sweep", SWEEP_INTERVAL, |node| async move {
            node.date_memory().await;
            node.resolve_revived().await;
            node.sweep().await;
            true
        });
        self.start_task("data node terms", Duration::ZERO, |node| async move {
            node.begin_terms_forever().await;
            true
        });
        let interval = self.config.replication.in_sync_interval;
        self.start_task("data node in-sync sets", interval, |node| async move {
            node.change_in_sync_sets().await;
            if let Err(error) = node.leave_sets_of_damaged().await {
                tracing::debug!(%error, "damaged copies cannot leave their in-sync sets yet");
            }
            node.hand_over_shards().await;
            node.drop_interrupted_copies();
            true
        });
        self.start_task(
            "data node deadlocks",
            self.config.deadlock_timeout / 2,
            |node| async move {
                node.break_deadlocks().await;
                true
            },
        );
        self.start_task(
            "data node checkpoint",
            self.config.checkpoint_poll,
            |node| async move {
                node.checkpoint_if_due().await;
                true
            },
        );
        self.start_task(
            "data node garbage",
            self.config.garbage_interval,
            |node| async move {
                node.collect_garbage_round().await;
                true
            },
        );
    }

    /// Runs `round` again and again, `interval` apart, until it returns `false` or the node fails or goes away.
    fn start_task<Round, Running>(self: &Arc<Self>, name: &'static str, interval: Duration, round: Round)
    where
        Round: Fn(Arc<Self>) -> Running + Send + Sync + 'static,
        Running: Future<Output = bool> + Send + 'static,
    {
        let shared = Arc::downgrade(self);
        let clock = self.world.clock.clone();
        let task = async move {
            loop {
                clock.sleep(interval).await;
                let Some(node) = shared.upgrade() else { return };
                if node.failure().is_some() || !round(node).await {
                    return;
                }
            }
        };
        self.tasks
            .lock()
            .push(self.world.spawner.spawn(name, Box::pin(task)));
    }

    /// Asks after transactions that were found prepared, without waiting for them to look abandoned.
    async fn resolve_revived(&self) {
        let unresolved = std::mem::take(&mut *self.unresolved.lock());
        join_all(
            unresolved
                .iter()
                .map(|participant| self.resolve_quietly(participant)),
        )
        .await;
        let is_in_doubt = |participant: &Arc<Participant>| participant.phase() == Phase::Prepared;
        self.unresolved
            .lock()
            .extend(unresolved.into_iter().filter(is_in_doubt));
    }

    /// Stops background work, and flushes all shards so that the next start has nothing to replay. Requests must
    /// have stopped before.
    pub async fn close(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        if self.failure().is_some() {
            return;
        }
        self.checkpoint().await;
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        for shard in shards {
            shard.stop();
            if let Err(error) = shard.store.engine().close().await {
                tracing::error!(shard = shard.id, %error, "shard engine did not close cleanly");
            }
        }
    }
}
