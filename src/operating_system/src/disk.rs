//! Files below one directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_world::{Disk, DiskFile};

/// Files and directories are for the owner only.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The files below `root`, a node's data directory.
///
/// Reads and writes run on the calling thread: they meet the page cache and take microseconds, less than a hop
/// to another thread. Waiting for the device (`sync`) does hop.
#[derive(Clone, Debug)]
pub struct FileDisk {
    root: PathBuf,
}

impl FileDisk {
    /// The disk rooted at `root`, which is created on the first
    /// [`create_directory`](Disk::create_directory) if it is missing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory that all paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names come from other nodes and from metadata: none may reach a file outside the root.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let relative = Path::new(path);
        let is_plain = relative
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !is_plain || path.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("path {path:?} is not relative to the data directory"),
            ));
        }
        Ok(self.root.join(relative))
    }
}

#[async_trait]
impl Disk for FileDisk {
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.resolve(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Box::new(OpenFile::new(file)))
    }

    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.resolve(path)?)?;
        Ok(Box::new(OpenFile::new(file)))
    }

    async fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.resolve(directory)?)? {
            let name = entry?.file_name();
            let name = name.into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("file name {name:?} is not UTF-8"),
                )
            })?;
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn create_directory(&self, directory: &str) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(self.resolve(directory)?)
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.resolve(path)?;
        // Freeing the blocks of a large file takes milliseconds.
        blocking(move || std::fs::remove_file(path)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    async fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let path = self.resolve(directory)?;
        blocking(move || File::open(path)?.sync_all()).await
    }
}

struct OpenFile {
    file: Arc<File>,
    /// After a failed sync the kernel may have dropped the dirty pages and report success the next time,
    /// so the first failure sticks.
    sync_failed: Arc<AtomicBool>,
}

impl OpenFile {
    fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            sync_failed: Arc::new(AtomicBool::new(false)),
        }
    }

    fn refuse_after_failed_sync(&self) -> io::Result<()> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        Ok(())
    }
}

#[async_trait]
impl DiskFile for OpenFile {
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.refuse_after_failed_sync()?;
        self.file.write_all_at(&data, offset)
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let available = self.file.metadata()?.len().saturating_sub(offset);
        let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
        let mut buffer = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(Bytes::from(buffer))
    }

    async fn sync(&self) -> io::Result<()> {
        self.refuse_after_failed_sync()?;
        let file = Arc::clone(&self.file);
        let sync_failed = Arc::clone(&self.sync_failed);
        blocking(move || {
            // Set in the blocking part: the caller may stop waiting before the answer is there.
            file.sync_data()
                .inspect_err(|_| sync_failed.store(true, Ordering::Release))
        })
        .await
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        self.refuse_after_failed_sync()?;
        self.file.set_len(length)
    }

    async fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Runs `work` on tokio's pool for blocking calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(io::Error::other(format!(
            "a blocking call was cut short: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use neorunbase_world::disk::{read_file, replace_file};

    use super::*;

    fn disk() -> (tempfile::TempDir, FileDisk) {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(directory.path());
        (directory, disk)
    }

    #[tokio::test]
    async fn writes_and_reads_at_offsets() {
        let (_directory, disk) = disk();
        disk.create_directory("wal/segments").await.unwrap();
        let file = disk.create("wal/segments/1").await.unwrap();
        file.write_at(0, Bytes::from_static(b"hello")).await.unwrap();
        file.write_at(10, Bytes::from_static(b"world")).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(file.length().await.unwrap(), 15);
        assert_eq!(&file.read_at(0, 5).await.unwrap()[..], b"hello");
        assert_eq!(&file.read_at(5, 100).await.unwrap()[..], b"\0\0\0\0\0world");
        assert!(file.read_at(15, 4).await.unwrap().is_empty());
        assert!(file.read_at(1000, 4).await.unwrap().is_empty());
        file.set_length(3).await.unwrap();
        drop(file);

        let file = disk.open("wal/segments/1").await.unwrap();
        assert_eq!(&file.read_at(0, 100).await.unwrap()[..], b"hel");
        file.set_length(6).await.unwrap();
        assert_eq!(&file.read_at(0, 100).await.unwrap()[..], b"hel\0\0\0");
        disk.create("wal/segments/1").await.unwrap();
        assert_eq!(file.length().await.unwrap(), 0, "create truncates");
    }

    #[tokio::test]
    async fn lists_renames_and_removes() {
        let (_directory, disk) = disk();
        disk.create_directory("a").await.unwrap();
        disk.create_directory("a").await.unwrap();
        disk.create("a/2").await.unwrap();
        disk.create("a/1").await.unwrap();
        disk.create("top").await.unwrap();
        assert_eq!(disk.list("a").await.unwrap(), ["1", "2"]);
        assert_eq!(disk.list("").await.unwrap(), ["a", "top"]);
        disk.rename("a/2", "a/1").await.unwrap();
        disk.sync_directory("a").await.unwrap();
        disk.sync_directory("").await.unwrap();
        assert_eq!(disk.list("a").await.unwrap(), ["1"]);
        disk.remove("a/1").await.unwrap();
        assert!(disk.list("a").await.unwrap().is_empty());

        for missing in [
            disk.open("a/1").await.err(),
            disk.remove("a/1").await.err(),
            disk.create("b/1").await.err(),
            disk.list("b").await.err(),
            disk.rename("a/1", "a/2").await.err(),
        ] {
            assert_eq!(missing.unwrap().kind(), io::ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn stays_below_its_root() {
        let (_directory, disk) = disk();
        for path in ["../x", "a/../../x", "/etc/passwd", "a/..", "./x", "a\0b"] {
            let error = disk.create(path).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[tokio::test]
    async fn replaces_a_file_atomically() {
        let (_directory, disk) = disk();
        assert_eq!(read_file(&disk, "state").await.unwrap(), None);
        replace_file(&disk, "state", Bytes::from_static(b"one"))
            .await
            .unwrap();
        replace_file(&disk, "state", Bytes::from_static(b"2"))
            .await
            .unwrap();
        assert_eq!(read_file(&disk, "state").await.unwrap().unwrap(), "2");
        assert_eq!(disk.list("").await.unwrap(), ["state"]);
    }

    #[tokio::test]
    async fn files_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, disk) = disk();
        disk.create_directory("private").await.unwrap();
        disk.create("private/file").await.unwrap();
        let mode = |path: &str| {
            directory
                .path()
                .join(path)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o077
        };
        assert_eq!((mode("private"), mode("private/file")), (0, 0));
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_as_such() {
        // `/dev/full` answers every write as a full disk does.
        let device = OpenFile::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/full")
                .unwrap(),
        );
        let error = device.write_at(0, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.raw_os_error(), Some(28));
    }
}
