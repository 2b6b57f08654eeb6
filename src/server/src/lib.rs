//! The roles: Coordinator and Data Node, and how a process of each is put together. They reach the world only
//! through [`World`](neorunbase_world::World), so the same code runs in production and in the simulator.

pub mod cluster;
pub mod coordinator;
pub mod daemon;
pub mod datanode;
mod error_reply;
#[cfg(test)]
#[path = "../../storage/tests/support/mod.rs"]
#[allow(dead_code)]
mod storage_support;
