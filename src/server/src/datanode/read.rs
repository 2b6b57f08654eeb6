//! Rows by key, and what a reader may see.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_protocol::message::{
    LockMode, ReadRows, RowsReply, StatementContext, StorageId, Timestamp, TransactionId,
};
use neorunbase_storage::shard::{RowVersion, StoreSnapshot};
use neorunbase_txn::Phase;
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::planted;

use super::evaluate::{Scanner, Surroundings};
use super::failure::Failure;
use super::locking::RowAccess;
use super::session::Session;
use super::shard::Shard;
use super::{DataNode, Participant};

/// A reader gives up on a prepared transaction after so many times the configured patience.
const PATIENCE_ROUNDS: u32 = 30;

/// What a statement looks at: a shard at a snapshot, and its own transaction's writes on top.
#[derive(Clone)]
pub(super) struct View {
    pub shard: Arc<Shard>,
    pub storage: StorageId,
    /// 0: the newest committed versions.
    pub snapshot: Timestamp,
    pub own: Option<Arc<Participant>>,
}

/// A row as a view has it.
#[derive(Clone, Debug)]
pub(super) struct SeenRow {
    pub row: Bytes,
    /// The version's timestamp; 0: the transaction's own write.
    pub commit_timestamp: Timestamp,
}

impl View {
    pub(super) fn reader(&self) -> TransactionId {
        self.own.as_ref().map_or(0, |own| own.id())
    }

    /// What the transaction itself wrote: `None` nothing, `Some(None)` a deletion.
    pub(super) fn own_write(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let own = self.own.as_ref()?;
        own.writes.lock().get(self.shard.id, self.storage, key).cloned()
    }

    /// The row at `key`, or whom to wait for first. The caller holds the shard's visibility lock.
    pub(super) fn look(&self, node: &DataNode, key: &[u8]) -> Result<Look, Failure> {
        if let Some(own) = self.own_write(key) {
            return Ok(Look::Row(own.map(|row| SeenRow {
                row,
                commit_timestamp: 0,
            })));
        }
        if planted("read-uncommitted")
            && let Some(dirty) = node.dirty_write(self, key)
        {
            return Ok(Look::Row(dirty.map(|row| SeenRow {
                row,
                commit_timestamp: 0,
            })));
        }
        let other = self
            .shard
            .in_doubt_at(self.storage, key, self.snapshot, self.reader());
        if let Some(other) = other.filter(|_| !planted("snapshot-skips-prepared")) {
            neorunbase_world::sometimes!("reader-meets-an-undecided-commit");
            return Ok(Look::Wait(other));
        }
        let version = if self.snapshot == 0 {
            self.shard.store.newest(self.storage, key)?
        } else {
            self.shard.store.read_at(self.storage, key, self.snapshot)?
        };
        Ok(Look::Row(seen(version)))
    }

    /// The newest row at `key` as of an instant at which nothing in doubt concerned the table.
    pub(super) fn look_back(&self, instant: &StoreSnapshot, key: &[u8]) -> Result<Option<SeenRow>, Failure> {
        if let Some(own) = self.own_write(key) {
            return Ok(own.map(|row| SeenRow {
                row,
                commit_timestamp: 0,
            }));
        }
        Ok(seen(instant.read_at(self.storage, key, 0)?))
    }
}

/// What a look at a key finds.
pub(super) enum Look {
    Row(Option<SeenRow>),
    Wait(Arc<Participant>),
}

fn seen(version: Option<RowVersion>) -> Option<SeenRow> {
    let RowVersion {
        commit_timestamp,
        row,
    } = version?;
    row.map(|row| SeenRow {
        row,
        commit_timestamp,
    })
}

impl DataNode {
    /// Another transaction's uncommitted write: a planted bug.
    fn dirty_write(&self, view: &View, key: &[u8]) -> Option<Option<Bytes>> {
        let transactions = self.transactions.lock();
        let others = transactions.values().filter(|other| other.id() != view.reader());
        others
            .filter_map(|other| other.writes.lock().get(view.shard.id, view.storage, key).cloned())
            .next()
    }

    /// Waits until `other` has ended (or is known to commit above `snapshot`), asking its anchor if that takes long.
    pub(super) async fn await_in_doubt(
        &self,
        other: &Arc<Participant>,
        snapshot: Timestamp,
    ) -> Result<(), Failure> {
        for _ in 0..PATIENCE_ROUNDS {
            let readable = self.or_failed(other.readable_at(snapshot));
            if let Ok(readable) = timeout(&*self.world.clock, self.config.in_doubt_patience, readable).await {
                return readable;
            }
            if other.phase() == Phase::Prepared {
                self.resolve_quietly(other).await;
            }
        }
        Err(Failure::Sql(
            SqlError::new(
                SqlState::LOCK_NOT_AVAILABLE,
                "canceling statement because the outcome of another transaction is not known",
            )
            .with_detail(format!(
                "transaction {} is prepared and its decision cannot be learned now",
                other.id()
            )),
        ))
    }

    /// The rows at `keys`, all from one instant.
    pub(super) async fn look_at(&self, view: &View, keys: &[Bytes]) -> Result<Vec<Option<SeenRow>>, Failure> {
        let mut rows = Vec::with_capacity(keys.len());
        loop {
            let in_doubt = {
                let _instant = view.shard.visibility.read();
                self.look_at_once(view, keys, &mut rows)?
            };
            match in_doubt {
                None => return Ok(rows),
                Some(other) => self.await_in_doubt(&other, view.snapshot).await?,
            }
        }
    }

    fn look_at_once(
        &self,
        view: &View,
        keys: &[Bytes],
        rows: &mut Vec<Option<SeenRow>>,
    ) -> Result<Option<Arc<Participant>>, Failure> {
        rows.clear();
        for key in keys {
            match view.look(self, key)? {
                Look::Row(row) => rows.push(row),
                Look::Wait(other) => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    /// See [`ReadRows`].
    pub(super) async fn read_rows(&self, request: ReadRows) -> Result<RowsReply, Failure> {
        let shard = self.served_shard(&request.shard)?;
        shard.fences.check_read(request.storage, &request.context)?;
        let program = self.programs.scan(&request.program)?;
        let surroundings = Surroundings::new(&request.parameters, &request.context)?;
        let mut scanner = Scanner::new(program, surroundings);
        let locks = request.lock != i32::from(LockMode::None);
        let session = self.begin_read(&request.context, locks).await?;
        let view = View {
            shard,
            storage: request.storage,
            snapshot: request.context.snapshot,
            own: session.participant.clone(),
        };
        let result = if locks {
            self.lock_rows_by_key(&session, &view, &request, &mut scanner)
                .await
        } else {
            self.read_rows_by_key(&view, &request.keys, &mut scanner).await
        };
        let rows = self.conclude_read(session, result).await?;
        Ok(RowsReply {
            rows,
            ..RowsReply::default()
        })
    }

    async fn read_rows_by_key(
        &self,
        view: &View,
        keys: &[Bytes],
        scanner: &mut Scanner,
    ) -> Result<Vec<Bytes>, Failure> {
        let mut output = Vec::with_capacity(keys.len());
        for seen in self.look_at(view, keys).await?.into_iter().flatten() {
            if scanner.accepts(&seen.row)? {
                output.push(scanner.output()?);
            }
        }
        Ok(output)
    }

    async fn lock_rows_by_key(
        &self,
        session: &Session,
        view: &View,
        request: &ReadRows,
        scanner: &mut Scanner,
    ) -> Result<Vec<Bytes>, Failure> {
        let access = RowAccess::of_read(self, session, view, &request.context, request.lock, request.wait)?;
        let mut output = Vec::with_capacity(request.keys.len());
        for key in &request.keys {
            let mut accepts = |row: &[u8]| scanner.accepts(row);
            if access.take_by_key(key, &mut accepts).await?.is_some() {
                output.push(scanner.output()?);
            }
        }
        Ok(output)
    }
}

/// Whether rows that changed after the statement's snapshot fail it.
pub(super) fn fails_on_newer(context: &StatementContext) -> bool {
    context.fail_on_newer && context.snapshot != 0
}
