//! Randomness.

/// A source of random bytes: cryptographic in production, seeded in the simulator.
pub trait Entropy: Send + Sync {
    /// Fills `destination` with random bytes.
    fn fill(&self, destination: &mut [u8]);

    /// A uniformly random 64-bit number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
