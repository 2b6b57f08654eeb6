//! The extended query protocol: prepared statements, portals, and the messages that make and run them.

use std::collections::BTreeMap;
use std::sync::Arc;

use neorunbase_types::binary::validated_text;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use neorunbase_world::Clock;

use crate::connection::{Connection, Failure};
use crate::message::{self, Bind, FormatCodes, Parse, Target};
use crate::output::{self, ResultFormats};
use crate::session::{ExecuteOutcome, Portal, Prepared, TransactionStatus};
use crate::wire::Frame;

/// A portal and how its rows go out.
struct OpenPortal {
    portal: Portal,
    formats: ResultFormats,
    /// Ran to its end; running it again yields nothing.
    complete: bool,
}

/// The statements and portals of one connection. The unnamed ones are kept apart because nearly all traffic
/// goes through them.
#[derive(Default)]
pub(crate) struct ExtendedQuery {
    unnamed_statement: Option<Arc<Prepared>>,
    statements: BTreeMap<String, Arc<Prepared>>,
    unnamed_portal: Option<OpenPortal>,
    portals: BTreeMap<String, OpenPortal>,
}

impl ExtendedQuery {
    /// Drops the unnamed statement and portal, as a simple query does.
    pub(crate) fn forget_unnamed(&mut self) {
        self.unnamed_statement = None;
        self.unnamed_portal = None;
    }

    /// Drops all portals, as the end of a transaction does.
    pub(crate) fn forget_portals(&mut self) {
        self.unnamed_portal = None;
        self.portals.clear();
    }

    fn statement(&self, name: &str) -> Result<&Arc<Prepared>> {
        if name.is_empty() {
            self.unnamed_statement.as_ref().ok_or_else(|| {
                SqlError::new(
                    SqlState::INVALID_SQL_STATEMENT_NAME,
                    "unnamed prepared statement does not exist",
                )
            })
        } else {
            self.statements.get(name).ok_or_else(|| {
                SqlError::new(
                    SqlState::INVALID_SQL_STATEMENT_NAME,
                    format!("prepared statement \"{name}\" does not exist"),
                )
            })
        }
    }

    fn portal(&mut self, name: &str) -> Result<&mut OpenPortal> {
        let portal = if name.is_empty() {
            self.unnamed_portal.as_mut()
        } else {
            self.portals.get_mut(name)
        };
        portal.ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_CURSOR_NAME,
                format!("portal \"{name}\" does not exist"),
            )
        })
    }

    fn bind(&mut self, body: &[u8], clock: &dyn Clock) -> Result<()> {
        let mut bind = Bind::decode(body)?;
        let prepared = self.statement(bind.statement)?.clone();
        let (formats, count) = (bind.parameter_formats, bind.parameter_count);
        if formats.count() > 1 && formats.count() != count {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} parameter formats but {count} parameters",
                    formats.count()
                ),
            ));
        }
        if count != prepared.parameter_types.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {count} parameters, but prepared statement \"{}\" requires {}",
                    bind.statement,
                    prepared.parameter_types.len()
                ),
            ));
        }
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{}\" already exists", bind.portal),
            ));
        }

        let mut parameters = Vec::with_capacity(count);
        for (index, sql_type) in prepared.parameter_types.iter().enumerate() {
            let parameter = match bind.next_parameter()? {
                None => Datum::Null,
                Some(bytes) if formats.is_binary(index)? => Datum::from_binary(sql_type, bytes)?,
                Some(bytes) => text_parameter(sql_type, bytes, clock)?,
            };
            parameters.push(parameter);
        }
        let name = bind.portal;
        let formats = result_formats(bind.result_formats()?, &prepared)?;
        let portal = OpenPortal {
            portal: Portal {
                prepared,
                parameters,
                execution: None,
            },
            formats,
            complete: false,
        };
        if name.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            self.portals.insert(name.to_owned(), portal);
        }
        Ok(())
    }

    fn close(&mut self, target: Target<'_>) {
        match target {
            Target::Statement("") => self.unnamed_statement = None,
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal("") => self.unnamed_portal = None,
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
    }
}

/// Reads a parameter in text format. Only types that can say `now` make it look at the clock.
fn text_parameter(sql_type: &SqlType, bytes: &[u8], clock: &dyn Clock) -> Result<Datum> {
    let text = validated_text(bytes)?;
    match sql_type {
        SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
            Datum::from_text_at(sql_type, text, Some(clock.wall_clock_unix_micros()))
        }
        _ => Datum::from_text(sql_type, text),
    }
}

/// Checks a Bind's result formats against the statement's columns.
fn result_formats(codes: FormatCodes<'_>, prepared: &Prepared) -> Result<ResultFormats> {
    let columns = prepared.columns.as_ref().map_or(0, Vec::len);
    match codes.count() {
        0 => Ok(ResultFormats::Text),
        1 => Ok(if codes.is_binary(0)? {
            ResultFormats::Binary
        } else {
            ResultFormats::Text
        }),
        // A statement without a result has no use for them, and PostgreSQL does not mind.
        _ if prepared.columns.is_none() => Ok(ResultFormats::Text),
        count if count == columns => (0..count)
            .map(|index| codes.is_binary(index))
            .collect::<Result<_>>()
            .map(ResultFormats::Mixed),
        count => Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("bind message has {count} result formats but query has {columns} columns"),
        )),
    }
}

impl Connection {
    /// Answers Parse, Bind, Describe, Execute or Close.
    pub(crate) async fn extended_query(&mut self, frame: &Frame) -> Result<(), Failure> {
        match frame.tag {
            b'P' => self.parse(&frame.body).await?,
            b'B' => {
                self.extended.bind(&frame.body, self.wire.clock())?;
                output::empty_message(&mut self.wire.output, b'2');
            }
            b'D' => self.describe(message::decode_target(&frame.body, "DESCRIBE")?)?,
            b'E' => {
                let (portal, max_rows) = message::decode_execute(&frame.body)?;
                self.execute(portal, max_rows).await?;
            }
            _ => {
                self.extended.close(message::decode_target(&frame.body, "CLOSE")?);
                output::empty_message(&mut self.wire.output, b'3');
            }
        }
        Ok(())
    }

    async fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let parse = Parse::decode(body)?;
        if parse.name.is_empty() {
            self.extended.unnamed_statement = None;
        } else if self.extended.statements.contains_key(parse.name) {
            return Err(Failure::Protocol(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{}\" already exists", parse.name),
            )));
        }
        let prepared = self
            .session
            .prepare(parse.sql, &parse.parameter_oids)
            .await
            .map_err(Failure::Session)?;
        if parse.name.is_empty() {
            self.extended.unnamed_statement = Some(prepared);
        } else {
            self.extended.statements.insert(parse.name.to_owned(), prepared);
        }
        output::empty_message(&mut self.wire.output, b'1');
        Ok(())
    }

    fn describe(&mut self, target: Target<'_>) -> Result<()> {
        let output = &mut self.wire.output;
        let (prepared, formats) = match target {
            Target::Statement(name) => {
                let prepared = self.extended.statement(name)?;
                output::parameter_description(output, &prepared.parameter_types);
                (prepared, &ResultFormats::Text)
            }
            Target::Portal(name) => {
                let portal = self.extended.portal(name)?;
                (&portal.portal.prepared, &portal.formats)
            }
        };
        match &prepared.columns {
            Some(columns) => output::row_description(output, columns, formats),
            None => output::empty_message(output, b'n'),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Failure> {
        let open = self.extended.portal(name)?;
        if open.complete {
            if open.portal.prepared.columns.is_none() {
                return Err(Failure::Protocol(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )));
            }
            output::command_complete(&mut self.wire.output, "SELECT 0");
            return Ok(());
        }
        let before = self.session.transaction_status();
        self.wire.portal = Some((open.portal.prepared.clone(), open.formats.clone()));
        let executed = self
            .session
            .execute(&mut open.portal, max_rows, &mut self.wire)
            .await;
        self.wire.portal = None;
        if matches!(executed, Ok(ExecuteOutcome::Complete)) {
            open.complete = true;
            open.portal.execution = None;
        }
        self.after_session_call()?;
        if executed.map_err(Failure::Session)? == ExecuteOutcome::Suspended {
            output::empty_message(&mut self.wire.output, b's');
        }
        if before != TransactionStatus::Idle && self.session.transaction_status() == TransactionStatus::Idle {
            self.extended.forget_portals();
        }
        Ok(())
    }
}
