//! The one secret that a user keeps.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::KeyError;

/// Fewer characters than this are refused.
pub const MINIMUM_CHARACTERS: usize = 32;

/// The user's master key. Other keys are derived from it; it is never written or printed.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<Vec<u8>>);

impl MasterKey {
    /// Takes the user's text, without the white space around it that files and shells leave.
    ///
    /// # Errors
    /// [`KeyError::MasterKeyTooShort`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let actual = text.chars().count();
        if actual < MINIMUM_CHARACTERS {
            return Err(KeyError::MasterKeyTooShort {
                required: MINIMUM_CHARACTERS,
                actual,
            });
        }
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// A key for one purpose (HKDF-SHA256): it tells nothing about the master key or any other purpose's key.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.derive_salted(b"", purpose)
    }

    /// As [`derive`](Self::derive), different for each `salt`.
    pub fn derive_salted(&self, salt: &[u8], purpose: &str) -> [u8; 32] {
        derive_key(&self.0, salt, purpose.as_bytes())
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MasterKey(<hidden>)")
    }
}

/// HKDF-SHA256 of `secret`: one independent key for each pair of `salt` and `purpose`.
pub fn derive_key(secret: &[u8], salt: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut derived = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(purpose, &mut derived)
        .expect("32 bytes are within HKDF's limit");
    derived
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn short_keys_are_refused_and_nothing_is_printed() {
        let error = MasterKey::from_text("short").unwrap_err().to_string();
        assert_eq!(
            error,
            "the master key must have at least 32 characters; this one has 5"
        );
        assert!(MasterKey::from_text(&format!("{}   ", "x".repeat(31))).is_err());
        let key = MasterKey::from_text(&"secret".repeat(6)).unwrap();
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let key = MasterKey::from_text(&"k".repeat(32)).unwrap();
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), key.derive_salted(b"salt", "a"));
        assert_ne!(
            key.derive("a"),
            MasterKey::from_text(&"j".repeat(32)).unwrap().derive("a")
        );
    }
}
