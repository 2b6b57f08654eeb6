//! The copy that orders a shard's writes, decides when they are committed, and who is in sync.

use std::cmp::min;
use std::collections::BTreeMap;

use neorunbase_world::MonotonicTime;
use neorunbase_world::fault::planted;

use crate::configuration::Configuration;
use crate::follower::Follower;
use crate::lease::Timing;
use crate::log::{Entry, LogPosition, Record, ShardLog};

/// A primary's message to a follower: entries, or none as a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append<R> {
    /// The sender's term.
    pub term: u64,
    /// The entry just before the first one sent, which the follower must have.
    pub previous: LogPosition,
    /// What follows it.
    pub entries: Vec<Entry<R>>,
    /// Entries up to here are committed.
    pub committed: u64,
}

/// A follower's answer. Each but [`Stale`](Self::Stale) grants a lease, from when the message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The follower's log is the primary's up to here, durably.
    Matched {
        /// The last such entry, as far as the message spoke of it.
        up_to: u64,
    },
    /// The follower does not have the entry before those sent.
    Mismatch {
        /// It may have this one.
        retry_after: u64,
    },
    /// The follower has heard of a later term.
    Stale {
        /// The later term.
        term: u64,
    },
    /// What the follower has is damaged, or part of a copy that may have no sender any more: it needs a copy of everything.
    Damaged,
}

/// When a message was sent that is answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// [`Append::term`] of the message.
    pub term: u64,
    /// By the sender's clock.
    pub at: MonotonicTime,
}

/// This node is no longer primary: the znode must be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The later term.
    pub term: u64,
}

#[derive(Clone, Debug)]
struct Progress {
    /// Durable there.
    matched: u64,
    /// To be sent next.
    next: u64,
    /// The last message that was answered was sent then.
    heard: MonotonicTime,
    /// It does not begin a term before.
    lease_until: MonotonicTime,
    /// What it has is damaged.
    needs_copy: bool,
    /// It may have had another copy before: what it then said it had counts no more.
    matched_since: MonotonicTime,
}

/// What a follower is to get next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<R> {
    /// A message.
    Append(Append<R>),
    /// A copy of everything: what it lacks is no longer in the log.
    Copy,
}

/// The primary of a shard.
#[derive(Clone, Debug)]
pub struct Primary<R> {
    name: String,
    timing: Timing,
    configuration: Configuration,
    /// A change whose outcome is not known yet.
    proposed: Option<Configuration>,
    log: ShardLog<R>,
    /// The entry that began the term.
    began: u64,
    followers: BTreeMap<String, Progress>,
}

impl<R: Record> Primary<R> {
    pub(crate) fn begin(
        name: String,
        timing: Timing,
        configuration: Configuration,
        log: ShardLog<R>,
        now: MonotonicTime,
    ) -> Self {
        let mut primary = Self {
            name,
            timing,
            configuration,
            proposed: None,
            began: log.end().sequence + 1,
            log,
            followers: BTreeMap::new(),
        };
        primary.push(None);
        primary.know_followers(now);
        primary
    }

    fn know_followers(&mut self, now: MonotonicTime) {
        let next = self.log.end().sequence;
        let Self {
            followers,
            configuration,
            name,
            ..
        } = self;
        followers.retain(|follower, _| configuration.replicas.contains(follower));
        for replica in configuration.replicas.iter().filter(|replica| *replica != name) {
            followers.entry(replica.clone()).or_insert_with(|| Progress {
                matched: 0,
                next,
                heard: now,
                lease_until: MonotonicTime(0),
                needs_copy: false,
                matched_since: now,
            });
        }
    }

    /// The log.
    pub fn log(&self) -> &ShardLog<R> {
        &self.log
    }

    /// The log, to forget what is applied.
    pub fn log_mut(&mut self) -> &mut ShardLog<R> {
        &mut self.log
    }

    /// The configuration as far as it is known.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.configuration.term
    }

    /// Everybody that messages go to.
    pub fn followers(&self) -> impl Iterator<Item = &str> {
        self.followers.keys().map(String::as_str)
    }

    /// Adds a record to the log. It is to be made durable here, and sent to the followers.
    pub fn append(&mut self, record: R) -> LogPosition {
        self.push(Some(record))
    }

    fn push(&mut self, record: Option<R>) -> LogPosition {
        let position = LogPosition {
            term: self.term(),
            sequence: self.log.end().sequence + 1,
        };
        self.log.push(Entry { position, record });
        position
    }

    /// The entry at `position`, and so all before it, is durable here. Returns whether more is committed now.
    pub fn written(&mut self, position: LogPosition) -> bool {
        self.log.written(position);
        self.advance()
    }

    /// Everything up to here is committed: it may be applied and acknowledged, and will never be lost.
    pub fn committed(&self) -> u64 {
        self.log.committed()
    }

    /// Members of the set, those proposed included, other than this node.
    fn members(&self) -> impl Iterator<Item = &str> {
        let proposed = self.proposed.iter().flat_map(|proposed| &proposed.in_sync);
        let known = match &self.proposed {
            Some(proposed) if planted("shrink-after-ack") => proposed,
            _ => &self.configuration,
        };
        let members = known.in_sync.iter().chain(proposed);
        members.map(String::as_str).filter(|member| *member != self.name)
    }

    /// Returns whether more is committed now.
    fn advance(&mut self) -> bool {
        let matched = self
            .members()
            .map(|member| self.followers.get(member).map_or(0, |progress| progress.matched))
            .min()
            .unwrap_or(u64::MAX);
        let matched = if planted("ack-without-followers") {
            u64::MAX
        } else {
            matched
        };
        let everywhere = min(matched, self.log.durable());
        // What earlier terms left is committed with the term's own first entry, not before.
        everywhere >= self.began && self.log.commit(everywhere)
    }

    /// Whether rows may be read now: nobody else can be primary, and nothing of earlier terms is missing. (What is
    /// committed must be applied first.)
    pub fn may_read(&self, now: MonotonicTime) -> bool {
        self.committed() >= self.began
            && self.members().all(|member| {
                self.followers
                    .get(member)
                    .is_some_and(|progress| now < progress.lease_until)
            })
    }

    /// Until when [`may_read`](Self::may_read) will hold, if nothing else happens. `None`: it does not hold.
    pub fn readable_until(&self) -> Option<MonotonicTime> {
        if self.committed() < self.began {
            return None;
        }
        let lease_of = |member| self.followers.get(member).map(|progress| progress.lease_until);
        self.members()
            .map(lease_of)
            .try_fold(MonotonicTime(u64::MAX), |earliest, lease| {
                Some(earliest.min(lease?))
            })
    }

    /// Whether this node is the only member of the set, proposed ones included: what is durable here is committed.
    pub fn is_alone(&self) -> bool {
        self.members().next().is_none()
    }

    /// The entry that began the term.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Entries up to here are not needed for any follower.
    pub fn matched_by_all(&self) -> u64 {
        let followers = self.followers.values().map(|progress| progress.matched);
        followers.min().unwrap_or(u64::MAX)
    }

    /// What `follower` is known to have durably, up to this sequence.
    pub fn matched_by(&self, follower: &str) -> u64 {
        self.followers
            .get(follower)
            .map_or(0, |progress| progress.matched)
    }

    /// Whether `follower` is known to lack entries.
    pub fn lacks_entries(&self, follower: &str) -> bool {
        let progress = self.followers.get(follower);
        progress.is_some_and(|progress| progress.matched < self.log.end().sequence)
    }

    /// What `follower` is to get now: at most `most` entries, and no more than `most_bytes` after the first.
    pub fn next(&mut self, follower: &str, most: usize, most_bytes: usize) -> Option<Next<R>> {
        let progress = self.followers.get(follower)?;
        let previous = self.log.position(progress.next - 1);
        let Some(previous) = previous.filter(|_| !progress.needs_copy) else {
            // While the copy comes in there is nothing there that could be counted on.
            let is_member = self.members().any(|member| member == follower);
            return (!is_member).then_some(Next::Copy);
        };
        let mut bytes = 0;
        let fits = |entry: &&Entry<R>| {
            let is_first = bytes == 0;
            bytes += entry.record.as_ref().map_or(1, R::bytes);
            is_first || bytes <= most_bytes
        };
        let entries = self.log.after(previous.sequence, most).take_while(fits);
        let entries: Vec<_> = entries.cloned().collect();
        Some(Next::Append(Append {
            term: self.term(),
            previous,
            entries,
            committed: self.committed(),
        }))
    }

    /// The answer of `follower` to a message. Returns whether more is committed now.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn replied(&mut self, follower: &str, asked: Asked, reply: Reply) -> Result<bool, Stale> {
        if asked.term != self.term() {
            return Ok(false); // an earlier term of this node, whose log may have been another
        }
        let end = self.log.end().sequence;
        let Some(progress) = self.followers.get_mut(follower) else {
            return Ok(false);
        };
        match reply {
            Reply::Stale { term } => return Err(Stale { term }),
            Reply::Damaged => {
                progress.needs_copy = true;
                progress.matched = 0;
            }
            // The copy of which it speaks may be gone.
            Reply::Matched { .. } if asked.at < progress.matched_since => {}
            Reply::Matched { up_to } => {
                progress.matched = progress.matched.max(min(up_to, end));
                progress.next = progress.next.max(progress.matched + 1);
            }
            Reply::Mismatch { retry_after } => {
                progress.next = min(progress.next, retry_after + 1).max(1);
                // It has lost what it acknowledged (another disk, say).
                progress.matched = min(progress.matched, retry_after);
            }
        }
        progress.heard = progress.heard.max(asked.at);
        progress.lease_until = progress.lease_until.max(self.timing.held_until(asked.at));
        Ok(self.advance())
    }

    /// `follower` has a copy of everything up to `position`.
    pub fn copied(&mut self, follower: &str, position: LogPosition) {
        if let Some(progress) = self.followers.get_mut(follower) {
            progress.next = position.sequence + 1;
            progress.needs_copy = false;
        }
    }

    /// The change of the set to be written now (again, if its outcome is still unknown), by a versioned write on top of
    /// [`configuration`](Self::configuration).
    ///
    /// `may_grow`: whether a follower may be proposed as a member now.
    pub fn propose(&mut self, now: MonotonicTime, may_grow: bool) -> Option<Configuration> {
        if self.proposed.is_none() {
            self.proposed = self.change_due(now, may_grow);
        }
        self.proposed.clone()
    }

    fn change_due(&self, now: MonotonicTime, may_grow: bool) -> Option<Configuration> {
        let configuration = &self.configuration;
        let needs_copy =
            |progress: &Progress| progress.needs_copy || self.log.position(progress.next - 1).is_none();
        let is_silent =
            |progress: &Progress| now.since(progress.heard) > self.timing.silence || needs_copy(progress);
        let silent = configuration
            .in_sync
            .iter()
            .filter(|member| **member != self.name)
            .find(|member| self.followers.get(*member).is_none_or(is_silent));
        if let Some(silent) = silent {
            neorunbase_world::sometimes!("silent-follower-leaves-the-set");
            return configuration.without(silent);
        }
        if self.committed() < self.began || !may_grow {
            return None;
        }
        let (caught_up, _) = self.followers.iter().find(|(follower, progress)| {
            !configuration.is_in_sync(follower)
                && (progress.matched >= self.committed() || planted("grow-before-caught-up"))
                && now < progress.lease_until
        })?;
        neorunbase_world::sometimes!("follower-joins-the-set");
        configuration.with(caught_up)
    }

    /// The configuration as the coordination service has it now. Returns whether more is committed now.
    ///
    /// # Errors
    /// [`Stale`]: another term has begun.
    pub fn configured(&mut self, configuration: Configuration, now: MonotonicTime) -> Result<bool, Stale> {
        if configuration.epoch <= self.configuration.epoch {
            return Ok(false);
        }
        if configuration.term != self.term() {
            return Err(Stale {
                term: configuration.term,
            });
        }
        self.configuration = configuration;
        self.proposed = None;
        self.know_followers(now);
        // Between the configurations that are seen here, a follower may have been told to give its copy up, and then to begin
        // another. Those who are not counted on are asked anew before they are.
        let Self {
            followers,
            configuration,
            ..
        } = self;
        let outsiders = followers
            .iter_mut()
            .filter(|(follower, _)| !configuration.is_in_sync(follower));
        for (_, progress) in outsiders {
            progress.matched = 0;
            progress.matched_since = now;
        }
        Ok(self.advance())
    }

    /// Is primary no more.
    pub fn depose(self) -> Follower<R> {
        let term = self.term();
        // It has granted no lease since the term began, which took the earlier ones to have run out.
        Follower::new(&self.name, self.timing, self.log, term)
    }
}
