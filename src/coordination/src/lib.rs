//! The embedded coordination service, its clients, and what is built on any coordination service.
//!
//! `state` is the tree of znodes with its sessions and watches as a plain state machine; `service` drives it
//! in one task, journals it (`journal`) and serves connections; `client` is the one client, over an in-process
//! connection (`embedded`) or over the network (`remote`). `election` and `membership` need only the
//! [`Coordination`](neorunbase_world::Coordination) trait, so they run on ZooKeeper as well; `conformance` is
//! the suite that holds both to the same behaviour.

mod client;
pub mod conformance;
pub mod election;
mod embedded;
pub mod journal;
pub mod membership;
pub mod message;
mod owned_task;
mod remote;
mod service;
pub mod state;

pub use client::{ClientOptions, SessionClient};
pub use election::{Election, Leadership, current_epoch, current_leader};
pub use embedded::EmbeddedClient;
pub use journal::{JournalError, JournalLocation, JournalSealer};
pub use membership::{MemberList, Membership};
pub use message::SessionId;
pub use remote::{RemoteClient, RemoteServer};
pub use service::{CallFate, CallFault, EmbeddedService, Lag, WatchDelay};
