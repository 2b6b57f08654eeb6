//! UPDATE and DELETE.

use std::sync::Arc;

use neorunbase_catalog::Table;
use neorunbase_expression::{ColumnId, Expression, WriteProgram};
use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{
    self, AssignmentTarget, Expr, FromTable, SelectItem, TableFactor, TableWithJoins, UpdateTableFromKind,
};

use super::expression::unnest;
use super::program::ProgramBuilder;
use super::{Binder, Bound, detect_access_path};
use crate::plan::{Modify, Plan, ResultColumn};
use crate::query::ModifyQuery;

/// What UPDATE and DELETE have in common.
pub(super) struct Modification<'a> {
    pub(super) table: Arc<Table>,
    pub(super) alias: Option<&'a ast::TableAlias>,
    /// FROM or USING.
    pub(super) others: &'a [TableWithJoins],
    /// Positions in `table.columns` and values; empty for DELETE.
    pub(super) assignments: Vec<(usize, &'a Expr)>,
    pub(super) selection: Option<&'a Expr>,
    pub(super) returning: Option<&'a [SelectItem]>,
    pub(super) delete: bool,
}

impl Binder<'_> {
    pub(super) fn bind_update(&mut self, update: &ast::Update) -> Result<Bound> {
        if update.or.is_some() || update.limit.is_some() || !update.table.joins.is_empty() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in UPDATE"));
        }
        let (table, alias) = self.modified_table(&update.table.relation)?;
        let others = match &update.from {
            Some(UpdateTableFromKind::AfterSet(from)) => from.as_slice(),
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "syntax error at or near \"FROM\"",
                ));
            }
            None => &[],
        };
        let mut assignments: Vec<(usize, &Expr)> = Vec::new();
        for assignment in &update.assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    self.add_assignment(&table, name, &assignment.value, &mut assignments)?;
                }
                AssignmentTarget::Tuple(names) => {
                    let values = match unnest(&assignment.value) {
                        Expr::Tuple(values) => values.as_slice(),
                        Expr::Subquery(_) => {
                            return Err(
                                SqlError::unsupported("assignment of a subquery to several columns")
                                    .with_hint("Assign each column from a subquery of its own, or use FROM."),
                            );
                        }
                        single => std::slice::from_ref(single),
                    };
                    if values.len() != names.len() {
                        return Err(SqlError::new(
                            SqlState::SYNTAX_ERROR,
                            "number of columns does not match number of values",
                        ));
                    }
                    for (name, value) in names.iter().zip(values) {
                        self.add_assignment(&table, name, value, &mut assignments)?;
                    }
                }
            }
        }
        self.bind_modification(&Modification {
            table,
            alias,
            others,
            assignments,
            selection: update.selection.as_ref(),
            returning: update.returning.as_deref(),
            delete: false,
        })
    }

    fn add_assignment<'e>(
        &self,
        table: &Table,
        name: &ast::ObjectName,
        value: &'e Expr,
        assignments: &mut Vec<(usize, &'e Expr)>,
    ) -> Result<()> {
        let idents = super::names::parts(name)?;
        let [ident] = idents.as_slice() else {
            return Err(SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!(
                    "column \"{}\" of relation \"{}\" does not exist",
                    idents.first().map_or("", |ident| ident.value.as_str()),
                    table.name
                ),
            ));
        };
        let position = self.target_column(table, ident)?;
        if assignments.iter().any(|(known, _)| *known == position) {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{}\"", ident.value),
            ));
        }
        assignments.push((position, value));
        Ok(())
    }

    pub(super) fn bind_delete(&mut self, delete: &ast::Delete) -> Result<Bound> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [target] = from.as_slice() else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in DELETE"));
        };
        let odd = !delete.tables.is_empty() || !delete.order_by.is_empty() || delete.limit.is_some();
        if odd || !target.joins.is_empty() || matches!(delete.from, FromTable::WithoutKeyword(_)) {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in DELETE"));
        }
        let (table, alias) = self.modified_table(&target.relation)?;
        self.bind_modification(&Modification {
            table,
            alias,
            others: delete.using.as_deref().unwrap_or_default(),
            assignments: Vec::new(),
            selection: delete.selection.as_ref(),
            returning: delete.returning.as_deref(),
            delete: true,
        })
    }

    fn modified_table<'e>(
        &self,
        relation: &'e TableFactor,
    ) -> Result<(Arc<Table>, Option<&'e ast::TableAlias>)> {
        match relation {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => Ok((self.find_table(name)?, alias.as_ref())),
            _ => Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "syntax error: a table is expected",
            )),
        }
    }

    fn bind_modification(&mut self, modification: &Modification<'_>) -> Result<Bound> {
        let table = &modification.table;
        if modification.others.is_empty() && !assigns_key(table, &modification.assignments) {
            let parameters = self.parameter_types.clone();
            if let Some(bound) = self.bind_direct_modification(modification)? {
                return Ok(bound);
            }
            self.parameter_types = parameters;
            self.scopes.clear();
            self.slots = super::Slots::default();
        }
        self.bind_modification_by_query(modification)
    }

    /// For the Data Nodes to evaluate; `None` if they cannot (subqueries).
    fn bind_direct_modification(&mut self, modification: &Modification<'_>) -> Result<Option<Bound>> {
        let table = &modification.table;
        self.enter_table(table, modification.alias)?;
        let filter = self.bind_where(modification.selection)?;
        let values = self.bind_assignments(modification)?;
        let (returning, columns) = self.bind_returning_in_scope(modification.returning)?;
        let mut builder = ProgramBuilder::new(table);
        let filter = match filter {
            Some(filter) => match builder.localize(filter, &self.slots) {
                Some(filter) => Some(filter),
                None => return Ok(None),
            },
            None => None,
        };
        let mut assignments: Vec<(ColumnId, Expression)> = Vec::with_capacity(values.len());
        for ((position, _), value) in modification.assignments.iter().zip(values) {
            match builder.localize(value, &self.slots) {
                Some(value) => assignments.push((table.columns[*position].id, value)),
                None => return Ok(None),
            }
        }
        let has_returning = modification.returning.is_some();
        let returning = builder.localize_all(returning, &self.slots)?;
        let mut may_violate = modification
            .assignments
            .iter()
            .map(|(position, _)| &table.columns[*position]);
        let not_null = may_violate
            .any(|column| column.not_null)
            .then(|| builder.not_null_check());
        let inputs = builder.inputs;
        let path = detect_access_path(table, filter.as_ref(), &|index| {
            inputs.get(index).map(|input| input.column)
        });
        let program = Arc::new(WriteProgram {
            inputs,
            filter,
            assignments,
            not_null,
            returning,
        });
        let plan = Plan::Modify(Arc::new(Modify {
            table: table.clone(),
            path,
            program,
            delete: modification.delete,
            returning: has_returning,
        }));
        Ok(Some(Bound {
            plan,
            columns,
            read_only: false,
        }))
    }

    /// The WHERE clause over the innermost scope.
    pub(crate) fn bind_where(&mut self, selection: Option<&Expr>) -> Result<Option<Expression>> {
        let Some(selection) = selection else {
            return Ok(None);
        };
        let filter = self.without_aggregates("WHERE", |binder| binder.bind_condition(selection, "WHERE"))?;
        Ok(Some(self.settle_parameters(filter)))
    }

    /// The new values, cast to their columns' types.
    fn bind_assignments(&mut self, modification: &Modification<'_>) -> Result<Vec<Expression>> {
        let values = self.without_aggregates("UPDATE", |binder| {
            modification
                .assignments
                .iter()
                .map(|(position, value)| binder.bind_value_for(value, &modification.table, *position))
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(values
            .into_iter()
            .map(|value| self.settle_parameters(value))
            .collect())
    }

    fn bind_returning_in_scope(
        &mut self,
        items: Option<&[SelectItem]>,
    ) -> Result<(Vec<Expression>, Option<Vec<ResultColumn>>)> {
        let Some(items) = items else {
            return Ok((Vec::new(), None));
        };
        let outputs = self.without_aggregates("RETURNING", |binder| binder.bind_outputs(items))?;
        let columns = self.result_columns(&outputs);
        let values = outputs
            .into_iter()
            .map(|output| self.settle_parameters(output.value))
            .collect();
        Ok((values, Some(columns)))
    }

    fn bind_modification_by_query(&mut self, modification: &Modification<'_>) -> Result<Bound> {
        let table = modification.table.clone();
        let target = self.table_relation(&table, modification.alias)?;
        let (returning, columns) = match modification.returning {
            Some(items) if modification.others.is_empty() => {
                let alias = modification.alias.map(|alias| &alias.name);
                let (values, columns) = self.bind_returning(items, &table, alias)?;
                (Some(values), Some(columns))
            }
            Some(_) => {
                return Err(SqlError::unsupported("RETURNING together with FROM or USING")
                    .with_hint("Read the rows with a SELECT in the same transaction."));
            }
            None => (None, None),
        };
        let delete = modification.delete;
        let query = self.plan_modification(
            ModifyQuery {
                table: &table,
                target,
                others: modification.others,
            },
            modification.selection,
            |binder| {
                if delete {
                    Ok(None)
                } else {
                    binder.bind_assignments(modification).map(Some)
                }
            },
            &modification
                .assignments
                .iter()
                .map(|(position, _)| *position)
                .collect::<Vec<_>>(),
        )?;
        let plan = Plan::ModifyByQuery(Arc::new(crate::plan::ModifyByQuery {
            table,
            query: Arc::new(query),
            delete,
            returning,
        }));
        Ok(Bound {
            plan,
            columns,
            read_only: false,
        })
    }
}

/// A row whose key changes moves: it is deleted here and inserted there.
fn assigns_key(table: &Table, assignments: &[(usize, &Expr)]) -> bool {
    let keys = table.key_columns();
    assignments.iter().any(|(position, _)| {
        let column = table.columns[*position].id;
        keys.contains(&column) || table.shard_key.contains(&column)
    })
}
