//! Subqueries in expressions.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use neorunbase_expression::{Expression, coerce, resolve_operator};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast;

use super::aggregates::{AggregateFunction, aggregate_udf};
use super::functions::comparison_key;
use super::relation::{Relation, build, output_name};
use crate::bind::Binder;
use crate::bind::slots::{Slot, SubqueryCall, SubqueryKind};

impl Binder<'_> {
    /// `(SELECT …)` as a value.
    pub(crate) fn bind_scalar_subquery(&mut self, query: &ast::Query) -> Result<Expression> {
        // Conditions on outer columns alone decide about the whole subquery: they are taken out of it.
        let before = self.outer_conditions.replace(Vec::new());
        let bound = self.bind_query(query, None);
        let outer_conditions = std::mem::replace(&mut self.outer_conditions, before).unwrap_or_default();
        let relation = bound?;
        let [column] = relation.columns.as_slice() else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            ));
        };
        let sql_type = column.sql_type.clone();
        let correlated = !relation.plan.all_out_ref_exprs().is_empty();
        let first = if correlated {
            super::first_row::first_row_plan(&relation.plan)?
        } else {
            None
        };
        let plan = match first {
            Some(first) => first,
            None if relation.plan.max_rows() == Some(1) => relation.plan,
            None => {
                // The aggregate makes sure of a single row: none is NULL, a second one fails.
                let types = vec![sql_type.clone()];
                let single = aggregate_udf(AggregateFunction::SingleRow, types, sql_type.clone(), false);
                let value = single.call(vec![Relation::column(0)]).alias("value");
                build(LogicalPlanBuilder::from(relation.plan).aggregate(Vec::<Expr>::new(), vec![value]))?
            }
        };
        let value = self.add_subquery(SubqueryKind::Scalar, plan, true, sql_type.clone());
        Ok(match Expression::conjunction(outer_conditions) {
            None => value,
            Some(condition) => Expression::Case {
                branches: vec![(condition, value)],
                otherwise: None,
                sql_type,
            },
        })
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
