//! INSERT.

use std::sync::Arc;

use neorunbase_catalog::Table;
use neorunbase_expression::{Expression, coerce_for_column};
use neorunbase_types::{Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{
    self, ConflictTarget, Expr, OnConflictAction, OnInsert, SelectItem, SetExpr, TableObject,
};

use super::slots::Slot;
use super::{Binder, Bound, Scope};
use crate::plan::{Insert, InsertSource, Plan, ResultColumn};

impl Binder<'_> {
    pub(super) fn bind_insert(&mut self, insert: &ast::Insert) -> Result<Bound> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into a function"));
        };
        if insert.replace_into || insert.or.is_some() || insert.overwrite || !insert.assignments.is_empty() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in INSERT"));
        }
        let table = self.find_table(name)?;
        let skip_conflicts = self.bind_on_conflict(insert.on.as_ref(), &table)?;
        let targets = self.target_columns(&table, &insert.columns)?;
        let named = !insert.columns.is_empty();
        let (source, width) = match &insert.source {
            None => (InsertSource::Values(vec![Vec::new()]), 0),
            Some(query) => self.bind_source(query, &table, &targets, named)?,
        };
        // Columns that the source does not give take their defaults.
        let row = table
            .columns
            .iter()
            .enumerate()
            .map(
                |(position, column)| match targets[..width].iter().position(|target| *target == position) {
                    Some(index) => Expression::input(index, column.sql_type.clone()),
                    None => default_of(column),
                },
            )
            .collect();
        let alias = insert.table_alias.as_ref();
        let (returning, columns) = match &insert.returning {
            Some(items) => {
                let (values, columns) = self.bind_returning(items, &table, alias)?;
                (Some(values), Some(columns))
            }
            None => (None, None),
        };
        let plan = Plan::Insert(Arc::new(Insert {
            table,
            row,
            source,
            skip_conflicts,
            returning,
        }));
        Ok(Bound {
            plan,
            columns,
            read_only: false,
        })
    }

    /// Positions in `table.columns` of the columns that values are given for.
    pub(super) fn target_columns(&self, table: &Table, columns: &[ast::Ident]) -> Result<Vec<usize>> {
        if columns.is_empty() {
            return Ok((0..table.columns.len()).collect());
        }
        let mut targets = Vec::with_capacity(columns.len());
        for column in columns {
            let position = self.target_column(table, column)?;
            if targets.contains(&position) {
                let error = SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", column.value),
                );
                return Err(self.at(error, Some(column.span)));
            }
            targets.push(position);
        }
        Ok(targets)
    }

    /// The source and how many columns it gives.
    fn bind_source(
        &mut self,
        query: &ast::Query,
        table: &Table,
        targets: &[usize],
        named: bool,
    ) -> Result<(InsertSource, usize)> {
        let plain = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none();
        if let SetExpr::Values(values) = &*query.body
            && plain
        {
            let width = values.rows.first().map_or(0, Vec::len);
            check_width(width, targets.len(), named)?;
            let slots_before = self.slots.len();
            let mut rows = Vec::with_capacity(values.rows.len());
            for row in &values.rows {
                if row.len() != width {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "VALUES lists must all be the same length",
                    ));
                }
                let bound = self.without_aggregates("VALUES", |binder| {
                    row.iter()
                        .zip(targets)
                        .map(|(value, target)| binder.bind_value_for(value, table, *target))
                        .collect::<Result<Vec<_>>>()
                })?;
                rows.push(bound);
            }
            if self.slots.len() == slots_before {
                let rows = rows
                    .into_iter()
                    .map(|row| {
                        row.into_iter()
                            .map(|value| self.settle_parameters(value))
                            .collect()
                    })
                    .collect();
                return Ok((InsertSource::Values(rows), width));
            }
            // A subquery among the values: the rows come from a query of constants and joins.
            let (plan, casts) = self.plan_rows(
                rows,
                targets
                    .iter()
                    .map(|target| table.columns[*target].sql_type.clone())
                    .collect(),
            )?;
            return Ok((InsertSource::Query(Arc::new(plan), casts), width));
        }
        let wanted: Vec<SqlType> = targets
            .iter()
            .map(|target| table.columns[*target].sql_type.clone())
            .collect();
        let (plan, columns) = self.plan_query(query, Some(&wanted))?;
        check_width(columns.len(), targets.len(), named)?;
        let casts = columns
            .iter()
            .zip(targets)
            .enumerate()
            .map(|(index, (column, target))| {
                let target = &table.columns[*target];
                coerce_for_column(
                    Expression::input(index, column.sql_type.clone()),
                    &target.name,
                    &target.sql_type,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let width = columns.len();
        Ok((InsertSource::Query(Arc::new(plan), casts), width))
    }

    /// A value for a column: DEFAULT, or an expression cast to the column's type.
    pub(super) fn bind_value_for(
        &mut self,
        value: &Expr,
        table: &Table,
        target: usize,
    ) -> Result<Expression> {
        let column = &table.columns[target];
        if is_default(value) {
            return Ok(default_of(column));
        }
        let bound = self.bind_expression(value)?;
        let bound = coerce_for_column(bound, &column.name, &column.sql_type)?;
        self.learn_parameters(&bound)?;
        Ok(bound)
    }

    /// Whether conflicting rows are skipped.
    fn bind_on_conflict(&self, on: Option<&OnInsert>, table: &Table) -> Result<bool> {
        let conflict = match on {
            None => return Ok(false),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "syntax error at or near \"ON\"",
                ));
            }
        };
        if let OnConflictAction::DoUpdate(_) = conflict.action {
            return Err(SqlError::unsupported("ON CONFLICT DO UPDATE")
                .with_hint("UPDATE first and INSERT … ON CONFLICT DO NOTHING if no row was updated."));
        }
        let unmatched = || {
            SqlError::new(
                SqlState("42P10"),
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            )
        };
        match &conflict.conflict_target {
            None => {}
            Some(ConflictTarget::Columns(columns)) => {
                let mut named = Vec::with_capacity(columns.len());
                for column in columns {
                    named.push(table.columns[self.target_column(table, column)?].id);
                }
                named.sort_unstable();
                let primary = table.primary_key.as_ref().map(|key| key.columns.clone());
                let unique = table
                    .indexes
                    .iter()
                    .filter(|index| index.unique)
                    .map(|index| index.columns.iter().map(|(column, _)| *column).collect());
                let matches = primary.into_iter().chain(unique).any(|mut columns: Vec<u32>| {
                    columns.sort_unstable();
                    columns == named
                });
                if !matches {
                    return Err(unmatched());
                }
            }
            Some(ConflictTarget::OnConstraint(name)) => {
                let (_, name) = super::split_name(name)?;
                let primary = table.primary_key.as_ref().is_some_and(|key| key.name == name);
                if !primary
                    && !table
                        .indexes
                        .iter()
                        .any(|index| index.unique && index.name == name)
                {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!(
                            "constraint \"{name}\" for table \"{}\" does not exist",
                            table.name
                        ),
                    ));
                }
            }
        }
        Ok(true)
    }

    /// RETURNING of a statement whose rows are complete table rows: inputs are positions in `table.columns`.
    pub(super) fn bind_returning(
        &mut self,
        items: &[SelectItem],
        table: &Table,
        alias: Option<&ast::Ident>,
    ) -> Result<(Vec<Expression>, Vec<ResultColumn>)> {
        let scopes: Vec<Scope> = std::mem::take(&mut self.scopes);
        let alias = alias.map(|name| ast::TableAlias {
            explicit: true,
            name: name.clone(),
            columns: Vec::new(),
        });
        self.enter_table(table, alias.as_ref())?;
        let outputs = self.without_aggregates("RETURNING", |binder| binder.bind_outputs(items))?;
        let columns = self.result_columns(&outputs);
        self.scopes = scopes;
        let mut values = Vec::with_capacity(outputs.len());
        for output in outputs {
            let value = self.settle_parameters(output.value);
            let plain = value
                .inputs()
                .iter()
                .all(|slot| matches!(self.slots.get(*slot), Some(Slot::Column(_))));
            if !plain {
                return Err(SqlError::unsupported("a subquery in RETURNING"));
            }
            values.push(value.map_inputs(&mut |slot| {
                let column = self
                    .slots
                    .column(slot)
                    .and_then(|column| column.origin)
                    .map(|origin| origin.1);
                table
                    .columns
                    .iter()
                    .position(|candidate| Some(candidate.id) == column)
                    .unwrap_or(usize::MAX)
            }));
        }
        Ok((values, columns))
    }
}

/// `DEFAULT` as a value.
pub(super) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value == "default")
}

/// A column's default, or NULL.
pub(super) fn default_of(column: &neorunbase_catalog::Column) -> Expression {
    column
        .default
        .clone()
        .unwrap_or_else(|| Expression::null(column.sql_type.clone()))
}

fn check_width(found: usize, targets: usize, named: bool) -> Result<()> {
    if found > targets {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    if found < targets && named {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}
