//! A node's data keys in one file, sealed under a key-encryption key derived from the master key.
//!
//! File: magic, 32 bytes of salt, a check value of the master key, a nonce, the sealed entries. The check value
//! tells a wrong master key from damage; it is derived like any other key, so it reveals nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_world::disk::{read_file, replace_file};
use neorunbase_world::{Disk, Entropy};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{KeyError, MasterKey, cipher};

const MAGIC: &[u8; 8] = b"NBKEYS01";
const SALT_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES + CHECK_BYTES + NONCE_BYTES;

/// A key that encrypts data, and how often it was replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Counts rotations, from 1.
    pub version: u32,
    /// The secret.
    pub secret: [u8; 32],
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "DataKey {{ version: {}, secret: <hidden> }}",
            self.version
        )
    }
}

/// What a data key is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum KeyOwner {
    Shard(u64),
    Named(String),
}

#[derive(Clone, Serialize, Deserialize)]
struct KeyEntry {
    owner: KeyOwner,
    version: u32,
    secret: [u8; 32],
}

impl Drop for KeyEntry {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// A node's data keys.
pub struct Keyring {
    disk: Arc<dyn Disk>,
    entropy: Arc<dyn Entropy>,
    path: String,
    salt: [u8; SALT_BYTES],
    check: [u8; CHECK_BYTES],
    key_encryption_key: Zeroizing<[u8; 32]>,
    keys: RwLock<BTreeMap<KeyOwner, DataKey>>,
    /// Held while the file is replaced, so that two new keys cannot overwrite each other's file.
    replacing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Keyring({}, {} keys)",
            self.path,
            self.keys.read().len()
        )
    }
}

impl Keyring {
    /// Opens the keyring at `path`, creating it (and its directory) if missing.
    ///
    /// # Errors
    /// [`KeyError::WrongMasterKey`], [`KeyError::Damaged`] or [`KeyError::Io`].
    pub async fn open(
        disk: Arc<dyn Disk>,
        entropy: Arc<dyn Entropy>,
        path: &str,
        master: &MasterKey,
    ) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |reason: &str| KeyError::Damaged {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let content = read_file(&*disk, path).await.map_err(io)?;
        let Some(content) = content else {
            if let Some((directory, _)) = path.rsplit_once('/') {
                disk.create_directory(directory).await.map_err(io)?;
                if let Some((parent, _)) = directory.rsplit_once('/') {
                    disk.sync_directory(parent).await.map_err(io)?;
                }
            }
            let mut salt = [0; SALT_BYTES];
            entropy.fill(&mut salt);
            let keyring = Self::with_keys(disk, entropy, path, master, salt, BTreeMap::new());
            keyring.replace(&BTreeMap::new()).await?;
            return Ok(keyring);
        };
        if content.len() < HEADER_BYTES || &content[..MAGIC.len()] != MAGIC {
            return Err(damaged("it is not a keyring of this version"));
        }
        let (salt, rest) = content[MAGIC.len()..].split_at(SALT_BYTES);
        let (check, rest) = rest.split_at(CHECK_BYTES);
        let (nonce, sealed) = rest.split_at(NONCE_BYTES);
        let salt: [u8; SALT_BYTES] = salt.try_into().expect("split at this length");
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().expect("split at this length");
        let keyring = Self::with_keys(disk, entropy, path, master, salt, BTreeMap::new());
        if keyring.check != check {
            return Err(KeyError::WrongMasterKey {
                path: path.to_owned(),
            });
        }
        let plaintext = cipher::open(&keyring.key_encryption_key, nonce, MAGIC, sealed)
            .map(Zeroizing::new)
            .ok_or_else(|| damaged("its content does not verify"))?;
        let entries: Vec<KeyEntry> =
            postcard::from_bytes(&plaintext).map_err(|_| damaged("its content cannot be decoded"))?;
        *keyring.keys.write() = entries
            .iter()
            .map(|entry| {
                (
                    entry.owner.clone(),
                    DataKey {
                        version: entry.version,
                        secret: entry.secret,
                    },
                )
            })
            .collect();
        Ok(keyring)
    }

    fn with_keys(
        disk: Arc<dyn Disk>,
        entropy: Arc<dyn Entropy>,
        path: &str,
        master: &MasterKey,
        salt: [u8; SALT_BYTES],
        keys: BTreeMap<KeyOwner, DataKey>,
    ) -> Self {
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&master.derive_salted(&salt, "keyring check")[..CHECK_BYTES]);
        Self {
            disk,
            entropy,
            path: path.to_owned(),
            salt,
            check,
            key_encryption_key: Zeroizing::new(master.derive_salted(&salt, "keyring key-encryption key")),
            keys: RwLock::new(keys),
            replacing: tokio::sync::Mutex::new(()),
        }
    }

    /// The current data key of `shard`; made, durably, when it is first asked for.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub async fn shard_key(&self, shard: u64) -> Result<DataKey, KeyError> {
        self.key(KeyOwner::Shard(shard)).await
    }

    /// The current data key of something that is not a shard, such as `metadata`.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub async fn named_key(&self, name: &str) -> Result<DataKey, KeyError> {
        self.key(KeyOwner::Named(name.to_owned())).await
    }

    /// Forgets the key of a shard that left this node: what is left of its files cannot be read any more.
    ///
    /// # Errors
    /// [`KeyError::Io`]; the key is still there then.
    pub async fn destroy_shard_key(&self, shard: u64) -> Result<(), KeyError> {
        let _replacing = self.replacing.lock().await;
        let mut keys = self.keys.read().clone();
        if keys.remove(&KeyOwner::Shard(shard)).is_some() {
            self.replace(&keys).await?;
            *self.keys.write() = keys;
        }
        Ok(())
    }

    async fn key(&self, owner: KeyOwner) -> Result<DataKey, KeyError> {
        if let Some(key) = self.keys.read().get(&owner) {
            return Ok(key.clone());
        }
        let _replacing = self.replacing.lock().await;
        let mut keys = self.keys.read().clone();
        if let Some(key) = keys.get(&owner) {
            return Ok(key.clone());
        }
        let mut key = DataKey {
            version: 1,
            secret: [0; 32],
        };
        self.entropy.fill(&mut key.secret);
        keys.insert(owner, key.clone());
        // Nothing may be encrypted under a key that a crash could forget.
        self.replace(&keys).await?;
        *self.keys.write() = keys;
        Ok(key)
    }

    async fn replace(&self, keys: &BTreeMap<KeyOwner, DataKey>) -> Result<(), KeyError> {
        let entries: Vec<KeyEntry> = keys
            .iter()
            .map(|(owner, key)| KeyEntry {
                owner: owner.clone(),
                version: key.version,
                secret: key.secret,
            })
            .collect();
        let plaintext =
            Zeroizing::new(postcard::to_stdvec(&entries).expect("plain data always encodes into memory"));
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        let mut content = Vec::with_capacity(HEADER_BYTES + plaintext.len() + cipher::TAG_BYTES);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&self.salt);
        content.extend_from_slice(&self.check);
        content.extend_from_slice(&nonce);
        content.extend_from_slice(&cipher::seal(&self.key_encryption_key, nonce, MAGIC, &plaintext));
        replace_file(&*self.disk, &self.path, Bytes::from(content))
            .await
            .map_err(|source| KeyError::Io {
                path: self.path.clone(),
                source,
            })
    }
}
