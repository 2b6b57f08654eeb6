//! The Data Node: shards, row locks, uncommitted writes, and the participant's side of commits.
//!
//! What makes it correct, in short:
//! - A transaction's writes are marked ([`shard::Shard::mark_in_doubt`]) before its commit timestamp is drawn, and
//!   unmarked after they are applied: a snapshot that could see them waits, every other one need not.
//! - A row's exclusive lock is held from the first look at its newest version until the outcome is applied, so
//!   versions of a row have ascending timestamps and no update is lost.
//! - Uncommitted writes live in memory. A node that may have lost some refuses the transaction: by the fence of
//!   [`Outcomes`], and at the latest by `last_sequence` when it is to commit.
//! - What a request makes durable is applied by the log's callback, in log order, whatever becomes of the request.

mod assignment;
mod bulk;
mod candidates;
mod checkpoint;
mod commit;
pub mod config;
mod decisions;
mod durable_step;
mod evaluate;
mod failure;
mod garbage;
mod handler;
mod locking;
mod log_record;
mod logged;
mod modify;
pub mod peers;
mod program_cache;
mod read;
mod recovery;
mod scan;
mod session;
mod shard;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};

use neorunbase_kms::Keyring;
use neorunbase_protocol::message::{ShardId, ShardRef, TransactionId, WrittenReply};
use neorunbase_storage::wal::{Lsn, Wal, WalError, WalRecord};
use neorunbase_txn::{LockTable, Outcomes, TimestampSource, Transaction};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::{TaskHandle, World};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

pub use assignment::ServeError;
pub use config::DataNodeConfig;
pub use peers::PeerDirectory;
pub use start::StartError;

use decisions::KeptDecision;
use durable_step::DurableStep;
use failure::Failure;
use log_record::RegistryRecord;
use logged::{Apply, Logged};
use program_cache::ProgramCache;
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
    /// Prepared transactions and the log position of their prepare record: the log is needed from there on.
    prepared: Mutex<BTreeMap<TransactionId, Lsn>>,
    /// Commit decisions of anchor shards here that some participant may still ask for.
    decisions: Mutex<BTreeMap<TransactionId, KeptDecision>>,
    /// Decisions to delete with the next sweep.
    forgettable: Mutex<Vec<(ShardId, TransactionId)>>,
    locks: LockTable,
    programs: ProgramCache,
    /// When the last checkpoint began (monotonic nanoseconds).
    last_checkpoint: AtomicU64,
    /// The log position that the last checkpoint reached.
    checkpointed_below: AtomicU64,
    /// Whether transactions may begin: after a restart, only once the fence is known.
    fenced: AtomicBool,
    /// Whether the transactions found prepared at start were asked after.
    recovered_resolved: AtomicBool,
    fence_raised: Notify,
    failure: OnceLock<String>,
    failed: Notify,
    /// The shard registry as it is on disk; held while it is replaced.
    registry: tokio::sync::Mutex<RegistryRecord>,
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

    /// Writes one log frame and returns when `apply` has run. Happens even if the caller goes away. On a full disk
    /// it runs `refused` instead and returns `53100`: for what can still be given up.
    async fn log(
        &self,
        records: Vec<WalRecord>,
        apply: Apply,
        refused: Box<dyn FnOnce() + Send>,
    ) -> Result<(), Failure> {
        self.check_healthy()?;
        let node = self.shared()?;
        let apply = Logged::adapt(&records, apply);
        let step = async move {
            match node.wal.append(records, apply).await {
                Ok(_) => Ok(()),
                Err(WalError::DiskFull { path, reason }) => {
                    refused();
                    Err(node.disk_full(&path, &reason))
                }
                Err(error) => {
                    node.log_failed(&error);
                    Ok(())
                }
            }
        };
        DurableStep::new(self.world.spawner.clone(), step).await?;
        self.check_healthy()
    }

    /// As [`log`](Self::log), for what cannot be given up any more: on a full disk it waits for room.
    async fn log_when_room(&self, records: Vec<WalRecord>, apply: Apply) -> Result<(), Failure> {
        self.check_healthy()?;
        let node = self.shared()?;
        let apply = Logged::adapt(&records, apply);
        let step = async move {
            let clock = node.world.clock.clone();
            if let Err(error) = node.wal.append_when_room(&*clock, records, apply).await {
                node.log_failed(&error);
            }
        };
        DurableStep::new(self.world.spawner.clone(), step).await;
        self.check_healthy()
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
        let serving = shard.serving();
        if serving != Some(reference.epoch) {
            return Err(Failure::StaleEpoch {
                shard: reference.shard,
                serving,
            });
        }
        if let Some(damage) = &*shard.damage.lock() {
            return Err(Failure::Sql(
                SqlError::new(
                    SqlState::DATA_CORRUPTED,
                    format!("shard {:#x} is damaged", shard.id),
                )
                .with_detail(damage.clone()),
            ));
        }
        Ok(shard)
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
