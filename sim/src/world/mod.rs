//! The simulated sides of the world's traits.

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod network;
pub mod spawner;

/// Simulated nanoseconds since the simulation began, as no node sees them.
pub fn now_nanos() -> u64 {
    let elapsed = madsim::time::TimeHandle::try_current().map(|time| time.elapsed());
    u64::try_from(elapsed.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
