//! The data directory of a process: its lock and its layout.
//!
//! `start` keeps `coordinator`, `datanode-1` … `datanode-N` and `coordination` below it, each with a keyring of
//! its own; a daemon keeps its node directly in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::failure::Refusal;

const LOCK_FILE: &str = "neorunbase.lock";
/// The coordinator's directory of `start`.
pub const COORDINATOR: &str = "coordinator";
/// The coordination service's directory of `start`.
pub const COORDINATION: &str = "coordination";
const DATA_NODE_PREFIX: &str = "datanode-";

/// A data directory that this process alone uses while this lives.
pub struct DataDirectory {
    path: PathBuf,
    /// The operating system gives the lock back when the file is closed, however the process ends.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`Refusal`] if another process has it; or the operating system's error.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let describe = || format!("data directory {}", path.display());
        create_private(path).with_context(describe)?;
        let path = path.canonicalize().with_context(describe)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .with_context(describe)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only to help the user: an unreadable number changes nothing.
                let _ = lock.read_to_string(&mut owner);
                let owner = owner.trim();
                let owner = if owner.is_empty() { "?" } else { owner };
                return Err(Refusal(format!(
                    "data directory {} is in use by another neorunbase (process {owner})",
                    path.display()
                ))
                .into());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(describe),
        }
        lock.set_len(0).with_context(describe)?;
        lock.rewind().with_context(describe)?;
        writeln!(lock, "{}", std::process::id()).with_context(describe)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A node's directory below it, created if missing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        create_private(&path).with_context(|| format!("data directory {}", path.display()))?;
        Ok(path)
    }

    /// The names of the data nodes 1 to `count`.
    ///
    /// # Errors
    /// [`Refusal`] if the directory holds more: their shards would be missing.
    pub fn data_node_names(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let mut highest = 0;
        for entry in self
            .path
            .read_dir()
            .with_context(|| format!("data directory {}", self.path.display()))?
        {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(DATA_NODE_PREFIX));
            highest = highest.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
        }
        if highest > count {
            return Err(Refusal(format!(
                "{} holds {highest} data nodes: give --data-nodes {highest} or more, not {count}",
                self.path.display()
            ))
            .into());
        }
        Ok((1..=count)
            .map(|number| format!("{DATA_NODE_PREFIX}{number}"))
            .collect())
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_cannot_open_one_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(&scratch.path().join("data")).unwrap();
        let refused = DataDirectory::open(first.path()).err().unwrap();
        assert!(refused.is::<Refusal>());
        assert!(
            refused.to_string().contains(&std::process::id().to_string()),
            "{refused}"
        );
        let path = first.path().to_owned();
        drop(first);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn fewer_data_nodes_than_there_are_would_lose_shards() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(scratch.path()).unwrap();
        for name in directory.data_node_names(3).unwrap() {
            directory.node(&name).unwrap();
        }
        assert!(directory.data_node_names(2).unwrap_err().is::<Refusal>());
        assert_eq!(directory.data_node_names(4).unwrap()[3], "datanode-4");
    }
}
