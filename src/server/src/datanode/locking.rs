//! Locking a row and looking at it again: what UPDATE, DELETE and SELECT … FOR UPDATE have in common.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use neorunbase_protocol::message::{LockMode, LockWait, StatementContext, StorageId, Timestamp};
use neorunbase_txn::{Granted, LockError, LockKey, LockStrength, WaitPolicy};
use neorunbase_types::SqlError;

use super::failure::{Failure, concurrent_update, lock_failure};
use super::read::{View, fails_on_newer};
use super::session::Session;
use super::{DataNode, Participant};

/// Decides whether a row matches, and leaves it decoded for what comes next.
pub(super) type Accepts<'a> = dyn FnMut(&[u8]) -> Result<bool, Failure> + Send + 'a;

/// How long and how a statement waits for locks.
#[derive(Clone, Copy)]
pub(super) struct LockWaiting {
    pub wait: LockWait,
    policy: WaitPolicy,
    /// The statement's number.
    sequence: u32,
}

impl LockWaiting {
    pub(super) fn new(context: &StatementContext, wait: LockWait) -> Self {
        let policy = match wait {
            LockWait::Wait if context.lock_timeout_ms == 0 => WaitPolicy::Wait,
            LockWait::Wait => WaitPolicy::WaitUpTo(Duration::from_millis(context.lock_timeout_ms.into())),
            LockWait::NoWait | LockWait::SkipLocked => WaitPolicy::NoWait,
        };
        Self {
            wait,
            policy,
            sequence: context.sequence,
        }
    }
}

impl DataNode {
    /// Takes a lock for `participant`. `None`: it is held by another, and such rows are to be skipped.
    pub(super) async fn lock_key(
        &self,
        participant: &Participant,
        key: &LockKey,
        strength: LockStrength,
        waiting: &LockWaiting,
        table_name: Option<&str>,
    ) -> Result<Option<Granted>, Failure> {
        let owner = participant.id();
        match self.locks.try_lock(owner, key, strength) {
            Some(Granted::Held) => return Ok(Some(Granted::Held)),
            Some(granted) => {
                participant.remember_lock(waiting.sequence, key.clone());
                return Ok(Some(granted));
            }
            None => participant.remember_lock(waiting.sequence, key.clone()),
        }
        let clock = &*self.world.clock;
        let closing = participant.closing(waiting.sequence);
        let lock = self
            .locks
            .lock(clock, owner, key, strength, waiting.policy, closing);
        match lock.await {
            Ok(granted) => Ok(Some(granted)),
            Err(LockError::NotAvailable) if waiting.wait == LockWait::SkipLocked => Ok(None),
            Err(error) => {
                self.check_healthy()?;
                Err(lock_failure(error, table_name, owner))
            }
        }
    }
}

/// Rows of one table that a statement locks one by one.
pub(super) struct RowAccess<'a> {
    pub node: &'a DataNode,
    pub view: &'a View,
    pub participant: &'a Arc<Participant>,
    pub waiting: LockWaiting,
    pub strength: LockStrength,
    pub fails_on_newer: bool,
    pub table_name: Option<&'a str>,
}

/// The newest version of a row that is locked.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// `None`: there is no such row.
    pub row: Option<Bytes>,
    /// When it was committed (or deleted); 0: the transaction's own write, or never.
    pub commit_timestamp: Timestamp,
}

impl<'a> RowAccess<'a> {
    /// For a locking read.
    pub(super) fn of_read(
        node: &'a DataNode,
        session: &'a Session,
        view: &'a View,
        context: &StatementContext,
        mode: i32,
        wait: i32,
    ) -> Result<Self, Failure> {
        let strength = match LockMode::try_from(mode) {
            Ok(LockMode::Share) => LockStrength::Share,
            _ => LockStrength::Exclusive,
        };
        let wait = LockWait::try_from(wait).unwrap_or(LockWait::Wait);
        Ok(Self {
            node,
            view,
            participant: owner(session)?,
            waiting: LockWaiting::new(context, wait),
            strength,
            fails_on_newer: fails_on_newer(context),
            table_name: None,
        })
    }

    /// For a write to the table called `table_name`.
    pub(super) fn of_write(
        node: &'a DataNode,
        session: &'a Session,
        view: &'a View,
        context: &StatementContext,
        table_name: &'a str,
    ) -> Result<Self, Failure> {
        Ok(Self {
            node,
            view,
            participant: owner(session)?,
            waiting: LockWaiting::new(context, LockWait::Wait),
            strength: LockStrength::Exclusive,
            fails_on_newer: fails_on_newer(context),
            table_name: Some(table_name),
        })
    }

    /// Locks a key of the table (or, with `storage`, of an index). `None`: skipped.
    pub(super) async fn lock(&self, storage: StorageId, key: &Bytes) -> Result<Option<Granted>, Failure> {
        let key = LockKey {
            shard: self.view.shard.id,
            storage,
            key: key.clone(),
        };
        self.node
            .lock_key(
                self.participant,
                &key,
                self.strength,
                &self.waiting,
                self.table_name,
            )
            .await
    }

    /// Gives back a lock that turned out not to be needed, if it was taken just now.
    pub(super) fn unlock(&self, storage: StorageId, key: &Bytes, granted: Granted) {
        if granted == Granted::New {
            let key = LockKey {
                shard: self.view.shard.id,
                storage,
                key: key.clone(),
            };
            self.node.locks.release(self.participant.id(), [&key]);
        }
    }

    /// The newest version of a row that this transaction has locked, so that it cannot change.
    pub(super) fn current(&self, key: &[u8]) -> Result<Current, Failure> {
        if let Some(row) = self.view.own_write(key) {
            return Ok(Current {
                row,
                commit_timestamp: 0,
            });
        }
        Ok(match self.view.shard.store.newest(self.view.storage, key)? {
            Some(version) => Current {
                row: version.row,
                commit_timestamp: version.commit_timestamp,
            },
            None => Current {
                row: None,
                commit_timestamp: 0,
            },
        })
    }

    /// Locks the row at `key` if it is there and matches, and returns its newest version.
    pub(super) async fn take_by_key(
        &self,
        key: &Bytes,
        accepts: &mut Accepts<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        if !self.fails_on_newer {
            return self.take(key, None, accepts).await;
        }
        // What the snapshot does not have, or has otherwise, is not this statement's business.
        let seen = self
            .node
            .look_at(self.view, std::slice::from_ref(key))
            .await?
            .pop()
            .flatten();
        match seen {
            Some(seen) if accepts(&seen.row)? => self.take(key, Some(seen.commit_timestamp), accepts).await,
            _ => Ok(None),
        }
    }

    /// Locks the row at `key` and returns its newest version if that matches. `seen` is the version of the statement's
    /// snapshot, if it was the row last accepted: READ COMMITTED only looks again if there is a newer one.
    pub(super) async fn take(
        &self,
        key: &Bytes,
        seen: Option<Timestamp>,
        accepts: &mut Accepts<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        let storage = self.view.storage;
        let Some(granted) = self.lock(storage, key).await? else {
            return Ok(None);
        };
        let current = self.current(key)?;
        if self.fails_on_newer && current.commit_timestamp > self.view.snapshot {
            return Err(concurrent_update());
        }
        if let Some(row) = current.row
            // What was accepted a moment ago and has not changed is still decoded.
            && (seen == Some(current.commit_timestamp) || accepts(&row)?)
        {
            return Ok(Some(row));
        }
        self.unlock(storage, key, granted);
        Ok(None)
    }
}

fn owner(session: &Session) -> Result<&Arc<Participant>, Failure> {
    session
        .participant
        .as_ref()
        .ok_or_else(|| Failure::Sql(SqlError::internal("locks need a transaction")))
}
