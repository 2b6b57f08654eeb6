//! Segment files: their names and headers.

use super::Lsn;

const MAGIC: &[u8; 8] = b"NBWAL\x00\x00\x01";
const SUFFIX: &str = ".wal";

/// Bytes before the first frame: magic, first LSN, salt, CRC.
pub(super) const HEADER_BYTES: usize = 8 + 8 + 32 + 4;

/// A segment of the open log.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentInfo {
    /// The number of its first frame, by which it is named.
    pub first_lsn: Lsn,
    /// Its length.
    pub bytes: u64,
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The number of its first frame.
    pub first_lsn: Lsn,
    /// Random. Records are sealed under keys derived from the shard's key and this, and a segment is written by
    /// one process only: so an LSN that is given again after a crash is never sealed under the same key twice.
    pub salt: [u8; 32],
}

/// The file name of the segment that begins with `first_lsn`.
pub(super) fn name(first_lsn: Lsn) -> String {
    format!("{first_lsn:020}{SUFFIX}")
}

/// Its path.
pub(super) fn path(directory: &str, first_lsn: Lsn) -> String {
    format!("{directory}/{}", name(first_lsn))
}

/// The first LSN of the segment named so, or `None` if it is not a segment.
pub(super) fn parse_name(file_name: &str) -> Option<Lsn> {
    let digits = file_name.strip_suffix(SUFFIX)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

impl SegmentHeader {
    /// The header as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut output = Vec::with_capacity(HEADER_BYTES);
        output.extend_from_slice(MAGIC);
        output.extend_from_slice(&self.first_lsn.to_le_bytes());
        output.extend_from_slice(&self.salt);
        let crc = crc32c::crc32c(&output);
        output.extend_from_slice(&crc.to_le_bytes());
        output
    }

    /// The header at the front of `segment`, if it is whole.
    pub fn decode(segment: &[u8]) -> Option<Self> {
        let header = segment.get(..HEADER_BYTES)?;
        let (content, crc) = header.split_last_chunk::<4>()?;
        if &content[..8] != MAGIC || crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (first_lsn, salt) = content[8..].split_first_chunk::<8>()?;
        Some(Self {
            first_lsn: u64::from_le_bytes(*first_lsn),
            salt: salt.try_into().ok()?,
        })
    }
}
