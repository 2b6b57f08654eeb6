//! The PostgreSQL wire protocol, version 3 (PostgreSQL 15 manual, chapter 55): connections, authentication,
//! the simple and the extended query protocol, COPY and cancellation.

mod authentication;
pub mod cancel;
mod client;
mod connection;
mod extended;
pub mod listener;
mod message;
mod output;
pub mod scram;
pub mod session;
mod startup;
#[cfg(test)]
mod tests;
mod wire;

pub use cancel::Backends;
pub use listener::{ConnectionLimits, Server, serve};
pub use scram::ScramVerifier;
pub use session::{
    Client, ColumnDescription, ExecuteOutcome, Gateway, Portal, Prepared, Session, Startup, TransactionStatus,
};
