//! Reads the log after a restart, and tells a write that a crash interrupted (cut off silently: nobody was told
//! that it is durable) from damage to what was acknowledged (reported: the shard must not be served).

use std::collections::BTreeMap;

use neorunbase_kms::DataKey;
use neorunbase_world::{Disk, DiskFile, fault};

use super::frame::{self, FoundFrame, ParsedFrame, SegmentCiphers};
use super::segment::{self, HEADER_BYTES, SegmentHeader, SegmentInfo};
use super::{CorruptRecord, Frame, Lsn, Recovered, ShardKeys, WalError, WalOptions, io_error};

/// What [`recover`] found.
pub(super) struct Found {
    pub recovered: Recovered,
    pub segments: Vec<SegmentInfo>,
    pub next_lsn: Lsn,
}

/// Reads all segments; cuts a torn tail and removes an empty last segment, durably.
pub(super) async fn recover(
    disk: &dyn Disk,
    options: &WalOptions,
    keys: &dyn ShardKeys,
) -> Result<Found, WalError> {
    let directory = &options.directory;
    let failed = |error: std::io::Error| io_error(directory, &error);
    disk.create_directory(directory).await.map_err(failed)?;
    let parent = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
    disk.sync_directory(parent).await.map_err(failed)?;
    let names = disk.list(directory).await.map_err(failed)?;
    let mut first_lsns: Vec<Lsn> = names
        .iter()
        .filter_map(|name| segment::parse_name(name))
        .collect();
    first_lsns.sort_unstable();

    let mut reader = Reader {
        keys,
        known_keys: BTreeMap::new(),
        recovered: Recovered::default(),
        expected: first_lsns.first().copied().unwrap_or(1).max(1),
    };
    let mut segments = Vec::with_capacity(first_lsns.len());
    for (index, &first_lsn) in first_lsns.iter().enumerate() {
        let is_last = index + 1 == first_lsns.len();
        let path = segment::path(directory, first_lsn);
        let failed = |error: std::io::Error| io_error(&path, &error);
        let file = disk.open(&path).await.map_err(failed)?;
        let content = read_whole(&*file).await.map_err(failed)?;
        let Kept {
            bytes: kept,
            synced_bytes,
        } = reader.read_segment(first_lsn, &content, is_last).await?;
        if is_last && kept <= HEADER_BYTES {
            // No frame in it. The new segment takes its name, and must not inherit a byte of it.
            drop(file);
            disk.remove(&path).await.map_err(failed)?;
            disk.sync_directory(directory).await.map_err(failed)?;
            continue;
        }
        if is_last {
            if kept < content.len() {
                file.set_length(kept as u64).await.map_err(failed)?;
            }
            // What was read may be in the operating system's memory only, if just the process died; and after a
            // failed sync it may even be thought to be on disk. So it is written again before it counts.
            if synced_bytes < kept {
                let tail = content.slice(synced_bytes..kept);
                file.write_at(synced_bytes as u64, tail).await.map_err(failed)?;
            }
            file.sync().await.map_err(failed)?;
        }
        segments.push(SegmentInfo {
            first_lsn,
            bytes: kept as u64,
        });
    }
    Ok(Found {
        recovered: reader.recovered,
        segments,
        next_lsn: reader.expected,
    })
}

async fn read_whole(file: &dyn DiskFile) -> std::io::Result<bytes::Bytes> {
    let length =
        usize::try_from(file.length().await?).map_err(|_| std::io::Error::other("segment too large"))?;
    file.read_at(0, length).await
}

/// What is to be kept of a segment.
struct Kept {
    bytes: usize,
    /// Of these, what the frames themselves prove to have been synced.
    synced_bytes: usize,
}

struct Reader<'a> {
    keys: &'a dyn ShardKeys,
    known_keys: BTreeMap<u64, DataKey>,
    recovered: Recovered,
    /// The LSN that the next frame must have.
    expected: Lsn,
}

impl Reader<'_> {
    /// Reads one segment.
    async fn read_segment(
        &mut self,
        first_lsn: Lsn,
        content: &[u8],
        is_last: bool,
    ) -> Result<Kept, WalError> {
        if first_lsn != self.expected && !fault::planted("torn-tail-accepted") {
            // Frames between the segments are gone: no crash does that.
            self.report(None, first_lsn, 0, self.expected);
        }
        self.expected = first_lsn;
        let header = SegmentHeader::decode(content).filter(|header| header.first_lsn == first_lsn);
        let Some(header) = header else {
            let found = frame::search(content, 0, first_lsn);
            if is_last && found.is_empty() {
                self.recovered.torn_tail_bytes += content.len() as u64;
                return Ok(Kept {
                    bytes: 0,
                    synced_bytes: 0,
                });
            }
            self.report(None, first_lsn, 0, first_lsn);
            self.expected = found.last().map_or(first_lsn, |last| last.lsn + 1);
            return Ok(Kept {
                bytes: content.len(),
                synced_bytes: 0,
            });
        };
        let mut ciphers = SegmentCiphers::new(header.salt);
        let mut offset = HEADER_BYTES;
        let mut synced_bytes = HEADER_BYTES;
        let mut unsynced = std::collections::VecDeque::new();
        while offset < content.len() {
            let parsed = frame::parse(&content[offset..]);
            let parsed = parsed.filter(|frame| frame.lsn == self.expected);
            if let Some(frame) = &parsed
                && frame.whole
            {
                self.take_frame(first_lsn, offset, frame, &mut ciphers).await?;
                offset += frame.bytes;
                unsynced.push_back((frame.lsn, offset));
                while let Some((_, end)) = unsynced.pop_front_if(|(lsn, _)| *lsn <= frame.synced) {
                    synced_bytes = end;
                }
                continue;
            }
            let found = frame::search(content, offset + 1, self.expected);
            if is_last && is_interrupted_write(&found, self.expected) {
                neorunbase_world::sometimes!("torn-log-tail-cut");
                self.recovered.torn_tail_bytes += (content.len() - offset) as u64;
                if fault::planted("torn-tail-accepted")
                    && self.take_torn_frame(&content[offset..], &mut ciphers).await?
                {
                    return Ok(Kept {
                        bytes: content.len(),
                        synced_bytes,
                    });
                }
                return Ok(Kept {
                    bytes: offset,
                    synced_bytes,
                });
            }
            if let Some(frame) = &parsed {
                // The header is sound: only the shards whose records do not open are hurt.
                self.take_frame(first_lsn, offset, frame, &mut ciphers).await?;
                offset += frame.bytes;
                continue;
            }
            self.report(None, first_lsn, offset, self.expected);
            let Some(next) = found.first() else {
                break;
            };
            offset = next.offset;
            self.expected = next.lsn;
        }
        Ok(Kept {
            bytes: content.len(),
            synced_bytes,
        })
    }

    async fn take_frame(
        &mut self,
        first_lsn: Lsn,
        offset: usize,
        parsed: &ParsedFrame<'_>,
        ciphers: &mut SegmentCiphers,
    ) -> Result<(), WalError> {
        let mut records = Vec::with_capacity(parsed.records.len());
        for sealed in &parsed.records {
            let key = self.key(sealed.shard).await?;
            match sealed.open(ciphers, &key) {
                Some(record) => records.push(record),
                None => self.report(Some(sealed.shard), first_lsn, offset, parsed.lsn),
            }
        }
        self.recovered.frames.push(Frame {
            lsn: parsed.lsn,
            records,
        });
        self.expected = parsed.lsn + 1;
        Ok(())
    }

    /// A planted bug: takes the frame of an interrupted write as if it were whole, with those records that are.
    async fn take_torn_frame(
        &mut self,
        input: &[u8],
        ciphers: &mut SegmentCiphers,
    ) -> Result<bool, WalError> {
        let parsed = frame::parse_unchecked(input).filter(|parsed| parsed.lsn == self.expected);
        let Some(parsed) = parsed else {
            return Ok(false);
        };
        let mut records = Vec::new();
        for sealed in &parsed.records {
            let key = self.key(sealed.shard).await?;
            records.extend(sealed.open(ciphers, &key));
        }
        self.recovered.frames.push(Frame {
            lsn: parsed.lsn,
            records,
        });
        self.expected += 1;
        Ok(true)
    }

    async fn key(&mut self, shard: u64) -> Result<DataKey, WalError> {
        if let Some(key) = self.known_keys.get(&shard) {
            return Ok(key.clone());
        }
        let key = self.keys.key(shard).await?;
        self.known_keys.insert(shard, key.clone());
        Ok(key)
    }

    fn report(&mut self, shard: Option<u64>, first_lsn: Lsn, offset: usize, lsn: Lsn) {
        let segment = segment::name(first_lsn);
        tracing::error!(
            ?shard,
            segment,
            offset,
            lsn,
            "acknowledged log record cannot be read"
        );
        self.recovered.corrupt.push(CorruptRecord {
            shard,
            segment,
            offset: offset as u64,
            lsn,
        });
    }
}

/// Whether the frame `broken`, with these whole frames behind it, was never synced: no later frame was written
/// knowing it durable. (One write can reach the disk with holes: whole frames may follow a broken one.)
fn is_interrupted_write(found: &[FoundFrame], broken: Lsn) -> bool {
    found.iter().all(|later| later.synced < broken)
}
