//! Scans for queries: every shard at once, batch by batch, under the statement's transaction and snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use neorunbase_expression::ScanProgram;
use neorunbase_protocol::message::{
    LockMode, LockWait, ProgramRef, ReadRows, RequestBody, ResponseBody, RowsReply, ScanRows, ShardId,
    StatementContext, Timestamp,
};
use neorunbase_sql::access::{RowLocking, ScanRequest, TableAccess};
use neorunbase_storage::row::encode_tuple;
use neorunbase_txn::ReadSet;
use neorunbase_types::Result;
use parking_lot::Mutex;

use super::targets::{Target, targets};
use super::{answer, unexpected_answer};
use crate::coordinator::as_of::check_rows_of;
use crate::coordinator::location::TableLocation;
use crate::coordinator::router::Router;
use crate::coordinator::session_core::SessionCore;

/// Rows asked for at once, in bytes.
const BATCH_BYTES: u32 = 256 * 1024;

/// [`TableAccess`] of one statement.
pub struct StatementAccess {
    /// The session.
    pub core: Arc<SessionCore>,
    /// For shards where the transaction has something, or gets it.
    pub router: Router,
    /// For all others.
    pub reading_router: Router,
    /// Contexts are made from this one.
    pub context: StatementContext,
    /// Shards where the transaction has written or locked before.
    pub participants: BTreeSet<ShardId>,
    /// AS OF SYSTEM TIME, if the user has chosen one.
    pub past: Option<Timestamp>,
    /// Where to record what is read, if the transaction is serializable.
    pub reads: Option<Arc<Mutex<ReadSet>>>,
    /// Where to note the shards that are asked to lock rows.
    pub locked: Arc<Mutex<BTreeSet<ShardId>>>,
}

/// Everything that the batches of one shard's scan have in common.
#[derive(Clone)]
pub struct ShardScan {
    /// Finds the shard.
    pub router: Router,
    /// The shard.
    pub shard: ShardId,
    /// The table's storage.
    pub storage: u64,
    /// For whom.
    pub context: StatementContext,
    /// Filter and output.
    pub program: ProgramRef,
    /// Encoded parameters.
    pub parameters: Bytes,
    /// At most so many rows; 0: all.
    pub limit: u64,
    /// Locks.
    pub locking: Option<RowLocking>,
}

impl ShardScan {
    fn lock_mode(&self) -> (i32, i32) {
        let Some(locking) = self.locking else {
            return (LockMode::None as i32, LockWait::Wait as i32);
        };
        let mode = if locking.exclusive {
            LockMode::Exclusive
        } else {
            LockMode::Share
        };
        let wait = if locking.no_wait {
            LockWait::NoWait
        } else if locking.skip_locked {
            LockWait::SkipLocked
        } else {
            LockWait::Wait
        };
        (mode as i32, wait as i32)
    }

    /// Rows by key.
    ///
    /// # Errors
    /// The statement's.
    pub async fn read(&self, keys: &[Bytes]) -> Result<RowsReply> {
        let (lock, wait) = self.lock_mode();
        let build = |shard| {
            RequestBody::ReadRows(ReadRows {
                shard,
                storage: self.storage,
                context: self.context,
                keys: keys.to_vec(),
                program: self.program.clone(),
                parameters: self.parameters.clone(),
                lock,
                wait,
            })
        };
        let outcome = if self.locking.is_some() {
            self.router.call(self.shard, build).await
        } else {
            self.router.call_repeatable(self.shard, build).await
        };
        match answer(outcome)? {
            ResponseBody::Rows(rows) => Ok(rows),
            _ => Err(unexpected_answer()),
        }
    }

    /// One batch of a range.
    ///
    /// # Errors
    /// The statement's.
    pub async fn scan(
        &self,
        index: u64,
        lower: &Bytes,
        upper: &Bytes,
        resume_from: &Bytes,
    ) -> Result<RowsReply> {
        let (lock, wait) = self.lock_mode();
        let build = |shard| {
            RequestBody::ScanRows(ScanRows {
                shard,
                storage: self.storage,
                context: self.context,
                index,
                lower: lower.clone(),
                upper: upper.clone(),
                program: self.program.clone(),
                parameters: self.parameters.clone(),
                limit: self.limit,
                batch_bytes: BATCH_BYTES,
                resume_from: resume_from.clone(),
                lock,
                wait,
                with_keys: false,
                reverse: false,
            })
        };
        let outcome = if self.locking.is_some() {
            self.router.call(self.shard, build).await
        } else {
            self.router.call_repeatable(self.shard, build).await
        };
        match answer(outcome)? {
            ResponseBody::Rows(rows) => Ok(rows),
            _ => Err(unexpected_answer()),
        }
    }

    /// All batches of a target. `limit` bounds each batch, so that a limited scan stops early; cutting the whole
    /// result is up to the caller.
    pub fn stream(self, target: Target) -> BoxStream<'static, Result<Vec<Bytes>>> {
        match target {
            Target::Keys(keys) => stream::once(async move { Ok(self.read(&keys).await?.rows) }).boxed(),
            Target::Range { index, lower, upper } => {
                let state = (self, Some(Bytes::new()), 0_u64);
                stream::try_unfold(state, move |(scan, resume_from, seen)| {
                    let (lower, upper) = (lower.clone(), upper.clone());
                    async move {
                        let Some(resume_from) = resume_from else {
                            return Ok(None);
                        };
                        let reply = scan.scan(index, &lower, &upper, &resume_from).await?;
                        let seen = seen + reply.rows.len() as u64;
                        let enough = scan.limit > 0 && seen >= scan.limit;
                        let next = (!enough && !reply.continuation.is_empty()).then_some(reply.continuation);
                        Ok(Some((reply.rows, (scan, next, seen))))
                    }
                })
                .boxed()
            }
        }
    }
}

#[async_trait]
impl TableAccess for StatementAccess {
    async fn scan(&self, request: ScanRequest) -> Result<BoxStream<'static, Result<Vec<Bytes>>>> {
        if let Some(past) = self.past {
            check_rows_of(&request.table, past)?;
        }
        let catalog = self.core.coordinator.metadata.snapshot();
        let location = TableLocation::new(&catalog, &request.table)?;
        let time = self.context.transaction_time_unix_micros;
        let targets = targets(&location, &request.path, &request.parameters, time)?;
        let program = program_ref(&request.program);
        let parameters = encode_tuple(&request.parameters);
        let mut streams = Vec::with_capacity(targets.len());
        for (shard, target) in targets {
            let mut context = self.context;
            context.table_version = request.table.version;
            if request.locking.is_none() && !self.participants.contains(&shard) {
                context.transaction = 0;
            }
            let router = if context.transaction == 0 {
                &self.reading_router
            } else {
                &self.router
            };
            if let Some(reads) = &self.reads {
                target.record(&mut reads.lock(), shard, request.table.storage);
            }
            let scan = ShardScan {
                router: router.clone(),
                shard,
                storage: request.table.storage,
                context,
                program: program.clone(),
                parameters: parameters.clone(),
                limit: request.limit.unwrap_or(0),
                locking: request.locking,
            };
            let is_locking = scan.locking.is_some();
            let rows = scan.stream(target);
            if !is_locking {
                streams.push(rows);
                continue;
            }
            // Before it is asked: the query may be broken off at any time. Not earlier: it may never be asked.
            let locked = self.locked.clone();
            let noted = stream::poll_fn(move |_| {
                locked.lock().insert(shard);
                Poll::Ready(None)
            });
            streams.push(noted.chain(rows).boxed());
        }
        Ok(stream::select_all(streams).boxed())
    }
}

/// The program as requests carry it.
pub fn program_ref(program: &ScanProgram) -> ProgramRef {
    ProgramRef::new(program.encode())
}
