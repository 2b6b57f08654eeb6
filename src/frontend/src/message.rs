//! Reading what a client sends: frames with limits, and message bodies borrowed from the input buffer.
//!
//! The bodies are decoded here rather than by the pgwire crate because its decoders panic on truncated
//! bodies, replace bad UTF-8 silently and copy every parameter; its encoders and decoders play the client in
//! our tests instead.

use neorunbase_types::binary::validated_text;
use neorunbase_types::{Result, SqlError, SqlState};

/// Messages of a known small shape may not be longer than this (PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`).
pub(crate) const SMALL_MESSAGE_LIMIT: usize = 10_000;

/// The most that a message may be long before the client has authenticated.
pub(crate) const UNAUTHENTICATED_MESSAGE_LIMIT: usize = 64 * 1024;

/// Type byte and length of a regular message.
pub(crate) const FRAME_HEADER_LENGTH: usize = 5;

/// A frame header that cannot be followed by anything sensible: the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// No message starts with this byte.
    UnknownType(u8),
    /// The announced length is too short or longer than allowed.
    InvalidLength {
        /// The type byte.
        tag: u8,
        /// The length as announced.
        length: i32,
    },
}

impl FrameError {
    /// What the client is told before the connection closes.
    pub(crate) fn to_sql_error(self) -> Box<SqlError> {
        match self {
            Self::UnknownType(tag) => SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!("invalid frontend message type {tag}"),
            ),
            Self::InvalidLength { tag, length } => {
                SqlError::new(SqlState::PROTOCOL_VIOLATION, "invalid message length").with_detail(format!(
                    "Message type {:?} announced {length} bytes.",
                    char::from(tag)
                ))
            }
        }
    }
}

/// The length of the whole frame that `input` starts with, or `None` if its header has not arrived yet.
///
/// # Errors
/// If the type is unknown or the length is not acceptable; decided before anything is allocated for it.
pub(crate) fn frame_length(
    input: &[u8],
    large_message_limit: usize,
    authenticated: bool,
) -> Result<Option<usize>, FrameError> {
    let Some(&tag) = input.first() else {
        return Ok(None);
    };
    let limit = match tag {
        b'p' if !authenticated => UNAUTHENTICATED_MESSAGE_LIMIT,
        _ if !authenticated => return Err(FrameError::UnknownType(tag)),
        b'Q' | b'P' | b'B' | b'F' | b'd' => large_message_limit,
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_MESSAGE_LIMIT,
        _ => return Err(FrameError::UnknownType(tag)),
    };
    let Some(length_bytes) = input
        .get(1..FRAME_HEADER_LENGTH)
        .and_then(|bytes| bytes.try_into().ok())
    else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(length_bytes);
    match usize::try_from(length) {
        Ok(counted) if counted >= 4 && counted <= limit => Ok(Some(counted + 1)),
        _ => Err(FrameError::InvalidLength { tag, length }),
    }
}

/// Walks a message body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

fn insufficient_data() -> Box<SqlError> {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, "insufficient data left in message")
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(insufficient_data)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or_else(insufficient_data)?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A NUL-terminated string.
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| SqlError::new(SqlState::PROTOCOL_VIOLATION, "invalid string in message"))?;
        let text = self.bytes(end)?;
        self.rest = &self.rest[1..];
        validated_text(text)
    }

    /// Checks that the body held nothing more.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "invalid message format",
            ))
        }
    }
}

/// A statement or a portal, as Describe and Close name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Statement(&'a str),
    Portal(&'a str),
}

/// The body of Parse.
#[derive(Debug)]
pub(crate) struct Parse<'a> {
    pub(crate) name: &'a str,
    pub(crate) sql: &'a str,
    pub(crate) parameter_oids: Vec<u32>,
}

impl<'a> Parse<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let name = reader.string()?;
        let sql = reader.string()?;
        let count = usize::from(reader.u16()?);
        let mut oids = Reader::new(reader.bytes(count * 4)?);
        let mut parameter_oids = Vec::with_capacity(count);
        while !oids.is_empty() {
            parameter_oids.push(oids.u32()?);
        }
        reader.finish()?;
        Ok(Self {
            name,
            sql,
            parameter_oids,
        })
    }
}

/// Zero, one or n format codes of a Bind, still in wire form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormatCodes<'a> {
    codes: &'a [u8],
}

impl<'a> FormatCodes<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self> {
        let count = usize::from(reader.u16()?);
        Ok(Self {
            codes: reader.bytes(count * 2)?,
        })
    }

    /// How many were given.
    pub(crate) fn count(self) -> usize {
        self.codes.len() / 2
    }

    /// Whether the item at `index` is binary: no codes mean text, one code counts for all.
    pub(crate) fn is_binary(self, index: usize) -> Result<bool> {
        let position = match self.count() {
            0 => return Ok(false),
            1 => 0,
            _ => index,
        };
        let mut reader = Reader::new(self.codes.get(position * 2..).unwrap_or_default());
        match reader.i16()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {code}"),
            )),
        }
    }
}

/// The body of Bind. The parameters are walked in place by [`Bind::next_parameter`].
#[derive(Debug)]
pub(crate) struct Bind<'a> {
    pub(crate) portal: &'a str,
    pub(crate) statement: &'a str,
    pub(crate) parameter_formats: FormatCodes<'a>,
    pub(crate) parameter_count: usize,
    rest: Reader<'a>,
}

impl<'a> Bind<'a> {
    /// Reads all that stands before the parameter values.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let portal = reader.string()?;
        let statement = reader.string()?;
        let parameter_formats = FormatCodes::decode(&mut reader)?;
        let parameter_count = usize::from(reader.u16()?);
        Ok(Self {
            portal,
            statement,
            parameter_formats,
            parameter_count,
            rest: reader,
        })
    }

    /// The next parameter value, `None` for NULL. Call `parameter_count` times.
    pub(crate) fn next_parameter(&mut self) -> Result<Option<&'a [u8]>> {
        match self.rest.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| insufficient_data())?;
                self.rest.bytes(length).map(Some)
            }
        }
    }

    /// The result formats, once all the parameters have been read.
    pub(crate) fn result_formats(mut self) -> Result<FormatCodes<'a>> {
        let formats = FormatCodes::decode(&mut self.rest)?;
        self.rest.finish()?;
        Ok(formats)
    }
}

/// Decodes the body of Describe or Close.
pub(crate) fn decode_target<'a>(body: &'a [u8], message: &str) -> Result<Target<'a>> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let name = reader.string()?;
    reader.finish()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        other => Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("invalid {message} message subtype {other}"),
        )),
    }
}

/// Decodes the body of Execute: portal and row limit, 0 for none.
pub(crate) fn decode_execute(body: &[u8]) -> Result<(&str, usize)> {
    let mut reader = Reader::new(body);
    let portal = reader.string()?;
    let max_rows = reader.i32()?;
    reader.finish()?;
    Ok((portal, usize::try_from(max_rows).unwrap_or(0)))
}

/// Decodes a body that is one string, such as Query's or CopyFail's.
pub(crate) fn decode_string(body: &[u8]) -> Result<&str> {
    let mut reader = Reader::new(body);
    let text = reader.string()?;
    reader.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn frame(tag: u8, length: i32) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }

    #[test]
    fn frame_lengths_are_checked_before_the_body_arrives() {
        assert_eq!(frame_length(b"", 100, true), Ok(None));
        assert_eq!(frame_length(b"Q\0\0", 100, true), Ok(None));
        assert_eq!(frame_length(&frame(b'Q', 4), 100, true), Ok(Some(5)));
        assert_eq!(frame_length(&frame(b'Q', 100), 100, true), Ok(Some(101)));
        for (tag, length) in [
            (b'Q', 101),
            (b'Q', 3),
            (b'Q', -1),
            (b'Q', i32::MIN),
            (b'S', 10_001),
            (b'd', i32::MAX),
        ] {
            let error = frame_length(&frame(tag, length), 100, true);
            assert_eq!(error, Err(FrameError::InvalidLength { tag, length }));
        }
        assert_eq!(
            frame_length(b"\x16", 100, true),
            Err(FrameError::UnknownType(0x16))
        );
        // Nothing but password messages is understood before authentication.
        assert_eq!(frame_length(b"Q", 100, false), Err(FrameError::UnknownType(b'Q')));
        assert!(frame_length(&frame(b'p', 65_536), 100, false).unwrap().is_some());
        assert!(frame_length(&frame(b'p', 65_537), 100, false).is_err());
        assert!(frame_length(b"p", 100, true).is_err());
    }

    #[test]
    fn every_truncation_of_a_bind_is_an_error() {
        let body = b"portal\0statement\0\0\x02\0\0\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
        let decode = |body: &[u8]| -> Result<(Vec<Option<Vec<u8>>>, bool)> {
            let mut bind = Bind::decode(body)?;
            let mut parameters = Vec::new();
            for _ in 0..bind.parameter_count {
                parameters.push(bind.next_parameter()?.map(<[u8]>::to_vec));
            }
            Ok((parameters, bind.result_formats()?.is_binary(7)?))
        };
        assert_eq!(decode(body).unwrap(), (vec![Some(b"x".to_vec()), None], true));
        for end in 0..body.len() {
            assert_eq!(
                decode(&body[..end]).unwrap_err().state,
                SqlState::PROTOCOL_VIOLATION,
                "{end}"
            );
        }
        let mut longer = body.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer).unwrap_err().message, "invalid message format");
    }

    #[test]
    fn huge_or_negative_parameter_lengths_are_errors() {
        for length in [i32::MAX, -2, i32::MIN] {
            let mut body = b"\0\0\0\0\0\x01".to_vec();
            body.extend_from_slice(&length.to_be_bytes());
            assert!(Bind::decode(&body).unwrap().next_parameter().is_err());
        }
    }

    #[test]
    fn bodies_of_the_other_messages() {
        let parse = Parse::decode(b"s\0select $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!(
            (parse.name, parse.sql, parse.parameter_oids.as_slice()),
            ("s", "select $1", &[23][..])
        );
        assert!(Parse::decode(b"s\0select $1\0\xff\xff").is_err());
        assert_eq!(
            decode_target(b"Sx\0", "DESCRIBE").unwrap(),
            Target::Statement("x")
        );
        assert_eq!(decode_target(b"P\0", "DESCRIBE").unwrap(), Target::Portal(""));
        let error = decode_target(b"Zx\0", "CLOSE").unwrap_err();
        assert_eq!(error.message, "invalid CLOSE message subtype 90");
        assert_eq!(decode_execute(b"p\0\0\0\0\x05").unwrap(), ("p", 5));
        assert_eq!(decode_execute(b"p\0\xff\xff\xff\xff").unwrap(), ("p", 0));
        assert_eq!(decode_string(b"select 1\0").unwrap(), "select 1");
        assert_eq!(
            decode_string(b"select 1").unwrap_err().message,
            "invalid string in message"
        );
        let error = decode_string(b"a\xc3(\0").unwrap_err();
        assert_eq!(error.state, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(
            error.message,
            "invalid byte sequence for encoding \"UTF8\": 0xc3 0x28"
        );
    }

    #[test]
    fn unknown_format_codes_are_refused() {
        let codes = FormatCodes { codes: b"\0\x02" };
        assert_eq!(
            codes.is_binary(0).unwrap_err().message,
            "unsupported format code: 2"
        );
    }
}
