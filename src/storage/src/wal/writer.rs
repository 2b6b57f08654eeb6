//! The one task that writes the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use neorunbase_kms::DataKey;
use neorunbase_kms::master_key::derive_key;
use neorunbase_world::{Disk, DiskFile, fault};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::frame::{self, SegmentCiphers};
use super::segment::{self, HEADER_BYTES, SegmentHeader, SegmentInfo};
use super::{Apply, Logged, Lsn, SharedState, WalError, WalOptions, WalRecord, io_error};

/// Bytes of frames that go into one write at most (unless one frame alone is larger).
const BATCH_BYTES: u64 = 4 << 20;

/// What is to be appended, and what happens then.
pub(super) struct Append {
    pub records: Vec<(WalRecord, DataKey)>,
    pub bytes: u64,
    pub apply: Apply,
}

/// Why an append was not done.
pub(super) enum Refusal {
    /// For good.
    Failed(WalError),
    /// No room, and not a byte of it is left in the log: it may be tried again.
    DiskFull { append: Append, error: WalError },
}

/// One queued append.
pub(super) struct Request {
    pub append: Append,
    pub done: oneshot::Sender<Result<Lsn, Refusal>>,
    /// Makes room in the queue when it is dropped.
    pub _room: OwnedSemaphorePermit,
}

/// Writes frames, in order, to one segment after the other.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    state: Arc<SharedState>,
    file: Box<dyn DiskFile>,
    /// Bytes of the segment, those of `pending` not counted.
    written: u64,
    /// Frames that are encoded but not written.
    pending: Vec<u8>,
    next_lsn: Lsn,
    /// The last LSN known to be durable.
    synced: Lsn,
    /// The last record of each shard.
    last: BTreeMap<u64, LastRecord>,
    /// Of shards with frames beyond `synced`: what `last` was before those.
    last_synced: BTreeMap<u64, Option<LastRecord>>,
    ciphers: SegmentCiphers,
    /// Where each segment's salt comes from.
    salts: Salts,
    /// The disk was full: frames were cut from the segment, and the next frame begins another one. Its LSN was given
    /// before, and must not be sealed under the same key again.
    must_begin_segment: bool,
}

/// The place of a shard's last record in the shard's log.
#[derive(Clone, Copy, Debug)]
struct LastRecord {
    term: u64,
    sequence: u64,
}

/// Derives another salt for every segment, also for one that begins with the same LSN as one before.
struct Salts {
    /// Random.
    seed: [u8; 32],
    derived: u64,
}

impl Salts {
    fn next(&mut self) -> [u8; 32] {
        self.derived += 1;
        derive_key(&self.seed, &self.derived.to_le_bytes(), b"segment")
    }
}

impl Writer {
    /// Begins a new segment: an old one is never written again.
    pub async fn start(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        state: Arc<SharedState>,
        next_lsn: Lsn,
        salt_seed: [u8; 32],
    ) -> Result<Self, WalError> {
        let mut salts = Salts {
            seed: salt_seed,
            derived: 0,
        };
        let (file, ciphers) = create_segment(&*disk, &options, &state, next_lsn, salts.next()).await?;
        Ok(Self {
            disk,
            options,
            state,
            file,
            written: HEADER_BYTES as u64,
            pending: Vec::new(),
            next_lsn,
            synced: next_lsn - 1,
            last: BTreeMap::new(),
            last_synced: BTreeMap::new(),
            ciphers,
            salts,
            must_begin_segment: false,
        })
    }

    /// Serves appends until nobody can send any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut failure: Option<WalError> = None;
        let mut batch: Vec<Request> = Vec::new();
        let mut frames = Vec::new();
        let mut numbers = Vec::new();
        let mut is_full = false;
        while let Some(first) = requests.recv().await {
            let mut batch_bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                batch_bytes += request.append.bytes;
                batch.push(request);
                next = if batch_bytes < BATCH_BYTES {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
            frames.extend(
                batch
                    .iter_mut()
                    .map(|request| std::mem::take(&mut request.append.records)),
            );
            let first_lsn = self.next_lsn;
            let outcome = match &failure {
                Some(failure) => Err(failure.clone()),
                None => self.write(&frames, &mut numbers).await,
            };
            // What was synced before the disk was full is in the log.
            let durable_below = match &outcome {
                Ok(()) | Err(WalError::DiskFull { .. }) => self.next_lsn,
                Err(_) => first_lsn,
            };
            let writes = frames.iter().any(|records| !records.is_empty());
            if outcome.is_ok() && writes && std::mem::take(&mut is_full) {
                neorunbase_world::sometimes!("disk-has-room-again");
                tracing::info!("the write-ahead log has room again");
            }
            let mut applied = Vec::with_capacity(batch.len());
            let mut refused = Vec::new();
            let mut superseded = Vec::new();
            let mut lsn = first_lsn;
            let mut numbers = numbers.drain(..);
            for (mut request, records) in batch.drain(..).zip(frames.drain(..)) {
                let is_barrier = records.is_empty();
                let number = numbers.next();
                if let Some(Err(error)) = number {
                    superseded.push((error, request.done));
                    continue;
                }
                if failure.is_some() || !refused.is_empty() || (!is_barrier && lsn >= durable_below) {
                    request.append.records = records;
                    refused.push(request);
                    continue;
                }
                let sequences = number.and_then(Result::ok).unwrap_or_default();
                (request.append.apply)(&Logged { lsn, sequences });
                applied.push((lsn, request.done));
                lsn += u64::from(!is_barrier);
            }
            for (lsn, done) in applied {
                // The caller may be gone; the frame is durable and applied all the same.
                let _ = done.send(Ok(lsn));
            }
            for (error, done) in superseded {
                let _ = done.send(Err(Refusal::Failed(error)));
            }
            let Err(error) = outcome else { continue };
            if failure.is_none() {
                match &error {
                    WalError::DiskFull { .. } => {
                        neorunbase_world::sometimes!("commit-refused-by-a-full-disk");
                        if !std::mem::replace(&mut is_full, true) {
                            tracing::error!(%error, "writes are refused until the disk has room again");
                        }
                    }
                    _ => {
                        tracing::error!(%error, "the write-ahead log failed; nothing can be written until a restart");
                        neorunbase_world::sometimes!("log-failed");
                        failure = Some(WalError::Failed(error.to_string()));
                    }
                }
            }
            for Request { append, done, .. } in refused {
                let _ = done.send(Err(match &failure {
                    Some(failure) => Refusal::Failed(failure.clone()),
                    None => Refusal::DiskFull {
                        append,
                        error: error.clone(),
                    },
                }));
            }
        }
    }

    /// Makes all of `frames` durable (one without records is a barrier, and is not written); `numbers` gets the sequences
    /// of each frame's records, or why the frame is not written. After [`WalError::DiskFull`] that is true of what is below `next_lsn`, and the log holds
    /// nothing of the rest.
    async fn write(
        &mut self,
        frames: &[Vec<(WalRecord, DataKey)>],
        numbers: &mut Vec<Result<Vec<u64>, WalError>>,
    ) -> Result<(), WalError> {
        for records in frames {
            if records.is_empty() {
                numbers.push(Ok(Vec::new()));
                continue;
            }
            let filled = self.written + self.pending.len() as u64;
            let is_long = filled >= self.options.segment_bytes || fault::buggify("log segment ends");
            let is_long = is_long && filled > HEADER_BYTES as u64;
            if is_long || self.must_begin_segment {
                self.sync_pending().await?;
                self.begin_segment().await?;
            }
            let lsn = self.next_lsn;
            let sequences = match self.number(records) {
                Ok(sequences) => sequences,
                Err(error) => {
                    numbers.push(Err(error));
                    continue;
                }
            };
            frame::encode(
                &mut self.pending,
                &mut self.ciphers,
                lsn,
                self.synced,
                records,
                &sequences,
            );
            numbers.push(Ok(sequences));
            self.next_lsn += 1;
        }
        self.sync_pending().await
    }

    /// The sequences of a frame's records.
    fn number(&mut self, records: &[(WalRecord, DataKey)]) -> Result<Vec<u64>, WalError> {
        let is_over = |record: &&WalRecord| {
            let last = self.last.get(&record.shard);
            record.sequence == 0 && last.is_none_or(|last| last.term != record.term)
        };
        if let Some(WalRecord { shard, term, .. }) = records.iter().map(|(record, _)| record).find(is_over) {
            return Err(WalError::TermOver {
                shard: *shard,
                term: *term,
            });
        }
        let number = |(record, _): &(WalRecord, DataKey)| {
            let before = self.last.get(&record.shard).copied();
            self.last_synced.entry(record.shard).or_insert(before);
            let sequence = match (record.sequence, before) {
                (0, Some(last)) => last.sequence + 1,
                (sequence, _) => sequence,
            };
            let term = record.term;
            self.last.insert(record.shard, LastRecord { term, sequence });
            sequence
        };
        Ok(records.iter().map(number).collect())
    }

    async fn sync_pending(&mut self) -> Result<(), WalError> {
        if !self.pending.is_empty() {
            let path = segment::path(&self.options.directory, self.active_segment());
            let data = Bytes::from(std::mem::take(&mut self.pending));
            let length = data.len() as u64;
            let written = self
                .state
                .asking
                .ask(self.file.write_at(self.written, data))
                .await;
            if let Err(error) = written {
                let error = write_error(&path, &error);
                if matches!(error, WalError::DiskFull { .. }) {
                    self.cut_back(&path).await?;
                }
                return Err(error);
            }
            self.written += length;
            self.state.bytes.fetch_add(length, Ordering::Relaxed);
            if let Some(active) = self.state.segments.lock().last_mut() {
                active.bytes = self.written;
            }
            if !fault::planted("ack-before-fsync") {
                let synced = self.state.asking.ask(self.file.sync()).await;
                if !fault::planted("sync-error-ignored") {
                    synced.map_err(|error| io_error(&path, &error))?;
                }
            }
        }
        self.synced = self.next_lsn - 1;
        self.last_synced.clear();
        self.state.next_lsn.store(self.next_lsn, Ordering::Release);
        Ok(())
    }

    /// Removes, durably, what a write left that found the disk full: its frames are going to be reported as not
    /// written, and no restart may find them.
    async fn cut_back(&mut self, path: &str) -> Result<(), WalError> {
        if !fault::planted("full-disk-keeps-tail") {
            let failed = |error: std::io::Error| io_error(path, &error);
            let cut = self.state.asking.ask(self.file.set_length(self.written)).await;
            cut.map_err(failed)?;
            self.state.asking.ask(self.file.sync()).await.map_err(failed)?;
        }
        self.next_lsn = self.synced + 1;
        for (shard, last) in std::mem::take(&mut self.last_synced) {
            match last {
                Some(last) => self.last.insert(shard, last),
                None => self.last.remove(&shard),
            };
        }
        self.must_begin_segment = true;
        Ok(())
    }

    /// Goes on in a new segment. A full disk leaves all as it was.
    async fn begin_segment(&mut self) -> Result<(), WalError> {
        let path = segment::path(&self.options.directory, self.next_lsn);
        let failed = |error: std::io::Error| io_error(&path, &error);
        if self.written == HEADER_BYTES as u64 {
            // The active one holds no frame, and the new one is going to have its name.
            self.state.segments.lock().pop();
            self.state.bytes.fetch_sub(self.written, Ordering::Relaxed);
            self.written = 0;
            self.remove_segment(&path).await.map_err(failed)?;
        }
        self.must_begin_segment = true;
        let salt = self.salts.next();
        let created = create_segment(&*self.disk, &self.options, &self.state, self.next_lsn, salt).await;
        if let Err(WalError::DiskFull { .. }) = &created {
            self.remove_segment(&path).await.map_err(failed)?;
        }
        (self.file, self.ciphers) = created?;
        self.written = HEADER_BYTES as u64;
        self.must_begin_segment = false;
        Ok(())
    }

    async fn remove_segment(&self, path: &str) -> std::io::Result<()> {
        match self.state.asking.ask(self.disk.remove(path)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let synced = self.disk.sync_directory(&self.options.directory);
        self.state.asking.ask(synced).await
    }

    fn active_segment(&self) -> Lsn {
        self.state
            .segments
            .lock()
            .last()
            .map_or(self.next_lsn, |segment| segment.first_lsn)
    }
}

/// A failed write, told from one that found no room, so that a later one may succeed.
fn write_error(path: &str, error: &std::io::Error) -> WalError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        WalError::DiskFull {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    } else {
        io_error(path, error)
    }
}

async fn create_segment(
    disk: &dyn Disk,
    options: &WalOptions,
    state: &SharedState,
    first_lsn: Lsn,
    salt: [u8; 32],
) -> Result<(Box<dyn DiskFile>, SegmentCiphers), WalError> {
    let path = segment::path(&options.directory, first_lsn);
    let failed = |error: std::io::Error| io_error(&path, &error);
    let write_failed = |error: std::io::Error| write_error(&path, &error);
    let header = SegmentHeader { first_lsn, salt };
    let file = state.asking.ask(disk.create(&path)).await.map_err(write_failed)?;
    let written = file.write_at(0, Bytes::from(header.encode()));
    state.asking.ask(written).await.map_err(write_failed)?;
    state.asking.ask(file.sync()).await.map_err(failed)?;
    let synced = disk.sync_directory(&options.directory);
    state.asking.ask(synced).await.map_err(failed)?;
    state.bytes.fetch_add(HEADER_BYTES as u64, Ordering::Relaxed);
    state.segments.lock().push(SegmentInfo {
        first_lsn,
        bytes: HEADER_BYTES as u64,
    });
    Ok((file, SegmentCiphers::new(header.salt)))
}
