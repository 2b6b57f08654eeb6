//! Files of one node. A write is durable only after [`DiskFile::sync`]; a created, renamed or removed name
//! only after [`Disk::sync_directory`] of its parent. Paths are relative to the node's data directory,
//! separated by `/`.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

/// An open file. All offsets and lengths are bytes.
#[async_trait]
pub trait DiskFile: Send + Sync {
    /// Writes all of `data` at `offset`, extending the file if needed.
    ///
    /// # Errors
    /// Such as a full disk; an unknown part of `data` may have been written then.
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()>;

    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// The device's error.
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Returns once everything written so far would survive a power loss.
    ///
    /// # Errors
    /// After an error nothing may be assumed about any unsynced write: the caller must stop using the file.
    async fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file to `length`.
    ///
    /// # Errors
    /// The device's error.
    async fn set_length(&self, length: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// The device's error.
    async fn length(&self) -> io::Result<u64>;
}

/// A node's disk.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Creates an empty file, truncating an existing one.
    ///
    /// # Errors
    /// The device's error; `NotFound` if the parent directory is missing.
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or the device's error.
    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Names (not paths) of the files and directories in `directory`, sorted.
    ///
    /// # Errors
    /// `NotFound`, or the device's error.
    async fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Creates `directory` and its parents if missing.
    ///
    /// # Errors
    /// The device's error.
    async fn create_directory(&self, directory: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, or the device's error.
    async fn remove(&self, path: &str) -> io::Result<()>;

    /// Renames a file, atomically replacing `to`.
    ///
    /// # Errors
    /// `NotFound`, or the device's error.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the names in `directory` durable.
    ///
    /// # Errors
    /// The device's error.
    async fn sync_directory(&self, directory: &str) -> io::Result<()>;
}

/// Counts what one task after the other asks of a disk, and what is answered: odd while somebody waits.
#[derive(Debug, Default)]
pub struct Asking(AtomicU64);

/// Nobody waits any more once this is gone, be it that the answer came or that whoever asked went away.
struct Waiting<'a>(&'a Asking);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Asking {
    /// Waits for the disk to do `operation`.
    pub async fn ask<T>(&self, operation: impl Future<Output = T>) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        operation.await
    }

    /// What the disk has not answered yet, if there is anything: whoever looks again learns whether it is still the same.
    pub fn unanswered(&self) -> Option<u64> {
        let counted = self.0.load(Ordering::Relaxed);
        (!counted.is_multiple_of(2)).then_some(counted)
    }
}

/// Replaces `path` by `content` so that a crash leaves either the old or the new content.
///
/// # Errors
/// The device's error; the old content is still there then.
pub async fn replace_file(disk: &dyn Disk, path: &str, content: Bytes) -> io::Result<()> {
    let temporary = format!("{path}.new");
    let file = disk.create(&temporary).await?;
    file.write_at(0, content).await?;
    file.sync().await?;
    drop(file);
    disk.rename(&temporary, path).await?;
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    disk.sync_directory(parent).await
}

/// The whole content of `path`, or `None` if there is no such file.
///
/// # Errors
/// The device's error.
pub async fn read_file(disk: &dyn Disk, path: &str) -> io::Result<Option<Bytes>> {
    let file = match disk.open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.length().await?;
    let length = usize::try_from(length).map_err(|_| io::Error::other("file too large"))?;
    file.read_at(0, length).await.map(Some)
}
