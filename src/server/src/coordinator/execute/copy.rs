//! COPY FROM STDIN and COPY TO STDOUT, text and CSV formats (PostgreSQL 15 manual, COPY).

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use neorunbase_frontend::Client;
use neorunbase_protocol::message::RowWriteKind;
use neorunbase_sql::plan::Copy;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};

use super::Execution;
use super::insert::WritesByShard;
use crate::coordinator::location::TableLocation;

/// Rows are sent to their shards when so many bytes have come in.
const BATCH_BYTES: usize = 1 << 20;
/// A line longer than this is not a line.
const MAX_LINE_BYTES: usize = 256 << 20;

impl Execution<'_> {
    /// Runs COPY FROM STDIN and returns the number of rows.
    ///
    /// # Errors
    /// `22P04` and the types' input errors for bad data, besides those of INSERT.
    pub async fn copy_in(
        &mut self,
        copy: &Copy,
        location: &TableLocation,
        client: &mut dyn Client,
    ) -> Result<u64> {
        client.start_copy_in(copy.columns.len()).await?;
        let mut lines = LineSplitter::new(copy.csv);
        let mut batch = Batch::default();
        let mut rows = 0;
        let mut skip_header = copy.header;
        let mut ended = false;
        while let Some(data) = client.copy_data().await? {
            lines.push(&data)?;
            while let Some(line) = lines.next_line() {
                if ended || std::mem::take(&mut skip_header) {
                    continue;
                }
                if !copy.csv && &line[..] == b"\\." {
                    ended = true;
                    continue;
                }
                rows += 1;
                self.copy_line(copy, location, &line, rows, &mut batch).await?;
                if batch.bytes >= BATCH_BYTES {
                    let full = std::mem::take(&mut batch);
                    self.write_rows(location, full.writes).await?;
                }
            }
        }
        if let Some(line) = lines.finish()
            && !ended
            && !skip_header
            && (copy.csv || &line[..] != b"\\.")
        {
            rows += 1;
            self.copy_line(copy, location, &line, rows, &mut batch).await?;
        }
        self.write_rows(location, batch.writes).await?;
        Ok(rows)
    }

    async fn copy_line(
        &mut self,
        copy: &Copy,
        location: &TableLocation,
        line: &[u8],
        number: u64,
        batch: &mut Batch,
    ) -> Result<()> {
        let table = &location.table;
        let in_copy = |error: Box<SqlError>| {
            let detail = format!("COPY {}, line {number}", table.name);
            if error.detail.is_none() {
                error.with_detail(detail)
            } else {
                error
            }
        };
        let fields = if copy.csv {
            csv_fields(line, copy)
        } else {
            text_fields(line, copy)
        }
        .map_err(in_copy)?;
        if fields.len() < copy.columns.len() {
            let missing = &table.columns[copy.columns[fields.len()]].name;
            return Err(in_copy(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                format!("missing data for column \"{missing}\""),
            )));
        }
        if fields.len() > copy.columns.len() {
            return Err(in_copy(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                "extra data after last expected column",
            )));
        }
        let mut row: Vec<Option<Datum>> = vec![None; table.columns.len()];
        for (field, position) in fields.into_iter().zip(&copy.columns) {
            let column = &table.columns[*position];
            row[*position] = Some(match field {
                None => Datum::Null,
                Some(text) => Datum::from_text(&column.sql_type, &text).map_err(in_copy)?,
            });
        }
        let mut complete = Vec::with_capacity(row.len());
        for (column, value) in table.columns.iter().zip(row) {
            complete.push(match (value, &column.default) {
                (Some(value), _) => value,
                (None, Some(default)) => self
                    .evaluate_all(std::slice::from_ref(default), &[])?
                    .pop()
                    .unwrap_or(Datum::Null),
                (None, None) => Datum::Null,
            });
        }
        batch.bytes += line.len();
        let source = batch.rows;
        batch.rows += 1;
        self.place_row(
            location,
            RowWriteKind::Insert,
            source,
            &complete,
            &mut batch.writes,
        )
        .await
        .map_err(in_copy)
    }

    /// Runs COPY TO STDOUT and returns the number of rows.
    ///
    /// # Errors
    /// The query's.
    pub async fn copy_out(&mut self, copy: &Copy, types: &[SqlType], client: &mut dyn Client) -> Result<u64> {
        let Some(query) = &copy.query else {
            return Err(SqlError::internal("COPY TO without a query"));
        };
        let access = self.table_access(false).await?;
        let time = self.transaction.time_unix_micros;
        let mut batches = query.execute(self.parameters.clone(), access, time).await?;
        client.start_copy_out(types.len());
        let mut rows = 0;
        let mut line = BytesMut::new();
        while let Some(batch) = batches.next().await {
            for row in batch? {
                line.clear();
                for (position, (value, sql_type)) in row.iter().zip(types).enumerate() {
                    if position > 0 {
                        line.extend_from_slice(&[copy.delimiter]);
                    }
                    write_field(value, sql_type, copy, &mut line);
                }
                line.extend_from_slice(b"\n");
                client.send_copy_data(&line);
                rows += 1;
            }
            client.make_room().await?;
        }
        client.finish_copy_out();
        Ok(rows)
    }
}

#[derive(Default)]
struct Batch {
    writes: WritesByShard,
    rows: usize,
    bytes: usize,
}

/// Cuts the data stream into lines; chunks end anywhere. In CSV a quoted field may hold line ends.
struct LineSplitter {
    buffer: BytesMut,
    scanned: usize,
    csv: bool,
    in_quotes: bool,
}

impl LineSplitter {
    fn new(csv: bool) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            csv,
            in_quotes: false,
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<()> {
        if self.buffer.len() + data.len() > MAX_LINE_BYTES {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "COPY line is too long",
            ));
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn next_line(&mut self) -> Option<Bytes> {
        while self.scanned < self.buffer.len() {
            let byte = self.buffer[self.scanned];
            if self.csv && byte == b'"' {
                self.in_quotes = !self.in_quotes;
            } else if byte == b'\n' && !self.in_quotes {
                let mut line = self.buffer.split_to(self.scanned + 1);
                self.scanned = 0;
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Some(line.freeze());
            }
            self.scanned += 1;
        }
        None
    }

    /// A last line without line end.
    fn finish(mut self) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| {
        SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\"",
        )
    })
}

/// Fields of a text-format line; `None` is NULL.
fn text_fields(line: &[u8], copy: &Copy) -> Result<Vec<Option<String>>> {
    split_unescaped(line, copy.delimiter)
        .into_iter()
        .map(|raw| {
            if raw == copy.null.as_bytes() {
                Ok(None)
            } else {
                unescape(raw).and_then(utf8).map(Some)
            }
        })
        .collect()
}

/// Splits at delimiters that no backslash precedes.
fn split_unescaped(line: &[u8], delimiter: u8) -> Vec<&[u8]> {
    let mut fields = Vec::new();
    let (mut start, mut position) = (0, 0);
    while position < line.len() {
        match line[position] {
            b'\\' => position += 2,
            byte if byte == delimiter => {
                fields.push(&line[start..position]);
                position += 1;
                start = position;
            }
            _ => position += 1,
        }
    }
    fields.push(&line[start..]);
    fields
}

fn unescape(raw: &[u8]) -> Result<Vec<u8>> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => value.push(8),
            Some(b'f') => value.push(12),
            Some(b'n') => value.push(b'\n'),
            Some(b'r') => value.push(b'\r'),
            Some(b't') => value.push(b'\t'),
            Some(b'v') => value.push(11),
            Some(digit @ b'0'..=b'7') => {
                let mut code = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(next) = bytes.next_if(|next| (b'0'..=b'7').contains(next)) else {
                        break;
                    };
                    code = code * 8 + u32::from(next - b'0');
                }
                value.push(code as u8);
            }
            Some(b'x') => {
                let mut code = None;
                for _ in 0..2 {
                    let Some(next) = bytes.next_if(u8::is_ascii_hexdigit) else {
                        break;
                    };
                    let digit = char::from(next).to_digit(16).unwrap_or(0);
                    code = Some(code.unwrap_or(0) * 16 + digit);
                }
                value.push(code.map_or(b'x', |code| code as u8));
            }
            Some(other) => value.push(other),
            None => value.push(b'\\'),
        }
    }
    Ok(value)
}

/// Fields of a CSV line. NULL is an unquoted field equal to the NULL string.
fn csv_fields(line: &[u8], copy: &Copy) -> Result<Vec<Option<String>>> {
    let mut fields = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    loop {
        let mut value = Vec::new();
        let (mut quoted, mut in_quotes, mut more) = (false, false, false);
        while let Some(byte) = bytes.next() {
            if in_quotes {
                if byte != b'"' {
                    value.push(byte);
                } else if bytes.next_if_eq(&b'"').is_some() {
                    value.push(b'"');
                } else {
                    in_quotes = false;
                }
            } else if byte == b'"' {
                (quoted, in_quotes) = (true, true);
            } else if byte == copy.delimiter {
                more = true;
                break;
            } else {
                value.push(byte);
            }
        }
        if in_quotes {
            return Err(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                "unterminated CSV quoted field",
            ));
        }
        fields.push(if !quoted && value == copy.null.as_bytes() {
            None
        } else {
            Some(utf8(value)?)
        });
        if !more {
            return Ok(fields);
        }
    }
}

fn write_field(value: &Datum, sql_type: &SqlType, copy: &Copy, line: &mut BytesMut) {
    if value.is_null() {
        line.extend_from_slice(copy.null.as_bytes());
        return;
    }
    let mut text = BytesMut::new();
    value.write_text(sql_type, &mut text);
    if copy.csv {
        let special = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r') || *byte == copy.delimiter;
        if text == copy.null.as_bytes() || text.iter().any(special) {
            line.extend_from_slice(b"\"");
            for byte in &text[..] {
                if *byte == b'"' {
                    line.extend_from_slice(b"\"");
                }
                line.extend_from_slice(&[*byte]);
            }
            line.extend_from_slice(b"\"");
        } else {
            line.extend_from_slice(&text);
        }
        return;
    }
    for byte in &text[..] {
        let escape = match byte {
            b'\\' => b'\\',
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            other if *other == copy.delimiter => *other,
            _ => {
                line.extend_from_slice(&[*byte]);
                continue;
            }
        };
        line.extend_from_slice(&[b'\\', escape]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(csv: bool) -> Copy {
        Copy {
            table: None,
            columns: vec![],
            query: None,
            csv,
            header: false,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_owned() },
        }
    }

    #[test]
    fn text_lines_come_apart_as_postgresql_takes_them() {
        let fields = text_fields(b"1\t\\N\ta\\tb\\\\\t\\x41\\101\t", &options(false)).unwrap();
        let expected = [Some("1"), None, Some("a\tb\\"), Some("AA"), Some("")];
        assert_eq!(fields, expected.map(|field| field.map(str::to_owned)));
    }

    #[test]
    fn csv_lines_come_apart_as_postgresql_takes_them() {
        let fields = csv_fields(b"1,,\"\",\"a,\"\"b\"", &options(true)).unwrap();
        let expected = [Some("1"), None, Some(""), Some("a,\"b")];
        assert_eq!(fields, expected.map(|field| field.map(str::to_owned)));
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let data = b"a\"\n\"b\r\nc\nd";
        for cut in 0..data.len() {
            let mut lines = LineSplitter::new(true);
            let mut found = Vec::new();
            for part in [&data[..cut], &data[cut..]] {
                lines.push(part).unwrap();
                while let Some(line) = lines.next_line() {
                    found.push(line);
                }
            }
            found.extend(lines.finish());
            assert_eq!(found, [&b"a\"\n\"b"[..], b"c", b"d"]);
        }
    }
}
