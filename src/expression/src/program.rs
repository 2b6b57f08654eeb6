//! What a Data Node is asked to compute: expressions with the columns that they read.

use bytes::BytesMut;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
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
    /// Columns that must not become NULL, if any are assigned.
    pub not_null: Option<NotNullCheck>,
    /// The result, over the new row: `inputs` with the assignments applied.
    pub returning: Vec<Expression>,
}

/// What an update must not do, and the names to say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotNullCheck {
    /// The table's schema.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// All of its columns in order: where they are among the program's inputs.
    pub columns: Vec<CheckedColumn>,
}

/// A column of a checked table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedColumn {
    /// The input that reads it.
    pub input: usize,
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether NULL is refused.
    pub not_null: bool,
}

/// `23502` of a row that would have a NULL where none may be.
pub fn null_in_column<'a>(
    schema: &str,
    table: &str,
    column: &str,
    row: impl Iterator<Item = (&'a Datum, &'a SqlType)>,
) -> Box<SqlError> {
    let mut text = BytesMut::new();
    for (position, (value, sql_type)) in row.enumerate() {
        if position > 0 {
            text.extend_from_slice(b", ");
        }
        if value.is_null() {
            text.extend_from_slice(b"null");
        } else {
            value.write_text(sql_type, &mut text);
        }
    }
    SqlError::new(
        SqlState::NOT_NULL_VIOLATION,
        format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"),
    )
    .with_detail(format!(
        "Failing row contains ({}).",
        String::from_utf8_lossy(&text)
    ))
    .about_column(schema, table, column)
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
            values.push((*column, expression.evaluate(context)?));
        }
        if let Some(check) = &self.not_null
            && values.iter().any(|(_, value)| value.is_null())
        {
            self.check_not_null(check, context.row, &values)?;
        }
        Ok(values)
    }

    fn check_not_null(
        &self,
        check: &NotNullCheck,
        row: &[Datum],
        assigned: &[(ColumnId, Datum)],
    ) -> Result<()> {
        let mut row = row.to_vec();
        self.apply(&mut row, assigned);
        let value_of = |column: &CheckedColumn| row.get(column.input).unwrap_or(&Datum::Null);
        for column in check.columns.iter().filter(|column| column.not_null) {
            if value_of(column).is_null() {
                let row = check
                    .columns
                    .iter()
                    .map(|column| (value_of(column), &column.sql_type));
                return Err(null_in_column(&check.schema, &check.table, &column.name, row));
            }
        }
        Ok(())
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
