//! What stands at the start of each RocksDB file, and how its bytes are enciphered.
//!
//! A file begins with a 4 KiB header (little-endian):
//!
//! | bytes | |
//! | --- | --- |
//! | 0–7 | magic |
//! | 8–11 | format of this header |
//! | 12–15 | version of the engine key |
//! | 16–47 | random nonce |
//! | 48–79 | HMAC-SHA256 of bytes 0–47, the check value |
//! | 80–4095 | zero |
//!
//! HKDF-SHA256 over the engine key and the nonce yields the file's own AES-256 key and the check value's key;
//! the content is AES-256-CTR with the file offset as counter. A key is never used for two files, and RocksDB
//! only appends, so no keystream byte is used twice. CTR does not authenticate: RocksDB's checksums find rot.

use aes::Aes256Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper, StreamCipherSeek};
use ctr::{CtrCore, flavors};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use neorunbase_world::shard_engine::EngineKey;
use sha2::Sha256;

/// A page, so that RocksDB's own alignment is kept.
pub(crate) const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"NRBROCKS";
const HEADER_FORMAT: u32 = 1;
const NONCE: std::ops::Range<usize> = 16..48;
const CHECKED: std::ops::Range<usize> = 0..48;
const CHECK_VALUE: std::ops::Range<usize> = 48..80;
const CIPHER_BLOCK_BYTES: usize = 16;
/// The checksum that each record of RocksDB's logs begins with; length and type follow.
const RECORD_CHECKSUM_BYTES: usize = 4;

/// Why a file cannot be read with this key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("file is shorter than an encrypted file's header")]
    Short,
    #[error("file is not encrypted, or not by this database")]
    NotEncrypted,
    #[error("file header has format {0}, which this version does not know")]
    UnknownFormat(u32),
    #[error("file was encrypted with key version {found}, but version {expected} was given")]
    WrongKeyVersion { found: u32, expected: u32 },
    #[error("wrong encryption key, or a damaged file header")]
    WrongKey,
}

/// The cipher of one open file.
pub(crate) enum FileCipher {
    /// A file with its own key.
    Keyed(Box<Aes256Enc>),
    /// A name that survived a power loss while its content did not: reads as zeros, takes no writes.
    NeverWritten,
}

type Keystream<'a> = StreamCipherCoreWrapper<CtrCore<&'a Aes256Enc, flavors::Ctr128BE>>;

/// A header for a new file.
///
/// # Errors
/// The random generator's.
pub(crate) fn create_header(key: &EngineKey) -> Result<[u8; HEADER_BYTES], getrandom::Error> {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&HEADER_FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&key.version.to_le_bytes());
    getrandom::fill(&mut header[NONCE])?;
    let (_, check_value) = derive(key, &header);
    let check_value = check_value.finalize().into_bytes();
    header[CHECK_VALUE].copy_from_slice(&check_value);
    Ok(header)
}

impl FileCipher {
    /// The cipher of the file that begins with `header`. A file that `may_be_torn` holds nothing of worth and
    /// is read as empty if its header is cut short.
    pub(crate) fn open(key: &EngineKey, header: &[u8], may_be_torn: bool) -> Result<Self, HeaderError> {
        let Some(header) = header.first_chunk::<HEADER_BYTES>() else {
            return if may_be_torn {
                Ok(Self::NeverWritten)
            } else {
                Err(HeaderError::Short)
            };
        };
        if header.iter().all(|byte| *byte == 0) {
            return Ok(Self::NeverWritten);
        }
        if header[0..8] != MAGIC {
            return Err(HeaderError::NotEncrypted);
        }
        let format = little_endian(header, 8);
        if format != HEADER_FORMAT {
            return Err(HeaderError::UnknownFormat(format));
        }
        let version = little_endian(header, 12);
        if version != key.version {
            return Err(HeaderError::WrongKeyVersion {
                found: version,
                expected: key.version,
            });
        }
        let (cipher, check_value) = derive(key, header);
        check_value
            .verify_slice(&header[CHECK_VALUE])
            .map_err(|_| HeaderError::WrongKey)?;
        Ok(Self::Keyed(Box::new(cipher)))
    }

    /// Enciphers `data`, which belongs at `offset`; false if this file takes no writes.
    #[must_use]
    pub(crate) fn encrypt(&self, offset: u64, data: &mut [u8]) -> bool {
        let Self::Keyed(cipher) = self else { return false };
        apply_keystream(cipher, offset, data);
        true
    }

    /// Deciphers `data`, which was read at `offset`.
    pub(crate) fn decrypt(&self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Keyed(cipher) => {
                // Zeros after the last record (space that was allocated but never written) must stay zeros, or
                // RocksDB's log reader takes the garbage for records. Ciphertext ends in a whole block of
                // zeros once in 2^128 times. The first zeros may still be ciphertext (one file in 256 ends in
                // one): they are deciphered. If they were not written, they are garbage in a record's checksum;
                // length and type behind it are zero, which the log reader takes for the end.
                let zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
                let written = if zeros >= CIPHER_BLOCK_BYTES {
                    data.len() - zeros + RECORD_CHECKSUM_BYTES
                } else {
                    data.len()
                };
                apply_keystream(cipher, offset, &mut data[..written]);
            }
            Self::NeverWritten => data.fill(0),
        }
    }
}

fn apply_keystream(cipher: &Aes256Enc, offset: u64, data: &mut [u8]) {
    // The key is the file's own, so the counter may start at zero.
    let core = CtrCore::inner_iv_init(cipher, &[0; CIPHER_BLOCK_BYTES].into());
    let mut keystream = Keystream::from_core(core);
    keystream.seek(offset);
    keystream.apply_keystream(data);
}

/// The file's cipher, and the check value's MAC, already fed with the header.
fn derive(key: &EngineKey, header: &[u8; HEADER_BYTES]) -> (Aes256Enc, Hmac<Sha256>) {
    let mut material = [0; 64];
    Hkdf::<Sha256>::new(Some(&header[NONCE]), &key.secret)
        .expand(b"neorunbase rocksdb file", &mut material)
        .expect("64 bytes are within what HKDF-SHA256 can yield");
    let (cipher_key, check_key) = material.split_at(32);
    let cipher = Aes256Enc::new_from_slice(cipher_key).expect("half of 64 bytes is an AES-256 key");
    let mut check_value =
        <Hmac<Sha256> as Mac>::new_from_slice(check_key).expect("HMAC takes keys of any length");
    check_value.update(&header[CHECKED]);
    (cipher, check_value)
}

fn little_endian(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(version: u32, byte: u8) -> EngineKey {
        EngineKey {
            version,
            secret: [byte; 32],
        }
    }

    fn error_of(key: &EngineKey, header: &[u8]) -> HeaderError {
        FileCipher::open(key, header, false).err().unwrap()
    }

    #[test]
    fn deciphers_any_part_of_what_it_enciphered() {
        let key = key(3, 7);
        let header = create_header(&key).unwrap();
        let cipher = FileCipher::open(&key, &header, false).unwrap();
        let plain: Vec<u8> = (0..70_000_u32).map(|index| (index % 251) as u8).collect();
        let mut sealed = plain.clone();
        // Appended in uneven pieces, as RocksDB does.
        let mut offset = 0;
        for piece in [1, 15, 16, 17, 4096, 65_855] {
            let end = offset + piece;
            assert!(cipher.encrypt((HEADER_BYTES + offset) as u64, &mut sealed[offset..end]));
            offset = end;
        }
        assert_eq!(offset, plain.len());
        assert!(
            sealed
                .windows(16)
                .all(|window| !plain[..300].windows(16).any(|other| other == window))
        );
        let reopened = FileCipher::open(&key, &header, false).unwrap();
        for (start, end) in [(0, 70_000), (5, 6), (16, 32), (4095, 8200), (69_999, 70_000)] {
            let mut part = sealed[start..end].to_vec();
            reopened.decrypt((HEADER_BYTES + start) as u64, &mut part);
            assert_eq!(part, plain[start..end], "{start}..{end}");
        }
    }

    #[test]
    fn files_of_one_key_share_no_keystream() {
        let key = key(1, 1);
        let streams: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                let cipher = FileCipher::open(&key, &create_header(&key).unwrap(), false).unwrap();
                let mut zeros = vec![0; 64];
                assert!(cipher.encrypt(4096, &mut zeros));
                zeros
            })
            .collect();
        assert_ne!(streams[0], streams[1]);
    }

    #[test]
    fn names_why_a_header_is_refused() {
        let right = key(3, 7);
        let header = create_header(&right).unwrap();
        assert_eq!(error_of(&key(3, 8), &header), HeaderError::WrongKey);
        assert_eq!(
            error_of(&key(4, 7), &header),
            HeaderError::WrongKeyVersion {
                found: 3,
                expected: 4
            }
        );
        assert_eq!(error_of(&right, &header[..100]), HeaderError::Short);
        assert_eq!(error_of(&right, &[b'x'; HEADER_BYTES]), HeaderError::NotEncrypted);
        for damaged in [20, 47, 50, 79] {
            let mut header = header;
            header[damaged] ^= 1;
            assert_eq!(error_of(&right, &header), HeaderError::WrongKey);
        }
        let mut newer = header;
        newer[8] = 9;
        assert_eq!(error_of(&right, &newer), HeaderError::UnknownFormat(9));
    }

    #[test]
    fn zeros_after_the_last_record_stay_zeros() {
        let key = key(3, 7);
        // A last byte that is enciphered to zero is still deciphered: some file of 2,000 has one.
        let mut ended_in_zero = false;
        for _ in 0..2000 {
            let cipher = FileCipher::open(&key, &create_header(&key).unwrap(), false).unwrap();
            let mut data = vec![b'r'; 100];
            assert!(cipher.encrypt(4096, &mut data));
            ended_in_zero |= data[99] == 0;
            data.extend_from_slice(&[0; 300]);
            cipher.decrypt(4096, &mut data);
            assert_eq!(data[..100], [b'r'; 100]);
            assert_eq!(
                data[100 + RECORD_CHECKSUM_BYTES..],
                [0; 300 - RECORD_CHECKSUM_BYTES]
            );
        }
        assert!(ended_in_zero);
    }

    #[test]
    fn a_file_that_never_reached_the_disk_reads_as_zeros() {
        let key = key(3, 7);
        let cipher = FileCipher::open(&key, &[0; HEADER_BYTES], false).unwrap();
        let mut data = vec![1; 40];
        assert!(!cipher.encrypt(4096, &mut data), "it takes no writes");
        cipher.decrypt(4096, &mut data);
        assert_eq!(data, [0; 40]);
        assert!(FileCipher::open(&key, &[0; 10], true).is_ok());
    }
}
