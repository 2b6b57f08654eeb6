//! Buggify points and planted bugs: switches that only a simulator can throw.
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
pub use switches::{plant, planted};

/// Whether the bug `name` was planted; never, outside the simulator.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn planted(_name: &str) -> bool {
    false
}
