//! The one task that writes the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use neorunbase_kms::DataKey;
use neorunbase_kms::master_key::derive_key;
use neorunbase_world::{Disk, DiskFile, fault};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::frame::{self, SegmentCiphers};
use super::segment::{self, HEADER_BYTES, SegmentHeader, SegmentInfo};
use super::{Lsn, SharedState, WalError, WalOptions, WalRecord, io_error};

/// Bytes of frames that go into one write at most (unless one frame alone is larger).
const BATCH_BYTES: u64 = 4 << 20;

/// One queued append.
pub(super) struct Request {
    pub records: Vec<(WalRecord, DataKey)>,
    pub bytes: u64,
    pub apply: Box<dyn FnOnce(Lsn) + Send>,
    pub done: oneshot::Sender<Result<Lsn, WalError>>,
    /// Makes room in the queue when it is dropped.
    pub room: OwnedSemaphorePermit,
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
    ciphers: SegmentCiphers,
    /// Random; the salts of segments are derived from it.
    salts: [u8; 32],
}

impl Writer {
    /// Begins a new segment: an old one is never written again.
    pub async fn start(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        state: Arc<SharedState>,
        next_lsn: Lsn,
        salts: [u8; 32],
    ) -> Result<Self, WalError> {
        let (file, ciphers) = create_segment(&*disk, &options, &state, next_lsn, &salts).await?;
        Ok(Self {
            disk,
            options,
            state,
            file,
            written: HEADER_BYTES as u64,
            pending: Vec::new(),
            next_lsn,
            synced: next_lsn - 1,
            ciphers,
            salts,
        })
    }

    /// Serves appends until nobody can send any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut failure: Option<WalError> = None;
        let mut frames = Vec::new();
        let mut waiting = Vec::new();
        while let Some(first) = requests.recv().await {
            let mut batch_bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                batch_bytes += request.bytes;
                frames.push(request.records);
                waiting.push((request.apply, request.done, request.room));
                next = if batch_bytes < BATCH_BYTES {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
            let first_lsn = self.next_lsn;
            if failure.is_none()
                && let Err(error) = self.write(&frames).await
            {
                tracing::error!(%error, "the write-ahead log failed; nothing can be written until a restart");
                failure = Some(WalError::Failed(error.to_string()));
            }
            frames.clear();
            if let Some(failure) = &failure {
                for (_, done, _) in waiting.drain(..) {
                    let _ = done.send(Err(failure.clone()));
                }
                continue;
            }
            let mut applied = Vec::with_capacity(waiting.len());
            for (lsn, (apply, done, _room)) in (first_lsn..).zip(waiting.drain(..)) {
                apply(lsn);
                applied.push((lsn, done));
            }
            for (lsn, done) in applied {
                // The caller may be gone; the frame is durable and applied all the same.
                let _ = done.send(Ok(lsn));
            }
        }
    }

    async fn write(&mut self, frames: &[Vec<(WalRecord, DataKey)>]) -> Result<(), WalError> {
        for records in frames {
            let filled = self.written + self.pending.len() as u64;
            if filled >= self.options.segment_bytes && filled > HEADER_BYTES as u64 {
                self.sync_pending().await?;
                (self.file, self.ciphers) = create_segment(
                    &*self.disk,
                    &self.options,
                    &self.state,
                    self.next_lsn,
                    &self.salts,
                )
                .await?;
                self.written = HEADER_BYTES as u64;
            }
            let lsn = self.next_lsn;
            frame::encode(&mut self.pending, &mut self.ciphers, lsn, self.synced, records);
            self.next_lsn += 1;
        }
        self.sync_pending().await?;
        self.state.next_lsn.store(self.next_lsn, Ordering::Release);
        Ok(())
    }

    async fn sync_pending(&mut self) -> Result<(), WalError> {
        let path = || self.options.directory.clone();
        let failed = |error: std::io::Error| io_error(&path(), &error);
        if !self.pending.is_empty() {
            let data = Bytes::from(std::mem::take(&mut self.pending));
            let length = data.len() as u64;
            self.file.write_at(self.written, data).await.map_err(failed)?;
            self.written += length;
            self.state.bytes.fetch_add(length, Ordering::Relaxed);
            if let Some(active) = self.state.segments.lock().last_mut() {
                active.bytes = self.written;
            }
            if !fault::planted("ack-before-fsync") {
                self.file.sync().await.map_err(failed)?;
            }
        }
        self.synced = self.next_lsn - 1;
        Ok(())
    }
}

async fn create_segment(
    disk: &dyn Disk,
    options: &WalOptions,
    state: &SharedState,
    first_lsn: Lsn,
    salts: &[u8; 32],
) -> Result<(Box<dyn DiskFile>, SegmentCiphers), WalError> {
    let path = segment::path(&options.directory, first_lsn);
    let failed = |error: std::io::Error| io_error(&path, &error);
    let header = SegmentHeader {
        first_lsn,
        salt: derive_key(salts, &first_lsn.to_le_bytes(), b"segment"),
    };
    let file = disk.create(&path).await.map_err(failed)?;
    file.write_at(0, Bytes::from(header.encode()))
        .await
        .map_err(failed)?;
    file.sync().await.map_err(failed)?;
    disk.sync_directory(&options.directory).await.map_err(failed)?;
    state.bytes.fetch_add(HEADER_BYTES as u64, Ordering::Relaxed);
    state.segments.lock().push(SegmentInfo {
        first_lsn,
        bytes: HEADER_BYTES as u64,
    });
    Ok((file, SegmentCiphers::new(header.salt)))
}
