//! The PostgreSQL wire protocol, version 3 (PostgreSQL 15 manual, chapter 55): connections, authentication,
//! the simple and the extended query protocol, COPY and cancellation.

pub mod scram;
pub mod session;

pub use session::{Client, ColumnDescription, ExecuteOutcome, Gateway, Portal, Prepared, Session, Startup, TransactionStatus};
