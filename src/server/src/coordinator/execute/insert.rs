//! INSERT, and the row writes that COPY and updates of keys share with it.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::future::join_all;
use neorunbase_catalog::Table;
use neorunbase_catalog::schema::ROW_ID_COLUMN;
use neorunbase_expression::{EvaluationContext, Expression, null_in_column};
use neorunbase_protocol::message::{RequestBody, RowWrite, RowWriteKind, ShardId, WriteRows};
use neorunbase_sql::plan::{Insert, InsertSource};
use neorunbase_storage::row::encode_row;
use neorunbase_txn::ReadSet;
use neorunbase_types::{Datum, Result, SqlError};

use super::Execution;
use crate::coordinator::location::{TableLocation, has_hidden_key};

/// Timestamps, from which row ids are made, need no more bits until 2039; the rest are free to choose.
const ROW_ID_BITS: u32 = 61;

/// What a write did.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows changed.
    pub affected: u64,
    /// RETURNING.
    pub returned: Vec<Vec<Datum>>,
    /// The single shard has committed the transaction already.
    pub committed: bool,
}

/// A write on its way to its shard, with the number of the row it came from.
pub struct PlacedWrite {
    /// Position of the source row.
    pub source: usize,
    /// The write.
    pub write: RowWrite,
}

/// Writes grouped by shard, in source order within each.
pub type WritesByShard = BTreeMap<ShardId, Vec<PlacedWrite>>;

impl Execution<'_> {
    /// Runs INSERT.
    ///
    /// # Errors
    /// The statement's, such as `23505`.
    pub async fn insert(&mut self, insert: &Insert, location: &TableLocation) -> Result<Written> {
        let rows = self.insert_rows(insert).await?;
        let kind = if insert.skip_conflicts {
            RowWriteKind::InsertOrSkip
        } else {
            RowWriteKind::Insert
        };
        let mut writes = WritesByShard::new();
        for (source, row) in rows.iter().enumerate() {
            self.place_row(location, kind, source, row, &mut writes).await?;
        }
        let (mut written, skipped) = self.write_rows(location, writes).await?;
        if let Some(returning) = &insert.returning {
            for (source, row) in rows.iter().enumerate() {
                if !skipped.contains(&source) {
                    written.returned.push(self.evaluate_all(returning, row)?);
                }
            }
        }
        Ok(written)
    }

    /// The rows to insert: all columns of the table, defaults filled in.
    async fn insert_rows(&mut self, insert: &Insert) -> Result<Vec<Vec<Datum>>> {
        let mut rows = Vec::new();
        match &insert.source {
            InsertSource::Values(values) => {
                for source in values {
                    let source = self.evaluate_all(source, &[])?;
                    rows.push(self.evaluate_all(&insert.row, &source)?);
                }
            }
            InsertSource::Query(query, casts) => {
                let access = self.table_access(false).await?;
                let time = self.transaction.time_unix_micros;
                let mut batches = query.execute(self.parameters.clone(), access, time).await?;
                while let Some(batch) = batches.next().await {
                    for source in batch? {
                        let source = self.evaluate_all(casts, &source)?;
                        rows.push(self.evaluate_all(&insert.row, &source)?);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// Evaluates `expressions` over one row.
    ///
    /// # Errors
    /// The first expression's that fails.
    pub fn evaluate_all(&self, expressions: &[Expression], row: &[Datum]) -> Result<Vec<Datum>> {
        let context = EvaluationContext {
            row,
            parameters: &self.parameters,
            statement_time_unix_micros: self.transaction.time_unix_micros,
        };
        expressions
            .iter()
            .map(|expression| expression.evaluate(&context))
            .collect()
    }

    /// Checks a new row and adds its write to those of its shard.
    ///
    /// # Errors
    /// `23502`; or if no row id can be had.
    pub async fn place_row(
        &self,
        location: &TableLocation,
        kind: RowWriteKind,
        source: usize,
        row: &[Datum],
        writes: &mut WritesByShard,
    ) -> Result<()> {
        let table = &*location.table;
        check_not_null(table, row)?;
        let mut columns: Vec<(u32, &Datum)> = table.columns.iter().map(|column| column.id).zip(row).collect();
        let row_id;
        let key = if has_hidden_key(table) {
            row_id = Datum::BigInt(self.choose_row_id(location).await?);
            columns.push((ROW_ID_COLUMN, &row_id));
            vec![row_id.clone()]
        } else {
            key_of_row(table, row)?
        };
        let (shard, key) = location.locate(&key);
        let write = RowWrite {
            kind: kind as i32,
            key,
            row: encode_row(&columns),
        };
        writes
            .entry(shard)
            .or_default()
            .push(PlacedWrite { source, write });
        Ok(())
    }

    /// A hidden key for a new row. Any unused number will do, so one is taken that belongs to a node which takes
    /// part in the transaction already: fewer nodes make a cheaper commit.
    async fn choose_row_id(&self, location: &TableLocation) -> Result<i64> {
        let unique = self.core.coordinator.next_row_id().await?;
        if unique >> ROW_ID_BITS != 0 || !self.transaction.has_participants() {
            return Ok(unique);
        }
        let mut candidates =
            (0..1_i64 << (i64::BITS - ROW_ID_BITS)).map(|choice| unique | (choice << ROW_ID_BITS));
        let local = candidates.find(|candidate| {
            let (shard, _) = location.locate(&[Datum::BigInt(*candidate)]);
            self.transaction.takes_part_at(shard)
        });
        Ok(local.unwrap_or(unique))
    }

    /// Sends writes to their shards, all at once. Returns the sources of skipped writes as well.
    ///
    /// # Errors
    /// The statement's; some shards may have carried out their part (the transaction must be rolled back).
    pub async fn write_rows(
        &mut self,
        location: &TableLocation,
        writes: WritesByShard,
    ) -> Result<(Written, std::collections::BTreeSet<usize>)> {
        let shards: Vec<ShardId> = writes.keys().copied().collect();
        let mut written = Written::default();
        let mut skipped_sources = std::collections::BTreeSet::new();
        if shards.is_empty() {
            return Ok((written, skipped_sources));
        }
        let snapshot = self.transaction.statement_snapshot(true).await?;
        let mut context = self.transaction.write_context(&shards, snapshot).await?;
        if let Some(reads) = self.transaction.recorded_reads() {
            let mut reads = reads.lock();
            for (shard, placed) in &writes {
                // That there is a row already is told by skipping it, or by an error that a savepoint survives.
                let told = placed.iter().filter(|placed| {
                    placed.write.kind == RowWriteKind::InsertOrSkip as i32
                        || self.transaction.has_savepoints()
                });
                let keys: Vec<_> = told.map(|placed| placed.write.key.clone()).collect();
                reads.read_keys(*shard, location.table.storage, &keys);
            }
            self.record_what_errors_tell(&mut reads, location, &shards);
        }
        context.autocommit = self.commits_on(&shards);
        self.transaction.may_have_committed |= context.autocommit;
        let router = &self.transaction.router(&context);
        let transaction = &*self.transaction;
        let calls = writes.into_iter().map(|(shard, placed)| {
            let (sources, writes): (Vec<usize>, Vec<RowWrite>) = placed
                .into_iter()
                .map(|placed| (placed.source, placed.write))
                .unzip();
            let table = location.descriptor.clone();
            async move {
                let build = |shard, context| {
                    RequestBody::WriteRows(WriteRows {
                        shard,
                        context,
                        table: table.clone(),
                        writes: writes.clone(),
                    })
                };
                let reply = transaction.send_write(router, shard, context, build).await;
                (sources, reply)
            }
        });
        let answers = join_all(calls).await;
        // As if the rows were written one after the other: the first of them that fails is told.
        let failed_source = |sources: &[usize], error: &SqlError| {
            let row = error.objects.as_ref().and_then(|objects| objects.row);
            row.and_then(|row| sources.get(usize::try_from(row).ok()?).copied())
        };
        let first_failure = answers
            .iter()
            .filter_map(|(sources, reply)| Some((sources, reply.as_ref().err()?)))
            .min_by_key(|(sources, error)| failed_source(sources, error).unwrap_or(usize::MAX));
        if let Some((_, error)) = first_failure {
            return Err(error.clone());
        }
        for (sources, reply) in answers {
            let reply = reply?;
            written.affected += reply.affected;
            written.committed |= context.autocommit;
            for index in reply.skipped {
                if let Some(source) = usize::try_from(index).ok().and_then(|index| sources.get(index)) {
                    skipped_sources.insert(*source);
                }
            }
        }
        Ok((written, skipped_sources))
    }
}

impl Execution<'_> {
    /// An error about a unique value tells of rows that nobody asked for. It ends the transaction, unless there is a
    /// savepoint; then the locks on those values go with it, too.
    pub(super) fn record_what_errors_tell(
        &self,
        reads: &mut ReadSet,
        location: &TableLocation,
        shards: &[ShardId],
    ) {
        if self.transaction.has_savepoints() && location.table.indexes.iter().any(|index| index.unique) {
            for shard in shards {
                reads.read_table(*shard, location.table.storage);
            }
        }
    }
}

/// The row key's values of a row with a primary key.
///
/// # Errors
/// `XX000` if the table's definition contradicts itself.
pub fn key_of_row(table: &Table, row: &[Datum]) -> Result<Vec<Datum>> {
    table
        .key_columns()
        .into_iter()
        .map(|id| {
            let position = table.columns.iter().position(|column| column.id == id);
            position
                .and_then(|position| row.get(position).cloned())
                .ok_or_else(|| SqlError::internal("a key column is missing from its table"))
        })
        .collect()
}

pub(super) fn check_not_null(table: &Table, row: &[Datum]) -> Result<()> {
    for (column, value) in table.columns.iter().zip(row) {
        if column.not_null && value.is_null() {
            let types = table.columns.iter().map(|column| &column.sql_type);
            return Err(null_in_column(
                &table.schema,
                &table.name,
                &column.name,
                row.iter().zip(types),
            ));
        }
    }
    Ok(())
}
