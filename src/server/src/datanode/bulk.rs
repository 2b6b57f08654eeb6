//! Storages come and go, and are filled before anybody can see them.

use std::collections::BTreeSet;
use std::sync::Arc;

use neorunbase_protocol::message::{BulkWrite, ChangeStorage, ShardId, StorageId, WrittenReply};
use neorunbase_replication::LogPosition;
use neorunbase_storage::StorageError;
use neorunbase_storage::descriptor::{IndexDescriptor, TableDescriptor};
use neorunbase_storage::key::{decode_key, prefix_end};
use neorunbase_storage::shard::RowChange;
use neorunbase_types::{SqlError, SqlState};

use super::DataNode;
use super::commit::wal_record;
use super::failure::Failure;
use super::log_record::{
    BuildIndexRecord, ChangeStorageRecord, CommitRecord, LogEntry, RowRecord, TableWritesRecord,
};
use super::replication::{Committed, LoggedStep, Room};
use super::shard::Shard;
use super::table::{StoredTable, UniqueValue, unique_values};
use super::write::{describe_key, duplicate_primary_key, duplicate_unique_value};

/// Rows looked at in one step of an index build; commits wait meanwhile.
const BUILD_STEP_ROWS: usize = 256;

impl DataNode {
    /// See [`ChangeStorage`].
    pub(super) async fn change_storage(&self, request: ChangeStorage) -> Result<(), Failure> {
        let shard = self.served_shard(&request.shard)?;
        let ChangeStorage { create, drop, .. } = request;
        let record = ChangeStorageRecord {
            create: create.clone(),
            drop: drop.clone(),
        };
        let records = vec![wal_record(&shard, LogEntry::ChangeStorage(record))];
        let only_drops = create.is_empty();
        if only_drops {
            // Nobody sees them any more. At once, because a full disk may need the room to log it.
            shard.change_storage(&[], &drop)?;
        }
        let step = Applied(move |node: &DataNode, _| {
            if let Err(error) = shard.change_storage(&create, &drop) {
                node.fail(format!(
                    "shard {:#x} could not change its storages: {error}",
                    shard.id
                ));
            }
        });
        let room = if only_drops { Room::OrWait } else { Room::OrRefuse };
        self.log(records, Box::new(step), room).await
    }

    /// See [`BulkWrite`].
    pub(super) async fn bulk_write(&self, request: BulkWrite) -> Result<WrittenReply, Failure> {
        let shard = self.served_shard(&request.shard)?;
        let table = self.programs.table(&request.table)?;
        let _one_at_a_time = self.bulk.lock().await;
        if request.build_index != 0 {
            return self.build_index(&shard, &table, request.build_index).await;
        }
        let changes = bulk_changes(&shard, &table, &request)?;
        let known = shard.knows_table(table.digest);
        let rows = changes.iter().map(|change| RowRecord {
            key: change.key.clone(),
            row: change.row.clone(),
        });
        let record = CommitRecord {
            transaction: 0,
            commit_timestamp: request.commit_timestamp,
            tables: vec![TableWritesRecord {
                table_digest: table.digest,
                table_definition: (!known).then(|| table.encoded.clone()),
                rows: rows.collect(),
            }],
            affected: changes.len() as u64,
        };
        let records = vec![wal_record(&shard, LogEntry::Commit(record))];
        self.check_frame_size(&records)?;
        let affected = changes.len() as u64;
        let commit_timestamp = request.commit_timestamp;
        let new_tables: Vec<_> = if known { Vec::new() } else { vec![table] };
        let step = Applied(move |node: &DataNode, position| {
            let applied = shard.apply(&changes, commit_timestamp, position, &new_tables, &[]);
            node.check_applied(&shard, position, applied);
        });
        self.log(records, Box::new(step), Room::OrRefuse).await?;
        Ok(WrittenReply {
            affected,
            commit_timestamp,
            ..WrittenReply::default()
        })
    }

    async fn build_index(
        &self,
        shard: &Arc<Shard>,
        table: &Arc<StoredTable>,
        storage: StorageId,
    ) -> Result<WrittenReply, Failure> {
        let descriptor = &table.descriptor;
        let index = descriptor
            .indexes
            .iter()
            .find(|index| index.storage == storage)
            .ok_or_else(|| {
                Failure::Sql(SqlError::internal(format!(
                    "table \"{}\" has no index {storage}",
                    descriptor.table_name
                )))
            })?;
        self.log_table(shard, table).await?;
        let mut resume = None;
        let mut affected = 0;
        // Here a little at a time; other copies do it when they come to the record.
        loop {
            let progress = shard
                .store
                .build_index(descriptor.storage, index, BUILD_STEP_ROWS, resume)?;
            affected += progress.entries as u64;
            resume = progress.resume;
            if resume.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if index.unique
            && let Some(key) = shard.store.first_duplicate(descriptor.storage, index)?
        {
            return Err(duplicate_in_build(descriptor, index, &key));
        }
        // The build is not in the log: it counts once the engine has it durably.
        shard.store.engine().flush().await.map_err(StorageError::from)?;
        let record = BuildIndexRecord {
            table_digest: table.digest,
            index: storage,
        };
        let records = vec![wal_record(shard, LogEntry::BuildIndex(record))];
        let step = Applied(|_: &DataNode, _| {});
        self.log(records, Box::new(step), Room::OrRefuse).await?;
        Ok(WrittenReply {
            affected,
            ..WrittenReply::default()
        })
    }

    /// Makes the shard know a table's indexes for good, though no row of it was written yet.
    async fn log_table(&self, shard: &Arc<Shard>, table: &Arc<StoredTable>) -> Result<(), Failure> {
        if shard.knows_table(table.digest) {
            return Ok(());
        }
        let record = CommitRecord {
            tables: vec![TableWritesRecord {
                table_digest: table.digest,
                table_definition: Some(table.encoded.clone()),
                rows: Vec::new(),
            }],
            ..CommitRecord::default()
        };
        let (shard, table) = (shard.clone(), table.clone());
        let records = vec![wal_record(&shard, LogEntry::Commit(record))];
        let step = Applied(move |node: &DataNode, position| {
            let applied = shard.apply(&[], 0, position, &[table], &[]);
            node.check_applied(&shard, position, applied);
        });
        self.log(records, Box::new(step), Room::OrRefuse).await
    }
}

/// A frame of one record, and what it does to its shard. Nothing is lost with it if it is refused or voided.
pub(super) struct Applied<Effect>(pub(super) Effect);

impl<Effect: FnOnce(&DataNode, LogPosition) + Send> LoggedStep for Applied<Effect> {
    fn committed(self: Box<Self>, node: &DataNode, committed: &mut Committed<'_>) {
        let position = committed
            .shards()
            .next()
            .and_then(|shard| committed.position(shard));
        if let Some(position) = position {
            (self.0)(node, position);
        }
    }

    fn refused(self: Box<Self>, _: &DataNode) {}

    fn voided(&mut self, _: &DataNode, _: ShardId) {}
}

fn duplicate_in_build(table: &TableDescriptor, index: &IndexDescriptor, key: &[u8]) -> Failure {
    let types: Vec<_> = index
        .columns
        .iter()
        .map(|column| column.sql_type.clone())
        .collect();
    let error = SqlError::new(
        SqlState::UNIQUE_VIOLATION,
        format!("could not create unique index \"{}\"", index.name),
    )
    .about_constraint(&table.schema_name, &table.table_name, &index.name);
    Failure::Sql(match decode_key(key, &types) {
        Ok(values) => error.with_detail(format!(
            "Key {} is duplicated.",
            describe_key(&index.columns, &values)
        )),
        Err(_) => error,
    })
}

/// The rows as changes, none of them a duplicate of another or of what is there.
fn bulk_changes(shard: &Shard, table: &StoredTable, request: &BulkWrite) -> Result<Vec<RowChange>, Failure> {
    let descriptor = &table.descriptor;
    let mut keys = BTreeSet::new();
    let mut unique = BTreeSet::new();
    let mut changes = Vec::with_capacity(request.rows.len());
    for write in &request.rows {
        let is_there = shard
            .store
            .newest(descriptor.storage, &write.key)?
            .is_some_and(|version| version.row.is_some());
        if is_there || !keys.insert(write.key.clone()) {
            return Err(duplicate_primary_key(descriptor, &write.row));
        }
        for value in unique_values(descriptor, &write.row)? {
            if !unique.insert((value.index, value.key.clone()))
                || unique_value_exists(shard, descriptor, &value)?
            {
                return Err(duplicate_unique_value(descriptor, &value));
            }
        }
        changes.push(RowChange {
            table: descriptor.clone(),
            key: write.key.clone(),
            row: Some(write.row.clone()),
        });
    }
    Ok(changes)
}

fn unique_value_exists(shard: &Shard, table: &TableDescriptor, value: &UniqueValue) -> Result<bool, Failure> {
    let index = table.indexes[value.index].storage;
    let mut entries = shard
        .store
        .scan_index(index, &value.key, &prefix_end(&value.key), false)?;
    while let Some(entry) = entries.next()? {
        let key = entry.slice(value.key.len()..);
        if let Some(row) = shard
            .store
            .newest(table.storage, &key)?
            .and_then(|version| version.row)
            && unique_values(table, &row)?.contains(value)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
