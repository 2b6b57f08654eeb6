//! Frames as bytes.
//!
//! ```text
//! u32 length of all that follows the CRC     u32 CRC32C of the same
//! u32 CRC32C of the length and the header    u64 LSN    u64 synced    u32 number of records
//! for each record: u64 shard  u64 term  u64 sequence  u32 key version  u32 sealed length
//! for each record: AES-256-GCM ciphertext and tag
//! ```
//!
//! The header has a CRC of its own so that rot in one record costs one shard only. `synced` is the last LSN
//! that was known to be durable when the frame was written: it tells a frame that a crash interrupted from an
//! acknowledged one that rotted, even when whole frames of the same interrupted write follow.

use std::collections::BTreeMap;

use bytes::Bytes;
use neorunbase_kms::cipher::TAG_BYTES;
use neorunbase_kms::master_key::derive_key;
use neorunbase_kms::{DataKey, SealingKey};

use super::{Lsn, WalRecord};

/// Length and CRC.
const PREFIX_BYTES: usize = 8;
/// Header CRC, LSN, synced LSN, number of records.
const FIXED_HEADER_BYTES: usize = 4 + 8 + 8 + 4;
const RECORD_HEADER_BYTES: usize = 8 + 8 + 8 + 4 + 4;
const SMALLEST_FRAME_BYTES: usize = PREFIX_BYTES + FIXED_HEADER_BYTES;

/// The size of a frame with payloads of these lengths.
pub(super) fn encoded_bytes(payload_lengths: impl Iterator<Item = usize>) -> u64 {
    let records: u64 = payload_lengths
        .map(|length| (RECORD_HEADER_BYTES + TAG_BYTES + length) as u64)
        .sum();
    SMALLEST_FRAME_BYTES as u64 + records
}

/// The ciphers of one segment, made when they are first needed.
pub(super) struct SegmentCiphers {
    salt: [u8; 32],
    ciphers: BTreeMap<(u64, u32), SealingKey>,
}

impl SegmentCiphers {
    pub fn new(salt: [u8; 32]) -> Self {
        Self {
            salt,
            ciphers: BTreeMap::new(),
        }
    }

    pub fn cipher(&mut self, shard: u64, key: &DataKey) -> &SealingKey {
        self.ciphers
            .entry((shard, key.version))
            .or_insert_with(|| SealingKey::new(&derive_key(&key.secret, &self.salt, b"write-ahead log")))
    }
}

/// Unique under a segment's key: an LSN is written once a segment.
fn nonce(lsn: Lsn, record_index: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&lsn.to_le_bytes());
    nonce[8..].copy_from_slice(&(record_index as u32).to_le_bytes());
    nonce
}

fn associated(shard: u64, term: u64, sequence: u64, lsn: Lsn) -> [u8; 32] {
    let mut associated = [0; 32];
    associated[..8].copy_from_slice(&shard.to_le_bytes());
    associated[8..16].copy_from_slice(&term.to_le_bytes());
    associated[16..24].copy_from_slice(&sequence.to_le_bytes());
    associated[24..].copy_from_slice(&lsn.to_le_bytes());
    associated
}

/// Appends a frame to `output`. The caller has checked its size.
pub(super) fn encode(
    output: &mut Vec<u8>,
    ciphers: &mut SegmentCiphers,
    lsn: Lsn,
    synced: Lsn,
    records: &[(WalRecord, DataKey)],
    sequences: &[u64],
) {
    let start = output.len();
    output.extend_from_slice(&[0; PREFIX_BYTES + 4]);
    output.extend_from_slice(&lsn.to_le_bytes());
    output.extend_from_slice(&synced.to_le_bytes());
    output.extend_from_slice(&(records.len() as u32).to_le_bytes());
    for ((record, key), sequence) in records.iter().zip(sequences) {
        output.extend_from_slice(&record.shard.to_le_bytes());
        output.extend_from_slice(&record.term.to_le_bytes());
        output.extend_from_slice(&sequence.to_le_bytes());
        output.extend_from_slice(&key.version.to_le_bytes());
        output.extend_from_slice(&((record.payload.len() + TAG_BYTES) as u32).to_le_bytes());
    }
    let header_end = output.len();
    for (index, ((record, key), sequence)) in records.iter().zip(sequences).enumerate() {
        let cipher = ciphers.cipher(record.shard, key);
        let about = associated(record.shard, record.term, *sequence, lsn);
        cipher.seal_into(nonce(lsn, index), &about, &record.payload, output);
    }
    let length = ((output.len() - start - PREFIX_BYTES) as u32).to_le_bytes();
    output[start..start + 4].copy_from_slice(&length);
    let header_crc = header_crc(length, &output[start + PREFIX_BYTES + 4..header_end]);
    output[start + PREFIX_BYTES..start + PREFIX_BYTES + 4].copy_from_slice(&header_crc.to_le_bytes());
    let crc = crc32c::crc32c(&output[start + PREFIX_BYTES..]);
    output[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn header_crc(length: [u8; 4], header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), header)
}

/// A record's place in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealedRecord<'a> {
    pub shard: u64,
    pub term: u64,
    pub sequence: u64,
    pub key_version: u32,
    index: usize,
    lsn: Lsn,
    sealed: &'a [u8],
}

impl SealedRecord<'_> {
    /// The record, if `key` opens it.
    pub fn open(&self, ciphers: &mut SegmentCiphers, key: &DataKey) -> Option<WalRecord> {
        if key.version != self.key_version {
            return None;
        }
        let about = associated(self.shard, self.term, self.sequence, self.lsn);
        let payload =
            ciphers
                .cipher(self.shard, key)
                .open(nonce(self.lsn, self.index), &about, self.sealed)?;
        Some(WalRecord {
            shard: self.shard,
            term: self.term,
            sequence: self.sequence,
            payload: Bytes::from(payload),
        })
    }
}

/// A frame whose header can be trusted.
#[derive(Debug)]
pub(super) struct ParsedFrame<'a> {
    pub lsn: Lsn,
    pub synced: Lsn,
    pub records: Vec<SealedRecord<'a>>,
    /// Of the whole frame.
    pub bytes: usize,
    /// Whether the CRC of everything fits too.
    pub whole: bool,
}

/// Reads the frame at the front of `input`; `None` if there is none with a sound header and all its bytes.
pub(super) fn parse(input: &[u8]) -> Option<ParsedFrame<'_>> {
    let length = u32::from_le_bytes(*input.first_chunk()?) as usize;
    // Checked first: the search for frames in garbage calls this for every byte.
    let content = input.get(PREFIX_BYTES..)?.get(..length)?;
    let frame = parse_unchecked(input)?;
    let header_end = FIXED_HEADER_BYTES + frame.records.len() * RECORD_HEADER_BYTES;
    let length = *input.first_chunk::<4>()?;
    if header_crc(length, content.get(4..header_end)?).to_le_bytes() != content[..4] {
        return None;
    }
    let whole = crc32c::crc32c(content).to_le_bytes() == input[4..PREFIX_BYTES];
    Some(ParsedFrame { whole, ..frame })
}

/// As [`parse`] without looking at any CRC, and with the records cut short where the input ends.
pub(super) fn parse_unchecked(input: &[u8]) -> Option<ParsedFrame<'_>> {
    let u32_at = |offset: usize| {
        input
            .get(offset..)?
            .first_chunk::<4>()
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let u64_at = |offset: usize| {
        input
            .get(offset..)?
            .first_chunk::<8>()
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    let bytes = u32_at(0)?.checked_add(PREFIX_BYTES)?;
    if bytes < SMALLEST_FRAME_BYTES {
        return None;
    }
    let lsn = u64_at(12)?;
    let synced = u64_at(20)?;
    let count = u32_at(28)?;
    if count > (bytes - SMALLEST_FRAME_BYTES) / RECORD_HEADER_BYTES {
        return None;
    }
    let mut records = Vec::with_capacity(count);
    let mut sealed_start = SMALLEST_FRAME_BYTES + count * RECORD_HEADER_BYTES;
    for index in 0..count {
        let at = SMALLEST_FRAME_BYTES + index * RECORD_HEADER_BYTES;
        let sealed_end = sealed_start.checked_add(u32_at(at + 28)?)?;
        if sealed_end > bytes {
            return None;
        }
        let sealed = input
            .get(sealed_start..sealed_end.min(input.len()))
            .unwrap_or_default();
        sealed_start = sealed_end;
        records.push(SealedRecord {
            shard: u64_at(at)?,
            term: u64_at(at + 8)?,
            sequence: u64_at(at + 16)?,
            key_version: u32_at(at + 24)? as u32,
            index,
            lsn,
            sealed,
        });
    }
    (sealed_start == bytes).then_some(ParsedFrame {
        lsn,
        synced,
        records,
        bytes,
        whole: false,
    })
}

/// A whole frame found by searching, where the chain of frames is broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundFrame {
    pub offset: usize,
    pub lsn: Lsn,
    pub synced: Lsn,
}

/// All whole frames in `segment` at or after `offset` whose LSN is at least `least_lsn`.
pub(super) fn search(segment: &[u8], offset: usize, least_lsn: Lsn) -> Vec<FoundFrame> {
    let mut found = Vec::new();
    let mut offset = offset;
    while offset + SMALLEST_FRAME_BYTES <= segment.len() {
        let parsed = parse(&segment[offset..]);
        match parsed {
            Some(frame) if frame.whole && frame.lsn >= least_lsn => {
                found.push(FoundFrame {
                    offset,
                    lsn: frame.lsn,
                    synced: frame.synced,
                });
                offset += frame.bytes;
            }
            _ => offset += 1,
        }
    }
    found
}
