//! `cargo sim`: a whole cluster and its clients in one process, on simulated time, network and disks.
//!
//! One process runs one simulation, so that nothing leaks from one into the next. See [`command_line`] for
//! what can be asked of it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the simulated side of the world, and the program around it that judges and reports"
)]

#[cfg(madsim)]
mod bug_hunt;
#[cfg(madsim)]
mod bug_table;
#[cfg(madsim)]
mod cluster;
#[cfg(madsim)]
mod command_line;
#[cfg(madsim)]
mod configuration;
#[cfg(madsim)]
mod coverage;
#[cfg(madsim)]
mod faulty_nodes;
#[cfg(madsim)]
mod many;
#[cfg(madsim)]
mod observation;
#[cfg(madsim)]
mod planted;
#[cfg(madsim)]
mod recording;
#[cfg(madsim)]
mod regressions;
#[cfg(madsim)]
mod replicas;
#[cfg(madsim)]
mod roles;
#[cfg(madsim)]
mod shrink;
#[cfg(madsim)]
mod simulation;
#[cfg(madsim)]
mod single;
#[cfg(madsim)]
mod timeline;
#[cfg(madsim)]
mod trace;
#[cfg(madsim)]
mod verdict;
#[cfg(madsim)]
mod world;
#[cfg(madsim)]
mod writability;

/// A fifth of a simulation's time is spent on small allocations.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    command_line::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("the simulator must be built for simulation: run it as `cargo sim --seed 1`");
    std::process::ExitCode::from(2)
}
