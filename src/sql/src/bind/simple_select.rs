//! The hot path: `SELECT … FROM one_table WHERE …`, answered by the Data Nodes without a planner.

use std::sync::Arc;

use neorunbase_expression::{Expression, ScanProgram, coerce};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{
    self, Distinct, GroupByExpr, LimitClause, Query, Select, SelectItem, SetExpr, TableFactor,
};

use super::function::coerce_unknown_to_text;
use super::program::ProgramBuilder;
use super::slots::Slots;
use super::{Binder, Bound, column_name, detect_access_path};
use crate::access::{AccessPath, RowLocking};
use crate::plan::{Plan, ResultColumn, SimpleSelect};

/// An output column while it is being bound.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) value: Expression,
}

impl Binder<'_> {
    /// Binds a query that is a statement of its own.
    pub(crate) fn bind_query_statement(&mut self, query: &Query) -> Result<Bound> {
        if let Some(select) = plain_select(query) {
            // What turns out not to be simple is bound again from the start.
            let parameters = self.parameter_types.clone();
            if select.from.is_empty() {
                if let Some(bound) = self.bind_select_without_from(query, select)? {
                    return Ok(bound);
                }
            } else if let Some(bound) = self.bind_simple_select(query, select)? {
                return Ok(bound);
            }
            self.parameter_types = parameters;
            self.scopes.clear();
            self.slots = Slots::default();
        }
        self.bind_full_query(query)
    }

    /// `SELECT 1, version()`
    fn bind_select_without_from(&mut self, query: &Query, select: &Select) -> Result<Option<Bound>> {
        if select.selection.is_some()
            || query.order_by.is_some()
            || query.limit_clause.is_some()
            || has_subquery(select)
        {
            return Ok(None);
        }
        self.forbidden_in = None;
        let outputs = self.bind_outputs(&select.projection)?;
        if outputs.iter().any(|output| !output.value.is_row_independent()) {
            return Ok(None);
        }
        let columns = self.result_columns(&outputs);
        let row = outputs
            .into_iter()
            .map(|output| self.settle_parameters(output.value))
            .collect();
        Ok(Some(Bound {
            plan: Plan::Values(vec![row]),
            columns: Some(columns),
            read_only: true,
        }))
    }

    fn bind_simple_select(&mut self, query: &Query, select: &Select) -> Result<Option<Bound>> {
        let [from] = select.from.as_slice() else {
            return Ok(None);
        };
        let TableFactor::Table {
            name,
            alias,
            args: None,
            version: None,
            sample: None,
            with_ordinality: false,
            ..
        } = &from.relation
        else {
            return Ok(None);
        };
        if !from.joins.is_empty() || has_subquery(select) {
            return Ok(None);
        }
        let Some(table) = self.lookup_table(name)?.cloned() else {
            return Ok(None);
        };
        let Some(locking) = bind_locking(
            query,
            alias.as_ref().map_or(&table.name, |alias| &alias.name.value),
        )?
        else {
            return Ok(None);
        };
        self.enter_table(&table, alias.as_ref())?;
        let filter = match &select.selection {
            Some(selection) => {
                Some(self.without_aggregates("WHERE", |binder| binder.bind_condition(selection, "WHERE"))?)
            }
            None => None,
        };
        self.forbidden_in = None;
        let outputs = self.bind_outputs(&select.projection)?;
        let limit = match self.bind_simple_limit(query)? {
            Some(limit) => limit,
            None => return Ok(None),
        };
        let columns = self.result_columns(&outputs);
        let mut builder = ProgramBuilder::new(&table);
        let filter = match filter.map(|filter| self.settle_parameters(filter)) {
            Some(filter) => match builder.localize(filter, &self.slots) {
                Some(filter) => Some(filter),
                None => return Ok(None),
            },
            None => None,
        };
        let mut output = Vec::with_capacity(outputs.len());
        for column in outputs {
            match builder.localize(self.settle_parameters(column.value), &self.slots) {
                Some(value) => output.push(value),
                None => return Ok(None),
            }
        }
        let inputs = builder.inputs;
        let path = detect_access_path(&table, filter.as_ref(), &|index| {
            inputs.get(index).map(|input| input.column)
        });
        if query.order_by.is_some() && !matches!(&path, AccessPath::Keys(keys) if keys.len() <= 1) {
            return Ok(None);
        }
        let program = Arc::new(ScanProgram {
            inputs,
            filter,
            output,
        });
        let read_only = locking.is_none();
        let plan = Plan::SimpleSelect(Arc::new(SimpleSelect {
            table,
            path,
            program,
            limit,
            locking,
        }));
        Ok(Some(Bound {
            plan,
            columns: Some(columns),
            read_only,
        }))
    }

    /// `Some(None)`: no limit; `None`: more than a simple limit.
    fn bind_simple_limit(&mut self, query: &Query) -> Result<Option<Option<Expression>>> {
        let limit = match (&query.limit_clause, &query.fetch) {
            (None, None) => return Ok(Some(None)),
            (
                Some(LimitClause::LimitOffset {
                    limit: Some(limit),
                    offset: None,
                    limit_by,
                }),
                None,
            ) if limit_by.is_empty() => limit,
            _ => return Ok(None),
        };
        let limit = self.bind_limit(limit, "LIMIT")?;
        Ok(Some(Some(limit)))
    }

    /// The argument of LIMIT or OFFSET: a `bigint` that does not depend on any row.
    pub(crate) fn bind_limit(&mut self, limit: &ast::Expr, clause: &'static str) -> Result<Expression> {
        let scopes = std::mem::take(&mut self.scopes);
        let bound = self.without_aggregates(clause, |binder| binder.bind_expression(limit));
        self.scopes = scopes;
        let bound = bound.map_err(|mut error| {
            if error.state == SqlState::UNDEFINED_COLUMN {
                error.message = format!("argument of {clause} must not contain variables");
                error.state = SqlState("42P10");
            }
            error
        })?;
        let found = bound.sql_type();
        let limit = coerce(bound, &SqlType::BigInt, CastContext::Assignment).map_err(|error| {
            if found == SqlType::Unknown {
                return error;
            }
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "argument of {clause} must be type bigint, not type {}",
                    found.base_name()
                ),
            )
        })?;
        self.learn_parameters(&limit)?;
        if let Expression::Literal {
            value: neorunbase_types::Datum::BigInt(..=-1),
            ..
        } = &limit
        {
            let state = if clause == "LIMIT" {
                SqlState("2201W")
            } else {
                SqlState("2201X")
            };
            return Err(SqlError::new(state, format!("{clause} must not be negative")));
        }
        Ok(limit)
    }

    /// The select list over the innermost scope.
    pub(crate) fn bind_outputs(&mut self, items: &[SelectItem]) -> Result<Vec<Output>> {
        let mut outputs = self.bind_untyped_outputs(items)?;
        for output in &mut outputs {
            let untyped = std::mem::replace(&mut output.value, Expression::null(SqlType::Unknown));
            output.value = coerce_unknown_to_text(untyped)?;
            self.learn_parameters(&output.value)?;
        }
        Ok(outputs)
    }

    /// As [`bind_outputs`](Self::bind_outputs), but leaves literals untyped.
    pub(crate) fn bind_untyped_outputs(&mut self, items: &[SelectItem]) -> Result<Vec<Output>> {
        let mut outputs = Vec::with_capacity(items.len());
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expression) => {
                    let value = self.bind_expression(expression)?;
                    outputs.push(Output {
                        name: column_name(expression),
                        value,
                    });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let value = self.bind_expression(expr)?;
                    outputs.push(Output {
                        name: alias.value.clone(),
                        value,
                    });
                }
                SelectItem::Wildcard(_) => {
                    let scope = self
                        .scopes
                        .last()
                        .filter(|scope| !scope.relations.is_empty())
                        .ok_or_else(|| {
                            SqlError::new(
                                SqlState::SYNTAX_ERROR,
                                "SELECT * with no tables specified is not valid",
                            )
                        })?;
                    outputs.extend(scope.star.iter().map(|column| Output {
                        name: column.name.clone(),
                        value: column.value.clone(),
                    }));
                }
                SelectItem::QualifiedWildcard(kind, _) => {
                    let ast::SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
                        return Err(SqlError::unsupported("the fields of an expression"));
                    };
                    let (schema, relation) = super::split_name(name)?;
                    let found = self
                        .scopes
                        .iter()
                        .rev()
                        .find_map(|scope| scope.relation(schema.as_deref(), &relation).transpose());
                    let found = match found {
                        Some(found) => found?,
                        None => return Err(super::scope::missing_relation(&self.scopes, &relation)),
                    };
                    outputs.extend(found.columns.iter().map(|column| Output {
                        name: column.name.clone(),
                        value: column.value.clone(),
                    }));
                }
            }
        }
        Ok(outputs)
    }

    /// How the outputs are described to the client.
    pub(crate) fn result_columns(&self, outputs: &[Output]) -> Vec<ResultColumn> {
        outputs
            .iter()
            .map(|output| {
                let origin = match &output.value {
                    Expression::Input { index, .. } => {
                        self.slots.column(*index).and_then(|column| column.origin)
                    }
                    _ => None,
                };
                let origin = origin
                    .and_then(|(table, column)| Some((table, i16::try_from(column).ok()?)))
                    .unwrap_or((0, 0));
                ResultColumn {
                    name: output.name.clone(),
                    sql_type: output.value.sql_type(),
                    origin,
                }
            })
            .collect()
    }
}

/// The SELECT of a query that is nothing but one, without grouping and the like.
fn plain_select(query: &Query) -> Option<&Select> {
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, modifiers) => !keys.is_empty() || !modifiers.is_empty(),
    };
    let distinct = matches!(&select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
    let plain = query.with.is_none()
        && !grouped
        && !distinct
        && select.having.is_none()
        && select.into.is_none()
        && select.named_window.is_empty()
        && select.qualify.is_none();
    plain.then_some(select)
}

/// Whether there is a query inside: cheaper to know before anything is bound.
fn has_subquery(select: &Select) -> bool {
    use std::ops::ControlFlow;
    let visited = sqlparser::ast::visit_expressions(select, |expression: &ast::Expr| match expression {
        ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}

/// `FOR UPDATE` and friends: `Some(None)` without; `None` if it names no table that is known here.
pub(crate) fn bind_locking(query: &Query, table: &str) -> Result<Option<Option<RowLocking>>> {
    let mut locking: Option<RowLocking> = None;
    for clause in &query.locks {
        if let Some(of) = &clause.of {
            let (_, named) = super::split_name(of)?;
            if named != table {
                return Ok(None);
            }
        }
        // Of several clauses for one table the strictest counts.
        let new = row_locking(clause);
        let merged = locking.get_or_insert(new);
        merged.exclusive |= new.exclusive;
        merged.no_wait |= new.no_wait;
        merged.skip_locked = (merged.skip_locked || new.skip_locked) && !merged.no_wait;
    }
    Ok(Some(locking))
}

/// What one locking clause asks for.
pub(crate) fn row_locking(clause: &ast::LockClause) -> RowLocking {
    RowLocking {
        exclusive: clause.lock_type == ast::LockType::Update,
        no_wait: clause.nonblock == Some(ast::NonBlock::Nowait),
        skip_locked: clause.nonblock == Some(ast::NonBlock::SkipLocked),
    }
}
