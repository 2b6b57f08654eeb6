//! Programs for Data Nodes: expressions over a table's columns.

use neorunbase_catalog::Table;
use neorunbase_catalog::schema::ROW_ID_COLUMN;
use neorunbase_expression::{CheckedColumn, ColumnId, Expression, InputColumn, NotNullCheck};
use neorunbase_types::{Datum, Result, SqlError};

use super::slots::Slots;

/// Collects the columns that a program reads.
pub(crate) struct ProgramBuilder<'a> {
    table: &'a Table,
    pub(crate) inputs: Vec<InputColumn>,
}

impl<'a> ProgramBuilder<'a> {
    pub(crate) fn new(table: &'a Table) -> Self {
        Self {
            table,
            inputs: Vec::new(),
        }
    }

    /// Where the column stands among the inputs.
    pub(crate) fn input(&mut self, column: ColumnId) -> usize {
        if let Some(index) = self.inputs.iter().position(|input| input.column == column) {
            return index;
        }
        let missing = self
            .table
            .column_by_id(column)
            .map_or(Datum::Null, |column| column.missing.clone());
        self.inputs.push(InputColumn { column, missing });
        self.inputs.len() - 1
    }

    /// The check of all the table's NOT NULL columns. Reads every column: the error shows the whole row.
    pub(crate) fn not_null_check(&mut self) -> NotNullCheck {
        let table = self.table;
        let columns = table.columns.iter().map(|column| CheckedColumn {
            input: self.input(column.id),
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            not_null: column.not_null,
        });
        NotNullCheck {
            columns: columns.collect(),
            schema: table.schema.clone(),
            table: table.name.clone(),
        }
    }

    /// Turns an expression over slots into one over the inputs. `None` if it needs more than the table's row.
    pub(crate) fn localize(&mut self, expression: Expression, slots: &Slots) -> Option<Expression> {
        let known = expression.inputs().iter().all(|slot| {
            slots
                .column(*slot)
                .and_then(|column| column.origin)
                .is_some_and(|(table, _)| table == self.table.id)
        });
        known.then(|| {
            expression.map_inputs(&mut |slot| {
                let column = slots
                    .column(slot)
                    .and_then(|column| column.origin)
                    .map_or(ROW_ID_COLUMN, |origin| origin.1);
                self.input(column)
            })
        })
    }

    /// As [`localize`](Self::localize), where anything else was ruled out before.
    pub(crate) fn localize_all(
        &mut self,
        expressions: Vec<Expression>,
        slots: &Slots,
    ) -> Result<Vec<Expression>> {
        expressions
            .into_iter()
            .map(|expression| {
                self.localize(expression, slots).ok_or_else(|| {
                    SqlError::unsupported("an aggregate, window function or subquery in this place")
                })
            })
            .collect()
    }
}
