//! UPDATE and DELETE.

use futures::StreamExt;
use futures::future::try_join_all;
use neorunbase_catalog::schema::ROW_ID_COLUMN;
use neorunbase_protocol::message::{ModifyRows, ProgramRef, RequestBody, RowWrite, RowWriteKind, ShardId};
use neorunbase_sql::plan::{Modify, ModifyByQuery};
use neorunbase_storage::row::{decode_tuple, encode_row, encode_tuple};
use neorunbase_types::{Datum, Result, SqlError};

use super::Execution;
use super::insert::{PlacedWrite, WritesByShard, Written, key_of_row};
use super::targets::{Target, is_one_row, targets};
use crate::coordinator::location::{TableLocation, has_hidden_key};

impl Execution<'_> {
    /// Runs UPDATE or DELETE where the rows are.
    ///
    /// # Errors
    /// The statement's.
    pub async fn modify(
        &mut self,
        modify: &Modify,
        location: &TableLocation,
        program: &ProgramRef,
    ) -> Result<Written> {
        let time = self.transaction.time_unix_micros;
        let targets = targets(location, &modify.path, &self.parameters, time)?;
        let mut written = Written::default();
        if targets.is_empty() {
            return Ok(written);
        }
        let shards: Vec<ShardId> = targets.iter().map(|(shard, _)| *shard).collect();
        let snapshot = self.transaction.statement_snapshot(is_one_row(&targets)).await?;
        let mut context = self.transaction.write_context(&shards, snapshot).await?;
        if let Some(reads) = self.transaction.recorded_reads() {
            let mut reads = reads.lock();
            for (shard, target) in &targets {
                target.record(&mut reads, *shard, location.table.storage);
            }
            self.record_what_errors_tell(&mut reads, location, &shards);
        }
        context.autocommit = self.commits_on(&shards);
        self.transaction.may_have_committed |= context.autocommit;
        let parameters = encode_tuple(&self.parameters);
        let router = &self.transaction.router(&context);
        let transaction = &*self.transaction;
        let calls = targets.into_iter().map(|(shard, target)| {
            let (keys, index, lower, upper) = match target {
                Target::Keys(keys) => (keys, 0, bytes::Bytes::new(), bytes::Bytes::new()),
                Target::Range { index, lower, upper } => (Vec::new(), index, lower, upper),
            };
            let parameters = &parameters;
            async move {
                let build = |shard, context| {
                    RequestBody::ModifyRows(ModifyRows {
                        shard,
                        context,
                        table: location.descriptor.clone(),
                        program: program.clone(),
                        parameters: parameters.clone(),
                        delete: modify.delete,
                        keys: keys.clone(),
                        index,
                        lower: lower.clone(),
                        upper: upper.clone(),
                    })
                };
                transaction.send_write(router, shard, context, build).await
            }
        });
        for reply in try_join_all(calls).await? {
            written.affected += reply.affected;
            written.committed |= context.autocommit;
            for row in reply.returned {
                let row = decode_tuple(&row)
                    .map_err(|error| SqlError::internal(format!("unreadable row: {error}")))?;
                written.returned.push(row);
            }
        }
        Ok(written)
    }

    /// Runs UPDATE or DELETE whose rows a query finds.
    ///
    /// # Errors
    /// The statement's.
    pub async fn modify_by_query(
        &mut self,
        modify: &ModifyByQuery,
        location: &TableLocation,
    ) -> Result<Written> {
        let table = location.table.clone();
        let access = self.table_access(true).await?;
        let time = self.transaction.time_unix_micros;
        let mut batches = modify
            .query
            .execute(self.parameters.clone(), access, time)
            .await?;
        let hidden = usize::from(has_hidden_key(&table));
        let width = table.columns.len();
        let mut writes = WritesByShard::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut written = Written::default();
        let mut source = 0;
        while let Some(batch) = batches.next().await {
            for row in batch? {
                let expected = hidden + if modify.delete { width } else { 2 * width };
                if row.len() != expected {
                    return Err(SqlError::internal(
                        "the query of an update has the wrong number of columns",
                    ));
                }
                let old = &row[hidden..hidden + width];
                let old_key = if hidden == 1 {
                    vec![row[0].clone()]
                } else {
                    key_of_row(&table, old)?
                };
                let (old_shard, old_encoded) = location.locate(&old_key);
                // A row that a join finds twice is changed once, by either match, as in PostgreSQL.
                if !seen.insert(old_encoded.clone()) {
                    continue;
                }
                if modify.delete {
                    push(
                        &mut writes,
                        old_shard,
                        source,
                        RowWriteKind::Delete,
                        old_encoded,
                        bytes::Bytes::new(),
                    );
                } else {
                    let new = &row[hidden + width..];
                    super::insert::check_not_null(&table, new)?;
                    let new_key = if hidden == 1 {
                        old_key
                    } else {
                        key_of_row(&table, new)?
                    };
                    let (new_shard, new_encoded) = location.locate(&new_key);
                    let mut columns: Vec<(u32, &Datum)> =
                        table.columns.iter().map(|column| column.id).zip(new).collect();
                    if hidden == 1 {
                        columns.push((ROW_ID_COLUMN, &row[0]));
                    }
                    let encoded = encode_row(&columns);
                    if new_encoded == old_encoded {
                        push(
                            &mut writes,
                            old_shard,
                            source,
                            RowWriteKind::Put,
                            old_encoded,
                            encoded,
                        );
                    } else {
                        push(
                            &mut writes,
                            old_shard,
                            source,
                            RowWriteKind::Delete,
                            old_encoded,
                            bytes::Bytes::new(),
                        );
                        push(
                            &mut writes,
                            new_shard,
                            source,
                            RowWriteKind::Insert,
                            new_encoded,
                            encoded,
                        );
                    }
                }
                if let Some(returning) = &modify.returning {
                    let shown = if modify.delete {
                        old
                    } else {
                        &row[hidden + width..]
                    };
                    written.returned.push(self.evaluate_all(returning, shown)?);
                }
                source += 1;
            }
        }
        drop(batches);
        self.transaction.take_in_locked();
        // Shards with its locks know the transaction already, and would take a commit at once for a repeated request.
        self.commits_at_once &= !self.transaction.has_participants();
        for placed in writes.values_mut() {
            // Keys that move onto one another's places: all leave before any arrives.
            placed.sort_by_key(|placed| placed.write.kind != RowWriteKind::Delete as i32);
        }
        let (done, _) = self.write_rows(location, writes).await?;
        written.affected = source as u64;
        written.committed = done.committed;
        Ok(written)
    }
}

fn push(
    writes: &mut WritesByShard,
    shard: ShardId,
    source: usize,
    kind: RowWriteKind,
    key: bytes::Bytes,
    row: bytes::Bytes,
) {
    let write = RowWrite {
        kind: kind as i32,
        key,
        row,
    };
    writes
        .entry(shard)
        .or_default()
        .push(PlacedWrite { source, write });
}
