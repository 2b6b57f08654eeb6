//! Keys: everything that a node writes is encrypted under a data key, every data key is kept sealed under a
//! key derived from the master key, and the master key is never written anywhere.

pub mod cipher;
pub mod keyring;
pub mod master_key;

pub use cipher::{SealingKey, open, seal};
pub use keyring::{DataKey, Keyring};
pub use master_key::MasterKey;

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The user's text is too short to be safe.
    #[error("the master key must have at least {required} characters; this one has {actual}")]
    MasterKeyTooShort {
        /// The least number of characters.
        required: usize,
        /// What was given.
        actual: usize,
    },
    /// The keyring was made with another master key.
    #[error("wrong master key: {path} was sealed under another one")]
    WrongMasterKey {
        /// The keyring's file.
        path: String,
    },
    /// The keyring was made with this master key but its content does not verify.
    #[error("keyring {path} is damaged or was tampered with: {reason}")]
    Damaged {
        /// The keyring's file.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The device's error. The keyring on disk is unchanged.
    #[error("keyring {path}: {source}")]
    Io {
        /// The keyring's file.
        path: String,
        /// What the device said.
        source: std::io::Error,
    },
}
