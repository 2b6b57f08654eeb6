//! Writing what the server sends, straight into the output buffer.

use bytes::{BufMut, BytesMut};
use neorunbase_types::{Datum, SqlError, SqlType};

use crate::session::{ColumnDescription, TransactionStatus};

/// A message may not become longer than this (PostgreSQL's `MaxAllocSize`).
const MESSAGE_LIMIT: usize = 0x3fff_ffff;

/// Writes one message: its type, the length once it is known, and the body between.
fn message(output: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    output.put_u8(tag);
    let length_at = output.len();
    output.put_i32(0);
    body(output);
    patch_length(output, length_at, output.len() - length_at);
}

fn patch_length(output: &mut BytesMut, at: usize, length: usize) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    output[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes `text` up to its first NUL, which the protocol cannot carry, and the terminator.
fn put_string(output: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    output.put_slice(&bytes[..end]);
    output.put_u8(0);
}

fn put_count(output: &mut BytesMut, count: usize) {
    output.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

/// In which formats a portal's result columns go out.
#[derive(Clone, Debug)]
pub(crate) enum ResultFormats {
    Text,
    Binary,
    /// One flag a column: is it binary?
    Mixed(std::sync::Arc<[bool]>),
}

impl ResultFormats {
    /// Whether the column at `index` is binary.
    #[inline]
    pub(crate) fn is_binary(&self, index: usize) -> bool {
        match self {
            Self::Text => false,
            Self::Binary => true,
            Self::Mixed(flags) => flags.get(index).copied().unwrap_or(false),
        }
    }
}

/// A row grew beyond what a message can carry; it was taken back out of the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTooLarge;

/// DataRow.
pub(crate) fn data_row<'a>(
    output: &mut BytesMut,
    row: &[Datum],
    mut sql_type: impl FnMut(usize) -> &'a SqlType,
    formats: &ResultFormats,
) -> Result<(), RowTooLarge> {
    let start = output.len();
    output.put_u8(b'D');
    output.put_i32(0);
    put_count(output, row.len());
    for (index, datum) in row.iter().enumerate() {
        if datum.is_null() {
            output.put_i32(-1);
            continue;
        }
        let length_at = output.len();
        output.put_i32(0);
        if formats.is_binary(index) {
            datum.write_binary(sql_type(index), output);
        } else {
            datum.write_text(sql_type(index), output);
        }
        patch_length(output, length_at, output.len() - length_at - 4);
    }
    let length = output.len() - start - 1;
    if length > MESSAGE_LIMIT {
        output.truncate(start);
        return Err(RowTooLarge);
    }
    patch_length(output, start + 1, length);
    Ok(())
}

/// RowDescription.
pub(crate) fn row_description(output: &mut BytesMut, columns: &[ColumnDescription], formats: &ResultFormats) {
    message(output, b'T', |output| {
        put_count(output, columns.len());
        for (index, column) in columns.iter().enumerate() {
            put_string(output, &column.name);
            output.put_u32(column.table_oid);
            output.put_i16(column.column_number);
            output.put_u32(column.sql_type.oid());
            output.put_i16(column.sql_type.type_length());
            output.put_i32(column.sql_type.type_modifier());
            output.put_i16(i16::from(formats.is_binary(index)));
        }
    });
}

/// ParameterDescription.
pub(crate) fn parameter_description(output: &mut BytesMut, types: &[SqlType]) {
    message(output, b't', |output| {
        put_count(output, types.len());
        for sql_type in types {
            output.put_u32(sql_type.oid());
        }
    });
}

/// A message without a body: ParseComplete, BindComplete, CloseComplete, NoData, PortalSuspended, CopyDone,
/// EmptyQueryResponse.
pub(crate) fn empty_message(output: &mut BytesMut, tag: u8) {
    output.put_slice(&[tag, 0, 0, 0, 4]);
}

/// CommandComplete.
pub(crate) fn command_complete(output: &mut BytesMut, tag: &str) {
    message(output, b'C', |output| put_string(output, tag));
}

/// ReadyForQuery.
pub(crate) fn ready_for_query(output: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => b'I',
        TransactionStatus::InTransaction => b'T',
        TransactionStatus::Failed => b'E',
    };
    output.put_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// ErrorResponse.
pub(crate) fn error_response(output: &mut BytesMut, severity: &str, error: &SqlError) {
    message(output, b'E', |output| error_fields(output, severity, error));
}

/// NoticeResponse.
pub(crate) fn notice_response(output: &mut BytesMut, severity: &str, notice: &SqlError) {
    message(output, b'N', |output| error_fields(output, severity, notice));
}

fn error_fields(output: &mut BytesMut, severity: &str, error: &SqlError) {
    let mut field = |code: u8, value: &str| {
        output.put_u8(code);
        put_string(output, value);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', error.state.0);
    field(b'M', &error.message);
    if let Some(detail) = &error.detail {
        field(b'D', detail);
    }
    if let Some(hint) = &error.hint {
        field(b'H', hint);
    }
    if let Some(position) = error.position {
        field(b'P', &position.to_string());
    }
    if let Some(objects) = &error.objects {
        let named = [
            (b's', &objects.schema),
            (b't', &objects.table),
            (b'c', &objects.column),
            (b'n', &objects.constraint),
        ];
        for (code, name) in named.into_iter().filter(|(_, name)| !name.is_empty()) {
            field(code, name);
        }
    }
    output.put_u8(0);
}

/// ParameterStatus.
pub(crate) fn parameter_status(output: &mut BytesMut, name: &str, value: &str) {
    message(output, b'S', |output| {
        put_string(output, name);
        put_string(output, value);
    });
}

/// BackendKeyData.
pub(crate) fn backend_key_data(output: &mut BytesMut, process_id: i32, secret: u32) {
    message(output, b'K', |output| {
        output.put_i32(process_id);
        output.put_u32(secret);
    });
}

/// NegotiateProtocolVersion: what we speak, and which protocol options we do not know.
pub(crate) fn negotiate_protocol_version(output: &mut BytesMut, version: u32, unknown_options: &[String]) {
    message(output, b'v', |output| {
        output.put_u32(version);
        output.put_u32(u32::try_from(unknown_options.len()).unwrap_or(u32::MAX));
        for option in unknown_options {
            put_string(output, option);
        }
    });
}

/// AuthenticationOk.
pub(crate) fn authentication_ok(output: &mut BytesMut) {
    message(output, b'R', |output| output.put_i32(0));
}

/// AuthenticationSASL with the mechanisms on offer.
pub(crate) fn authentication_sasl(output: &mut BytesMut, mechanisms: &[&str]) {
    message(output, b'R', |output| {
        output.put_i32(10);
        for mechanism in mechanisms {
            put_string(output, mechanism);
        }
        output.put_u8(0);
    });
}

/// AuthenticationSASLContinue.
pub(crate) fn authentication_sasl_continue(output: &mut BytesMut, data: &[u8]) {
    message(output, b'R', |output| {
        output.put_i32(11);
        output.put_slice(data);
    });
}

/// AuthenticationSASLFinal.
pub(crate) fn authentication_sasl_final(output: &mut BytesMut, data: &[u8]) {
    message(output, b'R', |output| {
        output.put_i32(12);
        output.put_slice(data);
    });
}

/// CopyInResponse (`G`) or CopyOutResponse (`H`) with all columns in text.
pub(crate) fn copy_response(output: &mut BytesMut, tag: u8, columns: usize) {
    message(output, tag, |output| {
        output.put_u8(0);
        put_count(output, columns);
        for _ in 0..columns {
            output.put_i16(0);
        }
    });
}

/// CopyData.
pub(crate) fn copy_data(output: &mut BytesMut, data: &[u8]) {
    message(output, b'd', |output| output.put_slice(data));
}
