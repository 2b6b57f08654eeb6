//! `neorunbase`: the daemons and the command line. Wires the production world to the roles of `src/server`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one place, with the leaf crates, that may reach the operating system"
)]

mod admin;
mod arguments;
mod configuration;
mod coordinator;
mod data_directory;
mod data_node;
mod failure;
mod http_request;
mod journal_seal;
mod logging;
mod node;
mod production_world;
mod secrets;
mod shutdown;
mod start;
mod status;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Status(options) => return status::run(options),
        Command::Node(command) => return node::run(command),
        Command::Start(_) | Command::Coordinator(_) | Command::Datanode(_) => {}
    }
    logging::initialise(arguments.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("neorunbase")
        .build()?;
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Start(options) => start::run(options).await,
            Command::Coordinator(options) => coordinator::run(&options.config).await,
            Command::Datanode(options) => data_node::run(options).await,
            Command::Status(_) | Command::Node(_) => Ok(()),
        }
    });
    // Everything durable has been closed by now; a task that hangs must not keep the process alive.
    runtime.shutdown_timeout(shutdown::RUNTIME_GRACE);
    outcome
}
