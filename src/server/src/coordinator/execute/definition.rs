//! CREATE, ALTER, DROP, TRUNCATE. A definition takes effect at once, in a transaction block as well.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use neorunbase_catalog::CatalogSnapshot;
use neorunbase_catalog::schema::{
    Column, Index, PrimaryKey, ROW_ID_COLUMN, ShardGroup, Table, TableId, User,
};
use neorunbase_expression::{EvaluationContext, Expression, InputColumn, ScanProgram};
use neorunbase_frontend::scram::ScramVerifier;
use neorunbase_protocol::message::{
    BulkWrite, ChangeStorage, RequestBody, RowWrite, RowWriteKind, ShardId, StorageId, shard_id,
};
use neorunbase_sql::access::{AccessPath, ScanRequest, TableAccess};
use neorunbase_sql::plan::{CreateTable, Definition};
use neorunbase_storage::row::{decode_tuple, encode_row};
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use neorunbase_world::fault::planted;

use super::hold::Fenced;
use super::insert::key_of_row;
use super::{Execution, answer};
use crate::cluster::controller::{GroupRequirement, require_group};
use crate::coordinator::location::{TableLocation, has_hidden_key};
use crate::coordinator::transaction::timestamp_error;

/// Rows are rewritten in requests of about this size.
const REWRITE_BATCH_ROWS: usize = 4_096;
/// The Controller gets so long to find nodes for new shards.
const ASSIGNMENT_LIMIT: Duration = Duration::from_secs(30);

/// What a definition answers.
pub struct Defined {
    /// The command tag.
    pub tag: String,
    /// Notices to send first.
    pub notices: Vec<SqlError>,
}

impl Defined {
    fn new(tag: &'static str) -> Self {
        Self {
            tag: tag.to_owned(),
            notices: Vec::new(),
        }
    }
}

fn notice(state: &'static str, message: String) -> SqlError {
    *SqlError::new(SqlState(state), message)
}

fn table_of(catalog: &CatalogSnapshot, id: TableId) -> Result<Arc<Table>> {
    catalog.tables.get(&id).cloned().ok_or_else(|| {
        SqlError::new(
            SqlState::UNDEFINED_TABLE,
            "the relation was dropped by another session",
        )
    })
}

impl Execution<'_> {
    /// Carries a definition out; this Coordinator leads.
    ///
    /// # Errors
    /// The statement's.
    pub(super) async fn define_as_leader(&mut self, definition: &Definition) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        // One at a time: definitions are rare, and what each checks must still hold when it writes.
        let _one_at_a_time = coordinator.defining.lock().await;
        match definition {
            Definition::CreateTable(create) => self.create_table(create).await,
            Definition::DropTables { tables, missing } => self.drop_tables(tables, missing).await,
            Definition::CreateIndex {
                table,
                name,
                columns,
                unique,
                if_not_exists,
            } => {
                self.create_index(*table, name, columns, *unique, *if_not_exists)
                    .await
            }
            Definition::DropIndexes { indexes, missing } => self.drop_indexes(indexes, missing).await,
            Definition::AddPrimaryKey { table, name, columns } => {
                self.add_primary_key(*table, name, columns).await
            }
            Definition::AddColumn {
                table,
                column,
                if_not_exists,
            } => self.add_column(*table, column, *if_not_exists).await,
            Definition::DropColumn { table, column } => self.drop_column(*table, *column).await,
            Definition::RenameTable { table, name } => {
                self.alter(*table, |catalog, table| {
                    if catalog.table(Some(&table.schema), name).is_some() {
                        return Err(duplicate_relation(name));
                    }
                    table.name.clone_from(name);
                    Ok(())
                })
                .await
            }
            Definition::RenameColumn { table, column, name } => {
                self.alter(*table, |_, table| {
                    if table.column(name).is_some() {
                        return Err(SqlError::new(
                            SqlState::DUPLICATE_COLUMN,
                            format!("column \"{name}\" of relation \"{}\" already exists", table.name),
                        ));
                    }
                    if let Some(renamed) = table.columns.iter_mut().find(|candidate| candidate.id == *column)
                    {
                        renamed.name.clone_from(name);
                    }
                    Ok(())
                })
                .await
            }
            Definition::Truncate { tables } => self.truncate(tables).await,
            Definition::SetPassword {
                user,
                password,
                create,
            } => self.set_password(user, password, *create).await,
            Definition::DropUser { user, if_exists } => self.drop_user(user, *if_exists).await,
        }
    }

    /// Changes one table's entry while nobody uses it.
    async fn alter(
        &mut self,
        table: TableId,
        change: impl FnOnce(&mut CatalogSnapshot, &mut Table) -> Result<()>,
    ) -> Result<Defined> {
        let coordinator = &self.core.coordinator;
        let _alone = self.hold_tables(&[table]).await?;
        let old = table_of(&coordinator.metadata.snapshot(), table)?;
        self.fence(&old, Fenced::Everybody).await?;
        coordinator
            .metadata
            .change(|catalog| {
                let mut altered = (*table_of(catalog, table)?).clone();
                change(catalog, &mut altered)?;
                altered.version += 1;
                catalog.tables.insert(table, Arc::new(altered));
                Ok(())
            })
            .await?;
        Ok(Defined::new("ALTER TABLE"))
    }

    async fn create_table(&mut self, create: &CreateTable) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let mut defined = Defined::new("CREATE TABLE");
        let catalog = coordinator.metadata.snapshot();
        if catalog.table(Some(&create.schema), &create.name).is_some() {
            if create.if_not_exists {
                defined.notices.push(notice(
                    "42P07",
                    format!("relation \"{}\" already exists, skipping", create.name),
                ));
                return Ok(defined);
            }
            return Err(duplicate_relation(&create.name));
        }
        let primary_key = create
            .primary_key
            .clone()
            .map(|(name, columns)| PrimaryKey { name, columns });
        let shard_key = match (&create.shard_key, &primary_key) {
            (Some(shard_key), _) => shard_key.clone(),
            (None, Some(key)) => key.columns.clone(),
            (None, None) => vec![ROW_ID_COLUMN],
        };
        let shards = create.shards.unwrap_or(coordinator.settings.shards_default);
        let replicas = create.replicas.unwrap_or(coordinator.settings.replicas_default);
        let next_column_id = create.columns.iter().map(|column| column.id).max().unwrap_or(0) + 1;
        let mut table = Table {
            id: 0,
            schema: create.schema.clone(),
            name: create.name.clone(),
            columns: create.columns.clone(),
            primary_key,
            shard_key,
            indexes: Vec::new(),
            storage: 0,
            group: 0,
            version: 1,
            next_column_id,
            owner: self.core.user.clone(),
            rows_since: 0,
        };
        table.group = self.group_for(&table, shards, replicas).await?;
        let (id, storage) = coordinator
            .metadata
            .change(|catalog| Ok((take_object_id(catalog), take_storage_id(catalog))))
            .await?;
        (table.id, table.storage) = (id, storage);
        self.create_storages(table.group, &[storage]).await?;
        table.rows_since = coordinator.timestamps.next().await.map_err(timestamp_error)?;
        coordinator
            .metadata
            .change(|catalog| {
                catalog.tables.insert(id, Arc::new(table));
                Ok(())
            })
            .await?;
        Ok(defined)
    }

    /// The shard group for a table: an existing one that splits the same kind of key alike, or a new one.
    async fn group_for(&self, table: &Table, shards: u32, replicas: u32) -> Result<u32> {
        let coordinator = &self.core.coordinator;
        let nodes = coordinator.router.directory().data_nodes().len();
        if replicas == 0 || replicas as usize > nodes.max(1) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("cannot keep {replicas} replicas on {nodes} data nodes"),
            )
            .with_hint(
                "each copy lives on a data node of its own: wait until enough have joined, or add some",
            ));
        }
        let key_signature = key_signature(table);
        let group = coordinator
            .metadata
            .change(|catalog| {
                let existing = catalog.groups.values().find(|group| {
                    group.shards == shards
                        && group.replicas == replicas
                        && group.key_signature == key_signature
                });
                if let Some(group) = existing {
                    return Ok(group.id);
                }
                let id = catalog.groups.keys().next_back().map_or(1, |last| last + 1);
                catalog.groups.insert(
                    id,
                    ShardGroup {
                        id,
                        shards,
                        replicas,
                        key_signature: key_signature.clone(),
                    },
                );
                Ok(id)
            })
            .await?;
        require_group(&coordinator.world, group, GroupRequirement { shards, replicas })
            .await
            .map_err(|error| SqlError::new(SqlState::CONNECTION_FAILURE, error.to_string()))?;
        let directory = coordinator.router.directory();
        let deadline = coordinator.world.clock.monotonic().after(ASSIGNMENT_LIMIT);
        while (0..shards).any(|index| directory.locate(shard_id(group, index)).is_none()) {
            if coordinator.world.clock.monotonic() >= deadline {
                return Err(SqlError::new(
                    SqlState::CONNECTION_FAILURE,
                    "no data node takes the table's shards",
                )
                .with_hint("start a data node, then try again"));
            }
            directory.shard_map_changed(Duration::from_millis(200)).await;
        }
        Ok(group)
    }

    async fn create_storages(&self, group: u32, storages: &[StorageId]) -> Result<()> {
        let coordinator = &self.core.coordinator;
        let router = &coordinator.router;
        let calls = coordinator
            .shards_of_group(group)
            .into_iter()
            .map(|shard| async move {
                let outcome = router
                    .call_repeatable(shard, |shard| {
                        RequestBody::ChangeStorage(ChangeStorage {
                            shard,
                            create: storages.to_vec(),
                            drop: Vec::new(),
                        })
                    })
                    .await;
                answer(outcome).map(drop)
            });
        try_join_all(calls).await.map(drop)
    }

    /// Has storages dropped that were made for nothing.
    async fn give_up_storages(&self, group: u32, storages: Vec<StorageId>) {
        let metadata = &self.core.coordinator.metadata;
        let noted = metadata.change(|catalog| {
            catalog.drop_storages(group, storages.iter().copied());
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(?storages, %error, "storages of a failed definition stay on the shards");
        }
    }

    async fn drop_tables(&mut self, tables: &[TableId], missing: &[String]) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let mut defined = Defined::new("DROP TABLE");
        for name in missing {
            defined.notices.push(notice(
                "00000",
                format!("table \"{name}\" does not exist, skipping"),
            ));
        }
        let _alone = self.hold_tables(tables).await?;
        let catalog = coordinator.metadata.snapshot();
        for table in tables.iter().filter_map(|table| catalog.tables.get(table)) {
            self.fence(table, Fenced::Everybody).await?;
        }
        coordinator
            .metadata
            .change(|catalog| {
                for table in tables {
                    if let Some(table) = catalog.tables.remove(table) {
                        catalog.drop_storages(table.group, storages_of(&table));
                    }
                }
                Ok(())
            })
            .await?;
        Ok(defined)
    }

    async fn truncate(&mut self, tables: &[TableId]) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let _alone = self.hold_tables(tables).await?;
        for id in tables {
            let renewed = coordinator
                .metadata
                .change(|catalog| {
                    let mut table = (*table_of(catalog, *id)?).clone();
                    renew_storages(catalog, &mut table);
                    Ok(table)
                })
                .await?;
            self.create_storages(renewed.group, &storages_of(&renewed))
                .await?;
            let old = table_of(&coordinator.metadata.snapshot(), *id)?;
            let rows_since = self.fence(&old, Fenced::Everybody).await?;
            let emptied = Table {
                version: old.version + 1,
                rows_since,
                ..renewed
            };
            coordinator
                .metadata
                .change(|catalog| {
                    catalog.tables.insert(*id, Arc::new(emptied));
                    catalog.drop_storages(old.group, storages_of(&old));
                    Ok(())
                })
                .await?;
        }
        Ok(Defined::new("TRUNCATE TABLE"))
    }

    async fn create_index(
        &mut self,
        table: TableId,
        name: &str,
        columns: &[(u32, bool)],
        unique: bool,
        if_not_exists: bool,
    ) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let mut defined = Defined::new("CREATE INDEX");
        let _alone = self.hold_tables(&[table]).await?;
        let catalog = coordinator.metadata.snapshot();
        if relation_exists(&catalog, name) {
            if if_not_exists {
                defined.notices.push(notice(
                    "42P07",
                    format!("relation \"{name}\" already exists, skipping"),
                ));
                return Ok(defined);
            }
            return Err(duplicate_relation(name));
        }
        let mut indexed = (*table_of(&catalog, table)?).clone();
        if unique
            && !indexed
                .shard_key
                .iter()
                .all(|key| columns.iter().any(|(column, _)| column == key))
        {
            return Err(
                SqlError::unsupported("a unique index that does not contain the shard key").with_hint(
                    "add the shard key's columns to the index, or make them the table's SHARD KEY",
                ),
            );
        }
        let (id, storage) = coordinator
            .metadata
            .change(|catalog| Ok((take_object_id(catalog), take_storage_id(catalog))))
            .await?;
        // Whoever writes from here on knows the index, or nobody writes before it is there.
        if !planted("index-without-fence") {
            self.fence(&indexed, Fenced::Writers).await?;
        }
        indexed.indexes.push(Index {
            id,
            storage,
            name: name.to_owned(),
            columns: columns.to_vec(),
            unique,
        });
        indexed.version += 1;
        self.create_storages(indexed.group, &[storage]).await?;
        let location = TableLocation::new(&coordinator.metadata.snapshot(), &Arc::new(indexed.clone()))?;
        let commit_timestamp = coordinator.timestamps.next().await.map_err(timestamp_error)?;
        let builds = location.all_shards().into_iter().map(|shard| {
            let (router, table) = (&coordinator.router, &location.descriptor);
            async move {
                let outcome = router
                    .call_repeatable(shard, |shard| {
                        RequestBody::BulkWrite(BulkWrite {
                            shard,
                            table: table.clone(),
                            rows: Vec::new(),
                            commit_timestamp,
                            build_index: storage,
                        })
                    })
                    .await;
                answer(outcome).map(drop)
            }
        });
        if let Err(error) = try_join_all(builds).await {
            self.give_up_storages(indexed.group, vec![storage]).await;
            return Err(error);
        }
        coordinator
            .metadata
            .change(|catalog| {
                catalog.tables.insert(table, Arc::new(indexed));
                Ok(())
            })
            .await?;
        Ok(defined)
    }

    async fn drop_indexes(&mut self, indexes: &[TableId], missing: &[String]) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let mut defined = Defined::new("DROP INDEX");
        for name in missing {
            defined.notices.push(notice(
                "00000",
                format!("index \"{name}\" does not exist, skipping"),
            ));
        }
        let catalog = coordinator.metadata.snapshot();
        for id in indexes {
            let Some(table) = catalog
                .tables
                .values()
                .find(|table| table.indexes.iter().any(|index| index.id == *id))
            else {
                continue;
            };
            self.alter(table.id, |catalog, table| {
                let position = table.indexes.iter().position(|index| index.id == *id);
                if let Some(position) = position {
                    let index = table.indexes.remove(position);
                    catalog.drop_storages(table.group, [index.storage]);
                }
                Ok(())
            })
            .await?;
        }
        Ok(defined)
    }

    /// Rewrites a table that had a hidden key into rows keyed (and sharded) by the new primary key.
    async fn add_primary_key(&mut self, id: TableId, name: &str, columns: &[u32]) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let _alone = self.hold_tables(&[id]).await?;
        let catalog = coordinator.metadata.snapshot();
        let old = table_of(&catalog, id)?;
        if !has_hidden_key(&old) {
            return Err(SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("multiple primary keys for table \"{}\" are not allowed", old.name),
            ));
        }
        let mut new = (*old).clone();
        new.primary_key = Some(PrimaryKey {
            name: name.to_owned(),
            columns: columns.to_vec(),
        });
        new.shard_key = columns.to_vec();
        for column in &mut new.columns {
            column.not_null |= columns.contains(&column.id);
        }
        let group = catalog
            .group_of(&old)
            .ok_or_else(|| SqlError::internal("a table has no shard group"))?;
        new.group = self.group_for(&new, group.shards, group.replicas).await?;
        coordinator
            .metadata
            .change(|catalog| {
                renew_storages(catalog, &mut new);
                Ok(())
            })
            .await?;
        new.version += 1;
        self.create_storages(new.group, &storages_of(&new)).await?;
        self.fence(&old, Fenced::Writers).await?;
        if let Err(error) = self.copy_rows(&old, &Arc::new(new.clone())).await {
            self.give_up_storages(new.group, storages_of(&new)).await;
            return Err(error);
        }
        new.rows_since = self.fence(&old, Fenced::Everybody).await?;
        coordinator
            .metadata
            .change(|catalog| {
                catalog.tables.insert(id, Arc::new(new));
                catalog.drop_storages(old.group, storages_of(&old));
                Ok(())
            })
            .await?;
        Ok(Defined::new("ALTER TABLE"))
    }

    /// Writes every row of `old` to the storages of `new`, which nobody can see yet.
    async fn copy_rows(&mut self, old: &Arc<Table>, new: &Arc<Table>) -> Result<()> {
        let coordinator = self.core.coordinator.clone();
        let commit_timestamp = coordinator.timestamps.next().await.map_err(timestamp_error)?;
        let location = TableLocation::new(&coordinator.metadata.snapshot(), new)?;
        let access = self.table_access(false).await?;
        let request = ScanRequest {
            table: old.clone(),
            path: AccessPath::Full,
            program: Arc::new(all_columns(old)),
            parameters: Arc::from([]),
            limit: None,
            locking: None,
        };
        let mut batches = access.scan(request).await?;
        let mut pending: std::collections::BTreeMap<ShardId, Vec<RowWrite>> =
            std::collections::BTreeMap::new();
        while let Some(batch) = batches.next().await {
            for encoded in batch? {
                let row = decode_tuple(&encoded)
                    .map_err(|error| SqlError::internal(format!("unreadable row: {error}")))?;
                for (column, value) in new.columns.iter().zip(&row) {
                    if column.not_null && value.is_null() {
                        return Err(SqlError::new(
                            SqlState::NOT_NULL_VIOLATION,
                            format!(
                                "column \"{}\" of relation \"{}\" contains null values",
                                column.name, new.name
                            ),
                        )
                        .about_column(&new.schema, &new.name, &column.name));
                    }
                }
                let (shard, key) = location.locate(&key_of_row(new, &row)?);
                let columns: Vec<(u32, &Datum)> =
                    new.columns.iter().map(|column| column.id).zip(&row).collect();
                let write = RowWrite {
                    kind: RowWriteKind::Insert as i32,
                    key,
                    row: encode_row(&columns),
                };
                let rows = pending.entry(shard).or_default();
                rows.push(write);
                if rows.len() >= REWRITE_BATCH_ROWS {
                    let rows = std::mem::take(rows);
                    bulk_write(&coordinator.router, shard, &location, rows, commit_timestamp).await?;
                }
            }
        }
        for (shard, rows) in pending {
            bulk_write(&coordinator.router, shard, &location, rows, commit_timestamp).await?;
        }
        Ok(())
    }

    async fn add_column(&mut self, id: TableId, column: &Column, if_not_exists: bool) -> Result<Defined> {
        let catalog = self.core.coordinator.metadata.snapshot();
        let table = table_of(&catalog, id)?;
        if table.column(&column.name).is_some() {
            let message = format!(
                "column \"{}\" of relation \"{}\" already exists",
                column.name, table.name
            );
            if if_not_exists {
                let mut defined = Defined::new("ALTER TABLE");
                defined
                    .notices
                    .push(notice("42701", format!("{message}, skipping")));
                return Ok(defined);
            }
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
        }
        let missing = match &column.default {
            Some(default) => default.evaluate(&EvaluationContext {
                row: &[],
                parameters: &[],
                statement_time_unix_micros: self.transaction.time_unix_micros,
            })?,
            None => Datum::Null,
        };
        if column.not_null && missing.is_null() && self.has_rows(&table).await? {
            return Err(SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "column \"{}\" of relation \"{}\" contains null values",
                    column.name, table.name
                ),
            )
            .about_column(&table.schema, &table.name, &column.name));
        }
        self.alter(id, |_, table| {
            let added = Column {
                id: table.next_column_id,
                missing,
                ..column.clone()
            };
            table.next_column_id += 1;
            table.columns.push(added);
            Ok(())
        })
        .await
    }

    async fn has_rows(&mut self, table: &Arc<Table>) -> Result<bool> {
        let access = self.table_access(false).await?;
        let request = ScanRequest {
            table: table.clone(),
            path: AccessPath::Full,
            program: Arc::new(ScanProgram {
                inputs: Vec::new(),
                filter: None,
                output: Vec::new(),
            }),
            parameters: Arc::from([]),
            limit: Some(1),
            locking: None,
        };
        let mut batches = access.scan(request).await?;
        while let Some(batch) = batches.next().await {
            if !batch?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn drop_column(&mut self, id: TableId, column: u32) -> Result<Defined> {
        let catalog = self.core.coordinator.metadata.snapshot();
        let table = table_of(&catalog, id)?;
        if table.key_columns().contains(&column) {
            return Err(SqlError::unsupported("dropping a primary key column"));
        }
        let uses = |index: &Index| index.columns.iter().any(|(used, _)| *used == column);
        let storages: Vec<StorageId> = table
            .indexes
            .iter()
            .filter(|index| uses(index))
            .map(|index| index.storage)
            .collect();
        self.alter(id, |catalog, table| {
            table.columns.retain(|candidate| candidate.id != column);
            table.indexes.retain(|index| !uses(index));
            catalog.drop_storages(table.group, storages);
            Ok(())
        })
        .await
    }

    async fn set_password(&mut self, user: &str, password: &str, create: bool) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let catalog = coordinator.metadata.snapshot();
        let acting = catalog.users.get(&self.core.user);
        if !acting.is_some_and(|acting| acting.superuser) && (create || user != self.core.user) {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "permission denied",
            ));
        }
        let verifier = if password.starts_with("SCRAM-SHA-256$") {
            password.to_owned()
        } else {
            let mut salt = [0; 16];
            coordinator.world.entropy.fill(&mut salt);
            ScramVerifier::from_password(password, &salt, coordinator.settings.scram_iterations).serialize()
        };
        coordinator
            .metadata
            .change(|catalog| match (catalog.users.get_mut(user), create) {
                (Some(_), true) => Err(SqlError::new(
                    SqlState::DUPLICATE_OBJECT,
                    format!("role \"{user}\" already exists"),
                )),
                (None, false) => Err(undefined_role(user)),
                (Some(existing), false) => {
                    existing.verifier = verifier;
                    existing.must_change_password = false;
                    Ok(())
                }
                (None, true) => {
                    let created = User {
                        name: user.to_owned(),
                        verifier,
                        superuser: false,
                        must_change_password: false,
                    };
                    catalog.users.insert(user.to_owned(), created);
                    Ok(())
                }
            })
            .await?;
        Ok(Defined::new(if create { "CREATE ROLE" } else { "ALTER ROLE" }))
    }

    async fn drop_user(&mut self, user: &str, if_exists: bool) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        let catalog = coordinator.metadata.snapshot();
        if !catalog
            .users
            .get(&self.core.user)
            .is_some_and(|acting| acting.superuser)
        {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "permission denied to drop role",
            ));
        }
        if user == self.core.user {
            return Err(SqlError::new(SqlState("55006"), "current user cannot be dropped"));
        }
        let mut defined = Defined::new("DROP ROLE");
        if !catalog.users.contains_key(user) {
            if !if_exists {
                return Err(undefined_role(user));
            }
            defined.notices.push(notice(
                "00000",
                format!("role \"{user}\" does not exist, skipping"),
            ));
            return Ok(defined);
        }
        coordinator
            .metadata
            .change(|catalog| {
                catalog.users.remove(user);
                Ok(())
            })
            .await?;
        Ok(defined)
    }
}

async fn bulk_write(
    router: &crate::coordinator::router::Router,
    shard: ShardId,
    location: &TableLocation,
    rows: Vec<RowWrite>,
    commit_timestamp: u64,
) -> Result<()> {
    let outcome = router
        .call(shard, |shard| {
            RequestBody::BulkWrite(BulkWrite {
                shard,
                table: location.descriptor.clone(),
                rows: rows.clone(),
                commit_timestamp,
                build_index: 0,
            })
        })
        .await;
    answer(outcome).map(drop)
}

/// A program that returns all columns in table order.
fn all_columns(table: &Table) -> ScanProgram {
    let inputs = table
        .columns
        .iter()
        .map(|column| InputColumn {
            column: column.id,
            missing: column.missing.clone(),
        })
        .collect();
    let output = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| Expression::input(index, column.sql_type.clone()))
        .collect();
    ScanProgram {
        inputs,
        filter: None,
        output,
    }
}

fn storages_of(table: &Table) -> Vec<StorageId> {
    std::iter::once(table.storage)
        .chain(table.indexes.iter().map(|index| index.storage))
        .collect()
}

fn renew_storages(catalog: &mut CatalogSnapshot, table: &mut Table) {
    table.storage = take_storage_id(catalog);
    for index in &mut table.indexes {
        index.storage = take_storage_id(catalog);
    }
}

fn take_object_id(catalog: &mut CatalogSnapshot) -> TableId {
    let id = catalog.next_object_id;
    catalog.next_object_id += 1;
    id
}

fn take_storage_id(catalog: &mut CatalogSnapshot) -> StorageId {
    let id = catalog.next_storage_id;
    catalog.next_storage_id += 1;
    id
}

fn relation_exists(catalog: &CatalogSnapshot, name: &str) -> bool {
    catalog.tables.values().any(|table| {
        table.name == name
            || table.indexes.iter().any(|index| index.name == name)
            || table.primary_key.as_ref().is_some_and(|key| key.name == name)
    })
}

fn duplicate_relation(name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::DUPLICATE_TABLE,
        format!("relation \"{name}\" already exists"),
    )
}

fn undefined_role(user: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("role \"{user}\" does not exist"),
    )
}

/// Types that hash alike have one name here.
fn key_signature(table: &Table) -> String {
    let names: Vec<String> = table
        .shard_key
        .iter()
        .map(|column| match table.key_column_type(*column) {
            SqlType::SmallInt | SqlType::Integer | SqlType::BigInt => "integer".to_owned(),
            SqlType::Text | SqlType::VarChar(_) | SqlType::Name => "text".to_owned(),
            other => other.to_string(),
        })
        .collect();
    names.join(",")
}
