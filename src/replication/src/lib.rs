//! Primary–backup replication of one shard's log with an in-sync set (PacificA; Kafka's ISR), as plain state machines:
//! messages and times in, messages and proposals out. They await nothing and own no clock; a Data Node drives them,
//! and so does the model cluster of the tests.
//!
//! What holds, and who sees to it:
//! - **One primary a term.** A term is the epoch of the configuration that made its primary. A node begins a term at
//!   most once, even over a restart (the driver makes [`Follower::begin_term`] durable first), and a log has at most one
//!   entry for each `(term, sequence)`. So two logs with the same entry are the same up to there.
//! - **Committed means in every log.** An entry is committed when every member of the in-sync set has it durably, and
//!   every node that was proposed as a member, too ([`Primary::committed`]). Only members of the set may become
//!   primary ([`Configuration::promoted`]), so a committed entry is in the log of every later primary.
//! - **A follower leaves the set before an entry is committed without it.** The set changes by a versioned write of the
//!   coordination service; until the answer is known, members of both sets are waited for.
//! - **A term begins with an entry of its own**, and nothing is read before that is committed: what a follower has beyond
//!   the primary's log is overwritten before anybody can be told that it never happened.
//! - **No stale reads.** A primary reads only while every member (and proposed member) has granted it a lease; a follower
//!   that grants one does not begin a term before it has run out by its own clock, whatever it has heard meanwhile. Clocks
//!   may differ by any offset, but not in rate by more than [`Timing::drift_percent`]. Only a primary that hands over by
//!   itself, and reads no more before it proposes that, spares the next one the wait ([`Configuration::handed_over`]).

mod configuration;
mod follower;
mod lease;
mod log;
mod primary;

pub use configuration::Configuration;
pub use follower::{Follower, NotYet, Received};
pub use lease::Timing;
pub use log::{Entry, LogPosition, Record, ShardLog};
pub use primary::{Append, Asked, Next, Primary, Reply, Stale};

#[cfg(test)]
mod tests;
