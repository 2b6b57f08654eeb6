//! The operating system's random generator.

use neorunbase_world::Entropy;

/// `getrandom(2)`: fit for keys and nonces.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, destination: &mut [u8]) {
        // Going on with predictable bytes would turn keys and nonces into plain text, so there is no fallback.
        getrandom::fill(destination).expect("the operating system's random generator works");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_with_differing_bytes() {
        let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
        assert_ne!(OsEntropy.next_u64(), OsEntropy.next_u64());
    }
}
