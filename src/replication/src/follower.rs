//! A copy of a shard that takes over what its primary sends, and may become primary itself.

use std::cmp::min;

use neorunbase_world::MonotonicTime;
use neorunbase_world::fault::planted;

use crate::configuration::Configuration;
use crate::lease::Timing;
use crate::log::{Entry, LogPosition, Record, ShardLog};
use crate::primary::{Append, Primary, Reply};

/// A copy that is not primary now.
#[derive(Clone, Debug)]
pub struct Follower<R> {
    name: String,
    timing: Timing,
    log: ShardLog<R>,
    /// The highest term that this node has heard of.
    term: u64,
    /// The highest term that this node has begun itself, ever.
    begun: u64,
    /// No term may begin here before.
    granted_until: MonotonicTime,
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<R> {
    /// Once `write` is durable, tell it to [`Follower::written`] and answer with [`Follower::matched`] of `up_to`.
    Taken {
        /// New entries. The first may stand where others stood before, which are void then, they and all that followed.
        write: Vec<Entry<R>>,
        /// The last entry that the message spoke of.
        up_to: u64,
    },
    /// To be answered so at once.
    Refused(Reply),
    /// The primary does not have an entry that is committed here: one of the two is corrupt. The copy must stop.
    Diverged(LogPosition),
}

/// Why a term cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// Another node is primary, or there is a later configuration.
    NotPrimary,
    /// A lease that was granted to an earlier primary has to run out first.
    Leased {
        /// When it does.
        until: MonotonicTime,
    },
    /// This node has begun the term already, maybe before a restart. What it had not made durable may be with others, so
    /// it needs a new term: [`Configuration::promoted`] to itself.
    BegunBefore,
}

impl<R: Record> Follower<R> {
    /// A copy as found on disk: `begun` is the highest term it has begun, and it may have granted a
    /// lease just before `now`.
    pub fn restarted(name: &str, timing: Timing, log: ShardLog<R>, begun: u64, now: MonotonicTime) -> Self {
        Self {
            granted_until: timing.granted_until(now),
            ..Self::new(name, timing, log, begun)
        }
    }

    /// A copy none of whose leases can still be out.
    pub fn new(name: &str, timing: Timing, log: ShardLog<R>, begun: u64) -> Self {
        Self {
            name: name.to_owned(),
            timing,
            term: begun.max(log.end().term),
            log,
            begun,
            granted_until: MonotonicTime(0),
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

    /// Entries up to here may be applied.
    pub fn applicable(&self) -> u64 {
        if planted("follower-applies-uncommitted") {
            return self.log.durable();
        }
        min(self.log.committed(), self.log.durable())
    }

    /// Takes a primary's message.
    pub fn receive(&mut self, append: Append<R>, now: MonotonicTime) -> Received<R> {
        if self.is_stale(append.term) {
            neorunbase_world::sometimes!("stale-primary-refused");
            return Received::Refused(Reply::Stale { term: self.term });
        }
        self.term = append.term;
        self.granted_until = self.granted_until.max(self.timing.granted_until(now));
        let previous = append.previous;
        let end = self.log.end();
        if previous.sequence > end.sequence {
            return Received::Refused(Reply::Mismatch {
                retry_after: end.sequence,
            });
        }
        if let Some(known) = self.log.position(previous.sequence)
            && known != previous
            && !planted("divergent-tail-kept")
        {
            if previous.sequence <= self.log.committed() {
                return Received::Diverged(known);
            }
            return Received::Refused(Reply::Mismatch {
                retry_after: self.log.committed().max(previous.sequence - 1),
            });
        }
        let up_to = previous.sequence + append.entries.len() as u64;
        let mut write = Vec::new();
        for entry in append.entries {
            let sequence = entry.position.sequence;
            if sequence <= self.log.base().sequence {
                continue; // applied and forgotten
            }
            match self.log.position(sequence) {
                Some(known) if known == entry.position => continue,
                Some(_) if planted("divergent-tail-kept") => continue,
                Some(known) if sequence <= self.log.committed() => return Received::Diverged(known),
                Some(_) => {
                    neorunbase_world::sometimes!("uncommitted-entries-overwritten");
                    self.log.truncate_after(sequence - 1);
                }
                None => {}
            }
            self.log.push(entry.clone());
            write.push(entry);
        }
        self.log.commit(min(append.committed, up_to));
        Received::Taken { write, up_to }
    }

    /// The entry at `position`, and so all before it, is durable.
    pub fn written(&mut self, position: LogPosition) {
        self.log.written(position);
    }

    /// The answer to a message that spoke of entries up to `up_to`, for what is durable by now.
    pub fn matched(&self, up_to: u64) -> Reply {
        if planted("follower-acks-before-fsync") {
            return Reply::Matched { up_to };
        }
        Reply::Matched {
            up_to: min(up_to, self.log.durable()),
        }
    }

    /// The primary of `term` offers a copy of everything up to `position`. Whether that would be of any use: otherwise the
    /// log has all of it already, and maybe more that must not go.
    ///
    /// # Errors
    /// To be answered so: the term is over.
    pub fn offered(&mut self, term: u64, position: LogPosition) -> Result<bool, Reply> {
        if self.is_stale(term) {
            return Err(Reply::Stale { term: self.term });
        }
        self.term = term;
        Ok(
            position.sequence > self.log.committed()
                && self.log.position(position.sequence) != Some(position),
        )
    }

    /// The copy was replaced by the one that was [offered](Self::offered): it holds everything up to `position`, durably,
    /// and nothing else.
    pub fn installed(&mut self, position: LogPosition) {
        self.log = ShardLog::starting_at(position);
    }

    /// The configuration `before`, the last one until now, was replaced by one with a new term of this node. If its term
    /// was begun here, no primary of another one can hold a lease of this node's.
    pub fn renewed(&mut self, before: &Configuration) {
        if before.term == self.begun && before.primary == self.name {
            self.granted_until = MonotonicTime(0);
        }
    }

    /// Whether a message of `term` is to be refused.
    fn is_stale(&self, term: u64) -> bool {
        // A term of this node's own is nobody else's.
        (term < self.term || term == self.begun) && !planted("old-term-accepted")
    }

    /// Heard of a configuration: primaries of earlier terms are refused from now on.
    pub fn learn(&mut self, configuration: &Configuration) {
        self.term = self.term.max(configuration.term);
    }

    /// Whether the term of `configuration` can begin here. If so, the driver makes it durable that this node has begun
    /// it, and then calls [`begin_term`](Self::begin_term).
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn may_begin(&mut self, configuration: &Configuration, now: MonotonicTime) -> Result<(), NotYet> {
        self.learn(configuration);
        if configuration.primary != self.name || configuration.term < self.term {
            return Err(NotYet::NotPrimary);
        }
        if configuration.term == self.begun {
            return Err(NotYet::BegunBefore);
        }
        let may_wait = !configuration.is_handed_over && !planted("term-begins-under-lease");
        if now < self.granted_until && may_wait {
            neorunbase_world::sometimes!("term-waits-for-a-lease");
            return Err(NotYet::Leased {
                until: self.granted_until,
            });
        }
        Ok(())
    }

    /// Becomes primary. The first entry of the term is to be made durable like any other.
    ///
    /// # Errors
    /// The follower itself, if it [may not](Self::may_begin) (any more).
    pub fn begin_term(
        mut self,
        configuration: Configuration,
        now: MonotonicTime,
    ) -> Result<Primary<R>, Box<(Self, NotYet)>> {
        match self.may_begin(&configuration, now) {
            Ok(()) => Ok(Primary::begin(
                self.name,
                self.timing,
                configuration,
                self.log,
                now,
            )),
            Err(reason) => Err(Box::new((self, reason))),
        }
    }
}
