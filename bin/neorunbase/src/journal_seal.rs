//! Encrypts the embedded coordination service's journal.

use std::sync::Arc;

use neorunbase_coordination::JournalSealer;
use neorunbase_kms::{DataKey, SealingKey};
use neorunbase_world::Entropy;

const NONCE_BYTES: usize = 12;

/// AES-256-GCM with random nonces. A record that a crash tore may be followed by another one of the same
/// sequence number, so the number cannot serve as the nonce; it is authenticated instead.
pub struct JournalSeal {
    key: SealingKey,
    entropy: Arc<dyn Entropy>,
}

impl JournalSeal {
    /// Seals under `key`.
    pub fn new(key: &DataKey, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            key: SealingKey::new(&key.secret),
            entropy,
        }
    }
}

impl JournalSealer for JournalSeal {
    fn seal(&self, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        let mut sealed = nonce.to_vec();
        self.key
            .seal_into(nonce, &sequence.to_be_bytes(), plaintext, &mut sealed);
        sealed
    }

    fn open(&self, sequence: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, content) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.key.open(*nonce, &sequence.to_be_bytes(), content)
    }
}

#[cfg(test)]
mod tests {
    use neorunbase_operating_system::OsEntropy;

    use super::*;

    #[test]
    fn opens_only_what_it_sealed_at_that_place() {
        let seal = |secret| {
            JournalSeal::new(
                &DataKey {
                    version: 1,
                    secret: [secret; 32],
                },
                Arc::new(OsEntropy),
            )
        };
        let sealed = seal(1).seal(7, b"who leads");
        assert_eq!(seal(1).open(7, &sealed).as_deref(), Some(&b"who leads"[..]));
        assert_ne!(sealed, seal(1).seal(7, b"who leads"), "nonces differ");
        assert_eq!(seal(1).open(8, &sealed), None);
        assert_eq!(seal(2).open(7, &sealed), None);
        assert_eq!(seal(1).open(7, &sealed[..11]), None);
        let mut changed = sealed;
        changed[13] ^= 1;
        assert_eq!(seal(1).open(7, &changed), None);
    }
}
