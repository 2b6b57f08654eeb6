//! Subqueries in expressions.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use neorunbase_expression::{Expression, coerce, resolve_operator};
use neorunbase_types::{CastContext, Datum, Result, SqlError, SqlState, SqlType};
use sqlparser::ast;

use super::aggregates::{AggregateFunction, aggregate_udf};
use super::functions::comparison_key;
use super::relation::{Relation, build, output_name};
use crate::bind::Binder;
use crate::bind::slots::{Slot, SlotId, SubqueryCall, SubqueryKind};

/// What the SELECT of a scalar subquery hands to the query around it.
#[derive(Debug, Default)]
pub(crate) struct ScalarParts {
    /// Conditions on outer columns alone: they decide about the whole subquery.
    pub(crate) conditions: Vec<Expression>,
    pub(crate) aggregates: Option<ScalarAggregates>,
}

/// A correlated SELECT of aggregates without GROUP BY.
#[derive(Debug)]
pub(crate) struct ScalarAggregates {
    /// Computes the aggregates.
    pub(crate) plan: LogicalPlan,
    /// The value over them.
    pub(crate) value: Expression,
    /// Their slots, and whether they are counts.
    pub(crate) results: Vec<(SlotId, bool)>,
}

impl Binder<'_> {
    /// `(SELECT …)` as a value.
    pub(crate) fn bind_scalar_subquery(&mut self, query: &ast::Query) -> Result<Expression> {
        let plain = query.with.is_none() && matches!(&*query.body, ast::SetExpr::Select(_));
        let before = std::mem::replace(&mut self.scalar, plain.then(ScalarParts::default));
        let bound = self.bind_query(query, None);
        let parts = std::mem::replace(&mut self.scalar, before).unwrap_or_default();
        let relation = bound?;
        let [column] = relation.columns.as_slice() else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            ));
        };
        let sql_type = column.sql_type.clone();
        let condition = Expression::conjunction(parts.conditions);
        if let Some(aggregates) = parts.aggregates {
            return self.scalar_of_aggregates(aggregates, condition.as_ref());
        }
        let value = self.scalar_of_rows(relation.plan, &sql_type)?;
        Ok(match condition {
            None => value,
            Some(condition) => Expression::Case {
                branches: vec![(condition, value)],
                otherwise: None,
                sql_type,
            },
        })
    }

    /// The value of a correlated `(SELECT f(count(*), sum(x)) …)`: each aggregate is a subquery of its own, and `f` is
    /// computed outside, where a count of nothing is made zero. `condition` is about the outer row alone.
    fn scalar_of_aggregates(
        &mut self,
        parts: ScalarAggregates,
        condition: Option<&Expression>,
    ) -> Result<Expression> {
        let mut replaced = Vec::new();
        for (slot, is_count) in parts.results {
            if !parts.value.inputs().contains(&slot) {
                continue;
            }
            let Some(column) = self.slots.column(slot) else {
                return Err(SqlError::internal("an aggregate's result has no column"));
            };
            let sql_type = column.sql_type.clone();
            let result =
                Expr::Column(Column::new_unqualified(column.column.clone())).alias(self.new_name("v"));
            let plan = build(LogicalPlanBuilder::from(parts.plan.clone()).project(vec![result]))?;
            let value = self.add_subquery(SubqueryKind::Scalar, plan, true, sql_type.clone());
            // Where the condition on the outer row does not hold, nothing was aggregated.
            let value = match condition {
                None => value,
                Some(condition) => Expression::Case {
                    branches: vec![(condition.clone(), value)],
                    otherwise: None,
                    sql_type: sql_type.clone(),
                },
            };
            let zero = Expression::literal(Datum::BigInt(0), SqlType::BigInt);
            let value = match is_count {
                true => Expression::Coalesce {
                    arguments: vec![value, zero],
                    sql_type,
                },
                false => value,
            };
            replaced.push((slot, value));
        }
        Ok(parts.value.rewrite(&mut |node| match node {
            Expression::Input { index, sql_type } => {
                let found = replaced.iter().find(|(slot, _)| *slot == index);
                found.map_or(Expression::Input { index, sql_type }, |(_, value)| value.clone())
            }
            other => other,
        }))
    }

    /// The value of any other subquery.
    fn scalar_of_rows(&mut self, plan: LogicalPlan, sql_type: &SqlType) -> Result<Expression> {
        let correlated = !plan.all_out_ref_exprs().is_empty();
        let first = if correlated {
            super::first_row::first_row_plan(&plan, self.new_name("v"))?
        } else {
            None
        };
        let name = self.new_name("v");
        let plan = match first {
            Some(first) => first,
            None if plan.max_rows() == Some(1) => {
                build(LogicalPlanBuilder::from(plan).project(vec![Relation::column(0).alias(name)]))?
            }
            None => {
                // The aggregate makes sure of a single row: none is NULL, a second one fails.
                let types = vec![sql_type.clone()];
                let single = aggregate_udf(AggregateFunction::SingleRow, types, sql_type.clone(), false);
                let value = single.call(vec![Relation::column(0)]).alias(name);
                build(LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![value]))?
            }
        };
        Ok(self.add_subquery(SubqueryKind::Scalar, plan, true, sql_type.clone()))
    }

    /// `EXISTS (SELECT …)`
    pub(crate) fn bind_exists(&mut self, query: &ast::Query) -> Result<Expression> {
        let relation = self.bind_query(query, None)?;
        let plan = relation.plan;
        Ok(self.add_subquery(SubqueryKind::Exists, plan, false, SqlType::Boolean))
    }

    /// `operand IN (SELECT …)`
    pub(crate) fn bind_in_subquery(&mut self, operand: &ast::Expr, query: &ast::Query) -> Result<Expression> {
        self.bind_any_subquery(operand, "=", query)
    }

    /// `operand <operator> ANY (SELECT …)`
    pub(crate) fn bind_any_subquery(
        &mut self,
        operand: &ast::Expr,
        operator: &str,
        query: &ast::Query,
    ) -> Result<Expression> {
        let operand = self.bind_expression(operand)?;
        let wanted = [operand.sql_type()];
        let relation = self.bind_query(query, (wanted[0] != SqlType::Unknown).then_some(&wanted))?;
        let column = match relation.columns.as_slice() {
            [column] => column,
            [] => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "subquery has too few columns",
                ));
            }
            _ => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "subquery has too many columns",
                ));
            }
        };
        let nullable = column.nullable;
        // Both sides are brought to the type that they are compared in.
        let input = Expression::input(usize::MAX, column.sql_type.clone());
        let comparison = resolve_operator(operator, Some(operand), input)?;
        let Expression::Call {
            function,
            mut arguments,
            ..
        } = comparison
        else {
            return Err(SqlError::unsupported(format_args!(
                "operator {operator} with ANY or ALL of a subquery"
            )));
        };
        if !function.is_comparison() {
            return Err(SqlError::unsupported(format_args!(
                "operator {operator} with ANY or ALL of a subquery"
            )));
        }
        let (Some(value), Some(operand)) = (arguments.pop(), arguments.pop()) else {
            return Err(SqlError::internal("a comparison without two sides"));
        };
        self.learn_parameters(&operand)?;
        let compared = value.sql_type();
        let column = self.cast_output(Relation::column(0), &relation.columns[0].sql_type, &compared)?;
        let column = comparison_key(column, &compared).alias(output_name(0));
        let plan = build(LogicalPlanBuilder::from(relation.plan).project(vec![column]))?;
        Ok(self.add_subquery(
            SubqueryKind::Any(operand, function),
            plan,
            nullable,
            SqlType::Boolean,
        ))
    }

    fn add_subquery(
        &mut self,
        kind: SubqueryKind,
        plan: datafusion::logical_expr::LogicalPlan,
        column_nullable: bool,
        sql_type: SqlType,
    ) -> Expression {
        let call = SubqueryCall {
            kind,
            plan: Arc::new(plan),
            column_nullable,
        };
        let slot = self.slots.add(Slot::Subquery(call));
        Expression::input(slot, sql_type)
    }

    /// Casts a plan's column implicitly.
    pub(crate) fn cast_output(&self, column: Expr, from: &SqlType, to: &SqlType) -> Result<Expr> {
        let cast = coerce(Expression::input(0, from.clone()), to, CastContext::Implicit)?;
        Ok(match cast {
            Expression::Input { .. } => column,
            cast => super::functions::call_expression(cast, vec![from.clone()], vec![column], None),
        })
    }
}
