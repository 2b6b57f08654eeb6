//! Everything that happened, in order, and one hash over it: two runs of a seed must agree in it.

use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Beyond this the lines are dropped; the hash goes on.
const MAX_KEPT_BYTES: usize = 256 << 20;

#[derive(Default)]
struct Inner {
    hash: Sha256,
    events: u64,
    /// Kept if asked for.
    text: Option<String>,
    line: String,
    dropped: bool,
}

/// The trace of a simulation. Clones share it.
#[derive(Clone, Default)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

impl Trace {
    /// A trace that also keeps its lines.
    pub fn keeping_lines(keep: bool) -> Self {
        let trace = Self::default();
        trace.inner.lock().text = keep.then(String::new);
        trace
    }

    /// Adds an event at the present simulated time.
    pub fn event(&self, what: Arguments<'_>) {
        let time = crate::world::now_nanos();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.line.clear();
        // Writing into a String cannot fail.
        let _ = writeln!(
            inner.line,
            "{}.{:09} {what}",
            time / 1_000_000_000,
            time % 1_000_000_000
        );
        inner.hash.update(inner.line.as_bytes());
        inner.events += 1;
        if let Some(text) = &mut inner.text {
            if text.len() < MAX_KEPT_BYTES {
                text.push_str(&inner.line);
            } else if !inner.dropped {
                inner.dropped = true;
                text.push_str("… and more that was not kept\n");
            }
        }
    }

    /// The hash over all events so far, and their number.
    pub fn digest(&self) -> (String, u64) {
        let inner = self.inner.lock();
        let hash = inner.hash.clone().finalize();
        (
            hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            inner.events,
        )
    }

    /// The lines, if they were kept.
    pub fn take_text(&self) -> Option<String> {
        self.inner.lock().text.take()
    }
}

/// Adds a formatted event.
macro_rules! trace {
    ($trace:expr, $($format:tt)*) => {
        $trace.event(format_args!($($format)*))
    };
}
pub(crate) use trace;
