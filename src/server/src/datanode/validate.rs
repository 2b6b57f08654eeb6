//! Whether what a serializable transaction has read at its snapshot is still so at its commit timestamp.
//!
//! Everything here happens after that timestamp was drawn. A write that is marked later therefore commits later, and
//! need not be kept out; one that was marked before is either found among the marks, or its version in the store, for
//! a mark goes away only once the version is applied, or with the term. So marks are looked at first, then versions,
//! then whether this is the primary still.
//! docs/decisions/serializable.md has the whole argument.

use bytes::Bytes;
use neorunbase_protocol::message::{
    ReadRange, ReadSetMessage, StorageId, Timestamp, TransactionId, Validate,
};
use neorunbase_storage::key::split_index_entry;
use neorunbase_storage::shard::RangeChange;
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::fault::planted;

use super::failure::Failure;
use super::scan::VISITS_PER_TURN;
use super::shard::Shard;
use super::{DataNode, Participant};

/// What a validation is about.
#[derive(Clone, Copy)]
struct Window {
    transaction: TransactionId,
    /// What was committed up to here was seen.
    snapshot: Timestamp,
    /// What commits after here does not matter.
    commit_timestamp: Timestamp,
}

impl Window {
    /// Whether a marked write may commit within the window.
    fn meets(&self, other: &Participant) -> bool {
        let commit_timestamp = other.commit_timestamp();
        other.id() != self.transaction
            && !planted("read-set-ignores-marks")
            && (commit_timestamp == 0
                || (self.snapshot < commit_timestamp && commit_timestamp <= self.commit_timestamp))
    }
}

/// `40001`
fn conflict() -> Failure {
    neorunbase_world::sometimes!("commit-refused-by-read-validation");
    Failure::Sql(
        SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to read/write dependencies among transactions",
        )
        .with_detail("Reason code: Canceled on commit attempt, what it has read was changed meanwhile.")
        .with_hint("The transaction might succeed if retried."),
    )
}

impl DataNode {
    /// See [`Validate`].
    pub(super) async fn validate(&self, request: Validate) -> Result<(), Failure> {
        self.validate_reads(request.transaction, request.commit_timestamp, &request.reads)
            .await?;
        for reads in &request.reads.shards {
            // It leaves nothing behind: like a pure read it can simply be made again.
            self.check_current(&reads.shard, 0)?;
        }
        Ok(())
    }

    /// Refuses with `40001` what `transaction` must not commit at `commit_timestamp`, which was drawn before this
    /// call. The answer counts only if [`check_current`](Self::check_current) agrees afterwards for each shard.
    pub(super) async fn validate_reads(
        &self,
        transaction: TransactionId,
        commit_timestamp: Timestamp,
        reads: &ReadSetMessage,
    ) -> Result<(), Failure> {
        if planted("read-set-not-validated") {
            return Ok(());
        }
        let window = Window {
            transaction,
            snapshot: reads.snapshot,
            commit_timestamp,
        };
        for shard_reads in &reads.shards {
            let shard = self.served_shard(&shard_reads.shard)?;
            for table in &shard_reads.tables {
                if shard.fences.replaced_since(table.storage, window.snapshot) {
                    return Err(conflict());
                }
                for (visits, key) in table.keys.iter().enumerate() {
                    check_key(&shard, table.storage, key, window)?;
                    if (visits + 1).is_multiple_of(VISITS_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                for range in &table.ranges {
                    if range.index == 0 {
                        check_range(&shard, table.storage, range, window).await?;
                    } else {
                        check_index_range(&shard, table.storage, range, window).await?;
                    }
                }
            }
            // After the versions were looked at: a collection says what it removes before it does.
            if shard.store.collected_below() > window.snapshot {
                return Err(conflict());
            }
        }
        Ok(())
    }
}

fn check_key(shard: &Shard, storage: StorageId, key: &[u8], window: Window) -> Result<(), Failure> {
    if shard
        .marked_at(storage, key, |other| window.meets(other))
        .is_some()
    {
        return Err(conflict());
    }
    match shard.store.newest(storage, key)? {
        Some(version) if version.commit_timestamp > window.snapshot => Err(conflict()),
        _ => Ok(()),
    }
}

async fn check_range(
    shard: &Shard,
    storage: StorageId,
    range: &ReadRange,
    window: Window,
) -> Result<(), Failure> {
    if shard
        .marked_within(storage, &range.lower, &range.upper, |other| window.meets(other))
        .is_some()
    {
        return Err(conflict());
    }
    if shard.store.collected_below() > window.snapshot {
        return Err(conflict());
    }
    let view = shard.store.snapshot();
    let mut lower = range.lower.clone();
    loop {
        let found = view.changed_since(storage, &lower, &range.upper, window.snapshot, VISITS_PER_TURN)?;
        match found {
            RangeChange::Changed(_) => return Err(conflict()),
            RangeChange::Unchanged => return Ok(()),
            RangeChange::NotYet { resume } => lower = resume,
        }
        tokio::task::yield_now().await;
    }
}

/// A row that came into the range has its entry there; one that left it since the snapshot still has, for nothing that
/// the snapshot can see was collected. So it is enough to look at the rows of all entries.
async fn check_index_range(
    shard: &Shard,
    storage: StorageId,
    range: &ReadRange,
    window: Window,
) -> Result<(), Failure> {
    if shard
        .marked_within(range.index, &range.lower, &range.upper, |other| {
            window.meets(other)
        })
        .is_some()
    {
        return Err(conflict());
    }
    let Some(index) = shard.index(range.index) else {
        return Ok(()); // no row was ever written to this shard while the index existed
    };
    let mut entries = shard
        .store
        .scan_index(range.index, &range.lower, &range.upper, false)?;
    let mut visits = 0_usize;
    while let Some(entry) = entries.next()? {
        let (_, key) = split_index_entry(&entry, index.columns.len())?;
        let key: Bytes = entry.slice_ref(key);
        check_key(shard, storage, &key, window)?;
        visits += 1;
        if visits.is_multiple_of(VISITS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
