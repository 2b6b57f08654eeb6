//! Keeps definitions and data apart: statements that write a table share its lock until their transaction ends,
//! a definition that replaces the table takes it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use neorunbase_catalog::schema::TableId;
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::Clock;
use neorunbase_world::clock::timeout;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A definition waits so long for the transactions that use its table.
const DEFINITION_WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Locks of all tables that were ever used by this Coordinator.
#[derive(Default)]
pub struct TableLocks {
    locks: Mutex<BTreeMap<TableId, Arc<RwLock<()>>>>,
}

/// Held by a transaction that writes the table.
pub type SharedTableLock = OwnedRwLockReadGuard<()>;
/// Held while the table is redefined.
pub type ExclusiveTableLock = OwnedRwLockWriteGuard<()>;

impl TableLocks {
    fn lock(&self, table: TableId) -> Arc<RwLock<()>> {
        self.locks.lock().entry(table).or_default().clone()
    }

    /// Waits for a running definition, then shares the table.
    pub async fn share(&self, table: TableId) -> SharedTableLock {
        let lock = self.lock(table);
        match lock.clone().try_read_owned() {
            Ok(guard) => guard,
            Err(_) => lock.read_owned().await,
        }
    }

    /// Takes the tables alone, each once.
    ///
    /// # Errors
    /// `55P03` if transactions keep using one.
    pub async fn take(&self, clock: &dyn Clock, tables: &[TableId]) -> Result<Vec<ExclusiveTableLock>> {
        let mut locks = Vec::with_capacity(tables.len());
        for table in tables.iter().collect::<BTreeSet<_>>() {
            locks.push(self.take_one(clock, *table).await?);
        }
        Ok(locks)
    }

    async fn take_one(&self, clock: &dyn Clock, table: TableId) -> Result<ExclusiveTableLock> {
        timeout(clock, DEFINITION_WAIT_LIMIT, self.lock(table).write_owned())
            .await
            .map_err(|_| {
                SqlError::new(
                    SqlState::LOCK_NOT_AVAILABLE,
                    "open transactions are using the table",
                )
                .with_hint("end them and try again")
            })
    }
}
