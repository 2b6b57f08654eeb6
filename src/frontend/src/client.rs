//! What a session sends through its connection while it runs a statement.

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};

use crate::message;
use crate::output::{self, ResultFormats, RowTooLarge};
use crate::session::{Client, ColumnDescription};
use crate::wire::{Ending, Wire};

impl Wire {
    /// Remembers why the connection ends, and tells the session as much as it needs to stop.
    fn lose(&mut self, ending: Ending) -> Box<SqlError> {
        self.copying_in = false;
        let error = match &ending {
            Ending::Gone(_) => SqlError::new(SqlState::CONNECTION_FAILURE, "connection to client lost"),
            Ending::Fatal(error) => error.clone(),
        };
        self.ending = Some(ending);
        error
    }
}

#[async_trait]
impl Client for Wire {
    fn row_description(&mut self, columns: &[ColumnDescription]) {
        if self.portal.is_some() {
            return;
        }
        self.simple_types.clear();
        self.simple_types
            .extend(columns.iter().map(|column| column.sql_type.clone()));
        output::row_description(&mut self.output, columns, &ResultFormats::Text);
    }

    fn row(&mut self, row: &[Datum]) {
        let Self {
            output,
            portal,
            simple_types,
            ..
        } = self;
        let written = match portal {
            Some((prepared, formats)) => {
                let columns = prepared.columns.as_deref().unwrap_or_default();
                let sql_type = |index: usize| {
                    columns
                        .get(index)
                        .map_or(&SqlType::Text, |column| &column.sql_type)
                };
                output::data_row(output, row, sql_type, formats)
            }
            None => {
                let sql_type = |index: usize| simple_types.get(index).unwrap_or(&SqlType::Text);
                output::data_row(output, row, sql_type, &ResultFormats::Text)
            }
        };
        if let Err(RowTooLarge) = written
            && self.ending.is_none()
        {
            // Leaving the row out would be a wrong result, and the call cannot fail: the connection ends.
            self.ending = Some(Ending::Fatal(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "a result row is larger than a message may be",
            )));
        }
    }

    fn command_complete(&mut self, tag: &str) {
        output::command_complete(&mut self.output, tag);
    }

    fn empty_query(&mut self) {
        output::empty_message(&mut self.output, b'I');
    }

    fn notice(&mut self, severity: &'static str, notice: &SqlError) {
        output::notice_response(&mut self.output, severity, notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        output::parameter_status(&mut self.output, name, value);
    }

    async fn make_room(&mut self) -> Result<()> {
        if let Some(Ending::Fatal(error)) = &self.ending {
            return Err(error.clone());
        }
        match self.flush_if_large().await {
            Ok(()) => Ok(()),
            Err(ending) => Err(self.lose(ending)),
        }
    }

    async fn start_copy_in(&mut self, columns: usize) -> Result<()> {
        output::copy_in_response(&mut self.output, columns);
        self.copying_in = true;
        match self.flush().await {
            Ok(()) => Ok(()),
            Err(ending) => Err(self.lose(ending)),
        }
    }

    async fn copy_data(&mut self) -> Result<Option<Bytes>> {
        while self.copying_in {
            let frame = match self.next_frame().await {
                Ok(frame) => frame,
                Err(ending) => return Err(self.lose(ending)),
            };
            match frame.tag {
                b'd' => return Ok(Some(frame.body.freeze())),
                b'c' => self.copying_in = false,
                b'f' => {
                    self.copying_in = false;
                    let reason = message::decode_string(&frame.body)?;
                    return Err(SqlError::new(
                        SqlState::QUERY_CANCELED,
                        format!("COPY from stdin failed: {reason}"),
                    ));
                }
                // Drivers that do not know a COPY when they send one end the batch before the data.
                b'H' | b'S' => {}
                b'X' => return Err(self.lose(Ending::Gone("terminated during COPY".to_owned()))),
                other => {
                    let error = SqlError::new(
                        SqlState::PROTOCOL_VIOLATION,
                        format!("unexpected message type 0x{other:02X} during COPY from stdin"),
                    );
                    return Err(self.lose(Ending::Fatal(error)));
                }
            }
        }
        Ok(None)
    }

    fn start_copy_out(&mut self, columns: usize) {
        output::copy_out_response(&mut self.output, columns);
    }

    fn send_copy_data(&mut self, data: &[u8]) {
        output::copy_data(&mut self.output, data);
    }

    fn finish_copy_out(&mut self) {
        output::empty_message(&mut self.output, b'c');
    }
}
