//! Random bytes from the simulation's one seeded generator.

use madsim::rand::RngCore;
use neorunbase_world::Entropy;

/// Draws from the seed.
pub struct SimEntropy;

impl Entropy for SimEntropy {
    fn fill(&self, destination: &mut [u8]) {
        madsim::rand::thread_rng().fill_bytes(destination);
    }
}
