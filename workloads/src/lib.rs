//! Clients that know what the database must never show them, and the checkers that say whether it did.
//!
//! A [`Workload`] speaks the PostgreSQL wire protocol over the injected world, so the same code runs in the
//! simulator and, from outside, against real processes. What clients asked and were told is recorded as a
//! [`History`]; the checkers read nothing else. A call that timed out or lost its connection is *unknown*:
//! calling it failed would hide lost commits, calling it done would invent them.

pub mod bank;
pub mod checker;
pub mod client;
pub mod counters;
pub mod deadlocks;
pub mod definitions;
pub mod drive;
pub mod durability;
pub mod guarded_budget;
pub mod history;
pub mod history_reads;
pub mod level;
pub mod list_append;
pub mod long_fork;
pub mod old_snapshots;
pub mod predicate_skew;
pub mod registers;
pub mod ring;
pub mod savepoint_locks;
mod second_connection;
pub mod secondary_index;
pub mod unique_index;
pub mod workload;

pub use client::{CallError, Client, ClientWorld, Target};
pub use drive::{Driver, Progress};
pub use history::{History, Outcome, Record};
pub use workload::{Report, Workload};
