//! Keeps a definition's tables to itself: here, on every other Coordinator, and by fences on the shards.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use neorunbase_catalog::schema::{Table, TableId};
use neorunbase_protocol::channel::Channel;
use neorunbase_protocol::coordinate::{FenceTable, HoldTables, ReleaseTables};
use neorunbase_protocol::message::{ErrorKind, RequestBody, ResponseBody, Timestamp};
use neorunbase_types::Result;

use super::{Execution, answer};
use crate::coordinator::Coordinator;
use crate::coordinator::live_definitions::LiveDefinition;
use crate::coordinator::table_locks::ExclusiveTableLock;
use crate::coordinator::transaction::timestamp_error;
use crate::error_reply::sql_error;

/// Tables that nobody writes through any Coordinator that is well.
pub(super) struct TableHold {
    coordinator: Arc<Coordinator>,
    definition: LiveDefinition,
    others: Vec<Arc<dyn Channel>>,
    _locks: Vec<ExclusiveTableLock>,
}

impl Drop for TableHold {
    fn drop(&mut self) {
        let others = std::mem::take(&mut self.others);
        let release = ReleaseTables {
            definition: self.definition.name,
        };
        let task = async move {
            let calls = others.iter().map(|other| async move {
                // One that does not hear of it lets go when it next hears which definitions are live.
                for _ in 0..3 {
                    let call = other.call(RequestBody::ReleaseTables(release).into());
                    if call.await.is_ok() {
                        return;
                    }
                }
            });
            join_all(calls).await;
        };
        self.coordinator
            .world
            .spawner
            .spawn("release tables", Box::pin(task));
    }
}

/// Who is kept out by a fence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fenced {
    /// Those who would write.
    Writers,
    /// Those who would read, as well.
    Everybody,
}

impl Execution<'_> {
    /// Waits for the transactions that write the tables, on all Coordinators, and keeps new ones out.
    ///
    /// # Errors
    /// `55P03` if a transaction does not end in time.
    pub(super) async fn hold_tables(&self, tables: &[TableId]) -> Result<TableHold> {
        let coordinator = self.core.coordinator.clone();
        let term = coordinator.metadata.check_leading()?;
        let locks = coordinator
            .table_locks
            .take(&*coordinator.world.clock, tables)
            .await?;
        let others = coordinator.coordinators.others(&coordinator.name);
        let name = coordinator.world.entropy.next_u64();
        let hold = TableHold {
            definition: coordinator.live_definitions.begin(name),
            coordinator,
            others,
            _locks: locks,
        };
        let calls = hold.others.iter().map(|other| {
            let request = HoldTables {
                term,
                definition: hold.definition.name,
                tables: tables.to_vec(),
            };
            other.call(RequestBody::HoldTables(request).into())
        });
        for outcome in join_all(calls).await {
            match outcome {
                Ok(response) => match response.body {
                    Some(ResponseBody::Error(error)) if error.kind() == ErrorKind::Sql => {
                        return Err(sql_error(error));
                    }
                    _ => {}
                },
                // Its transactions run into the fences.
                Err(error) => tracing::info!(%error, "a coordinator does not hold a definition's tables"),
            }
        }
        Ok(hold)
    }

    /// Has all shards of `table` refuse those who do not know its next version. Returns the last timestamp at which
    /// everybody may still read it; 0: they may for ever.
    ///
    /// # Errors
    /// If a shard cannot be reached, or transactions do not end.
    pub(super) async fn fence(&self, table: &Table, fenced: Fenced) -> Result<Timestamp> {
        let coordinator = &self.core.coordinator;
        let version = table.version + 1;
        let (read_version, read_timestamp) = match fenced {
            Fenced::Writers => (0, 0),
            Fenced::Everybody => {
                let now = coordinator.timestamps.next().await.map_err(timestamp_error)?;
                (version, now)
            }
        };
        let router = &coordinator.router;
        let calls = coordinator
            .shards_of_group(table.group)
            .into_iter()
            .map(|shard| async move {
                let outcome = router
                    .call_repeatable(shard, |shard| {
                        RequestBody::FenceTable(FenceTable {
                            shard,
                            storage: table.storage,
                            write_version: version,
                            read_version,
                            read_timestamp,
                        })
                    })
                    .await;
                answer(outcome).map(drop)
            });
        try_join_all(calls).await?;
        Ok(read_timestamp)
    }
}
