//! A disk that loses and tears what was not synced, and the small parts of a world that a test needs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use neorunbase_world::{Disk, DiskFile, Entropy, Spawner, TaskHandle};
use parking_lot::Mutex;

/// A seeded generator (SplitMix64).
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, destination: &mut [u8]) {
        for chunk in destination.chunks_mut(8) {
            let mut value = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^= value >> 31;
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Spawns on the test's runtime.
pub struct TestSpawner;

impl Spawner for TestSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let handle = tokio::spawn(task);
        TaskHandle::new(move || handle.abort())
    }
}

#[derive(Clone)]
enum Pending {
    Write(u64, Bytes),
    Length(u64),
}

#[derive(Clone, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Default)]
struct DiskState {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Power fails after this many more operations.
    operations_left: Option<u64>,
}

/// A node's disk in memory.
#[derive(Clone, Default)]
pub struct CrashDisk(Arc<Mutex<DiskState>>);

impl CrashDisk {
    /// Power fails after `operations` more writes and syncs: they and all later ones fail.
    pub fn fail_after(&self, operations: u64) {
        self.0.lock().operations_left = Some(operations);
    }

    /// Loses or tears, by `chance`, what was not synced, and turns the power on again.
    pub fn crash(&self, chance: &SeededEntropy) {
        let mut state = self.0.lock();
        state.operations_left = None;
        if chance.next_u64().is_multiple_of(2) {
            state.names = state.durable_names.clone();
        }
        state.durable_names = state.names.clone();
        for inode in &mut state.inodes {
            let mut content = std::mem::take(&mut inode.durable);
            let out_of_order = chance.next_u64().is_multiple_of(2);
            let survivors = chance.next_u64() as usize % (inode.pending.len() + 1);
            for (index, pending) in inode.pending.drain(..).enumerate() {
                match pending {
                    Pending::Write(offset, data) if out_of_order => {
                        // Each sector is written or not.
                        for (sector, part) in data.chunks(64).enumerate() {
                            if chance.next_u64().is_multiple_of(2) {
                                write(&mut content, offset as usize + sector * 64, part);
                            }
                        }
                    }
                    Pending::Write(offset, data) if index < survivors => {
                        write(&mut content, offset as usize, &data);
                    }
                    Pending::Write(offset, data) if index == survivors => {
                        let torn = chance.next_u64() as usize % (data.len() + 1);
                        write(&mut content, offset as usize, &data[..torn]);
                        if chance.next_u64().is_multiple_of(2) {
                            // The length was written, the data not.
                            let length = content.len().max(offset as usize + data.len());
                            content.resize(length, 0);
                        }
                    }
                    Pending::Length(length) if index < survivors || out_of_order => {
                        content.resize(length as usize, 0);
                    }
                    _ => {}
                }
            }
            inode.current = content.clone();
            inode.durable = content;
        }
    }

    /// The current content of a file, to damage or inspect it.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl DiskState {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("power failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

struct CrashFile {
    disk: CrashDisk,
    inode: usize,
}

#[async_trait]
impl DiskFile for CrashFile {
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let result = state.step();
        // The write that fails may still leave a part of itself behind.
        if result.is_ok() || state.operations_left == Some(0) {
            let inode = &mut state.inodes[self.inode];
            write(&mut inode.current, offset as usize, &data);
            inode.pending.push(Pending::Write(offset, data));
        }
        result
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let state = self.disk.0.lock();
        let content = &state.inodes[self.inode].current;
        let start = content.len().min(offset as usize);
        Ok(Bytes::copy_from_slice(
            &content[start..content.len().min(start + length)],
        ))
    }

    async fn sync(&self) -> io::Result<()> {
        // Lets other tasks queue behind the sync, as a slow disk would.
        tokio::task::yield_now().await;
        let mut state = self.disk.0.lock();
        state.step()?;
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.current.clone();
        inode.pending.clear();
        Ok(())
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let inode = &mut state.inodes[self.inode];
        inode.current.resize(length as usize, 0);
        inode.pending.push(Pending::Length(length));
        Ok(())
    }

    async fn length(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].current.len() as u64)
    }
}

#[async_trait]
impl Disk for CrashDisk {
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let inode = match state.names.get(path) {
            Some(&inode) => {
                state.inodes[inode].current.clear();
                state.inodes[inode].pending.push(Pending::Length(0));
                inode
            }
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_owned(), inode);
                inode
            }
        };
        Ok(Box::new(CrashFile {
            disk: self.clone(),
            inode,
        }))
    }

    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(CrashFile {
            disk: self.clone(),
            inode,
        }))
    }

    async fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{directory}/");
        let state = self.0.lock();
        Ok(state
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect())
    }

    async fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state
            .names
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    async fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}
