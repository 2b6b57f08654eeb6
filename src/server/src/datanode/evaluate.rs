//! Running programs over stored rows.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_expression::program::InputColumn;
use neorunbase_expression::{EvaluationContext, ScanProgram, WriteProgram};
use neorunbase_protocol::message::StatementContext;
use neorunbase_storage::row::{decode_columns, decode_tuple, encode_tuple, replace_columns};
use neorunbase_types::Datum;

use super::failure::Failure;

/// What a statement's expressions see besides the row.
pub(super) struct Surroundings {
    parameters: Vec<Datum>,
    transaction_time_unix_micros: i64,
}

impl Surroundings {
    pub(super) fn new(parameters: &[u8], context: &StatementContext) -> Result<Self, Failure> {
        let parameters = if parameters.is_empty() {
            Vec::new()
        } else {
            decode_tuple(parameters)?
        };
        Ok(Self {
            parameters,
            transaction_time_unix_micros: context.transaction_time_unix_micros,
        })
    }

    fn with_row<'a>(&'a self, row: &'a [Datum]) -> EvaluationContext<'a> {
        EvaluationContext {
            row,
            parameters: &self.parameters,
            statement_time_unix_micros: self.transaction_time_unix_micros,
        }
    }
}

fn decode_inputs(inputs: &[InputColumn], row: &[u8], into: &mut Vec<Datum>) -> Result<(), Failure> {
    into.clear();
    let wanted: Vec<(u32, &Datum)> = inputs
        .iter()
        .map(|input| (input.column, &input.missing))
        .collect();
    Ok(decode_columns(row, &wanted, into)?)
}

/// A scan program at work on one request.
pub(super) struct Scanner {
    program: Arc<ScanProgram>,
    surroundings: Surroundings,
    inputs: Vec<Datum>,
}

impl Scanner {
    pub(super) fn new(program: Arc<ScanProgram>, surroundings: Surroundings) -> Self {
        Self {
            program,
            surroundings,
            inputs: Vec::new(),
        }
    }

    /// Whether the row passes the filter.
    pub(super) fn accepts(&mut self, row: &[u8]) -> Result<bool, Failure> {
        decode_inputs(&self.program.inputs, row, &mut self.inputs)?;
        Ok(self.program.accepts(&self.surroundings.with_row(&self.inputs))?)
    }

    /// The encoded output for the row that was last accepted.
    pub(super) fn output(&self) -> Result<Bytes, Failure> {
        Ok(encode_tuple(
            &self.program.project(&self.surroundings.with_row(&self.inputs))?,
        ))
    }
}

/// A write program at work on one request.
pub(super) struct Modifier {
    program: Arc<WriteProgram>,
    surroundings: Surroundings,
    inputs: Vec<Datum>,
}

impl Modifier {
    pub(super) fn new(program: Arc<WriteProgram>, surroundings: Surroundings) -> Self {
        Self {
            program,
            surroundings,
            inputs: Vec::new(),
        }
    }

    /// Whether the row passes the filter.
    pub(super) fn accepts(&mut self, row: &[u8]) -> Result<bool, Failure> {
        decode_inputs(&self.program.inputs, row, &mut self.inputs)?;
        Ok(self.program.accepts(&self.surroundings.with_row(&self.inputs))?)
    }

    /// The new version of the row that was last accepted; RETURNING then sees the new values.
    pub(super) fn update(&mut self, row: &[u8]) -> Result<Bytes, Failure> {
        let assigned = self.program.assign(&self.surroundings.with_row(&self.inputs))?;
        self.program.apply(&mut self.inputs, &assigned);
        let assigned: Vec<(u32, &Datum)> = assigned.iter().map(|(column, value)| (*column, value)).collect();
        Ok(replace_columns(row, &assigned)?)
    }

    /// The encoded RETURNING row, if the statement returns any.
    pub(super) fn returned(&self) -> Result<Option<Bytes>, Failure> {
        if self.program.returning.is_empty() {
            return Ok(None);
        }
        Ok(Some(encode_tuple(
            &self
                .program
                .return_row(&self.surroundings.with_row(&self.inputs))?,
        )))
    }
}
