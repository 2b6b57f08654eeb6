//! Buggify points, planted bugs and coverage: what only a simulator uses.
//!
//! In production builds every question here is a constant `false` that the compiler removes. In simulation
//! builds (`--cfg madsim`) a process runs one simulation, so the switches are process-wide.

mod buggify;

#[cfg(madsim)]
pub use buggify::{buggified, turn_off_buggify, turn_on_buggify};
pub use buggify::{buggify, dawdle};

#[cfg(madsim)]
mod switches {
    use std::sync::OnceLock;

    static PLANTED_BUG: OnceLock<String> = OnceLock::new();

    /// Arms a planted bug for the rest of this process. Only the first call counts.
    pub fn plant(name: &str) {
        let _ = PLANTED_BUG.set(name.to_owned());
    }

    /// Whether the bug `name` was planted.
    pub fn planted(name: &str) -> bool {
        PLANTED_BUG.get().is_some_and(|planted| planted == name)
    }
}

#[cfg(madsim)]
mod coverage;

#[cfg(madsim)]
pub use coverage::{POINTS, Point, observe, points};
#[cfg(madsim)]
pub use switches::{plant, planted};

// For `sometimes!` in other crates.
#[cfg(madsim)]
#[doc(hidden)]
pub use linkme;

pub use crate::sometimes;

/// Marks a point that some seed of the simulator's suite has to reach (a promotion, a torn log, a refusal), by a name in
/// words with hyphens. Nothing in production builds.
#[cfg(madsim)]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {{
        #[$crate::fault::linkme::distributed_slice($crate::fault::POINTS)]
        #[linkme(crate = $crate::fault::linkme)]
        static POINT: $crate::fault::Point = $crate::fault::Point::new($name);
        POINT.reach();
    }};
}

/// Marks a point that some seed of the simulator's suite has to reach. Nothing in production builds.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {{}};
}

/// Whether the bug `name` was planted; never, outside the simulator.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn planted(_name: &str) -> bool {
    false
}
