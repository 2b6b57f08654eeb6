//! How a simulation ended.

use serde::Serialize;

/// The kinds of ends, each with an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to complain of.
    Passed,
    /// A role panicked.
    Crash,
    /// Somebody made no progress although nothing was broken any more.
    Liveness,
    /// A checker rejected the history.
    Correctness,
}

impl Verdict {
    /// The process's exit code. 2 is for wrong usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Crash => 3,
            Self::Liveness => 4,
            Self::Correctness => 5,
        }
    }

    /// The verdict behind a process's exit code.
    pub fn from_exit_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Passed,
            Some(4) => Self::Liveness,
            Some(5) => Self::Correctness,
            // A signal, an abort, or anything else that nobody meant.
            _ => Self::Crash,
        }
    }

    /// As printed.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Crash => "FAILED (crash)",
            Self::Liveness => "FAILED (liveness)",
            Self::Correctness => "FAILED (correctness)",
        }
    }
}
