//! A connection's first packets: encryption requests, cancel requests, and who wants what.

use bytes::BufMut;
use neorunbase_types::{Result, SqlError, SqlState};

use crate::message::Reader;
use crate::output;
use crate::wire::{Ending, Wire};

const PROTOCOL_VERSION_3_0: u32 = 3 << 16;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;

/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, its length field included.
const STARTUP_PACKET_LIMIT: usize = 10_000;

/// What a new connection is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To cancel what another one is doing.
    Cancel {
        /// The other connection.
        process_id: i32,
        /// Its secret.
        secret: u32,
    },
    /// To open a session.
    Session(StartupPacket),
}

/// The StartupMessage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StartupPacket {
    pub(crate) user: String,
    pub(crate) database: String,
    /// All other parameters, those inside `options` included.
    pub(crate) parameters: Vec<(String, String)>,
}

/// Reads up to the StartupMessage or CancelRequest, declining encryption on the way.
pub(crate) async fn receive_opening(wire: &mut Wire) -> Result<Opening, Ending> {
    let mut encryption_requests = Vec::new();
    loop {
        let packet = receive_packet(wire).await?;
        let mut reader = Reader::new(&packet);
        let code = reader.u32().map_err(Ending::Fatal)?;
        match code {
            SSL_REQUEST | GSS_ENCRYPTION_REQUEST if !encryption_requests.contains(&code) => {
                encryption_requests.push(code);
                // What was sent before our answer cannot have been meant for a connection in the clear:
                // somebody may have injected it.
                if !wire.buffered_input().is_empty() {
                    return Err(Ending::Gone(
                        "data before the answer to an encryption request".to_owned(),
                    ));
                }
                wire.output.put_u8(b'N');
                wire.flush().await?;
            }
            CANCEL_REQUEST => {
                let (Ok(process_id), Ok(secret)) = (reader.i32(), reader.u32()) else {
                    return Err(Ending::Gone("invalid length of cancel request".to_owned()));
                };
                return Ok(Opening::Cancel { process_id, secret });
            }
            version if version >> 16 == 3 => {
                return session_opening(wire, version, reader).map_err(Ending::Fatal);
            }
            version => {
                return Err(Ending::Fatal(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!(
                        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.0",
                        version >> 16,
                        version & 0xffff
                    ),
                )));
            }
        }
    }
}

/// The next packet of the start-up phase, without its length.
async fn receive_packet(wire: &mut Wire) -> Result<bytes::BytesMut, Ending> {
    loop {
        if let Some(&length) = wire.buffered_input().first_chunk::<4>() {
            let length = i32::from_be_bytes(length);
            let length = usize::try_from(length)
                .ok()
                .filter(|length| (8..=STARTUP_PACKET_LIMIT).contains(length))
                .ok_or_else(|| {
                    Ending::Fatal(SqlError::new(
                        SqlState::PROTOCOL_VIOLATION,
                        "invalid length of startup packet",
                    ))
                })?;
            if wire.buffered_input().len() >= length {
                return Ok(wire.take_input(length).split_off(4));
            }
        }
        wire.fill().await?;
    }
}

fn session_opening(wire: &mut Wire, version: u32, mut reader: Reader<'_>) -> Result<Opening> {
    let (mut user, mut database) = (String::new(), String::new());
    let mut parameters = Vec::new();
    let mut unknown_protocol_options = Vec::new();
    loop {
        let name = reader.string().map_err(invalid_layout)?;
        if name.is_empty() {
            break;
        }
        let value = reader.string().map_err(invalid_layout)?;
        match name {
            "user" => user = value.to_owned(),
            "database" => database = value.to_owned(),
            "options" => parameters.extend(command_line_parameters(value)?),
            "replication" => {
                if !matches!(value, "false" | "off" | "no" | "0") {
                    return Err(SqlError::unsupported("the replication protocol"));
                }
            }
            _ if name.starts_with("_pq_.") => unknown_protocol_options.push(name.to_owned()),
            _ => parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    reader.finish().map_err(invalid_layout)?;
    if user.is_empty() {
        return Err(SqlError::new(
            SqlState::INVALID_AUTHORIZATION,
            "no PostgreSQL user name specified in startup packet",
        ));
    }
    if database.is_empty() {
        database.clone_from(&user);
    }
    for (_, encoding) in parameters
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("client_encoding"))
    {
        check_client_encoding(encoding)?;
    }
    if version > PROTOCOL_VERSION_3_0 || !unknown_protocol_options.is_empty() {
        output::negotiate_protocol_version(&mut wire.output, PROTOCOL_VERSION_3_0, &unknown_protocol_options);
    }
    Ok(Opening::Session(StartupPacket {
        user,
        database,
        parameters,
    }))
}

fn invalid_layout(error: Box<SqlError>) -> Box<SqlError> {
    if error.state != SqlState::PROTOCOL_VIOLATION {
        return error;
    }
    SqlError::new(
        SqlState::PROTOCOL_VIOLATION,
        "invalid startup packet layout: expected terminator as last byte",
    )
}

/// Text leaves as UTF-8; `SQL_ASCII` is what libpq asks for in the C locale, and means "as it is".
fn check_client_encoding(encoding: &str) -> Result<()> {
    let canonical: String = encoding
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    match canonical.as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("client encoding \"{encoding}\" is not supported"),
        )
        .with_hint("Set client_encoding to UTF8.")),
    }
}

/// The settings in the `options` parameter: `-c name=value` and `--name=value`, blanks escaped by backslashes.
fn command_line_parameters(options: &str) -> Result<Vec<(String, String)>> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            blank if blank.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);

    let mut parameters = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next().unwrap_or_default()
        } else if let Some(setting) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            setting.to_owned()
        } else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            ));
        };
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("-c {setting} requires a value")))?;
        parameters.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn options_hold_settings() {
        assert_eq!(command_line_parameters("").unwrap(), vec![]);
        assert_eq!(
            command_line_parameters(r"-c search_path=a\ b --statement-timeout=5  -cgeqo=off").unwrap(),
            [
                ("search_path", "a b"),
                ("statement_timeout", "5"),
                ("geqo", "off")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        for bad in ["-x", "-c", "-c a", "word", "\\"] {
            assert!(command_line_parameters(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn client_encodings() {
        for good in ["UTF8", "utf-8", "'utf-8'", "UNICODE", "SQL_ASCII"] {
            check_client_encoding(good).unwrap();
        }
        assert_eq!(
            check_client_encoding("LATIN1").unwrap_err().state,
            SqlState::FEATURE_NOT_SUPPORTED
        );
    }
}
