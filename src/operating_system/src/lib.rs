//! The production side of the world: clocks, randomness, tasks, TCP and files of the operating system.
//!
//! The shard engine and the coordination service have crates of their own, since they pull in large libraries.

#![cfg(not(madsim))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this crate is the operating system's side of the world"
)]

mod clock;
mod disk;
mod entropy;
mod network;
mod spawn;

pub use clock::OsClock;
pub use disk::FileDisk;
pub use entropy::OsEntropy;
pub use network::TcpNetwork;
pub use spawn::TokioSpawner;
