//! Frames: `u32 length ‖ AES-256-GCM(u64 call ‖ u8 kind ‖ Snappy(body))`.
//!
//! The nonce is the number of frames sent so far in that direction, so a replayed, lost or reordered frame does
//! not open. The length is checked before anything is allocated, and the buffer grows only as bytes arrive.

use std::io;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest sealed frame accepted, in bytes.
pub const MAX_FRAME_BYTES: u32 = 1 << 29;
const HEAD_BYTES: usize = 9;
const TAG_BYTES: usize = 16;
const READ_CHUNK_BYTES: usize = 64 * 1024;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A call.
    Request,
    /// Its answer.
    Response,
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Request),
            1 => Some(Self::Response),
            2 => Some(Self::Ping),
            3 => Some(Self::Pong),
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Response => 1,
            Self::Ping => 2,
            Self::Pong => 3,
        }
    }
}

/// An opened frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which call it belongs to (chosen by the caller).
    pub call: u64,
    /// What it is.
    pub kind: FrameKind,
    /// The message, decompressed.
    pub body: Bytes,
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Seals frames of one direction of one connection.
pub struct FrameSealer {
    cipher: Aes256Gcm,
    counter: u64,
    compressor: snap::raw::Encoder,
}

impl FrameSealer {
    /// A sealer that has sent nothing yet.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: Aes256Gcm::new(key.into()),
            counter: 0,
            compressor: snap::raw::Encoder::new(),
        }
    }

    /// Appends a sealed frame to `output`.
    ///
    /// # Errors
    /// `InvalidInput` if `body` is too large for a frame.
    pub fn seal(&mut self, call: u64, kind: FrameKind, body: &[u8], output: &mut BytesMut) -> io::Result<()> {
        let compressed_limit = snap::raw::max_compress_len(body.len());
        if compressed_limit == 0 || compressed_limit + HEAD_BYTES + TAG_BYTES > MAX_FRAME_BYTES as usize {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "message too large for a frame",
            ));
        }
        let start = output.len();
        output.resize(start + 4 + HEAD_BYTES + compressed_limit, 0);
        let payload = start + 4;
        output[payload..payload + 8].copy_from_slice(&call.to_be_bytes());
        output[payload + 8] = kind.to_byte();
        let compressed = self
            .compressor
            .compress(body, &mut output[payload + HEAD_BYTES..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        output.truncate(payload + HEAD_BYTES + compressed);
        let tag = self
            .cipher
            .encrypt_in_place_detached(
                Nonce::from_slice(&nonce(self.counter)),
                b"",
                &mut output[payload..],
            )
            .map_err(|_| io::Error::other("sealing failed"))?;
        self.counter += 1;
        output.extend_from_slice(&tag);
        let length = u32::try_from(output.len() - payload).map_err(|_| invalid("frame too large"))?;
        output[start..payload].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

/// Reads and opens frames of one direction of one connection.
pub struct FrameOpener {
    cipher: Aes256Gcm,
    counter: u64,
    buffer: BytesMut,
    decompressor: snap::raw::Decoder,
}

impl FrameOpener {
    /// An opener that has received nothing yet.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: Aes256Gcm::new(key.into()),
            counter: 0,
            buffer: BytesMut::new(),
            decompressor: snap::raw::Decoder::new(),
        }
    }

    /// The next frame, or `None` at a clean end of the stream. Not cancellation safe in the middle of a frame's
    /// opening, but safe while it waits for bytes: what has arrived stays in the buffer.
    ///
    /// # Errors
    /// `InvalidData` for a frame that does not open; the connection must be dropped then.
    pub async fn next<R: AsyncRead + Unpin + ?Sized>(&mut self, stream: &mut R) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.open_buffered()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_CHUNK_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn open_buffered(&mut self) -> io::Result<Option<Frame>> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if length > MAX_FRAME_BYTES || (length as usize) < HEAD_BYTES + TAG_BYTES {
            return Err(invalid("frame length out of bounds"));
        }
        let length = length as usize;
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut sealed = self.buffer.split_to(length);
        let tag = sealed.split_off(length - TAG_BYTES);
        self.cipher
            .decrypt_in_place_detached(
                Nonce::from_slice(&nonce(self.counter)),
                b"",
                &mut sealed,
                aes_gcm::Tag::from_slice(&tag),
            )
            .map_err(|_| invalid("frame is forged, replayed or damaged"))?;
        self.counter += 1;
        let call = u64::from_be_bytes(*sealed.first_chunk::<8>().ok_or_else(|| invalid("short frame"))?);
        let kind = FrameKind::from_byte(sealed[8]).ok_or_else(|| invalid("unknown frame kind"))?;
        let compressed = &sealed[HEAD_BYTES..];
        let announced =
            snap::raw::decompress_len(compressed).map_err(|_| invalid("frame body does not decompress"))?;
        if announced > 2 * MAX_FRAME_BYTES as usize {
            return Err(invalid("frame body too large"));
        }
        let body = self
            .decompressor
            .decompress_vec(compressed)
            .map_err(|_| invalid("frame body does not decompress"))?;
        Ok(Some(Frame {
            call,
            kind,
            body: body.into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (FrameSealer, FrameOpener) {
        (FrameSealer::new(&[7; 32]), FrameOpener::new(&[7; 32]))
    }

    #[tokio::test]
    async fn frames_arrive_as_sent() {
        let (mut sealer, mut opener) = pair();
        let mut wire = BytesMut::new();
        let large = vec![42; 1 << 20];
        sealer.seal(1, FrameKind::Request, b"hello", &mut wire).unwrap();
        sealer.seal(2, FrameKind::Response, &large, &mut wire).unwrap();
        sealer.seal(3, FrameKind::Ping, b"", &mut wire).unwrap();
        assert!(wire.len() < 100_000, "bodies are compressed");
        let mut stream = &wire[..];
        assert_eq!(
            opener.next(&mut stream).await.unwrap().unwrap().body,
            b"hello"[..]
        );
        assert_eq!(opener.next(&mut stream).await.unwrap().unwrap().body, large);
        assert_eq!(
            opener.next(&mut stream).await.unwrap().unwrap().kind,
            FrameKind::Ping
        );
        assert!(opener.next(&mut stream).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn replay_tampering_and_bad_lengths_are_refused() {
        let (mut sealer, mut opener) = pair();
        let mut wire = BytesMut::new();
        sealer.seal(1, FrameKind::Request, b"once", &mut wire).unwrap();
        let twice = [&wire[..], &wire[..]].concat();
        let mut stream = &twice[..];
        opener.next(&mut stream).await.unwrap().unwrap();
        assert_eq!(
            opener.next(&mut stream).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );

        let (_, mut opener) = pair();
        let mut tampered = wire.to_vec();
        tampered[10] ^= 1;
        assert!(opener.next(&mut &tampered[..]).await.is_err());

        for length in [0_u32, 5, u32::MAX] {
            let (_, mut opener) = pair();
            let mut stream = &length.to_be_bytes()[..];
            assert_eq!(
                opener.next(&mut stream).await.unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
            assert!(opener.buffer.capacity() <= 2 * READ_CHUNK_BYTES);
        }
    }
}
