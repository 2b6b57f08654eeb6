//! Writing what the server sends into the output buffer: by pgwire's messages, but rows and COPY's data straight from
//! the values.

use bytes::{BufMut, Bytes, BytesMut};
use neorunbase_types::{Datum, SqlError, SqlType};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, ParameterDescription, RowDescription};
use pgwire::messages::response::{self, CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use crate::session::{ColumnDescription, TransactionStatus};

/// A message may not become longer than this (PostgreSQL's `MaxAllocSize`).
const MESSAGE_LIMIT: usize = 0x3fff_ffff;

/// Writes a message. None can fail that is as large as its kind may be; one that is not is left out, loudly.
fn put(output: &mut BytesMut, message: &impl Message) {
    let start = output.len();
    if let Err(error) = message.encode(output) {
        tracing::error!(%error, "a message to the client cannot be sent");
        output.truncate(start);
    }
}

fn patch_length(output: &mut BytesMut, at: usize, length: usize) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    output[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// `text` up to its first NUL, which the protocol cannot carry.
fn string(text: &str) -> String {
    text.split('\0').next().unwrap_or_default().to_owned()
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
    let fields = columns.iter().enumerate().map(|(index, column)| {
        FieldDescription::new(
            string(&column.name),
            column.table_oid.cast_signed(),
            column.column_number,
            column.sql_type.oid(),
            column.sql_type.type_length(),
            column.sql_type.type_modifier(),
            i16::from(formats.is_binary(index)),
        )
    });
    put(output, &RowDescription::new(fields.collect()));
}

/// ParameterDescription.
pub(crate) fn parameter_description(output: &mut BytesMut, types: &[SqlType]) {
    let oids = types.iter().map(SqlType::oid).collect();
    put(output, &ParameterDescription::new(oids));
}

/// A message without a body: ParseComplete, BindComplete, CloseComplete, NoData, PortalSuspended, CopyDone,
/// EmptyQueryResponse.
pub(crate) fn empty_message(output: &mut BytesMut, tag: u8) {
    output.put_slice(&[tag, 0, 0, 0, 4]);
}

/// CommandComplete.
pub(crate) fn command_complete(output: &mut BytesMut, tag: &str) {
    put(output, &CommandComplete::new(string(tag)));
}

/// ReadyForQuery.
pub(crate) fn ready_for_query(output: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => response::TransactionStatus::Idle,
        TransactionStatus::InTransaction => response::TransactionStatus::Transaction,
        TransactionStatus::Failed => response::TransactionStatus::Error,
    };
    put(output, &ReadyForQuery::new(status));
}

/// ErrorResponse.
pub(crate) fn error_response(output: &mut BytesMut, severity: &str, error: &SqlError) {
    put(output, &ErrorResponse::new(error_fields(severity, error)));
}

/// NoticeResponse.
pub(crate) fn notice_response(output: &mut BytesMut, severity: &str, notice: &SqlError) {
    put(output, &NoticeResponse::new(error_fields(severity, notice)));
}

fn error_fields(severity: &str, error: &SqlError) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', string(severity)),
        (b'V', string(severity)),
        (b'C', string(error.state.0)),
        (b'M', string(&error.message)),
    ];
    fields.extend(error.detail.iter().map(|detail| (b'D', string(detail))));
    fields.extend(error.hint.iter().map(|hint| (b'H', string(hint))));
    fields.extend(error.position.map(|position| (b'P', position.to_string())));
    if let Some(objects) = &error.objects {
        let named = [
            (b's', &objects.schema),
            (b't', &objects.table),
            (b'c', &objects.column),
            (b'n', &objects.constraint),
        ];
        let named = named.into_iter().filter(|(_, name)| !name.is_empty());
        fields.extend(named.map(|(code, name)| (code, string(name))));
    }
    fields
}

/// ParameterStatus.
pub(crate) fn parameter_status(output: &mut BytesMut, name: &str, value: &str) {
    put(output, &ParameterStatus::new(string(name), string(value)));
}

/// BackendKeyData.
pub(crate) fn backend_key_data(output: &mut BytesMut, process_id: i32, secret: u32) {
    let secret = SecretKey::I32(secret.cast_signed());
    put(output, &BackendKeyData::new(process_id, secret));
}

/// NegotiateProtocolVersion: what we speak, and which protocol options we do not know.
pub(crate) fn negotiate_protocol_version(output: &mut BytesMut, version: u32, unknown_options: &[String]) {
    let options = unknown_options.iter().map(|option| string(option)).collect();
    put(
        output,
        &NegotiateProtocolVersion::new(version.cast_signed(), options),
    );
}

/// AuthenticationOk.
pub(crate) fn authentication_ok(output: &mut BytesMut) {
    put(output, &Authentication::Ok);
}

/// AuthenticationSASL with the mechanisms on offer.
pub(crate) fn authentication_sasl(output: &mut BytesMut, mechanisms: &[&str]) {
    let mechanisms = mechanisms.iter().map(|mechanism| string(mechanism)).collect();
    put(output, &Authentication::SASL(mechanisms));
}

/// AuthenticationSASLContinue.
pub(crate) fn authentication_sasl_continue(output: &mut BytesMut, data: &[u8]) {
    put(
        output,
        &Authentication::SASLContinue(Bytes::copy_from_slice(data)),
    );
}

/// AuthenticationSASLFinal.
pub(crate) fn authentication_sasl_final(output: &mut BytesMut, data: &[u8]) {
    put(output, &Authentication::SASLFinal(Bytes::copy_from_slice(data)));
}

/// The number of columns, and their formats.
fn text_columns(columns: usize) -> (i16, Vec<i16>) {
    let columns = i16::try_from(columns).unwrap_or(i16::MAX);
    (columns, vec![0; usize::try_from(columns).unwrap_or_default()])
}

/// CopyInResponse with all columns in text.
pub(crate) fn copy_in_response(output: &mut BytesMut, columns: usize) {
    let (columns, formats) = text_columns(columns);
    put(output, &CopyInResponse::new(0, columns, formats));
}

/// CopyOutResponse with all columns in text.
pub(crate) fn copy_out_response(output: &mut BytesMut, columns: usize) {
    let (columns, formats) = text_columns(columns);
    put(output, &CopyOutResponse::new(0, columns, formats));
}

/// CopyData.
pub(crate) fn copy_data(output: &mut BytesMut, data: &[u8]) {
    output.put_u8(b'd');
    output.put_i32(i32::try_from(data.len() + 4).unwrap_or(i32::MAX));
    output.put_slice(data);
}
