//! Transactions as one participant sees them: row locks, deadlocks, uncommitted writes, and the states between a
//! first statement and an outcome. Nothing here does I/O; the Data Node drives it.

pub mod deadlock;
pub mod lock_table;
pub mod outcomes;
pub mod read_set;
pub mod timestamp;
pub mod transaction;
pub mod write_set;

pub use lock_table::{Granted, LockError, LockKey, LockStrength, LockTable, WaitPolicy};
pub use outcomes::{Outcome, Outcomes};
pub use read_set::ReadSet;
pub use timestamp::{TimestampError, TimestampSource};
pub use transaction::{Lost, Phase, StatementGuard, Transaction};
pub use write_set::WriteSet;
