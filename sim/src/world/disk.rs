//! A node's disk: what was written, and what would survive a power loss.
//!
//! Each file has its present content and its durable content; writes since the last sync are what lies
//! between. Names are the same: created, renamed and removed ones are durable only after their directory
//! was synced. A crash loses unsynced writes, or keeps a random part of them, torn at sector borders.
//! Directories themselves are durable at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_fault_injection::DiskCrash;
use neorunbase_world::{Disk, DiskFile};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::trace::{Trace, trace};

const SECTOR_BYTES: usize = 512;

/// What was done to a file since its last sync.
#[derive(Clone)]
enum Change {
    Write { offset: u64, data: Bytes },
    SetLength(u64),
}

#[derive(Default)]
struct Content {
    present: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Link { path: String, file: u64 },
    Unlink { path: String },
    Rename { from: String, to: String },
}

impl NameChange {
    fn path(&self) -> &str {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } => path,
            Self::Rename { to, .. } => to,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// How fast and how reliable a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// The shortest time of a sync, in microseconds.
    pub sync_min_micros: u64,
    /// The longest, in microseconds.
    pub sync_max_micros: u64,
}

struct State {
    random: SmallRng,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    directories: BTreeSet<String>,
    next_file: u64,
    extra_sync_delay: Duration,
    fail_next_sync: bool,
    failed_syncs: u64,
    /// No file can grow.
    is_full: bool,
    /// Syncs that still succeed, and whom to tell when the one after them has begun.
    tripwire: Option<(u32, oneshot::Sender<()>)>,
    /// Counts crashes: handles from before one are dead.
    incarnation: u64,
}

/// A disk that is in no machine now.
pub struct OtherDisk {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    directories: BTreeSet<String>,
}

impl OtherDisk {
    /// With nothing on it.
    pub fn empty() -> Self {
        Self {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            directories: BTreeSet::from([String::new()]),
        }
    }
}

/// A simulated disk. It outlives the processes of its node.
#[derive(Clone)]
pub struct SimDisk {
    node: Arc<str>,
    speed: DiskSpeed,
    trace: Trace,
    state: Arc<Mutex<State>>,
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{path}: no such file or directory"),
    )
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn write_into(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX / 2);
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

fn set_length(content: &mut Vec<u8>, length: u64) {
    content.resize(usize::try_from(length).unwrap_or(usize::MAX / 2), 0);
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => write_into(content, *offset, data),
        Change::SetLength(length) => set_length(content, *length),
    }
}

/// Writes that part of `data` that made it to the platter.
fn apply_torn(content: &mut Vec<u8>, offset: u64, data: &[u8], random: &mut SmallRng) {
    match random.random_range(0..4) {
        // A prefix, cut at any byte.
        0 | 1 => {
            let kept = random.random_range(0..=data.len());
            write_into(content, offset, &data[..kept]);
        }
        // The length reached the platter, the bytes did not: what the file grew by is zeros. Where it held bytes
        // before, a sector that was not written keeps them: no disk zeroes what it had.
        2 => {
            let end = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .saturating_add(data.len());
            if end > content.len() {
                content.resize(end, 0);
            }
        }
        // Any of the sectors.
        _ => {
            let mut at = 0;
            while at < data.len() {
                let in_sector = (usize::try_from(offset).unwrap_or(0) + at) % SECTOR_BYTES;
                let end = (at + SECTOR_BYTES - in_sector).min(data.len());
                if random.random_bool(0.5) {
                    write_into(content, offset + at as u64, &data[at..end]);
                }
                at = end;
            }
        }
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(node: &str, seed: u64, speed: DiskSpeed, trace: Trace) -> Self {
        Self {
            node: node.into(),
            speed,
            trace,
            state: Arc::new(Mutex::new(State {
                random: SmallRng::seed_from_u64(seed),
                files: BTreeMap::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                unsynced_names: Vec::new(),
                directories: BTreeSet::from([String::new()]),
                next_file: 1,
                extra_sync_delay: Duration::ZERO,
                fail_next_sync: false,
                failed_syncs: 0,
                is_full: false,
                tripwire: None,
                incarnation: 0,
            })),
        }
    }

    /// The node goes down. What was not synced is treated as `crash` says; open handles are dead from here on.
    pub fn crash(&self, crash: DiskCrash) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.incarnation += 1;
        state.fail_next_sync = false;
        state.tripwire = None;
        if crash == DiskCrash::Kept {
            return;
        }
        for content in state.files.values_mut() {
            let unsynced = std::mem::take(&mut content.unsynced);
            if crash == DiskCrash::Torn {
                // Whole files may be luckier than others.
                let luck = *[0.0, 0.3, 0.7, 1.0]
                    .get(state.random.random_range(0..4))
                    .unwrap_or(&0.5);
                for change in &unsynced {
                    if state.random.random_bool(luck) {
                        apply(&mut content.durable, change);
                    } else if let Change::Write { offset, data } = change {
                        apply_torn(&mut content.durable, *offset, data, &mut state.random);
                    }
                }
            }
            content.present = content.durable.clone();
        }
        let changes = std::mem::take(&mut state.unsynced_names);
        // The journal of a file system keeps names in order: some of the last ones are missing.
        let kept = match crash {
            DiskCrash::Torn => state.random.random_range(0..=changes.len()),
            DiskCrash::Lost | DiskCrash::Kept => 0,
        };
        for change in &changes[..kept] {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let alive: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|file, _| alive.contains(file));
    }

    /// Another disk stands in its place, with nothing on it. The node is down.
    pub fn wipe(&self) {
        self.put_in(OtherDisk::empty());
    }

    /// `disk` stands in its place from now on. Returns the one that did. No process uses either.
    pub fn put_in(&self, disk: OtherDisk) -> OtherDisk {
        let mut state = self.state.lock();
        OtherDisk {
            files: std::mem::replace(&mut state.files, disk.files),
            names: std::mem::replace(&mut state.names, disk.names),
            durable_names: std::mem::replace(&mut state.durable_names, disk.durable_names),
            unsynced_names: std::mem::replace(&mut state.unsynced_names, disk.unsynced_names),
            directories: std::mem::replace(&mut state.directories, disk.directories),
        }
    }

    /// Flips a bit of what was synced to some file in `directory`, of those there but the last one by name: what was written
    /// last could be taken for the work of a crash.
    pub fn rot(&self, directory: &str) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let within = state.names.iter().filter(|(path, _)| parent(path) == directory);
        let mut within: Vec<(String, u64)> = within.map(|(path, file)| (path.clone(), *file)).collect();
        within.pop();
        let Some((path, file)) = within.choose(&mut state.random) else {
            return;
        };
        let Some(content) = state.files.get_mut(file) else {
            return;
        };
        let length = content.present.len().min(content.durable.len());
        if length == 0 || !content.unsynced.is_empty() {
            return;
        }
        let offset = state.random.random_range(0..length);
        let bit = 1 << state.random.random_range(0..8);
        content.present[offset] ^= bit;
        content.durable[offset] ^= bit;
        trace!(self.trace, "disk {} rots {path} at byte {offset}", self.node);
    }

    /// What every sync takes longer from now on.
    pub fn set_extra_sync_delay(&self, delay: Duration) {
        self.state.lock().extra_sync_delay = delay;
    }

    /// Makes the next sync of a file fail; what it was to make durable is lost at the next crash.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_next_sync = true;
    }

    /// Whether files can grow.
    pub fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    /// Tells when, after `after_syncs` more, a sync has begun that will never end: the moment to crash.
    pub fn arm_tripwire(&self, after_syncs: u32) -> oneshot::Receiver<()> {
        let (sender, tripped) = oneshot::channel();
        self.state.lock().tripwire = Some((after_syncs, sender));
        tripped
    }

    /// Lets all syncs end as usual.
    pub fn disarm_tripwire(&self) {
        self.state.lock().tripwire = None;
    }

    /// Whether the sync that begins now is the one to crash in.
    fn trips(&self) -> bool {
        let mut state = self.state.lock();
        match state.tripwire.take() {
            // The crash may have been called off meanwhile.
            Some((0, sender)) => sender.send(()).is_ok(),
            Some((left, sender)) => {
                state.tripwire = Some((left - 1, sender));
                false
            }
            None => false,
        }
    }

    /// How many syncs were made to fail.
    pub fn failed_syncs(&self) -> u64 {
        self.state.lock().failed_syncs
    }

    /// How many crashes it has seen.
    pub fn incarnation(&self) -> u64 {
        self.state.lock().incarnation
    }

    fn handle(&self, state: &State, file: u64, path: &str) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            disk: self.clone(),
            incarnation: state.incarnation,
            file,
            path: path.into(),
        })
    }

    async fn wait_for_platter(&self) {
        let wait = {
            let mut state = self.state.lock();
            let range = self.speed.sync_min_micros..=self.speed.sync_max_micros;
            Duration::from_micros(state.random.random_range(range)) + state.extra_sync_delay
        };
        madsim::time::sleep(wait).await;
    }
}

#[async_trait]
impl Disk for SimDisk {
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.directories.contains(parent(path)) {
            return Err(not_found(path));
        }
        if let Some(file) = state.names.get(path).copied() {
            if let Some(content) = state.files.get_mut(&file) {
                content.present.clear();
                content.unsynced.push(Change::SetLength(0));
            }
            return Ok(self.handle(state, file, path));
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        let change = NameChange::Link {
            path: path.to_owned(),
            file,
        };
        change.apply(&mut state.names);
        state.unsynced_names.push(change);
        Ok(self.handle(state, file, path))
    }

    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        match state.names.get(path) {
            Some(file) => Ok(self.handle(&state, *file, path)),
            None => Err(not_found(path)),
        }
    }

    async fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        if !state.directories.contains(directory) {
            return Err(not_found(directory));
        }
        let mut entries: BTreeSet<String> = BTreeSet::new();
        for path in state.names.keys().chain(&state.directories) {
            if path.is_empty() || parent(path) != directory {
                continue;
            }
            let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
            entries.insert(name.to_owned());
        }
        Ok(entries.into_iter().collect())
    }

    async fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut path = String::new();
        for name in directory.split('/').filter(|name| !name.is_empty()) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            state.directories.insert(path.clone());
        }
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(not_found(path));
        }
        let change = NameChange::Unlink {
            path: path.to_owned(),
        };
        change.apply(&mut state.names);
        state.unsynced_names.push(change);
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(from) || !state.directories.contains(parent(to)) {
            return Err(not_found(from));
        }
        let change = NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        change.apply(&mut state.names);
        state.unsynced_names.push(change);
        Ok(())
    }

    async fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let count = self.state.lock().unsynced_names.len();
        let incarnation = self.incarnation();
        self.wait_for_platter().await;
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.incarnation != incarnation {
            return Err(io::Error::other("the node is down"));
        }
        // As a journal does: what came before the last change of this directory becomes durable with it.
        let last = state.unsynced_names[..count.min(state.unsynced_names.len())]
            .iter()
            .rposition(|change| parent(change.path()) == directory);
        if let Some(last) = last {
            for change in state.unsynced_names.drain(..=last) {
                change.apply(&mut state.durable_names);
            }
        }
        trace!(self.trace, "disk {} sync directory {directory:?}", self.node);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    incarnation: u64,
    file: u64,
    path: Box<str>,
}

impl SimFile {
    fn with<T>(&self, action: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("the node is down"));
        }
        match state.files.get_mut(&self.file) {
            Some(content) => Ok(action(content)),
            None => Err(not_found(&self.path)),
        }
    }
}

#[async_trait]
impl DiskFile for SimFile {
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let room = {
            let mut state = self.disk.state.lock();
            let state = &mut *state;
            // What is overwritten needs no room; of the rest, the last free block takes a part.
            state.is_full.then(|| state.random.random_range(0..=data.len()))
        };
        let (data, is_cut) = self.with(|content| {
            let length = content.present.len() as u64;
            let grows = offset.saturating_add(data.len() as u64) > length;
            let (data, is_cut) = match room {
                Some(room) if grows => {
                    let free = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
                    (data.slice(..room.max(free).min(data.len())), true)
                }
                _ => (data, false),
            };
            write_into(&mut content.present, offset, &data);
            content.unsynced.push(Change::Write {
                offset,
                data: data.clone(),
            });
            (data.len(), is_cut)
        })?;
        if is_cut {
            trace!(
                self.disk.trace,
                "disk {} full {} after {data} bytes", self.disk.node, self.path
            );
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.with(|content| {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(content.present.len());
            let end = start.saturating_add(length).min(content.present.len());
            Bytes::copy_from_slice(&content.present[start..end])
        })
    }

    async fn sync(&self) -> io::Result<()> {
        // What is written while the disk works is not covered.
        let covered = self.with(|content| content.unsynced.len())?;
        if covered > 0 && self.disk.trips() {
            futures::future::pending::<()>().await;
        }
        self.disk.wait_for_platter().await;
        let fails = {
            let mut state = self.disk.state.lock();
            let fails = state.fail_next_sync && state.incarnation == self.incarnation;
            state.fail_next_sync &= !fails;
            state.failed_syncs += u64::from(fails);
            fails
        };
        let (bytes, digest) = self.with(|content| {
            let covered = covered.min(content.unsynced.len());
            let mut digest = 0;
            let mut bytes = 0;
            for change in content.unsynced.drain(..covered) {
                if let Change::Write { data, .. } = &change {
                    digest = crc32c::crc32c_append(digest, data);
                    bytes += data.len();
                }
                // After a failed sync the pages are clean and the platter is old: no later sync writes them.
                if !fails {
                    apply(&mut content.durable, &change);
                }
            }
            (bytes, digest)
        })?;
        let outcome = if fails { "FAILED " } else { "" };
        trace!(
            self.disk.trace,
            "disk {} sync {} {outcome}{bytes} bytes {digest:08x}", self.disk.node, self.path
        );
        if fails {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        Ok(())
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|content| {
            set_length(&mut content.present, length);
            content.unsynced.push(Change::SetLength(length));
        })
    }

    async fn length(&self) -> io::Result<u64> {
        self.with(|content| content.present.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use neorunbase_world::disk::{read_file, replace_file};

    use super::*;

    fn disk(seed: u64) -> SimDisk {
        let speed = DiskSpeed {
            sync_min_micros: 1000,
            sync_max_micros: 2000,
        };
        SimDisk::new("node", seed, speed, Trace::default())
    }

    fn simulate<F: Future>(future: F) -> F::Output {
        madsim::runtime::Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(future)
    }

    async fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        read_file(disk, path).await.unwrap().map(|bytes| bytes.to_vec())
    }

    #[test]
    fn unsynced_writes_and_names_are_lost() {
        simulate(async {
            let disk = disk(1);
            let file = disk.create("a").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(content(&disk, "a").await.unwrap(), b"one");
            disk.crash(DiskCrash::Lost);
            assert_eq!(content(&disk, "a").await, None, "the name was never synced");
            assert!(file.length().await.is_err(), "the handle is dead");

            let file = disk.create("a").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            file.sync().await.unwrap();
            disk.sync_directory("").await.unwrap();
            file.write_at(3, Bytes::from_static(b"two")).await.unwrap();
            assert_eq!(content(&disk, "a").await.unwrap(), b"onetwo");
            disk.crash(DiskCrash::Lost);
            assert_eq!(content(&disk, "a").await.unwrap(), b"one");
        });
    }

    #[test]
    fn a_process_crash_loses_nothing() {
        simulate(async {
            let disk = disk(1);
            let file = disk.create("a").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            disk.crash(DiskCrash::Kept);
            assert_eq!(content(&disk, "a").await.unwrap(), b"one");
            disk.crash(DiskCrash::Lost);
            assert_eq!(content(&disk, "a").await, None);
        });
    }

    #[test]
    fn replacing_leaves_the_old_or_the_new_content() {
        simulate(async {
            let mut seen = BTreeSet::new();
            for seed in 0..40 {
                let disk = disk(seed);
                replace_file(&disk, "a", Bytes::from_static(b"old"))
                    .await
                    .unwrap();
                let other = disk.clone();
                let task = madsim::task::spawn(async move {
                    let _ = replace_file(&other, "a", Bytes::from_static(b"new")).await;
                });
                madsim::time::sleep(Duration::from_micros(seed * 100)).await;
                disk.crash(DiskCrash::Torn);
                task.abort();
                seen.insert(content(&disk, "a").await.unwrap());
            }
            let both = BTreeSet::from([b"old".to_vec(), b"new".to_vec()]);
            assert_eq!(seen, both);
        });
    }

    #[test]
    fn torn_writes_keep_what_was_synced() {
        simulate(async {
            let mut torn = BTreeSet::new();
            for seed in 0..60 {
                let disk = disk(seed);
                let file = disk.create("a").await.unwrap();
                file.write_at(0, Bytes::from(vec![1; 700])).await.unwrap();
                file.sync().await.unwrap();
                disk.sync_directory("").await.unwrap();
                file.write_at(700, Bytes::from(vec![2; 1500])).await.unwrap();
                disk.crash(DiskCrash::Torn);
                let left = content(&disk, "a").await.unwrap();
                assert_eq!(left[..700], [1; 700]);
                assert!(left.len() <= 2200);
                torn.insert(left);
            }
            assert!(torn.len() > 10, "only {} outcomes", torn.len());
        });
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        simulate(async {
            let disk = disk(1);
            let file = disk.create("a").await.unwrap();
            disk.sync_directory("").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            disk.fail_next_sync();
            assert!(file.sync().await.is_err());
            file.sync().await.unwrap();
            assert_eq!(content(&disk, "a").await.unwrap(), b"one");
            disk.crash(DiskCrash::Lost);
            assert_eq!(content(&disk, "a").await.unwrap(), b"");
        });
    }

    #[test]
    fn a_bit_rots_in_a_file_that_is_not_the_last() {
        simulate(async {
            let disk = disk(1);
            disk.create_directory("log").await.unwrap();
            for name in ["log/1", "log/2", "log/3"] {
                let file = disk.create(name).await.unwrap();
                file.write_at(0, Bytes::from(vec![0; 50])).await.unwrap();
                file.sync().await.unwrap();
            }
            disk.sync_directory("log").await.unwrap();
            for _ in 0..30 {
                disk.rot("log");
            }
            disk.rot("nowhere");
            disk.crash(DiskCrash::Lost);
            let mut flipped = Vec::new();
            for name in ["log/1", "log/2", "log/3"] {
                let left = content(&disk, name).await.unwrap();
                flipped.push(left.iter().map(|byte| byte.count_ones()).sum::<u32>());
            }
            assert!(flipped[0] > 0 && flipped[1] > 0 && flipped[2] == 0, "{flipped:?}");
        });
    }

    #[test]
    fn a_tripwire_catches_a_sync_in_the_middle() {
        simulate(async {
            let disk = disk(1);
            let file = Arc::new(disk.create("a").await.unwrap());
            disk.sync_directory("").await.unwrap();
            let tripped = disk.arm_tripwire(1);
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            file.sync().await.unwrap();
            file.write_at(3, Bytes::from_static(b"two")).await.unwrap();
            let syncing = file.clone();
            let task = madsim::task::spawn(async move { syncing.sync().await });
            tripped.await.unwrap();
            assert!(!task.is_finished());
            disk.crash(DiskCrash::Lost);
            assert_eq!(content(&disk, "a").await.unwrap(), b"one");
        });
    }

    #[test]
    fn a_full_disk_takes_a_part_and_overwrites() {
        simulate(async {
            let disk = disk(1);
            let file = disk.create("a").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            disk.set_full(true);
            file.write_at(0, Bytes::from_static(b"ONE")).await.unwrap();
            let error = file.write_at(3, Bytes::from_static(b"two")).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert!(b"ONEtwo".starts_with(&content(&disk, "a").await.unwrap()));
            disk.set_full(false);
            file.write_at(3, Bytes::from_static(b"two")).await.unwrap();
            assert_eq!(content(&disk, "a").await.unwrap(), b"ONEtwo");
        });
    }

    #[test]
    fn writes_during_a_sync_are_not_covered() {
        simulate(async {
            let disk = disk(1);
            let file = Arc::new(disk.create("a").await.unwrap());
            disk.sync_directory("").await.unwrap();
            file.write_at(0, Bytes::from_static(b"one")).await.unwrap();
            let syncing = file.clone();
            let task = madsim::task::spawn(async move { syncing.sync().await });
            madsim::task::yield_now().await;
            madsim::time::sleep(Duration::from_micros(100)).await;
            file.write_at(3, Bytes::from_static(b"two")).await.unwrap();
            task.await.unwrap().unwrap();
            disk.crash(DiskCrash::Lost);
            let left = content(&disk, "a").await.unwrap();
            assert!(left == b"one" || left == b"onetwo", "{left:?}");
        });
    }
}
