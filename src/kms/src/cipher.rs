//! AES-256-GCM, in one place.

use aes_gcm::aead::{Aead, AeadInPlace, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// A key made ready: building the cipher's tables costs more than sealing a short record, so who seals many
/// keeps one of these.
pub struct SealingKey(Aes256Gcm);

impl SealingKey {
    /// Prepares `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// Encrypts and authenticates `plaintext` together with `associated`. A nonce must never be used twice
    /// with one key.
    pub fn seal(&self, nonce: [u8; 12], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        self.seal_into(nonce, associated, plaintext, &mut sealed);
        sealed
    }

    /// As [`seal`](Self::seal), appending to `output`.
    pub fn seal_into(&self, nonce: [u8; 12], associated: &[u8], plaintext: &[u8], output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(plaintext);
        let tag = self
            .0
            .encrypt_in_place_detached(Nonce::from_slice(&nonce), associated, &mut output[start..])
            .expect("AES-GCM only refuses plaintexts beyond 64 GiB");
        output.extend_from_slice(&tag);
    }

    /// Decrypts what [`seal`](Self::seal) made; `None` if any byte of any argument differs.
    pub fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0
            .decrypt(
                Nonce::from_slice(&nonce),
                Payload {
                    msg: sealed,
                    aad: associated,
                },
            )
            .ok()
    }

    /// As [`open`](Self::open), in place: returns the length of the plaintext at the front of `buffer`.
    pub fn open_in_place(&self, nonce: [u8; 12], associated: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let length = buffer.len().checked_sub(TAG_BYTES)?;
        let (content, tag) = buffer.split_at_mut(length);
        let tag = *Tag::from_slice(tag);
        self.0
            .decrypt_in_place_detached(Nonce::from_slice(&nonce), associated, content, &tag)
            .ok()?;
        Some(length)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SealingKey(<hidden>)")
    }
}

/// [`SealingKey::seal`] with a key used once.
pub fn seal(key: &[u8; 32], nonce: [u8; 12], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    SealingKey::new(key).seal(nonce, associated, plaintext)
}

/// [`SealingKey::open`] with a key used once.
pub fn open(key: &[u8; 32], nonce: [u8; 12], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    SealingKey::new(key).open(nonce, associated, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_it_sealed() {
        let key = [7; 32];
        let sealed = seal(&key, [1; 12], b"about", b"content");
        assert_eq!(sealed.len(), 7 + TAG_BYTES);
        assert_eq!(
            open(&key, [1; 12], b"about", &sealed).as_deref(),
            Some(&b"content"[..])
        );
        assert_eq!(open(&[8; 32], [1; 12], b"about", &sealed), None);
        assert_eq!(open(&key, [2; 12], b"about", &sealed), None);
        assert_eq!(open(&key, [1; 12], b"other", &sealed), None);
        assert_eq!(open(&key, [1; 12], b"about", &sealed[1..]), None);
        let mut buffer = sealed.clone();
        assert_eq!(
            SealingKey::new(&key).open_in_place([1; 12], b"about", &mut buffer),
            Some(7)
        );
        assert_eq!(&buffer[..7], b"content");
    }
}
