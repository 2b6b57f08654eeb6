//! Literal row changes, and what all writes have in common: the statement's own changes, unique values, limits.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_protocol::message::{RowWrite, RowWriteKind, StatementContext, WriteRows, WrittenReply};
use neorunbase_storage::descriptor::{KeyColumn, TableDescriptor};
use neorunbase_storage::key::prefix_end;
use neorunbase_storage::row::decode_columns;
use neorunbase_txn::WriteSet;
use neorunbase_types::{Datum, SqlError, SqlState};
use neorunbase_world::fault::planted;

use super::failure::{Failure, concurrent_update};
use super::locking::{Current, RowAccess};
use super::read::View;
use super::session::{Begin, Session};
use super::table::{StoredTable, UniqueValue, index_entries, unique_values};
use super::{DataNode, Participant};
use std::ops::Bound;

/// A statement's changes, not part of its transaction before it has succeeded.
pub(super) struct Changes<'a> {
    node: &'a DataNode,
    view: &'a View,
    pub table: &'a Arc<StoredTable>,
    participant: &'a Arc<Participant>,
    writes: WriteSet<StoredTable>,
    bytes_before: usize,
}

impl<'a> Changes<'a> {
    pub(super) fn new(access: &RowAccess<'a>, table: &'a Arc<StoredTable>) -> Self {
        let bytes_before = access.participant.writes.lock().bytes();
        access.view.shard.see_table(&table.descriptor);
        Self {
            node: access.node,
            view: access.view,
            table,
            participant: access.participant,
            writes: WriteSet::default(),
            bytes_before,
        }
    }

    /// What this statement itself has written at `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.writes.get(self.view.shard.id, self.view.storage, key)
    }

    /// Sets or deletes a row.
    pub(super) fn put(&mut self, key: Bytes, row: Option<Bytes>) -> Result<(), Failure> {
        let entries = match &row {
            Some(row) => index_entries(&self.table.descriptor, &key, row)?,
            None => Vec::new(),
        };
        self.writes.put(
            self.view.shard.id,
            self.view.storage,
            self.table,
            key,
            row,
            entries,
        );
        if self.bytes_before + self.writes.bytes() > self.node.config.transaction_memory_bytes {
            return Err(Failure::Sql(
                SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory").with_detail(format!(
                    "a transaction may write at most {} bytes on one data node",
                    self.node.config.transaction_memory_bytes
                )),
            ));
        }
        Ok(())
    }

    /// The statement has succeeded: its changes become the transaction's.
    pub(super) fn keep(self, context: &StatementContext) {
        let mut writes = self.participant.writes.lock();
        if context.revocable {
            writes.absorb_revocable(context.sequence, self.writes);
        } else {
            writes.absorb(self.writes);
        }
    }

    /// The newest version of a locked row, this statement's own changes included.
    fn current(&self, access: &RowAccess<'_>, key: &[u8]) -> Result<Current, Failure> {
        match self.get(key) {
            Some(row) => Ok(Current {
                row: row.clone(),
                commit_timestamp: 0,
            }),
            None => access.current(key),
        }
    }

    /// Locks the unique values that change, old ones too: who wants one that is being given up has to wait for the
    /// outcome. Returns a value of `new` that another row has.
    pub(super) async fn claim_unique_values(
        &self,
        access: &RowAccess<'_>,
        key: &Bytes,
        old: Option<&Bytes>,
        new: Option<&Bytes>,
    ) -> Result<Option<UniqueValue>, Failure> {
        let table = &self.table.descriptor;
        if !table.indexes.iter().any(|index| index.unique) {
            return Ok(None);
        }
        let old = old.map_or(Ok(Vec::new()), |row| unique_values(table, row))?;
        let new = new.map_or(Ok(Vec::new()), |row| unique_values(table, row))?;
        for value in old.iter().filter(|value| !new.contains(value)) {
            access
                .lock(table.indexes[value.index].storage, &value.key)
                .await?;
        }
        for value in new.into_iter().filter(|value| !old.contains(value)) {
            if !planted("unique-value-not-locked") {
                access
                    .lock(table.indexes[value.index].storage, &value.key)
                    .await?;
            }
            if self.is_taken(access, key, &value)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Whether a row other than the one at `key` has a unique value, whose lock is held.
    fn is_taken(&self, access: &RowAccess<'_>, key: &Bytes, value: &UniqueValue) -> Result<bool, Failure> {
        let index = self.table.descriptor.indexes[value.index].storage;
        let end = prefix_end(&value.key);
        let mut others: Vec<Bytes> = Vec::new();
        let mut entries = self.view.shard.store.scan_index(index, &value.key, &end, false)?;
        while let Some(entry) = entries.next()? {
            others.push(entry.slice(value.key.len()..));
        }
        let shard = self.view.shard.id;
        let bounds = (
            Bound::Included(value.key.as_ref()),
            if end.is_empty() {
                Bound::Unbounded
            } else {
                Bound::Excluded(end.as_ref())
            },
        );
        for writes in [&*self.participant.writes.lock(), &self.writes] {
            let Some(writes) = writes.shard(shard) else {
                continue;
            };
            let mut lower = bounds.0;
            while let Some((entry, other)) = writes.next_entry(index, lower, bounds.1, false) {
                others.push(other.clone());
                lower = Bound::Excluded(entry);
            }
        }
        for other in others.iter().filter(|other| *other != key) {
            let Some(row) = self.current(access, other)?.row else {
                continue;
            };
            if unique_values(&self.table.descriptor, &row)?.contains(value) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// `23505`
fn duplicate_key(
    table: &TableDescriptor,
    constraint: &str,
    columns: &[KeyColumn],
    values: &[Datum],
) -> Failure {
    Failure::Sql(
        SqlError::new(
            SqlState::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{constraint}\""),
        )
        .with_detail(format!("Key {} already exists.", describe_key(columns, values)))
        .about_constraint(&table.schema_name, &table.table_name, constraint),
    )
}

/// `(a, b)=(1, x)`
pub(super) fn describe_key(columns: &[KeyColumn], values: &[Datum]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let values: Vec<String> = columns
        .iter()
        .zip(values)
        .map(|(column, value)| {
            if value.is_null() {
                "null".to_owned()
            } else {
                value.to_text(&column.sql_type)
            }
        })
        .collect();
    format!("({})=({})", names.join(", "), values.join(", "))
}

/// The `23505` of a primary key.
pub(super) fn duplicate_primary_key(table: &TableDescriptor, row: &[u8]) -> Failure {
    let wanted: Vec<(u32, &Datum)> = table
        .primary_key
        .iter()
        .map(|column| (column.column, &Datum::Null))
        .collect();
    let mut values = Vec::with_capacity(wanted.len());
    match decode_columns(row, &wanted, &mut values) {
        Ok(()) => duplicate_key(table, &table.primary_key_name, &table.primary_key, &values),
        Err(error) => error.into(),
    }
}

/// The `23505` of a unique index.
pub(super) fn duplicate_unique_value(table: &TableDescriptor, value: &UniqueValue) -> Failure {
    let index = &table.indexes[value.index];
    duplicate_key(table, &index.name, &index.columns, &value.values)
}

impl DataNode {
    /// See [`WriteRows`].
    pub(super) async fn write_rows(&self, request: WriteRows) -> Result<WrittenReply, Failure> {
        let shard = self.served_shard(&request.shard)?;
        let table = self.programs.table(&request.table)?;
        shard.fences.check_write(&table.descriptor)?;
        let session = match self.begin(&request.context, true).await? {
            Begin::Run(session) => session,
            Begin::Repeat(reply) => return Ok(reply),
        };
        let view = View {
            shard,
            storage: table.descriptor.storage,
            snapshot: request.context.snapshot,
            own: session.participant.clone(),
        };
        let result = self.write_rows_in(&session, &view, &table, &request).await;
        self.conclude(session, result).await
    }

    async fn write_rows_in(
        &self,
        session: &Session,
        view: &View,
        table: &Arc<StoredTable>,
        request: &WriteRows,
    ) -> Result<WrittenReply, Failure> {
        let name = &table.descriptor.table_name;
        let access = RowAccess::of_write(self, session, view, &request.context, name)?;
        let mut changes = Changes::new(&access, table);
        let mut reply = WrittenReply::default();
        for (position, write) in request.writes.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let counts = match write_row(&access, &mut changes, write).await {
                Err(Failure::Sql(error)) => return Err(Failure::Sql(error.about_row(position))),
                outcome => outcome?,
            };
            if counts {
                reply.affected += 1;
            } else if write.kind == i32::from(RowWriteKind::InsertOrSkip) {
                reply.skipped.push(position);
            }
        }
        changes.keep(&request.context);
        Ok(reply)
    }
}

/// Carries out one change. Returns whether it counts.
async fn write_row(
    access: &RowAccess<'_>,
    changes: &mut Changes<'_>,
    write: &RowWrite,
) -> Result<bool, Failure> {
    let kind = RowWriteKind::try_from(write.kind).map_err(|_| {
        Failure::Sql(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            "unknown kind of row change",
        ))
    })?;
    let storage = access.view.storage;
    let Some(granted) = access.lock(storage, &write.key).await? else {
        return Ok(false);
    };
    let current = changes.current(access, &write.key)?;
    let is_newer = access.fails_on_newer && current.commit_timestamp > access.view.snapshot;
    match kind {
        RowWriteKind::Insert | RowWriteKind::InsertOrSkip => {
            let skips = kind == RowWriteKind::InsertOrSkip;
            if current.row.is_some() {
                if !skips {
                    return Err(duplicate_primary_key(&changes.table.descriptor, &write.row));
                }
                if is_newer {
                    return Err(concurrent_update()); // the conflicting row is invisible to the snapshot
                }
                access.unlock(storage, &write.key, granted);
                return Ok(false);
            }
            let taken = changes
                .claim_unique_values(access, &write.key, None, Some(&write.row))
                .await?;
            if let Some(value) = taken {
                if !skips {
                    return Err(duplicate_unique_value(&changes.table.descriptor, &value));
                }
                access.unlock(storage, &write.key, granted);
                return Ok(false);
            }
            changes.put(write.key.clone(), Some(write.row.clone()))?;
        }
        RowWriteKind::Put => {
            if is_newer {
                return Err(concurrent_update());
            }
            let (old, new) = (current.row.as_ref(), Some(&write.row));
            if let Some(value) = changes.claim_unique_values(access, &write.key, old, new).await? {
                return Err(duplicate_unique_value(&changes.table.descriptor, &value));
            }
            changes.put(write.key.clone(), Some(write.row.clone()))?;
        }
        RowWriteKind::Delete => {
            if is_newer {
                return Err(concurrent_update());
            }
            if current.row.is_none() {
                access.unlock(storage, &write.key, granted);
                return Ok(false);
            }
            changes
                .claim_unique_values(access, &write.key, current.row.as_ref(), None)
                .await?;
            changes.put(write.key.clone(), None)?;
        }
    }
    Ok(true)
}
