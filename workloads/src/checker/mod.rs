//! Judges of histories. Each has negative twins in its tests: histories that it must reject.

pub mod bank;
pub mod definitions;
pub mod durability;
pub mod graph;
pub mod list_append;
pub mod old_snapshots;
pub mod predicate_skew;
pub mod savepoint_locks;
