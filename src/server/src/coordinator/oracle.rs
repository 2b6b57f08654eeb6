//! The timestamp oracle of the leader Coordinator.
//!
//! Timestamps are handed out from memory, below a limit that was raised durably, by versioned CAS in the
//! coordination service, before the first of them was used. A new leader starts at the limit it finds, so no
//! failover can hand out a smaller one, whatever the old leader still believes.
//!
//! That is not enough: an old leader that goes on below its limit would show readers a past without the commits of
//! its successor. So raising the limit also renews a lease, by the leader's own clock; a successor waits until the
//! last lease that its predecessor can have has ended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_protocol::CallError;
use neorunbase_protocol::message::{RequestBody, ResponseBody, Timestamp, TimestampsRequest};
use neorunbase_txn::timestamp::{TimestampError, TimestampSource, first_of_millisecond, milliseconds_of};
use neorunbase_world::coordination::{CoordinationError, CreateMode};
use neorunbase_world::fault::{buggify, planted};
use neorunbase_world::{MonotonicTime, World};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::cluster::{CoordinatorDirectory, paths};

/// How far ahead of use the limit is raised.
const WINDOW_MS: u64 = 3_000;
/// The limit is raised again when less than this is left.
const LOW_WATER_MS: u64 = 1_500;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the leader hands out timestamps after it asked for its limit to be raised.
pub const LEASE: Duration = Duration::from_millis(1_000);
/// The lease is renewed when less than this is left.
const RENEW_BEFORE: Duration = Duration::from_millis(600);
/// By how much the clocks of two Coordinators may differ in rate.
pub const DRIFT_PERCENT: u32 = 5;
/// A caller waits so long for a window before it is sent away, maybe to another leader.
const WINDOW_LIMIT: Duration = Duration::from_millis(250);
/// A transaction waits so long for a leader before it is told that there is none.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Writes the limit when a leader stops: nobody has a lease.
const RELEASED: u64 = 0;

struct Window {
    /// The last timestamp handed out.
    last: Timestamp,
    /// First timestamp that must not be handed out yet.
    limit: Timestamp,
    /// Nothing is handed out from then on.
    lease_until: MonotonicTime,
    /// Another leader has raised the limit: this one must not answer until it is elected again.
    deposed: bool,
    /// Another leader's lease may not have ended yet.
    awaits_lease: bool,
}

/// Hands out timestamps while this process leads.
pub struct Oracle {
    world: World,
    window: Mutex<Window>,
    raised: Notify,
    /// Told when another leader has raised the limit.
    overtaken: Notify,
    /// Tells this oracle's writes of the limit from those of others, also where an answer was lost.
    nonce: u64,
}

impl Oracle {
    /// An oracle that does not lead yet.
    pub fn new(world: &World) -> Arc<Self> {
        let oracle = Arc::new(Self {
            world: world.clone(),
            window: Mutex::new(Window {
                last: 0,
                limit: 0,
                lease_until: MonotonicTime(0),
                deposed: true,
                awaits_lease: false,
            }),
            raised: Notify::new(),
            overtaken: Notify::new(),
            nonce: world.entropy.next_u64().max(RELEASED + 1),
        });
        let upkeep = keep_window(Arc::downgrade(&oracle));
        world.spawner.spawn("timestamp window", Box::pin(upkeep));
        oracle
    }

    /// Takes over after an election: raises the limit before anything is handed out, and waits for the end of another
    /// leader's lease. Nothing happens if nobody else led in between.
    ///
    /// # Errors
    /// As [`Coordination::set`](neorunbase_world::Coordination::set).
    pub async fn take_over(&self) -> Result<(), CoordinationError> {
        if !self.window.lock().deposed {
            return Ok(());
        }
        let (found, writer) = self.raise_limit(true).await?;
        let awaits_lease = if planted("takeover-not-awaited-again") {
            writer != self.nonce && writer != RELEASED
        } else {
            self.window.lock().awaits_lease
        };
        if awaits_lease && !planted("oracle-ignores-lease") {
            neorunbase_world::sometimes!("oracle-taken-over");
            self.world.clock.sleep(LEASE * (100 + DRIFT_PERCENT) / 100).await;
        }
        let mut window = self.window.lock();
        window.awaits_lease = false;
        if !planted("oracle-starts-below-limit") {
            window.last = window.last.max(found);
        }
        window.deposed = false;
        Ok(())
    }

    /// Returns when this oracle hands out no timestamps any more, because another leader has raised the limit.
    pub async fn deposed(&self) {
        loop {
            let overtaken = self.overtaken.notified();
            tokio::pin!(overtaken);
            overtaken.as_mut().enable();
            if self.window.lock().deposed {
                return;
            }
            overtaken.await;
        }
    }

    /// Whether no successor can have begun.
    pub fn has_lease(&self) -> bool {
        let window = self.window.lock();
        !window.deposed && self.world.clock.monotonic() < window.lease_until
    }

    /// Stops handing out timestamps for good; a successor need not wait.
    ///
    /// # Errors
    /// As [`Coordination::set`](neorunbase_world::Coordination::set).
    pub async fn release(&self) -> Result<(), CoordinationError> {
        let (limit, deposed) = {
            let mut window = self.window.lock();
            (window.limit, std::mem::replace(&mut window.deposed, true))
        };
        let coordination = &*self.world.coordination;
        if !deposed
            && let Some((data, version)) = coordination.get(paths::TIMESTAMP_LIMIT).await?
            && parse_limit(&data)? == (limit, self.nonce)
        {
            let released = Bytes::from(format!("{limit} {RELEASED:016x}"));
            coordination
                .set(paths::TIMESTAMP_LIMIT, released, version)
                .await?;
        }
        Ok(())
    }

    /// Raises the durable limit and renews the lease, and returns the limit it found and who had written it. Unless this
    /// is a takeover, a limit that somebody else has written means that another leader has taken over.
    async fn raise_limit(&self, takeover: bool) -> Result<(Timestamp, u64), CoordinationError> {
        let asked = self.world.clock.monotonic();
        let coordination = &*self.world.coordination;
        let found = coordination.get(paths::TIMESTAMP_LIMIT).await?;
        let (current, writer) = match &found {
            Some((data, _)) => parse_limit(data)?,
            None => (0, RELEASED),
        };
        if !takeover && writer != self.nonce && !planted("oracle-ignores-successor") {
            return Err(CoordinationError::BadVersion(paths::TIMESTAMP_LIMIT.to_owned()));
        }
        if takeover && writer != self.nonce && writer != RELEASED {
            // Noted before anything is written: this takeover may be broken off, and the next one finds its own writing.
            self.window.lock().awaits_lease = true;
        }
        let now_ms = u64::try_from(self.world.clock.wall_clock_unix_micros() / 1_000).unwrap_or(0);
        let window_ms = if buggify("small window of timestamps") {
            50
        } else {
            WINDOW_MS
        };
        let last = self.window.lock().last;
        let counts_from_limit = takeover || planted("oracle-limit-creeps");
        let last = if counts_from_limit {
            last.max(current)
        } else {
            last
        };
        let limit = limit_after(current, last, now_ms, window_ms);
        let data = Bytes::from(format!("{limit} {:016x}", self.nonce));
        match found {
            Some((_, version)) => drop(coordination.set(paths::TIMESTAMP_LIMIT, data, version).await?),
            None => drop(
                coordination
                    .create(paths::TIMESTAMP_LIMIT, data, CreateMode::Persistent)
                    .await?,
            ),
        }
        let mut window = self.window.lock();
        assert!(limit >= window.limit, "the limit of timestamps never goes back");
        window.limit = limit;
        window.lease_until = asked.after(LEASE * 100 / (100 + DRIFT_PERCENT));
        drop(window);
        self.raised.notify_waiters();
        Ok((current, writer))
    }

    /// The next timestamp, if the window allows.
    fn try_next(&self, count: u32) -> Result<Option<Timestamp>, TimestampError> {
        let now_ms = u64::try_from(self.world.clock.wall_clock_unix_micros() / 1_000).unwrap_or(0);
        let mut window = self.window.lock();
        if window.deposed {
            return Err(TimestampError::Unavailable(
                "this coordinator is no longer the leader".to_owned(),
            ));
        }
        if self.world.clock.monotonic() >= window.lease_until && !planted("oracle-outlives-lease") {
            return Ok(None);
        }
        let mut first = window.last + 1;
        let current = first_of_millisecond(now_ms);
        // Following the wall clock lets ages be read off timestamps; never beyond the durable limit.
        if current > first && current + u64::from(count) < window.limit {
            first = current;
        }
        if first + u64::from(count) > window.limit {
            return Ok(None);
        }
        window.last = first + u64::from(count) - 1;
        Ok(Some(first))
    }

    /// A run of `count` timestamps; the first is returned.
    ///
    /// # Errors
    /// [`TimestampError`] if this process no longer leads or cannot raise its window.
    pub async fn run_of(&self, count: u32) -> Result<Timestamp, TimestampError> {
        if let Some(first) = self.try_next(count)? {
            return Ok(first);
        }
        let waiting = async {
            loop {
                let raised = self.raised.notified();
                if let Some(first) = self.try_next(count)? {
                    return Ok(first);
                }
                tokio::select! {
                    biased;
                    () = raised => {}
                    () = self.world.clock.sleep(RETRY_PAUSE) => {}
                }
            }
        };
        match neorunbase_world::clock::timeout(&*self.world.clock, WINDOW_LIMIT, waiting).await {
            Ok(result) => result,
            Err(_) => Err(TimestampError::Unavailable(
                "the window of timestamps cannot be raised".to_owned(),
            )),
        }
    }
}

/// The limit that lets timestamps follow the wall clock for `window_ms` from now, or be counted on for so long if `last`, the
/// last one that may have been handed out, is ahead of the clock. It depends on what was used, not on how often it was raised:
/// a successor begins at the limit, and must not find itself days ahead of the clock.
fn limit_after(current: Timestamp, last: Timestamp, now_ms: u64, window_ms: u64) -> Timestamp {
    current.max(first_of_millisecond(
        now_ms.max(milliseconds_of(last)) + window_ms,
    ))
}

fn parse_limit(data: &[u8]) -> Result<(Timestamp, u64), CoordinationError> {
    let parse = || {
        let (limit, nonce) = std::str::from_utf8(data).ok()?.split_once(' ')?;
        Some((limit.parse().ok()?, u64::from_str_radix(nonce, 16).ok()?))
    };
    parse().ok_or_else(|| CoordinationError::Other("unreadable timestamp limit".to_owned()))
}

async fn keep_window(oracle: std::sync::Weak<Oracle>) {
    loop {
        let Some(oracle) = oracle.upgrade() else { return };
        let now_ms = u64::try_from(oracle.world.clock.wall_clock_unix_micros() / 1_000).unwrap_or(0);
        let low = {
            let window = oracle.window.lock();
            let used_ms = now_ms.max(milliseconds_of(window.last));
            let is_ending = window.lease_until < oracle.world.clock.monotonic().after(RENEW_BEFORE);
            !window.deposed && (is_ending || milliseconds_of(window.limit) < used_ms + LOW_WATER_MS)
        };
        if low && !buggify("oracle's lease renewed late") {
            match oracle.raise_limit(false).await {
                Ok(_) => {}
                Err(CoordinationError::BadVersion(_)) => {
                    neorunbase_world::sometimes!("oracle-deposed");
                    tracing::warn!("another leader hands out timestamps; this one stops");
                    oracle.window.lock().deposed = true;
                    oracle.overtaken.notify_waiters();
                }
                Err(error) => tracing::debug!(%error, "cannot raise the window of timestamps yet"),
            }
        }
        let clock = oracle.world.clock.clone();
        drop(oracle);
        clock.sleep(RETRY_PAUSE).await;
    }
}

/// The leader's oracle, wherever it is. Calls that arrive while one is under way share the next one: a
/// timestamp is always drawn after it was asked for.
pub struct LeaderOracle {
    world: World,
    coordinators: Arc<CoordinatorDirectory>,
    /// The one of this process, if it is a Coordinator's.
    local: Option<Arc<Oracle>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<oneshot::Sender<Result<Timestamp, TimestampError>>>,
    under_way: bool,
}

impl LeaderOracle {
    /// `local` is asked first.
    pub fn new(
        world: World,
        coordinators: Arc<CoordinatorDirectory>,
        local: Option<Arc<Oracle>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world,
            coordinators,
            local,
            queue: Mutex::default(),
        })
    }

    async fn fetch(&self, count: u32) -> Result<Timestamp, TimestampError> {
        let mut reason = "no leader is known".to_owned();
        let deadline = self.world.clock.monotonic().after(WAIT_LIMIT);
        while self.world.clock.monotonic() < deadline {
            if let Some(local) = &self.local
                && let Ok(first) = local.run_of(count).await
            {
                return Ok(first);
            }
            if let Some(channel) = self.coordinators.leader() {
                let request = RequestBody::Timestamps(TimestampsRequest { count });
                match channel.call(request.into()).await {
                    Ok(response) => match response.body {
                        Some(ResponseBody::Timestamps(run)) if run.count >= count => return Ok(run.first),
                        Some(ResponseBody::Error(error)) => reason = error.message,
                        _ => reason = "unexpected answer".to_owned(),
                    },
                    // Drawing again is harmless: unused timestamps are just skipped.
                    Err(CallError::Unreachable(node) | CallError::OutcomeUnknown(node)) => {
                        reason = format!("no answer from {node}");
                    }
                }
            }
            self.world.clock.sleep(RETRY_PAUSE).await;
        }
        Err(TimestampError::Unavailable(reason))
    }

    async fn serve_queue(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.under_way = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            let result = self.fetch(count).await;
            for (index, waiter) in waiting.into_iter().enumerate() {
                // A caller that gave up leaves a hole in the run; nobody minds.
                let _ = waiter.send(result.clone().map(|first| first + index as u64));
            }
        }
    }
}

/// [`LeaderOracle`] behind an `Arc`, as a source.
pub struct LeaderTimestamps(pub Arc<LeaderOracle>);

#[async_trait]
impl TimestampSource for LeaderTimestamps {
    async fn next(&self) -> Result<Timestamp, TimestampError> {
        if let Some(local) = &self.0.local
            && let Ok(Some(next)) = local.try_next(1)
        {
            return Ok(next);
        }
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut queue = self.0.queue.lock();
            queue.waiting.push(sender);
            !std::mem::replace(&mut queue.under_way, true)
        };
        if start {
            self.0
                .world
                .spawner
                .spawn("timestamps", Box::pin(self.0.clone().serve_queue()));
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(TimestampError::Unavailable("the request was dropped".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_stays_near_the_clock_however_often_it_is_raised() {
        let mut limit = 0;
        for now_ms in (1_000_000..2_000_000).step_by(400) {
            let last = first_of_millisecond(now_ms);
            limit = limit_after(limit, last, now_ms, WINDOW_MS);
            assert_eq!(milliseconds_of(limit), now_ms + WINDOW_MS);
        }
    }

    #[test]
    fn the_limit_never_goes_back_and_leaves_room_above_what_was_used() {
        let at = first_of_millisecond;
        assert_eq!(limit_after(at(9_000), at(1_000), 1_000, 3_000), at(9_000));
        assert_eq!(limit_after(at(9_000), at(9_000) + 5, 1_000, 3_000), at(12_000));
        assert_eq!(limit_after(at(9_000), at(8_000), 1_000, 50), at(9_000));
    }
}
