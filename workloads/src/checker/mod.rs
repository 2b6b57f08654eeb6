//! Judges of histories. Each has negative twins in its tests: histories that it must reject.

pub mod bank;
pub mod counters;
pub mod deadlocks;
pub mod definitions;
pub mod durability;
pub mod graph;
pub mod guarded_budget;
pub mod history_reads;
pub mod linearizability;
pub mod list_append;
pub mod long_fork;
pub mod old_snapshots;
pub mod predicate_skew;
pub(crate) mod refusal;
pub mod registers;
pub mod ring;
pub mod savepoint_locks;
pub mod secondary_index;
pub mod unique_index;
