//! Fences around tables: once a definition has begun, a shard refuses those who know an older version of the table.
//!
//! Coordinators keep definitions and transactions apart by locks of their own. A Coordinator that hears of nothing (it
//! hangs, or is cut off from the leader) must still not write rows without the entries of a new index, nor write to or read
//! from rows that were truncated: that is what a fence is for. It is an entry of the shard's log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use neorunbase_protocol::coordinate::FenceTable;
use neorunbase_protocol::message::{StatementContext, StorageId, Timestamp};
use neorunbase_storage::descriptor::TableDescriptor;
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::fault::{dawdle, planted};
use parking_lot::RwLock;

use super::bulk::Applied;
use super::commit::wal_record;
use super::failure::Failure;
use super::log_record::{FenceRecord, LogEntry};
use super::replication::Room;
use super::{DataNode, Participant};

/// System keys of fences: this, then the storage in eight bytes.
pub const FENCE_PREFIX: &[u8] = b"fence/";
/// Transactions that are being committed get so long to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What those who use a table must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Writers: this version or a later one.
    pub write_version: u64,
    /// Readers: this version or a later one, if their snapshot is later than `read_timestamp`.
    pub read_version: u64,
    /// See `read_version`.
    pub read_timestamp: Timestamp,
}

impl Fence {
    fn merged(self, other: Self) -> Self {
        let read = if self.read_version >= other.read_version {
            self
        } else {
            other
        };
        Self {
            write_version: self.write_version.max(other.write_version),
            ..read
        }
    }

    fn encode(self) -> Bytes {
        let numbers = [self.write_version, self.read_version, self.read_timestamp];
        numbers.map(u64::to_be_bytes).concat().into()
    }

    fn decode(encoded: &[u8]) -> Option<Self> {
        let (numbers, rest) = encoded.as_chunks::<8>();
        let [write_version, read_version, read_timestamp] = *numbers else {
            return None;
        };
        rest.is_empty().then_some(Self {
            write_version: u64::from_be_bytes(write_version),
            read_version: u64::from_be_bytes(read_version),
            read_timestamp: u64::from_be_bytes(read_timestamp),
        })
    }
}

/// The fences of a shard's tables.
#[derive(Default)]
pub struct Fences {
    by_storage: RwLock<BTreeMap<StorageId, Fence>>,
    /// Most shards never have one.
    is_any: AtomicBool,
}

impl Fences {
    /// The system key and value that make the engine remember a fence.
    pub fn entry(record: &FenceRecord) -> (Bytes, Option<Bytes>) {
        let key = [FENCE_PREFIX, &record.storage.to_be_bytes()].concat();
        (key.into(), Some(record.fence().encode()))
    }

    /// Reads back what [`entry`](Self::entry) made. `None`: malformed.
    pub fn restore(&self, key: &[u8], value: &[u8]) -> Option<()> {
        let storage = <[u8; 8]>::try_from(key.get(FENCE_PREFIX.len()..)?).ok()?;
        self.put_up(u64::from_be_bytes(storage), Fence::decode(value)?);
        Some(())
    }

    /// Puts a fence up. What it demands never becomes less. The fence that stands then.
    pub fn put_up(&self, storage: StorageId, fence: Fence) -> Fence {
        let mut fences = self.by_storage.write();
        let standing = fences.entry(storage).or_default();
        *standing = standing.merged(fence);
        self.is_any.store(true, Ordering::SeqCst);
        *standing
    }

    fn get(&self, storage: StorageId) -> Fence {
        if !self.is_any.load(Ordering::SeqCst) {
            return Fence::default();
        }
        self.by_storage.read().get(&storage).copied().unwrap_or_default()
    }

    /// Whether somebody who knows `table` may write it, and commit what was written.
    ///
    /// # Errors
    /// [`Failure::StaleTable`]
    pub fn check_write(&self, table: &TableDescriptor) -> Result<(), Failure> {
        let fence = self.get(table.storage);
        if table.version < fence.write_version {
            neorunbase_world::sometimes!("stale-table-refused-by-a-fence");
            return Err(Failure::StaleTable {
                storage: table.storage,
                version: fence.write_version,
            });
        }
        Ok(())
    }

    /// Whether a definition may have replaced the rows that were read at `snapshot`.
    pub fn replaced_since(&self, storage: StorageId, snapshot: Timestamp) -> bool {
        let fence = self.get(storage);
        fence.read_version != 0 && fence.read_timestamp >= snapshot
    }

    /// Whether a reader in `context` may read the table.
    ///
    /// # Errors
    /// [`Failure::StaleTable`]
    pub fn check_read(&self, storage: StorageId, context: &StatementContext) -> Result<(), Failure> {
        let fence = self.get(storage);
        let is_later = context.snapshot == 0 || context.snapshot > fence.read_timestamp;
        let is_stale = context.table_version != 0 && context.table_version < fence.read_version;
        if is_stale && is_later && !planted("fence-ignored-by-readers") {
            neorunbase_world::sometimes!("stale-table-refused-by-a-fence");
            return Err(Failure::StaleTable {
                storage,
                version: fence.read_version,
            });
        }
        Ok(())
    }
}

impl FenceRecord {
    /// What it demands.
    pub fn fence(&self) -> Fence {
        Fence {
            write_version: self.write_version,
            read_version: self.read_version,
            read_timestamp: self.read_timestamp,
        }
    }
}

impl DataNode {
    /// Refuses a commit of writes to a table that a definition has overtaken. To be called when the writes are marked in
    /// doubt: either this sees the fence, or the fence waits for them.
    pub(super) fn check_fences(&self, participant: &Participant) -> Result<(), Failure> {
        if planted("fence-ignored-by-commits") {
            return Ok(());
        }
        for (shard, writes) in participant.writes.lock().shards() {
            let shard = self.open_shard(shard)?;
            for (_, table) in writes.tables() {
                shard.fences.check_write(&table.table.descriptor)?;
                if !planted("first-write-not-fenced") {
                    shard.fences.check_write(&table.first_table.descriptor)?;
                }
            }
        }
        Ok(())
    }

    /// See [`FenceTable`].
    pub(super) async fn fence_table(&self, request: FenceTable) -> Result<(), Failure> {
        let shard = self.served_shard(&request.shard)?;
        let asked = Fence {
            write_version: request.write_version,
            read_version: request.read_version,
            read_timestamp: request.read_timestamp,
        };
        let fence = shard.fences.put_up(request.storage, asked);
        // Who passed before it was up is marked in doubt until its end.
        let deadline = self.world.clock.monotonic().after(DRAIN_LIMIT);
        while shard.is_in_doubt(request.storage) && !planted("fence-does-not-wait") {
            if self.world.clock.monotonic() >= deadline {
                return Err(Failure::Sql(SqlError::new(
                    SqlState::LOCK_NOT_AVAILABLE,
                    "transactions that have written the table are still being committed",
                )));
            }
            self.check_healthy()?;
            self.world.clock.sleep(DRAIN_POLL).await;
        }
        dawdle(
            &*self.world.clock,
            "fence logged late",
            Duration::from_millis(500),
        )
        .await;
        let record = FenceRecord {
            storage: request.storage,
            write_version: fence.write_version,
            read_version: fence.read_version,
            read_timestamp: fence.read_timestamp,
        };
        let records = vec![wal_record(&shard, LogEntry::Fence(record))];
        let step = Applied(move |node: &DataNode, position| {
            let applied = shard.apply(&[], 0, position, &[], &[Fences::entry(&record)]);
            node.check_applied(&shard, position, applied);
        });
        self.log(records, Box::new(step), Room::OrRefuse).await
    }
}
