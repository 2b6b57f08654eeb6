//! Queries.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use neorunbase_expression::EvaluationContext;
use neorunbase_protocol::message::{ProgramRef, ShardId};
use neorunbase_sql::plan::SimpleSelect;
use neorunbase_storage::row::{decode_tuple, encode_tuple};
use neorunbase_types::{Datum, Result, SqlError, SqlState};

use super::Execution;
use super::table_access::{ShardScan, StatementAccess};
use super::targets::{Target, is_one_row, targets};
use crate::coordinator::location::TableLocation;

/// Rows of a running query, a batch at a time.
pub type RowBatches = BoxStream<'static, Result<Vec<Vec<Datum>>>>;

impl Execution<'_> {
    /// Runs a single-table query.
    ///
    /// # Errors
    /// The statement's.
    pub async fn simple_select(
        &mut self,
        select: &SimpleSelect,
        location: &TableLocation,
        program: &ProgramRef,
    ) -> Result<RowBatches> {
        self.transaction.check_rows_of(&location.table)?;
        let time = self.transaction.time_unix_micros;
        let targets = targets(location, &select.path, &self.parameters, time)?;
        let limit = self.row_limit(select)?;
        if limit == Some(0) || targets.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let shards: Vec<ShardId> = targets.iter().map(|(shard, _)| *shard).collect();
        let snapshot = self.transaction.statement_snapshot(is_one_row(&targets)).await?;
        let locking = select.locking;
        let write_context = match locking {
            Some(_) => Some(self.transaction.locking_context(&shards, snapshot).await?),
            None => None,
        };
        let parameters = encode_tuple(&self.parameters);
        let mut scans = Vec::with_capacity(targets.len());
        let reads = self.transaction.recorded_reads();
        for (shard, target) in targets {
            if let Some(reads) = &reads {
                target.record(&mut reads.lock(), shard, location.table.storage);
            }
            let mut context = write_context.unwrap_or_else(|| self.transaction.read_context(shard, snapshot));
            context.table_version = location.table.version;
            let scan = ShardScan {
                router: self.transaction.router(&context),
                shard,
                storage: location.table.storage,
                context,
                program: program.clone(),
                parameters: parameters.clone(),
                limit: limit.unwrap_or(0),
                locking,
            };
            scans.push((scan, target));
        }
        // The point read: one answer, no stream behind it.
        if let [(scan, Target::Keys(keys))] = scans.as_slice() {
            let mut rows = scan.read(keys).await?.rows;
            rows.truncate(usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
            let rows = decode_rows(&rows)?;
            return Ok(stream::once(async move { Ok(rows) }).boxed());
        }
        let batches = stream::select_all(scans.into_iter().map(|(scan, target)| scan.stream(target)));
        let mut left = limit.unwrap_or(u64::MAX);
        let decoded = batches.map(move |batch| {
            let mut rows = batch?;
            rows.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= rows.len() as u64;
            Ok((decode_rows(&rows)?, left == 0))
        });
        Ok(until_enough(decoded.boxed()))
    }

    fn row_limit(&self, select: &SimpleSelect) -> Result<Option<u64>> {
        let Some(limit) = &select.limit else {
            return Ok(None);
        };
        let context = EvaluationContext {
            row: &[],
            parameters: &self.parameters,
            statement_time_unix_micros: self.transaction.time_unix_micros,
        };
        let value = match limit.evaluate(&context)? {
            Datum::Null => return Ok(None),
            Datum::SmallInt(value) => i64::from(value),
            Datum::Integer(value) => i64::from(value),
            Datum::BigInt(value) => value,
            other => return Err(SqlError::internal(format!("LIMIT is not a number: {other:?}"))),
        };
        u64::try_from(value)
            .map(Some)
            .map_err(|_| SqlError::new(SqlState("2201W"), "LIMIT must not be negative"))
    }

    /// A view of all tables for the planner's operators.
    ///
    /// # Errors
    /// If no timestamp can be had.
    pub async fn table_access(&mut self, may_lock: bool) -> Result<Arc<StatementAccess>> {
        // Any number of shards may be visited: they must all be seen at one instant.
        let snapshot = self.transaction.statement_snapshot(false).await?;
        let participants: BTreeSet<ShardId> = self.transaction.participants();
        let context = if may_lock || !participants.is_empty() {
            self.transaction.write_context(&[], snapshot).await?
        } else {
            self.transaction.read_context(0, snapshot)
        };
        Ok(Arc::new(StatementAccess {
            core: self.core.clone(),
            router: self.transaction.router(&context),
            reading_router: self.transaction.reading_router(),
            context,
            participants,
            past: self.transaction.past(),
            reads: self.transaction.recorded_reads(),
            locked: self.transaction.locked_by_queries(),
        }))
    }
}

fn decode_rows(rows: &[Bytes]) -> Result<Vec<Vec<Datum>>> {
    rows.iter()
        .map(|row| decode_tuple(row).map_err(|error| SqlError::internal(format!("unreadable row: {error}"))))
        .collect()
}

/// Ends the stream after the batch that completes the limit, without waiting for the other shards.
fn until_enough(batches: BoxStream<'static, Result<(Vec<Vec<Datum>>, bool)>>) -> RowBatches {
    stream::unfold(Some(batches), |state| async move {
        let mut batches = state?;
        match batches.next().await? {
            Ok((rows, enough)) => Some((Ok(rows), (!enough).then_some(batches))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
