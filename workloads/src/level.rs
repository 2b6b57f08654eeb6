//! Isolation levels.

use serde::{Deserialize, Serialize};

/// The isolation level that transactions ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each statement sees what was committed before it began.
    ReadCommitted,
    /// Snapshot isolation.
    RepeatableRead,
    /// As if one after the other, in an order that agrees with real time.
    Serializable,
}

impl Level {
    /// As SQL writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }

    /// Whether all statements of a transaction see the same snapshot, and nobody overwrites what it has not seen.
    pub fn has_one_snapshot(self) -> bool {
        self != Self::ReadCommitted
    }
}
