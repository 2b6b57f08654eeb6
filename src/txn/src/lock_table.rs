//! Row locks of one node.
//!
//! Waiters queue first come, first served, so that nobody starves; a holder that wants a stronger lock goes to the
//! front, since nothing behind it could be granted before it anyway. Locks belong to transactions, not statements:
//! the owner must remember a key *before* it asks for its lock and release it when it ends, so that a lock granted
//! to a request that has since been dropped is given back too.

#![allow(
    clippy::disallowed_types,
    reason = "the maps have a fixed hasher and are never iterated"
)]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use neorunbase_protocol::message::{ShardId, StorageId, TransactionId};
use neorunbase_world::{Clock, MonotonicTime};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::deadlock::{WaitEdge, waits_for_itself};

/// Names what is locked: a row by its primary key, or a unique index's value by its index key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey {
    /// The shard.
    pub shard: ShardId,
    /// The table's rows or the index.
    pub storage: StorageId,
    /// The key in it.
    pub key: Bytes,
}

/// How strong a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockStrength {
    /// With other share locks.
    Share,
    /// Alone.
    Exclusive,
}

/// What to do when a lock is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitPolicy {
    /// Give up at once: [`LockError::NotAvailable`].
    NoWait,
    /// Wait for as long as it takes.
    Wait,
    /// Wait so long, then give up: [`LockError::TimedOut`].
    WaitUpTo(Duration),
}

/// How a lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The owner did not hold it before.
    New,
    /// It held a weaker one.
    Upgraded,
    /// It held it, or a stronger one.
    Held,
}

/// Why a lock was not obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Somebody holds it.
    #[error("lock not available")]
    NotAvailable,
    /// Waited long enough.
    #[error("lock wait timed out")]
    TimedOut,
    /// Waiting would never end.
    #[error("deadlock detected")]
    Deadlock,
    /// The owner was ended by somebody else while it waited.
    #[error("lock wait cancelled")]
    Cancelled,
}

const STRIPES: usize = 64;
type FixedState = BuildHasherDefault<DefaultHasher>;
/// Names a wait; never used again, not even by the next process on the same node.
pub type WaitId = u64;

/// The locks.
pub struct LockTable {
    stripes: Vec<Mutex<HashMap<LockKey, Entry, FixedState>>>,
    /// Who waits for what. Always locked before a stripe, never after.
    waits: Mutex<BTreeMap<(TransactionId, WaitId), Wait>>,
    next_wait: AtomicU64,
    hasher: FixedState,
}

struct Wait {
    key: LockKey,
    since: MonotonicTime,
}

#[derive(Default)]
struct Entry {
    exclusive: Option<TransactionId>,
    sharers: Vec<TransactionId>,
    queue: VecDeque<Waiter>,
}

struct Waiter {
    owner: TransactionId,
    wait: WaitId,
    strength: LockStrength,
    grant: oneshot::Sender<Result<Granted, LockError>>,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.exclusive.is_none() && self.sharers.is_empty() && self.queue.is_empty()
    }

    fn holds(&self, owner: TransactionId, strength: LockStrength) -> bool {
        self.exclusive == Some(owner) || (strength == LockStrength::Share && self.sharers.contains(&owner))
    }

    fn compatible(&self, owner: TransactionId, strength: LockStrength) -> bool {
        self.exclusive.is_none_or(|holder| holder == owner)
            && (strength == LockStrength::Share || self.sharers.iter().all(|holder| *holder == owner))
    }

    fn grant(&mut self, owner: TransactionId, strength: LockStrength) -> Granted {
        if self.holds(owner, strength) {
            return Granted::Held;
        }
        match strength {
            LockStrength::Share => {
                self.sharers.push(owner);
                Granted::New
            }
            LockStrength::Exclusive => {
                let before = self.sharers.len();
                self.sharers.retain(|holder| *holder != owner);
                self.exclusive = Some(owner);
                if self.sharers.len() < before {
                    Granted::Upgraded
                } else {
                    Granted::New
                }
            }
        }
    }

    /// Grants without waiting, if that is fair.
    fn try_grant(&mut self, owner: TransactionId, strength: LockStrength) -> Option<Granted> {
        if self.holds(owner, strength) {
            return Some(Granted::Held);
        }
        let is_upgrade = self.sharers.contains(&owner);
        if (self.queue.is_empty() || is_upgrade) && self.compatible(owner, strength) {
            return Some(self.grant(owner, strength));
        }
        None
    }

    fn grant_waiters(&mut self) {
        while let Some(waiter) = self.queue.front() {
            if !self.compatible(waiter.owner, waiter.strength) {
                return;
            }
            if let Some(waiter) = self.queue.pop_front() {
                // A request dropped while it waited must not hold the lock.
                if !waiter.grant.is_closed() {
                    let granted = self.grant(waiter.owner, waiter.strength);
                    let _ = waiter.grant.send(Ok(granted));
                }
            }
        }
    }

    fn release(&mut self, owner: TransactionId) {
        if self.exclusive == Some(owner) {
            self.exclusive = None;
        }
        self.sharers.retain(|holder| *holder != owner);
        self.grant_waiters();
    }

    fn blockers_of(&self, wait: WaitId, into: &mut Vec<TransactionId>) {
        let Some(position) = self.queue.iter().position(|waiter| waiter.wait == wait) else {
            return; // granted meanwhile
        };
        let waiter = &self.queue[position];
        let others = |holder: &&TransactionId| **holder != waiter.owner;
        into.extend(self.exclusive.iter().filter(others));
        if waiter.strength == LockStrength::Exclusive {
            into.extend(self.sharers.iter().filter(others));
        }
        let ahead = self.queue.iter().take(position).filter(|ahead| {
            ahead.owner != waiter.owner
                && (ahead.strength == LockStrength::Exclusive || waiter.strength == LockStrength::Exclusive)
        });
        into.extend(ahead.map(|ahead| ahead.owner));
    }
}

impl Default for LockTable {
    fn default() -> Self {
        Self::new(0)
    }
}

impl LockTable {
    /// No locks. Waits are numbered from `first_wait` on; drawn at random, it makes their numbers unique over restarts.
    pub fn new(first_wait: WaitId) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::new(HashMap::default())).collect(),
            waits: Mutex::new(BTreeMap::new()),
            next_wait: AtomicU64::new(first_wait >> 1),
            hasher: FixedState::default(),
        }
    }

    fn stripe(&self, key: &LockKey) -> &Mutex<HashMap<LockKey, Entry, FixedState>> {
        // The upper bits: the maps use the lower ones.
        &self.stripes[(self.hasher.hash_one(key) >> 48) as usize % STRIPES]
    }

    /// Takes the lock if that needs no waiting.
    pub fn try_lock(&self, owner: TransactionId, key: &LockKey, strength: LockStrength) -> Option<Granted> {
        let mut stripe = self.stripe(key).lock();
        if let Some(entry) = stripe.get_mut(key) {
            return entry.try_grant(owner, strength);
        }
        let mut entry = Entry::default();
        let granted = entry.grant(owner, strength);
        stripe.insert(key.clone(), entry);
        Some(granted)
    }

    /// Takes the lock, waiting as `policy` says. Ends early when `cancelled` completes.
    ///
    /// # Errors
    /// [`LockError`]; the owner's older locks are untouched.
    pub async fn lock(
        &self,
        clock: &dyn Clock,
        owner: TransactionId,
        key: &LockKey,
        strength: LockStrength,
        policy: WaitPolicy,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Granted, LockError> {
        if let Some(granted) = self.try_lock(owner, key, strength) {
            return Ok(granted);
        }
        let limit = match policy {
            WaitPolicy::NoWait => return Err(LockError::NotAvailable),
            WaitPolicy::Wait => None,
            WaitPolicy::WaitUpTo(limit) => Some(limit),
        };
        let mut pending = match self.enqueue(owner, key, strength, clock.monotonic()) {
            Enqueued::Granted(granted) => return Ok(granted),
            Enqueued::Waiting(pending) => pending,
        };
        if self.closes_a_cycle(owner) {
            neorunbase_world::sometimes!("deadlock-found");
            return pending.give_up(LockError::Deadlock);
        }
        let limited = async {
            match limit {
                Some(limit) => clock.sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = &mut pending.receiver => ended.unwrap_or(Err(LockError::Cancelled)),
            () = cancelled => pending.give_up(LockError::Cancelled),
            () = limited => pending.give_up(LockError::TimedOut),
        }
    }

    fn enqueue(
        &self,
        owner: TransactionId,
        key: &LockKey,
        strength: LockStrength,
        now: MonotonicTime,
    ) -> Enqueued<'_> {
        let mut waits = self.waits.lock();
        let mut stripe = self.stripe(key).lock();
        let entry = stripe.entry(key.clone()).or_default();
        if let Some(granted) = entry.try_grant(owner, strength) {
            return Enqueued::Granted(granted);
        }
        let wait = self.next_wait.fetch_add(1, Ordering::Relaxed);
        let (grant, receiver) = oneshot::channel();
        let waiter = Waiter {
            owner,
            wait,
            strength,
            grant,
        };
        if entry.sharers.contains(&owner) {
            entry.queue.push_front(waiter);
        } else {
            entry.queue.push_back(waiter);
        }
        let (key, since) = (key.clone(), now);
        waits.insert(
            (owner, wait),
            Wait {
                key: key.clone(),
                since,
            },
        );
        Enqueued::Waiting(PendingLock {
            table: self,
            owner,
            wait,
            key,
            receiver,
        })
    }

    fn closes_a_cycle(&self, owner: TransactionId) -> bool {
        let waits = self.waits.lock();
        waits_for_itself(owner, |transaction, into| {
            for ((_, wait), Wait { key, .. }) in waits.range((transaction, 0)..=(transaction, WaitId::MAX)) {
                if let Some(entry) = self.stripe(key).lock().get(key) {
                    entry.blockers_of(*wait, into);
                }
            }
        })
    }

    /// Who waits for whom now, of those who have waited since `before` or longer.
    pub fn edges(&self, before: MonotonicTime) -> Vec<WaitEdge> {
        let mut edges = Vec::new();
        let mut blockers = Vec::new();
        let waits = self.waits.lock();
        for ((waiter, wait), Wait { key, since }) in waits.iter() {
            if *since > before {
                continue;
            }
            if let Some(entry) = self.stripe(key).lock().get(key) {
                entry.blockers_of(*wait, &mut blockers);
            }
            edges.extend(blockers.drain(..).map(|blocker| WaitEdge {
                waiter: *waiter,
                wait: *wait,
                blocker,
            }));
        }
        edges
    }

    /// Whether anybody has waited since `before` or longer.
    pub fn is_waiting_since(&self, before: MonotonicTime) -> bool {
        self.waits.lock().values().any(|wait| wait.since <= before)
    }

    /// Ends the waits of `owner` with [`LockError::Deadlock`]. Returns whether there were any.
    pub fn break_deadlock(&self, owner: TransactionId) -> bool {
        let waits = self.waits.lock();
        let mut found = false;
        for ((_, wait), Wait { key, .. }) in waits.range((owner, 0)..=(owner, WaitId::MAX)) {
            let mut stripe = self.stripe(key).lock();
            let Some(entry) = stripe.get_mut(key) else {
                continue;
            };
            let place = entry.queue.iter().position(|waiter| waiter.wait == *wait);
            if let Some(waiter) = place.and_then(|place| entry.queue.remove(place)) {
                found = true;
                // Whoever is gone already needs no answer.
                let _ = waiter.grant.send(Err(LockError::Deadlock));
                entry.grant_waiters();
            }
        }
        found
    }

    /// Gives locks back; keys that `owner` does not hold are ignored.
    pub fn release<'a>(&self, owner: TransactionId, keys: impl IntoIterator<Item = &'a LockKey>) {
        for key in keys {
            let mut stripe = self.stripe(key).lock();
            if let Some(entry) = stripe.get_mut(key) {
                entry.release(owner);
                if entry.is_unused() {
                    stripe.remove(key);
                }
            }
        }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waits.lock().len()
    }

    /// Keys that are locked now.
    pub fn locked_keys(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }
}

enum Enqueued<'a> {
    Granted(Granted),
    Waiting(PendingLock<'a>),
}

/// A place in a queue; dropping it leaves the queue.
struct PendingLock<'a> {
    table: &'a LockTable,
    owner: TransactionId,
    wait: WaitId,
    key: LockKey,
    receiver: oneshot::Receiver<Result<Granted, LockError>>,
}

impl PendingLock<'_> {
    /// Leaves the queue, unless the lock was granted a moment before.
    fn give_up(&mut self, reason: LockError) -> Result<Granted, LockError> {
        self.leave();
        self.receiver.try_recv().unwrap_or(Err(reason))
    }

    fn leave(&self) {
        self.table.waits.lock().remove(&(self.owner, self.wait));
        let mut stripe = self.table.stripe(&self.key).lock();
        if let Some(entry) = stripe.get_mut(&self.key) {
            let before = entry.queue.len();
            entry.queue.retain(|waiter| waiter.wait != self.wait);
            if entry.queue.len() < before {
                entry.grant_waiters();
            }
            if entry.is_unused() {
                stripe.remove(&self.key);
            }
        }
    }
}

impl Drop for PendingLock<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[path = "lock_table_tests.rs"]
mod tests;
