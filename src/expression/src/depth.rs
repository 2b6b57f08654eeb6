//! A bound on the nesting of decoded expressions: decoding and evaluation recurse, and programs come from the
//! network.

use std::cell::Cell;

/// The deepest nesting that is decoded.
pub const MAXIMUM_DEPTH: u32 = 250;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Counts one level while it lives.
pub(crate) struct DepthGuard(());

impl DepthGuard {
    /// `None` if this would be one level too deep.
    pub(crate) fn enter() -> Option<Self> {
        DEPTH.with(|depth| {
            if depth.get() >= MAXIMUM_DEPTH {
                return None;
            }
            depth.set(depth.get() + 1);
            Some(Self(()))
        })
    }
}

impl Drop for DepthGuard {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}
