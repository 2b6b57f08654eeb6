//! The Data Node: shards, row locks, uncommitted writes, and the participant's side of commits.
//!
//! What makes it correct, in short:
//! - A transaction's writes are marked ([`shard::Shard::mark_in_doubt`]) before its commit timestamp is drawn, and
//!   unmarked after they are applied: a snapshot that could see them waits, every other one need not.
//! - A row's exclusive lock is held from the first look at its newest version until the outcome is applied, so
//!   versions of a row have ascending timestamps and no update is lost.
//! - Uncommitted writes live in memory, for one term of the shard. A transaction that may have lost some goes no further: its
//!   Coordinator knows the terms in which its statements ran, and commits name them; `last_sequence` is the second line.
//! - What a request logs has its effect when it is committed, in the order of its shard's log, whatever becomes of the
//!   request (see [`replication`]).

mod bulk;
mod candidates;
mod checkpoint;
mod commit;
mod commit_step;
pub mod config;
mod deadlocks;
mod decisions;
mod durable_step;
mod evaluate;
mod failure;
mod fence;
mod garbage;
mod handler;
mod locking;
mod log_record;
mod memory;
mod modify;
mod outcome;
pub mod peers;
mod program_cache;
mod read;
mod recovery;
mod registry;
mod replication;
mod scan;
mod session;
mod shard;
mod staged_commit;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod together;
mod validate;
mod watchdog;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};

use neorunbase_kms::Keyring;
use neorunbase_protocol::message::{ShardId, ShardRef, TransactionId, WrittenReply};
use neorunbase_storage::wal::{Wal, WalError};
use neorunbase_txn::{LockTable, Outcomes, TimestampSource, Transaction};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::disk::Asking;
use neorunbase_world::{MonotonicTime, TaskHandle, World};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

pub use config::DataNodeConfig;
pub use peers::PeerDirectory;
pub use registry::ServeError;
pub use shard::engine_path;
pub use start::StartError;

use decisions::KeptDecision;
use failure::Failure;
use log_record::RegistryRecord;
use program_cache::ProgramCache;
use replication::{Copies, Incoming, Replicas};
use shard::Shard;
use table::StoredTable;

/// A transaction on this node.
pub(crate) type Participant = Transaction<StoredTable>;

/// The Data Node role.
pub struct DataNode {
    world: World,
    config: DataNodeConfig,
    keyring: Arc<Keyring>,
    wal: Arc<Wal>,
    timestamps: Arc<dyn TimestampSource>,
    peers: Arc<dyn PeerDirectory>,
    shards: RwLock<BTreeMap<ShardId, Arc<Shard>>>,
    transactions: Mutex<BTreeMap<TransactionId, Arc<Participant>>>,
    outcomes: Mutex<Outcomes<WrittenReply>>,
    /// Of transactions that began later, `outcomes` has all that were committed here in one round.
    remembers_since: AtomicU64,
    /// `remembers_since` is to be found out.
    memory_is_new: AtomicBool,
    /// Parts of prepared transactions that were found in the logs of shards when this node became their primary.
    revived: Mutex<BTreeMap<(TransactionId, ShardId), Arc<Participant>>>,
    /// Those of them that were not asked after yet.
    unresolved: Mutex<Vec<Arc<Participant>>>,
    /// Transactions whose abort is being presumed.
    presumed: Mutex<BTreeSet<TransactionId>>,
    /// This node's copies of shards, and what waits for their logs.
    replicas: Mutex<Replicas>,
    /// Somebody lacks entries.
    unsent: Notify,
    /// Terms may be to begin.
    terms_due: Notify,
    /// Nodes that replication goes to.
    shippers: Mutex<BTreeSet<String>>,
    /// When each of them was last sent something for every shard.
    last_shipped: Mutex<BTreeMap<String, MonotonicTime>>,
    /// Copies of shards on their way to followers.
    copies: Copies,
    /// Copies of shards that are coming in.
    incoming: Mutex<BTreeMap<ShardId, Incoming>>,
    /// Held while entries of primaries are taken over.
    receiving: tokio::sync::Mutex<()>,
    /// Commit decisions of anchor shards here that some participant may still ask for.
    decisions: Mutex<BTreeMap<TransactionId, KeptDecision>>,
    /// Decisions to delete with the next sweep.
    forgettable: Mutex<Vec<(ShardId, TransactionId)>>,
    drawn_timestamps: Mutex<garbage::DrawnTimestamps>,
    locks: LockTable,
    programs: ProgramCache,
    /// When the last checkpoint began (monotonic nanoseconds).
    last_checkpoint: AtomicU64,
    /// The log position that the last checkpoint reached.
    checkpointed_below: AtomicU64,
    failure: OnceLock<String>,
    failed: Notify,
    /// The shard registry as it is on disk; held while it is replaced.
    registry: tokio::sync::Mutex<RegistryRecord>,
    /// Writes of the registry.
    registry_writes: Asking,
    /// Held while bulk writes and index builds look for duplicates, so that none slips in between.
    bulk: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<TaskHandle>>,
    shared: Weak<DataNode>,
}

impl std::fmt::Debug for DataNode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "DataNode({})", self.config.name)
    }
}

impl DataNode {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Why the node has stopped serving, if it has. It must be restarted then.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Completes when the node has stopped serving.
    pub async fn failed(&self) {
        loop {
            let failed = self.failed.notified();
            tokio::pin!(failed);
            failed.as_mut().enable();
            if self.failure.get().is_some() {
                return;
            }
            failed.await;
        }
    }

    /// Stops serving, loudly: what is on disk is no longer known to match memory.
    fn fail(&self, reason: String) {
        tracing::error!(node = %self.config.name, %reason, "data node stops serving; it must be restarted");
        if self.failure.set(reason).is_err() {
            return;
        }
        self.failed.notify_waiters();
        let transactions: Vec<_> = self.transactions.lock().values().cloned().collect();
        for transaction in transactions {
            transaction.close();
        }
    }

    fn check_healthy(&self) -> Result<(), Failure> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Failure::Sql(
                SqlError::new(
                    SqlState::IO_ERROR,
                    format!("data node \"{}\" has failed", self.config.name),
                )
                .with_detail(reason.clone())
                .with_hint("It must be restarted; what it has acknowledged is not lost."),
            )),
        }
    }

    /// `future`, or the node's failure if that comes first.
    async fn or_failed<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.failed() => {
                self.check_healthy()?;
                Err(Failure::Sql(SqlError::internal("a failed data node has no failure")))
            }
        }
    }

    fn shared(&self) -> Result<Arc<Self>, Failure> {
        self.shared.upgrade().ok_or_else(|| {
            Failure::Sql(SqlError::new(
                SqlState::ADMIN_SHUTDOWN,
                "the data node is shutting down",
            ))
        })
    }

    fn log_failed(&self, error: &WalError) {
        // Whether the frame is on disk cannot be known before a restart reads the log.
        self.fail(error.to_string());
    }

    fn disk_full(&self, path: &str, reason: &str) -> Failure {
        Failure::Sql(
            SqlError::new(
                SqlState::DISK_FULL,
                format!(
                    "could not extend file \"{path}\" of data node \"{}\": {reason}",
                    self.config.name
                ),
            )
            .with_hint("Check free disk space."),
        )
    }

    /// An open shard, served or not.
    fn open_shard(&self, shard: ShardId) -> Result<Arc<Shard>, Failure> {
        self.shards
            .read()
            .get(&shard)
            .cloned()
            .ok_or(Failure::StaleEpoch { shard, serving: None })
    }

    /// A shard that is served under just the sender's epoch.
    fn served_shard(&self, reference: &ShardRef) -> Result<Arc<Shard>, Failure> {
        let shard = self.open_shard(reference.shard)?;
        if let Some(damage) = &*shard.damage.lock() {
            return Err(Failure::Sql(
                SqlError::new(
                    SqlState::DATA_CORRUPTED,
                    format!("shard {:#x} is damaged", shard.id),
                )
                .with_detail(damage.clone()),
            ));
        }
        let serving = shard.serving();
        if serving != Some(reference.epoch) {
            return Err(Failure::StaleEpoch {
                shard: reference.shard,
                serving,
            });
        }
        shard.count_operation();
        Ok(shard)
    }

    /// As [`served_shard`](Self::served_shard), for what only the primary of just that term can know: in a later one it is
    /// lost.
    fn served_in_same_term(&self, reference: &ShardRef, transaction: TransactionId) -> Result<(), Failure> {
        match self.served_shard(reference) {
            Err(Failure::StaleEpoch { .. }) if self.latest_term(reference.shard) > reference.epoch => {
                Err(Failure::UnknownTransaction(transaction))
            }
            served => served.map(|_| ()),
        }
    }

    /// As [`served_shard`](Self::served_shard), for what is true in all later terms as well.
    fn served_since(&self, reference: &ShardRef) -> Result<(), Failure> {
        match self.served_shard(reference) {
            Err(Failure::StaleEpoch {
                serving: Some(term), ..
            }) if term > reference.epoch => Ok(()),
            served => served.map(|_| ()),
        }
    }

    /// The latest term of `shard` that this node knows of; 0: none.
    fn latest_term(&self, shard: ShardId) -> u64 {
        let replicas = self.replicas.lock();
        let configuration = replicas
            .shards
            .get(&shard)
            .and_then(|replica| replica.configuration.as_ref());
        configuration.map_or(0, |configuration| configuration.term)
    }

    /// Whether this node is primary of `shard` now, as far as it knows.
    fn is_primary(&self, shard: ShardId) -> bool {
        self.open_shard(shard)
            .is_ok_and(|shard| shard.serving().is_some())
    }

    /// Refuses an answer that rests on what `reference` held, unless no other node can have become its primary.
    fn check_current(&self, reference: &ShardRef, transaction: TransactionId) -> Result<(), Failure> {
        let shard = self.open_shard(reference.shard)?;
        if shard.is_current(reference.epoch, &*self.world.clock) {
            return Ok(());
        }
        neorunbase_world::sometimes!("read-refused-without-a-lease");
        // Pure reads can simply be made elsewhere.
        Err(if transaction == 0 {
            Failure::StaleEpoch {
                shard: reference.shard,
                serving: None,
            }
        } else {
            Failure::UnknownTransaction(transaction)
        })
    }

    /// [`check_current`](Self::check_current) for each of `references`.
    fn check_all_current(&self, references: &[ShardRef], transaction: TransactionId) -> Result<(), Failure> {
        references
            .iter()
            .try_for_each(|reference| self.check_current(reference, transaction))
    }

    /// What holds `transaction`'s part in `shard`: the transaction itself, or what was found of it in the shard's log.
    fn holder(&self, transaction: TransactionId, shard: ShardId) -> Option<Arc<Participant>> {
        let revived = self.revived.lock().get(&(transaction, shard)).cloned();
        revived.or_else(|| self.participant(transaction))
    }

    fn participant(&self, transaction: TransactionId) -> Option<Arc<Participant>> {
        self.transactions.lock().get(&transaction).cloned()
    }
}

impl Drop for DataNode {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}
