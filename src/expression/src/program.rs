//! What a Data Node is asked to compute: expressions with the columns that they read.

use neorunbase_types::{Datum, Result, SqlError, SqlState};
use serde::{Deserialize, Serialize};

use crate::{ColumnId, EvaluationContext, Expression};

/// A column that a program reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputColumn {
    /// Which.
    pub column: ColumnId,
    /// The value of rows that were written before the column existed.
    pub missing: Datum,
}

/// A scan: decode the inputs, keep the rows that pass the filter, compute the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanProgram {
    /// Columns to decode; `Input` indexes count in these.
    pub inputs: Vec<InputColumn>,
    /// Rows for which this is not true are dropped.
    pub filter: Option<Expression>,
    /// The columns of the result.
    pub output: Vec<Expression>,
}

/// An update or (without assignments) a delete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteProgram {
    /// Columns to decode; `Input` indexes count in these.
    pub inputs: Vec<InputColumn>,
    /// Rows for which this is not true are left alone.
    pub filter: Option<Expression>,
    /// New values, computed from the old row.
    pub assignments: Vec<(ColumnId, Expression)>,
    /// Columns that must not become NULL, with their names and their tables' for the error.
    pub not_null: Vec<(ColumnId, String, String)>,
    /// The result, over the new row: `inputs` with the assignments applied.
    pub returning: Vec<Expression>,
}

fn malformed(error: &postcard::Error) -> Box<SqlError> {
    SqlError::new(
        SqlState::PROTOCOL_VIOLATION,
        format!("malformed program: {error}"),
    )
}

fn encode<T: Serialize>(program: &T) -> Vec<u8> {
    postcard::to_stdvec(program).expect("programs are made of plain data, and memory is the only sink")
}

fn decode<'bytes, T: Deserialize<'bytes>>(bytes: &'bytes [u8]) -> Result<T> {
    let (program, rest) = postcard::take_from_bytes(bytes).map_err(|error| malformed(&error))?;
    if rest.is_empty() {
        return Ok(program);
    }
    Err(SqlError::new(
        SqlState::PROTOCOL_VIOLATION,
        "malformed program: trailing bytes",
    ))
}

fn check_inputs<'program>(
    inputs: &[InputColumn],
    expressions: impl Iterator<Item = &'program Expression>,
) -> Result<()> {
    for expression in expressions {
        if expression
            .inputs()
            .last()
            .is_some_and(|&last| last >= inputs.len())
        {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "malformed program: an input is not among those decoded",
            ));
        }
    }
    Ok(())
}

impl ScanProgram {
    /// The bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote; safe on hostile bytes.
    ///
    /// # Errors
    /// `08P01` if the bytes are not a program.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let program: Self = decode(bytes)?;
        check_inputs(&program.inputs, program.filter.iter().chain(&program.output))?;
        Ok(program)
    }

    /// Whether a row passes the filter.
    ///
    /// # Errors
    /// Whatever the filter's evaluation reports.
    pub fn accepts(&self, context: &EvaluationContext<'_>) -> Result<bool> {
        self.filter
            .as_ref()
            .map_or(Ok(true), |filter| filter.evaluate_filter(context))
    }

    /// Computes the output row.
    ///
    /// # Errors
    /// Whatever the evaluation reports.
    pub fn project(&self, context: &EvaluationContext<'_>) -> Result<Vec<Datum>> {
        self.output
            .iter()
            .map(|expression| expression.evaluate(context))
            .collect()
    }
}

impl WriteProgram {
    /// The bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote; safe on hostile bytes.
    ///
    /// # Errors
    /// `08P01` if the bytes are not a program.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let program: Self = decode(bytes)?;
        let assigned = program.assignments.iter().map(|(_, expression)| expression);
        check_inputs(
            &program.inputs,
            program.filter.iter().chain(assigned).chain(&program.returning),
        )?;
        Ok(program)
    }

    /// Whether a row passes the filter.
    ///
    /// # Errors
    /// Whatever the filter's evaluation reports.
    pub fn accepts(&self, context: &EvaluationContext<'_>) -> Result<bool> {
        self.filter
            .as_ref()
            .map_or(Ok(true), |filter| filter.evaluate_filter(context))
    }

    /// Computes the assigned values, in the order of the assignments, and checks the NOT NULL columns among them.
    ///
    /// # Errors
    /// `23502` for a NULL that must not be, or whatever the evaluation reports.
    pub fn assign(&self, context: &EvaluationContext<'_>) -> Result<Vec<(ColumnId, Datum)>> {
        let mut values = Vec::with_capacity(self.assignments.len());
        for (column, expression) in &self.assignments {
            let value = expression.evaluate(context)?;
            if value.is_null()
                && let Some((_, name, table)) = self.not_null.iter().find(|(guarded, _, _)| guarded == column)
            {
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{name}\" of relation \"{table}\" violates not-null constraint"
                    ),
                ));
            }
            values.push((*column, value));
        }
        Ok(values)
    }

    /// The new row in the order of `inputs`: the old one with the assigned values in place.
    pub fn apply(&self, row: &mut [Datum], assigned: &[(ColumnId, Datum)]) {
        for (input, slot) in self.inputs.iter().zip(row.iter_mut()) {
            if let Some((_, value)) = assigned.iter().find(|(column, _)| *column == input.column) {
                *slot = value.clone();
            }
        }
    }

    /// Computes RETURNING over the new row.
    ///
    /// # Errors
    /// Whatever the evaluation reports.
    pub fn return_row(&self, context: &EvaluationContext<'_>) -> Result<Vec<Datum>> {
        self.returning
            .iter()
            .map(|expression| expression.evaluate(context))
            .collect()
    }
}
