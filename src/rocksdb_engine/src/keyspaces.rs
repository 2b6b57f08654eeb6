//! Which keyspaces there are, and where each one's keys begin.
//!
//! All keyspaces share one column family: RocksDB writes down every column family's options whenever one comes or goes, so that
//! the five-hundredth costs half a second. Each keyspace has an *incarnation*, a number that is never used again, and every key of it
//! begins with that. What is left of a dropped keyspace can thus never be taken for another one's.
//!
//! They come and go durably, whatever becomes of batches that are not flushed: the list is a file of its own, replaced as a whole.
//!
//! | bytes | |
//! | --- | --- |
//! | 0–7 | magic |
//! | 8–11 | format |
//! | 12–15 | version of the engine key |
//! | 16–47 | random salt |
//! | 48– | the next incarnation (u32), then keyspace (u64) and incarnation (u32) of each, little-endian; sealed by AES-256-GCM |
//!
//! HKDF-SHA256 over the engine key and the salt yields the key, which seals nothing else: its nonce may be zero.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use neorunbase_world::shard_engine::{EngineError, EngineKey, KeyspaceId};
use sha2::Sha256;

const FILE_NAME: &str = "KEYSPACES";
const NEW_FILE_NAME: &str = "KEYSPACES.new";
const MAGIC: [u8; 8] = *b"NRKEYSPC";
const FORMAT: u32 = 1;
const SALT: std::ops::Range<usize> = 16..48;
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 12;
/// The engine's own keys are of this incarnation.
pub(crate) const OWN_INCARNATION: Incarnation = Incarnation(0);

/// Where a keyspace's keys begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Incarnation(pub(crate) u32);

/// Bytes of an incarnation in front of a key.
pub(crate) const PREFIX_BYTES: usize = 4;

impl Incarnation {
    /// `key`, as RocksDB gets it.
    pub(crate) fn key(self, key: &[u8]) -> Vec<u8> {
        let mut prefixed = Vec::with_capacity(PREFIX_BYTES + key.len());
        prefixed.extend_from_slice(&self.0.to_be_bytes());
        prefixed.extend_from_slice(key);
        prefixed
    }

    /// What comes right after the last possible key; the last incarnation is never given out.
    pub(crate) fn end(self) -> [u8; PREFIX_BYTES] {
        (self.0 + 1).to_be_bytes()
    }
}

/// The keyspaces of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyspaces {
    live: BTreeMap<KeyspaceId, Incarnation>,
    next: u32,
}

impl Keyspaces {
    /// Those of a new engine.
    pub(crate) fn none() -> Self {
        Self {
            live: BTreeMap::new(),
            next: OWN_INCARNATION.0 + 1,
        }
    }

    /// Their names, ascending.
    pub(crate) fn names(&self) -> impl Iterator<Item = KeyspaceId> {
        self.live.keys().copied()
    }

    /// Where the keys of `keyspace` begin.
    ///
    /// # Errors
    /// [`EngineError::UnknownKeyspace`].
    pub(crate) fn incarnation(&self, keyspace: KeyspaceId) -> Result<Incarnation, EngineError> {
        let found = self.live.get(&keyspace).copied();
        found.ok_or(EngineError::UnknownKeyspace(keyspace.0))
    }

    /// With one more, which must not be there.
    ///
    /// # Errors
    /// [`EngineError::Io`] after four thousand million keyspaces.
    pub(crate) fn with(&self, keyspace: KeyspaceId) -> Result<Self, EngineError> {
        let mut changed = self.clone();
        let incarnation = Incarnation(self.next);
        changed.next = self.next.checked_add(1).ok_or_else(|| {
            EngineError::Io(
                "the shard has had all the keyspaces that there can be: copy its tables".to_owned(),
            )
        })?;
        changed.live.insert(keyspace, incarnation);
        Ok(changed)
    }

    /// Without one of them.
    pub(crate) fn without(&self, keyspace: KeyspaceId) -> Self {
        let mut changed = self.clone();
        changed.live.remove(&keyspace);
        changed
    }

    /// Incarnations that no keyspace has any more, as first and last of each stretch.
    pub(crate) fn abandoned(&self) -> Vec<(Incarnation, Incarnation)> {
        let mut live: Vec<u32> = self.live.values().map(|incarnation| incarnation.0).collect();
        live.sort_unstable();
        live.push(self.next);
        let mut first = OWN_INCARNATION.0 + 1;
        let mut abandoned = Vec::new();
        for incarnation in live {
            if first < incarnation {
                abandoned.push((Incarnation(first), Incarnation(incarnation - 1)));
            }
            first = incarnation + 1;
        }
        abandoned
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoded = self.next.to_le_bytes().to_vec();
        for (keyspace, incarnation) in &self.live {
            encoded.extend_from_slice(&keyspace.0.to_le_bytes());
            encoded.extend_from_slice(&incarnation.0.to_le_bytes());
        }
        encoded
    }

    fn decode(encoded: &[u8]) -> Option<Self> {
        let (next, entries) = encoded.split_first_chunk()?;
        let mut live = BTreeMap::new();
        for entry in entries.chunks(ENTRY_BYTES) {
            let (keyspace, incarnation) = entry.split_first_chunk()?;
            live.insert(
                KeyspaceId(u64::from_le_bytes(*keyspace)),
                Incarnation(u32::from_le_bytes(incarnation.try_into().ok()?)),
            );
        }
        let next = u32::from_le_bytes(*next);
        Some(Self { live, next })
    }
}

/// The file that lists them.
pub(crate) struct KeyspaceFile {
    directory: PathBuf,
    /// The engine's name, for messages.
    path: String,
    key: EngineKey,
}

impl KeyspaceFile {
    /// That of the engine in `directory`.
    pub(crate) fn new(directory: &Path, path: &str, key: &EngineKey) -> Self {
        Self {
            directory: directory.to_owned(),
            path: path.to_owned(),
            key: key.clone(),
        }
    }

    /// What the file says; `None` if there is none.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if it was sealed with another key or changed since.
    pub(crate) fn read(&self) -> Result<Option<Keyspaces>, EngineError> {
        let content = match std::fs::read(self.directory.join(FILE_NAME)) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io_error(&error)),
        };
        let opened = self.open(&content).ok_or_else(|| EngineError::Corrupt {
            path: self.path.clone(),
            reason: format!("the file {FILE_NAME} has another key or is damaged"),
        })?;
        Ok(Some(opened))
    }

    fn open(&self, content: &[u8]) -> Option<Keyspaces> {
        let (header, sealed) = content.split_at_checked(HEADER_BYTES)?;
        let salt = header[SALT].try_into().ok()?;
        if header != self.header(&salt) {
            return None;
        }
        let payload = aes_gcm::aead::Payload {
            msg: sealed,
            aad: header,
        };
        let opened = self.cipher(&salt).decrypt(&Nonce::default(), payload).ok()?;
        Keyspaces::decode(&opened)
    }

    /// Replaces the file. Durable once this returns; after an error either list may be there.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(crate) fn write(&self, keyspaces: &Keyspaces) -> Result<(), EngineError> {
        self.replace(keyspaces).map_err(|error| self.io_error(&error))
    }

    fn replace(&self, keyspaces: &Keyspaces) -> io::Result<()> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let mut content = self.header(&salt);
        let encoded = keyspaces.encode();
        let payload = aes_gcm::aead::Payload {
            msg: &encoded,
            aad: &content,
        };
        let sealed = self
            .cipher(&salt)
            .encrypt(&Nonce::default(), payload)
            .map_err(|_| io::Error::other("cannot be sealed"))?;
        content.extend_from_slice(&sealed);
        let new = self.directory.join(NEW_FILE_NAME);
        let mut file = File::create(&new)?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&new, self.directory.join(FILE_NAME))?;
        File::open(&self.directory)?.sync_all()
    }

    fn header(&self, salt: &[u8; 32]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&self.key.version.to_le_bytes());
        header.extend_from_slice(salt);
        header
    }

    fn cipher(&self, salt: &[u8; 32]) -> Aes256Gcm {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(salt), &self.key.secret)
            .expand(b"keyspaces", &mut key)
            .expect("32 bytes are within HKDF's limit");
        Aes256Gcm::new(&key.into())
    }

    fn io_error(&self, error: &io::Error) -> EngineError {
        EngineError::Io(format!("{}/{FILE_NAME}: {error}", self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn some() -> Keyspaces {
        let mut keyspaces = Keyspaces::none();
        for id in [9, 4, 7, 5] {
            keyspaces = keyspaces.with(KeyspaceId(id)).unwrap();
        }
        keyspaces.without(KeyspaceId(4)).without(KeyspaceId(5))
    }

    #[test]
    fn incarnations_are_not_used_again() {
        let keyspaces = some();
        assert_eq!(keyspaces.incarnation(KeyspaceId(9)).unwrap(), Incarnation(1));
        assert!(keyspaces.incarnation(KeyspaceId(4)).is_err());
        let range = |first, last| (Incarnation(first), Incarnation(last));
        assert_eq!(keyspaces.abandoned(), [range(2, 2), range(4, 4)]);
        let again = keyspaces.with(KeyspaceId(4)).unwrap();
        assert_eq!(again.incarnation(KeyspaceId(4)).unwrap(), Incarnation(5));
        assert_eq!(again.abandoned(), [range(2, 2), range(4, 4)]);
        assert!(Keyspaces::none().abandoned().is_empty());
    }

    #[test]
    fn the_file_tells_what_was_written_and_nothing_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let key = |version, secret| EngineKey {
            version,
            secret: [secret; 32],
        };
        let file = KeyspaceFile::new(directory.path(), "shard", &key(1, 3));
        assert_eq!(file.read().unwrap(), None);
        for keyspaces in [Keyspaces::none(), some()] {
            file.write(&keyspaces).unwrap();
            assert_eq!(file.read().unwrap(), Some(keyspaces));
        }
        for other in [key(1, 4), key(2, 3)] {
            let other = KeyspaceFile::new(directory.path(), "shard", &other);
            assert!(matches!(other.read(), Err(EngineError::Corrupt { .. })));
        }
        let path = directory.path().join(FILE_NAME);
        let content = std::fs::read(&path).unwrap();
        for position in 0..content.len() {
            let mut changed = content.clone();
            changed[position] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(file.read().is_err(), "byte {position}");
            std::fs::write(&path, &content[..position]).unwrap();
            assert!(file.read().is_err(), "{position} bytes");
        }
    }
}
