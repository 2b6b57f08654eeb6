//! The node's one write-ahead log: what makes a commit durable, for all shards of the node together.
//!
//! A directory of segments, each a sequence of frames. A frame is atomic, has a number (its LSN) and carries
//! records of one or more shards, each sealed under its shard's key. One task writes; all that wait when it
//! comes round share one sync.

mod frame;
mod recovery;
mod segment;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_kms::{DataKey, KeyError, Keyring};
use neorunbase_world::disk::Asking;
use neorunbase_world::{Clock, Disk, Entropy, Spawner, World};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::segment::SegmentInfo;
use self::writer::{Append, Refusal, Request, Writer};

/// The number of a frame: 1, 2, 3… over the life of the node. The number of a frame that was never
/// acknowledged may be given again after a crash that lost it.
pub type Lsn = u64;

/// How many appends may queue before the next ones wait outside.
const QUEUE_FRAMES: usize = 4096;
/// Bytes that queued appends may hold together.
const QUEUE_KIBIBYTES: u32 = 64 * 1024;

/// How often an append that waits for room on the disk tries again.
const ROOM_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// One shard's part of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRecord {
    /// The shard.
    pub shard: u64,
    /// The term in which its primary made the record.
    pub term: u64,
    /// Its number among the shard's records. 0 in an append: the one after the last that was appended for the shard, which
    /// must be of the same term. Any other begins a count anew.
    pub sequence: u64,
    /// The content.
    pub payload: Bytes,
}

/// Records that are durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number.
    pub lsn: Lsn,
    /// Its records, in the order of the append.
    pub records: Vec<WalRecord>,
}

/// Where an append stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The number of the frame.
    pub lsn: Lsn,
    /// The numbers of its records, in their order.
    pub sequences: Vec<u64>,
}

/// Runs when a frame is durable.
pub type Apply = Box<dyn FnOnce(&Logged) + Send>;

/// Where the log is and how it is cut.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Its directory, relative to the node's data directory.
    pub directory: String,
    /// A segment that reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// Larger frames are refused.
    pub max_frame_bytes: u32,
}

/// What was found when the log was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The frames still on disk, in order.
    pub frames: Vec<Frame>,
    /// Bytes cut from the end of the last segment: a write that a crash interrupted, never acknowledged.
    pub torn_tail_bytes: u64,
    /// Acknowledged records that cannot be read any more. Their shards must not be served from this node.
    pub corrupt: Vec<CorruptRecord>,
}

/// An acknowledged record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRecord {
    /// Its shard; `None` if not even that can be told, so that every shard of the node is in doubt.
    pub shard: Option<u64>,
    /// The segment's file name.
    pub segment: String,
    /// Where in the segment its frame begins.
    pub offset: u64,
    /// The frame's number.
    pub lsn: Lsn,
}

/// Why the log cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// A write or sync failed: nobody knows what is on disk, so nothing may be appended until the node restarts.
    #[error("the write-ahead log failed: {0}")]
    Failed(String),
    /// The disk is full. Nothing of the frame is in the log, now or after a restart; later ones may find room.
    #[error("write-ahead log {path}: {reason}")]
    DiskFull {
        /// Which file.
        path: String,
        /// What the device said.
        reason: String,
    },
    /// The frame is larger than allowed.
    #[error("a log frame of {bytes} bytes is larger than the {limit} bytes allowed")]
    FrameTooLarge {
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u32,
    },
    /// The term of one of the frame's records is over: a later one has begun. Nothing of the frame is in the log.
    #[error("term {term} of shard {shard:#x} is over")]
    TermOver {
        /// The shard.
        shard: u64,
        /// The term that is over.
        term: u64,
    },
    /// A shard's key could not be had.
    #[error("no key for the log: {0}")]
    Key(Arc<KeyError>),
    /// The device failed while the log was opened or cut.
    #[error("write-ahead log {path}: {reason}")]
    Io {
        /// Which file or directory.
        path: String,
        /// What the device said.
        reason: String,
    },
    /// The node is shutting down.
    #[error("the write-ahead log is closed")]
    Closed,
}

impl From<KeyError> for WalError {
    fn from(error: KeyError) -> Self {
        Self::Key(Arc::new(error))
    }
}

/// Where the keys of shards come from.
#[async_trait]
pub trait ShardKeys: Send + Sync {
    /// The key of `shard`, made if missing.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn key(&self, shard: u64) -> Result<DataKey, KeyError>;
}

#[async_trait]
impl ShardKeys for Keyring {
    async fn key(&self, shard: u64) -> Result<DataKey, KeyError> {
        self.shard_key(shard).await
    }
}

/// What the writer and its users share.
#[derive(Debug)]
struct SharedState {
    next_lsn: AtomicU64,
    bytes: AtomicU64,
    /// Oldest first; the last is the one being written.
    segments: Mutex<Vec<SegmentInfo>>,
    /// What the writer asks of the disk.
    asking: Asking,
}

/// The open log.
pub struct Wal {
    disk: Arc<dyn Disk>,
    keys: Arc<dyn ShardKeys>,
    options: WalOptions,
    queue: mpsc::Sender<Request>,
    queue_room: Arc<Semaphore>,
    state: Arc<SharedState>,
    truncating: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Wal({}, next {})",
            self.options.directory,
            self.next_lsn()
        )
    }
}

impl Wal {
    /// Opens the log, creating it if missing, and reads what it holds.
    ///
    /// # Errors
    /// [`WalError::Io`] or [`WalError::Key`]. Damage is not an error here but reported in [`Recovered`].
    pub async fn open(
        world: &World,
        options: WalOptions,
        keys: Arc<dyn ShardKeys>,
    ) -> Result<(Arc<Self>, Recovered), WalError> {
        Self::open_on(
            world.disk.clone(),
            &*world.entropy,
            &*world.spawner,
            options,
            keys,
        )
        .await
    }

    /// As [`open`](Self::open), with just the parts of a world that it needs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        entropy: &dyn Entropy,
        spawner: &dyn Spawner,
        options: WalOptions,
        keys: Arc<dyn ShardKeys>,
    ) -> Result<(Arc<Self>, Recovered), WalError> {
        let found = recovery::recover(&*disk, &options, &*keys).await?;
        let state = Arc::new(SharedState {
            next_lsn: AtomicU64::new(found.next_lsn),
            bytes: AtomicU64::new(found.segments.iter().map(|segment| segment.bytes).sum()),
            segments: Mutex::new(found.segments),
            asking: Asking::default(),
        });
        let mut salts = [0; 32];
        entropy.fill(&mut salts);
        let writer = Writer::start(
            disk.clone(),
            options.clone(),
            state.clone(),
            found.next_lsn,
            salts,
        )
        .await?;
        let (queue, requests) = mpsc::channel(QUEUE_FRAMES);
        spawner.spawn("write-ahead log", Box::pin(writer.run(requests)));
        let wal = Self {
            disk,
            keys,
            options,
            queue,
            queue_room: Arc::new(Semaphore::new(QUEUE_KIBIBYTES as usize)),
            state,
            truncating: tokio::sync::Mutex::new(()),
        };
        Ok((Arc::new(wal), found.recovered))
    }

    /// Appends one frame. When it is durable, `apply` runs — in the order of the LSNs among all appends, so it
    /// must be quick — and then this returns. Once queued, it happens even if the caller goes away.
    ///
    /// # Errors
    /// [`WalError::Failed`] after any failed write or sync, for this and all later appends: `apply` never runs,
    /// but the frame may still be found after a restart. After any other error it never will be.
    pub async fn append(&self, records: Vec<WalRecord>, apply: Apply) -> Result<Lsn, WalError> {
        let append = self.prepare_append(records, apply).await?;
        self.send(append).await.map_err(|refusal| match refusal {
            Refusal::Failed(error) | Refusal::DiskFull { error, .. } => error,
        })
    }

    /// Runs `apply` between the frames before and those after it, with the LSN that the next frame will get. Needs no
    /// room on the disk.
    ///
    /// # Errors
    /// [`WalError::Failed`].
    pub async fn barrier(&self, apply: Apply) -> Result<Lsn, WalError> {
        self.append(Vec::new(), apply).await
    }

    /// As [`append`](Self::append), but on a full disk it waits for room: for what cannot be taken back any more.
    ///
    /// # Errors
    /// As [`append`](Self::append), without [`WalError::DiskFull`].
    pub async fn append_when_room(
        &self,
        clock: &dyn Clock,
        records: Vec<WalRecord>,
        apply: Apply,
    ) -> Result<Lsn, WalError> {
        let mut append = self.prepare_append(records, apply).await?;
        loop {
            match self.send(append).await {
                Ok(lsn) => return Ok(lsn),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::DiskFull { append: again, .. }) => append = again,
            }
            clock.sleep(ROOM_POLL_INTERVAL).await;
        }
    }

    async fn prepare_append(&self, records: Vec<WalRecord>, apply: Apply) -> Result<Append, WalError> {
        let bytes = frame::encoded_bytes(records.iter().map(|record| record.payload.len()));
        if bytes > u64::from(self.options.max_frame_bytes) {
            return Err(WalError::FrameTooLarge {
                bytes,
                limit: self.options.max_frame_bytes,
            });
        }
        let mut keyed = Vec::with_capacity(records.len());
        for record in records {
            let key = self.keys.key(record.shard).await?;
            keyed.push((record, key));
        }
        Ok(Append {
            records: keyed,
            bytes,
            apply,
        })
    }

    async fn send(&self, append: Append) -> Result<Lsn, Refusal> {
        let closed = || Refusal::Failed(WalError::Closed);
        let kibibytes = u32::try_from(append.bytes / 1024 + 1)
            .unwrap_or(QUEUE_KIBIBYTES)
            .min(QUEUE_KIBIBYTES);
        let room = self.queue_room.clone().acquire_many_owned(kibibytes).await;
        let room = room.map_err(|_| closed())?;
        let (done, outcome) = oneshot::channel();
        let request = Request {
            append,
            done,
            _room: room,
        };
        self.queue.send(request).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    /// Removes the segments all of whose frames are below `lsn`.
    ///
    /// # Errors
    /// [`WalError::Io`]; the log stays usable.
    pub async fn truncate_below(&self, lsn: Lsn) -> Result<(), WalError> {
        let _truncating = self.truncating.lock().await;
        loop {
            let oldest = {
                let segments = self.state.segments.lock();
                match segments.as_slice() {
                    [oldest, next, ..] if next.first_lsn <= lsn => *oldest,
                    _ => return Ok(()),
                }
            };
            let path = segment::path(&self.options.directory, oldest.first_lsn);
            match self.disk.remove(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error(&path, &error));
                }
                _ => {}
            }
            // One at a time: if a later segment could vanish before an earlier one, a crash would leave a gap.
            let synced = self.disk.sync_directory(&self.options.directory).await;
            synced.map_err(|error| io_error(&self.options.directory, &error))?;
            self.state.segments.lock().remove(0);
            self.state.bytes.fetch_sub(oldest.bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Which write or sync the disk has not answered yet: see [`Asking::unanswered`].
    pub fn unanswered(&self) -> Option<u64> {
        self.state.asking.unanswered()
    }

    /// The number that the next frame will get.
    pub fn next_lsn(&self) -> Lsn {
        self.state.next_lsn.load(Ordering::Acquire)
    }
}

fn io_error(path: &str, error: &std::io::Error) -> WalError {
    WalError::Io {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
