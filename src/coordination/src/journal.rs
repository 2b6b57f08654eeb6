//! The durable log of the embedded service.
//!
//! A file of frames: magic, length, CRC32C, sequence number, sealed changes. Each append is synced before the
//! next one starts, so only the last frame can be torn; it was never answered and is cut. Damage anywhere
//! else is refused. The first frame holds everything that was there when the file was last rewritten.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use neorunbase_world::disk::{read_file, replace_file};
use neorunbase_world::{Disk, DiskFile};

use crate::state::Change;

const MAGIC: [u8; 4] = *b"NRCJ";
/// Magic, length of the sealed part, CRC32C of length, sequence and sealed part, sequence.
const HEADER_BYTES: usize = 4 + 4 + 4 + 8;
const MAX_SEALED_BYTES: usize = 256 << 20;
/// A file smaller than this is never rewritten.
const COMPACTION_FLOOR_BYTES: u64 = 1 << 20;

/// Encrypts the journal's content. The sequence number is to be authenticated with it, so that frames cannot
/// be moved.
pub trait JournalSealer: Send + Sync {
    /// Encrypts `plaintext`.
    fn seal(&self, sequence: u64, plaintext: &[u8]) -> Vec<u8>;

    /// The plaintext, or `None` if `sealed` was made with another key or sequence number, or was changed.
    fn open(&self, sequence: u64, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// Where and how the journal is kept.
#[derive(Clone)]
pub struct JournalLocation {
    /// The node's disk.
    pub disk: Arc<dyn Disk>,
    /// The file, relative to the data directory.
    pub path: String,
    /// Encrypts its content.
    pub sealer: Arc<dyn JournalSealer>,
}

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The device failed.
    #[error("coordination journal {path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What the device said.
        error: io::Error,
    },
    /// Damaged, tampered with, or sealed under another key. Nothing was changed.
    #[error("coordination journal {path} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// Which file.
        path: String,
        /// Where.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// More than fits one record.
    #[error("coordination journal {path}: a record of {bytes} bytes is too large")]
    TooLarge {
        /// Which file.
        path: String,
        /// How large.
        bytes: usize,
    },
}

/// An open journal.
pub struct Journal {
    location: JournalLocation,
    file: Box<dyn DiskFile>,
    length: u64,
    next_sequence: u64,
    snapshot_bytes: u64,
}

enum Frame<'a> {
    Valid {
        sequence: u64,
        sealed: &'a [u8],
        end: usize,
    },
    Broken(&'static str),
}

fn read_frame(content: &[u8], start: usize) -> Frame<'_> {
    let Some(header) = content.get(start..start + HEADER_BYTES) else {
        return Frame::Broken("incomplete header");
    };
    if header[..4] != MAGIC {
        return Frame::Broken("no record begins here");
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = word(4) as usize;
    let body_start = start + HEADER_BYTES;
    if length > MAX_SEALED_BYTES || body_start + length > content.len() {
        return Frame::Broken("incomplete record");
    }
    let sealed = &content[body_start..body_start + length];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[4..8]), &header[12..HEADER_BYTES]);
    if crc32c::crc32c_append(checksum, sealed) != word(8) {
        return Frame::Broken("checksum does not match");
    }
    let sequence = u64::from(word(12)) | u64::from(word(16)) << 32;
    Frame::Valid {
        sequence,
        sealed,
        end: body_start + length,
    }
}

fn whole_frame_after(content: &[u8], start: usize) -> bool {
    (start + 1..content.len().saturating_sub(HEADER_BYTES - 1)).any(|offset| {
        content[offset..].starts_with(&MAGIC) && matches!(read_frame(content, offset), Frame::Valid { .. })
    })
}

impl Journal {
    /// Opens the journal, creating it if missing, and returns the changes that it holds.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(location: JournalLocation) -> Result<(Self, Vec<Change>), JournalError> {
        let io_error = |error| JournalError::Io {
            path: location.path.clone(),
            error,
        };
        let Some(content) = read_file(&*location.disk, &location.path)
            .await
            .map_err(io_error)?
        else {
            return Self::create(location).await.map(|journal| (journal, Vec::new()));
        };
        let corrupt = |offset: usize, reason: &str| JournalError::Corrupt {
            path: location.path.clone(),
            offset: offset as u64,
            reason: reason.to_owned(),
        };
        let mut changes = Vec::new();
        let mut offset = 0;
        let mut next_sequence = None;
        let mut snapshot_bytes = 0;
        while offset < content.len() {
            let (sequence, sealed, end) = match read_frame(&content, offset) {
                Frame::Valid {
                    sequence,
                    sealed,
                    end,
                } => (sequence, sealed, end),
                // The first frame came by an atomic replacement: it cannot be torn.
                Frame::Broken(reason) if offset == 0 || whole_frame_after(&content, offset) => {
                    return Err(corrupt(offset, reason));
                }
                Frame::Broken(reason) => {
                    tracing::warn!(
                        path = location.path,
                        offset,
                        reason,
                        "cutting the torn end of the journal"
                    );
                    break;
                }
            };
            if next_sequence.is_some_and(|expected| expected != sequence) {
                return Err(corrupt(offset, "record out of sequence"));
            }
            let plaintext = location
                .sealer
                .open(sequence, sealed)
                .ok_or_else(|| corrupt(offset, "wrong key, or the record was tampered with"))?;
            let mut record: Vec<Change> =
                postcard::from_bytes(&plaintext).map_err(|_| corrupt(offset, "record cannot be decoded"))?;
            changes.append(&mut record);
            if offset == 0 {
                snapshot_bytes = end as u64;
            }
            next_sequence = Some(sequence + 1);
            offset = end;
        }
        let Some(next_sequence) = next_sequence else {
            return Err(corrupt(0, "the file is empty"));
        };
        let file = location.disk.open(&location.path).await.map_err(io_error)?;
        if offset < content.len() {
            file.set_length(offset as u64).await.map_err(io_error)?;
            file.sync().await.map_err(io_error)?;
        }
        let journal = Self {
            location,
            file,
            length: offset as u64,
            next_sequence,
            snapshot_bytes,
        };
        Ok((journal, changes))
    }

    async fn create(location: JournalLocation) -> Result<Self, JournalError> {
        let io_error = |error| JournalError::Io {
            path: location.path.clone(),
            error,
        };
        if let Some((directory, _)) = location.path.rsplit_once('/') {
            location
                .disk
                .create_directory(directory)
                .await
                .map_err(io_error)?;
            let mut child = directory;
            while let Some((parent, _)) = child.rsplit_once('/') {
                location.disk.sync_directory(parent).await.map_err(io_error)?;
                child = parent;
            }
            location.disk.sync_directory("").await.map_err(io_error)?;
        }
        Self::rewrite(location, &[], 0).await
    }

    async fn rewrite(
        location: JournalLocation,
        changes: &[Change],
        sequence: u64,
    ) -> Result<Self, JournalError> {
        let io_error = |error| JournalError::Io {
            path: location.path.clone(),
            error,
        };
        let frame = encode(&location, changes, sequence)?;
        let length = frame.len() as u64;
        replace_file(&*location.disk, &location.path, frame)
            .await
            .map_err(io_error)?;
        let file = location.disk.open(&location.path).await.map_err(io_error)?;
        Ok(Self {
            location,
            file,
            length,
            next_sequence: sequence + 1,
            snapshot_bytes: length,
        })
    }

    /// Appends `changes` and returns once they are durable.
    ///
    /// # Errors
    /// [`JournalError`]; the journal must not be used afterwards, only opened anew.
    pub async fn append(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let frame = encode(&self.location, changes, self.next_sequence)?;
        let frame_bytes = frame.len() as u64;
        let written = match self.file.write_at(self.length, frame).await {
            Ok(()) => self.file.sync().await,
            Err(error) => Err(error),
        };
        written.map_err(|error| JournalError::Io {
            path: self.location.path.clone(),
            error,
        })?;
        self.length += frame_bytes;
        self.next_sequence += 1;
        Ok(())
    }

    /// Whether the file has grown far beyond what it would take to hold the state.
    pub fn wants_compaction(&self) -> bool {
        self.length > COMPACTION_FLOOR_BYTES.max(self.snapshot_bytes.saturating_mul(4))
    }

    /// Replaces the file by one that holds only `snapshot`.
    ///
    /// # Errors
    /// [`JournalError`]; the journal must not be used afterwards, only opened anew.
    pub async fn compact(&mut self, snapshot: &[Change]) -> Result<(), JournalError> {
        *self = Self::rewrite(self.location.clone(), snapshot, self.next_sequence).await?;
        Ok(())
    }
}

fn encode(location: &JournalLocation, changes: &[Change], sequence: u64) -> Result<Bytes, JournalError> {
    let plaintext = postcard::to_stdvec(changes).map_err(|error| JournalError::Io {
        path: location.path.clone(),
        error: io::Error::other(error.to_string()),
    })?;
    let sealed = location.sealer.seal(sequence, &plaintext);
    let length = match u32::try_from(sealed.len()) {
        Ok(length) if sealed.len() <= MAX_SEALED_BYTES => length.to_le_bytes(),
        _ => {
            return Err(JournalError::TooLarge {
                path: location.path.clone(),
                bytes: sealed.len(),
            });
        }
    };
    let sequence = sequence.to_le_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &sequence);
    let checksum = crc32c::crc32c_append(checksum, &sealed);
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + sealed.len());
    frame.put_slice(&MAGIC);
    frame.put_slice(&length);
    frame.put_u32_le(checksum);
    frame.put_slice(&sequence);
    frame.put_slice(&sealed);
    Ok(frame.freeze())
}
