//! Row versions as bytes.
//!
//! Newest: u64 BE commit timestamp, flags, row. Old: u64 BE timestamp at which it was superseded, flags, the
//! index entries that its successor did not need (count, then storage and index key each), row.

use bytes::Bytes;

use crate::StorageError;
use crate::value::{put_varint, take_varint};

const MALFORMED: StorageError = StorageError::Malformed { what: "row version" };

const LIVE: u8 = 0;
const DELETED: u8 = 1;
/// Not a version: says that the row's newest version may be a deletion that the garbage collection must remove.
const DELETION_MARKER: u8 = 2;

/// Commit timestamp and flags.
pub(super) const NEWEST_HEADER_BYTES: usize = 9;

/// What a row was from one commit on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// The commit that made it.
    pub commit_timestamp: u64,
    /// Its content; `None`: the commit deleted the row.
    pub row: Option<Bytes>,
}

impl RowVersion {
    /// Reads a newest version. Its row shares the engine's bytes.
    ///
    /// # Errors
    /// [`StorageError::Malformed`].
    pub fn decode(value: Bytes) -> Result<Self, StorageError> {
        let (commit_timestamp, row) = split_newest(&value)?;
        let live = row.is_some();
        Ok(Self {
            commit_timestamp,
            row: live.then(|| value.slice(NEWEST_HEADER_BYTES..)),
        })
    }
}

/// A row as it was from one commit to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldVersion {
    /// The table's storage.
    pub storage: u64,
    /// The row's key.
    pub key: Bytes,
    /// The commit that made it.
    pub commit_timestamp: u64,
    /// The commit that put another one in its place.
    pub superseded_at: u64,
    /// Its content.
    pub row: Bytes,
}

impl OldVersion {
    /// Reads a record of the history keyspace. `None`: it is about a deletion.
    ///
    /// # Errors
    /// [`StorageError::Malformed`].
    pub fn decode(history_key: &[u8], value: &[u8]) -> Result<Option<Self>, StorageError> {
        let (storage, key, commit_timestamp) = split_history_key(history_key)?;
        let record = decode_history(value)?;
        let HistoryKind::Version(Some(row)) = record.kind else {
            return Ok(None);
        };
        Ok(Some(Self {
            storage,
            key: Bytes::copy_from_slice(key),
            commit_timestamp,
            superseded_at: record.superseded_at,
            row: Bytes::copy_from_slice(row),
        }))
    }
}

/// A newest version's commit timestamp and row.
#[inline]
pub(super) fn split_newest(value: &[u8]) -> Result<(u64, Option<&[u8]>), StorageError> {
    let mut rest = value;
    let commit_timestamp = take_u64(&mut rest)?;
    match rest.split_first() {
        Some((&LIVE, row)) => Ok((commit_timestamp, Some(row))),
        Some((&DELETED, _)) => Ok((commit_timestamp, None)),
        _ => Err(MALFORMED),
    }
}

/// A newest version as bytes.
pub(super) fn encode_newest(commit_timestamp: u64, row: Option<&[u8]>) -> Bytes {
    let mut output = Vec::with_capacity(NEWEST_HEADER_BYTES + row.map_or(0, <[u8]>::len));
    output.extend_from_slice(&commit_timestamp.to_be_bytes());
    output.push(if row.is_some() { LIVE } else { DELETED });
    output.extend_from_slice(row.unwrap_or_default());
    Bytes::from(output)
}

#[inline]
pub(super) fn take_u64(input: &mut &[u8]) -> Result<u64, StorageError> {
    let (bytes, rest) = input.split_first_chunk().ok_or(MALFORMED)?;
    *input = rest;
    Ok(u64::from_be_bytes(*bytes))
}

/// The key of an old version.
pub(super) fn history_key(storage: u64, key: &[u8], commit_timestamp: u64) -> Bytes {
    let mut output = Vec::with_capacity(16 + key.len());
    output.extend_from_slice(&storage.to_be_bytes());
    output.extend_from_slice(key);
    output.extend_from_slice(&(!commit_timestamp).to_be_bytes());
    Bytes::from(output)
}

/// The key of a deletion marker: behind all of the row's old versions.
pub(super) fn deletion_marker_key(storage: u64, key: &[u8]) -> Bytes {
    history_key(storage, key, 0)
}

/// The value of a deletion marker.
pub(super) fn encode_deletion_marker(deleted_at: u64) -> Bytes {
    let mut output = deleted_at.to_be_bytes().to_vec();
    output.push(DELETION_MARKER);
    Bytes::from(output)
}

/// Cuts a history key into storage, row key and commit timestamp.
pub(super) fn split_history_key(history_key: &[u8]) -> Result<(u64, &[u8], u64), StorageError> {
    let mut rest = history_key;
    let storage = take_u64(&mut rest)?;
    let (key, timestamp) = rest.split_last_chunk().ok_or(MALFORMED)?;
    Ok((storage, key, !u64::from_be_bytes(*timestamp)))
}

/// An index entry without the row's key, which stands behind `index_key` in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StaleEntry {
    pub index: u64,
    pub index_key: Bytes,
}

/// What a history record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HistoryKind<'a> {
    /// An old version: its row, or a deletion.
    Version(Option<&'a [u8]>),
    DeletionMarker,
}

/// A record of the history keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HistoryRecord<'a> {
    /// Snapshots at or after this do not need it.
    pub superseded_at: u64,
    pub stale_entries: Vec<StaleEntry>,
    pub kind: HistoryKind<'a>,
}

/// An old version as bytes.
pub(super) fn encode_history(superseded_at: u64, row: Option<&[u8]>, stale_entries: &[StaleEntry]) -> Bytes {
    let entries: usize = stale_entries.iter().map(|entry| entry.index_key.len() + 12).sum();
    let mut output = Vec::with_capacity(12 + entries + row.map_or(0, <[u8]>::len));
    output.extend_from_slice(&superseded_at.to_be_bytes());
    output.push(if row.is_some() { LIVE } else { DELETED });
    put_varint(&mut output, stale_entries.len() as u64);
    for entry in stale_entries {
        output.extend_from_slice(&entry.index.to_be_bytes());
        put_varint(&mut output, entry.index_key.len() as u64);
        output.extend_from_slice(&entry.index_key);
    }
    output.extend_from_slice(row.unwrap_or_default());
    Bytes::from(output)
}

/// Reads a record of the history keyspace.
pub(super) fn decode_history(value: &[u8]) -> Result<HistoryRecord<'_>, StorageError> {
    let mut rest = value;
    let superseded_at = take_u64(&mut rest)?;
    let (&flags, mut rest) = rest.split_first().ok_or(MALFORMED)?;
    if flags == DELETION_MARKER {
        return Ok(HistoryRecord {
            superseded_at,
            stale_entries: Vec::new(),
            kind: HistoryKind::DeletionMarker,
        });
    }
    let count = take_varint(&mut rest)?;
    let mut stale_entries = Vec::new();
    for _ in 0..count {
        let index = take_u64(&mut rest)?;
        let length = usize::try_from(take_varint(&mut rest)?).map_err(|_| MALFORMED)?;
        let (index_key, after) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        stale_entries.push(StaleEntry {
            index,
            index_key: Bytes::copy_from_slice(index_key),
        });
        rest = after;
    }
    let row = match flags {
        LIVE => Some(rest),
        DELETED => None,
        _ => return Err(MALFORMED),
    };
    Ok(HistoryRecord {
        superseded_at,
        stale_entries,
        kind: HistoryKind::Version(row),
    })
}
