//! Points in the roles that some seed of a suite has to reach: a fault that never leads there tests nothing.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// All points of this program, reached or not. Filled by the linker: see [`sometimes!`](crate::sometimes).
#[linkme::distributed_slice]
pub static POINTS: [Point];

static OBSERVER: OnceLock<fn(&'static str)> = OnceLock::new();

/// A point in the code.
#[derive(Debug)]
pub struct Point {
    name: &'static str,
    is_reached: AtomicBool,
}

impl Point {
    /// A point that was not reached yet.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            is_reached: AtomicBool::new(false),
        }
    }

    /// The running simulation is there now.
    pub fn reach(&self) {
        self.is_reached.store(true, Ordering::Relaxed);
        if let Some(observer) = OBSERVER.get() {
            observer(self.name);
        }
    }
}

/// Has `observer` told of every point whenever it is reached. Only the first call counts.
pub fn observe(observer: fn(&'static str)) {
    let _ = OBSERVER.set(observer);
}

/// The names of all points of this program, in order, and whether this process has reached them. A name may stand in
/// several places, one of which is enough.
pub fn points() -> BTreeMap<&'static str, bool> {
    let mut points = BTreeMap::new();
    for point in POINTS {
        *points.entry(point.name).or_default() |= point.is_reached.load(Ordering::Relaxed);
    }
    points
}
