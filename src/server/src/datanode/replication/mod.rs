//! This node's copies of shards: drives the state machines of `neorunbase_replication`.
//!
//! - A primary's record enters the shard's log when it is durable here ([`append`]), goes to the followers ([`ship`],
//!   [`receive`]), and has its effect when it is committed, in the order of the shard's log ([`advance`]).
//! - What a record does is known to the request that made it ([`step`]); without one (on followers, after a restart, in a
//!   new term) it is read from the record ([`replay`]).
//! - The node follows the shards' configurations ([`configure`]): terms begin ([`terms`]) and end ([`depose`]), the in-sync
//!   set changes ([`in_sync`]), a shard is handed over ([`handover`]), a copy is not wanted any more
//!   ([`drop_copy`]) or damaged ([`damaged`]). A follower that lacks too much gets a copy of everything ([`copy`],
//!   [`copies`], [`install`]).
//!
//! All of it is behind one lock that is never held across an await. Whoever holds it may take any other lock of the
//! node; nobody takes it while holding another.

mod advance;
mod append;
mod configure;
mod copies;
mod copy;
mod damaged;
mod depose;
mod drop_copy;
mod handover;
mod in_sync;
mod install;
mod receive;
mod replaced;
mod replay;
mod replica;
mod revive;
mod ship;
mod step;
mod terms;

pub(super) use append::Room;
pub(super) use copies::Copies;
pub(super) use install::{Incoming, prepared_in};
pub(super) use replica::{KeptPrepare, Payload, Replica, Replicas, Role};
pub(super) use step::{Committed, LoggedStep};
