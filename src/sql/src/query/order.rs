//! ORDER BY, LIMIT and OFFSET around a query.

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use neorunbase_expression::{EvaluationContext, Expression};
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, LimitClause, Query};

use super::lower::{parameter, sort_value};
use super::relation::{Relation, build};
use crate::bind::{Binder, Output, sort_key};

/// Skip and fetch of a query.
#[derive(Default)]
pub(super) struct Limits {
    skip: Option<Expression>,
    fetch: Option<Expression>,
}

impl Limits {
    pub(super) fn is_none(&self) -> bool {
        self.skip.is_none() && self.fetch.is_none()
    }
}

impl Binder<'_> {
    pub(super) fn bind_limits(&mut self, query: &Query) -> Result<Limits> {
        let mut limits = Limits::default();
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) => {
                if !limit_by.is_empty() {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "syntax error at or near \"BY\"",
                    ));
                }
                limits.fetch = limit
                    .as_ref()
                    .map(|limit| self.bind_limit(limit, "LIMIT"))
                    .transpose()?;
                limits.skip = offset
                    .as_ref()
                    .map(|offset| self.bind_limit(&offset.value, "OFFSET"))
                    .transpose()?;
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                return Err(
                    SqlError::new(SqlState::SYNTAX_ERROR, "LIMIT #,# syntax is not supported")
                        .with_hint("Use separate LIMIT and OFFSET clauses."),
                );
            }
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(SqlError::unsupported("FETCH … WITH TIES"));
            }
            limits.fetch = Some(match &fetch.quantity {
                Some(quantity) => self.bind_limit(quantity, "LIMIT")?,
                None => Expression::literal(Datum::BigInt(1), SqlType::BigInt),
            });
        }
        Ok(limits)
    }

    pub(super) fn limit(&self, plan: LogicalPlan, limits: Limits) -> Result<LogicalPlan> {
        if limits.skip.is_none() && limits.fetch.is_none() {
            return Ok(plan);
        }
        let lower = |limit: Option<Expression>| match limit {
            None => Ok(None),
            Some(Expression::Parameter { index, .. }) => {
                Ok(Some(parameter(&(index + 1).to_string(), DataType::Int64)))
            }
            Some(limit) if limit.is_constant() => {
                let value = limit.evaluate(&EvaluationContext::EMPTY)?;
                match value {
                    Datum::Null => Ok(None),
                    value => Ok(Some(Expr::Literal(
                        super::arrow::scalar(&value, &SqlType::BigInt)?,
                        None,
                    ))),
                }
            }
            Some(_) => Err(SqlError::unsupported("LIMIT or OFFSET computed from a parameter")
                .with_hint("Pass the computed value as the parameter.")),
        };
        build(LogicalPlanBuilder::from(plan).limit_by_expr(lower(limits.skip)?, lower(limits.fetch)?))
    }

    /// ORDER BY and LIMIT of something that is not a single SELECT: by output columns only.
    pub(super) fn order_relation(
        &mut self,
        relation: Relation,
        order: &[ast::OrderByExpr],
        limits: Limits,
    ) -> Result<Relation> {
        let Relation { mut plan, columns } = relation;
        if !order.is_empty() {
            let outputs: Vec<Output> = columns
                .iter()
                .map(|column| Output {
                    name: column.name.clone(),
                    value: Expression::null(column.sql_type.clone()),
                })
                .collect();
            let mut sorts = Vec::with_capacity(order.len());
            for key in order {
                let index = output_by_name_or_number(&key.expr, &outputs, "ORDER BY")?.ok_or_else(|| {
                    SqlError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "invalid UNION/INTERSECT/EXCEPT ORDER BY clause",
                    )
                    .with_detail("Only result column names can be used, not expressions or functions.")
                    .with_hint(
                        "Add the expression/function to every SELECT, or move the UNION into a FROM clause.",
                    )
                })?;
                let bound = sort_key(outputs[index].value.clone(), key);
                sorts.push(
                    sort_value(Relation::column(index), &columns[index].sql_type)
                        .sort(!bound.descending, bound.nulls_first),
                );
            }
            plan = build(LogicalPlanBuilder::from(plan).sort(sorts))?;
        }
        plan = self.limit(plan, limits)?;
        Ok(Relation { plan, columns })
    }
}

/// The output that a bare name or number refers to.
pub(super) fn output_by_name_or_number(
    expression: &ast::Expr,
    outputs: &[Output],
    clause: &str,
) -> Result<Option<usize>> {
    match expression {
        ast::Expr::Identifier(ident) => {
            let mut found: Option<usize> = None;
            for (index, output) in outputs
                .iter()
                .enumerate()
                .filter(|(_, output)| output.name == ident.value)
            {
                match found {
                    Some(first) if outputs[first].value != output.value => {
                        return Err(SqlError::new(
                            SqlState::AMBIGUOUS_COLUMN,
                            format!("{clause} \"{}\" is ambiguous", ident.value),
                        ));
                    }
                    Some(_) => {}
                    None => found = Some(index),
                }
            }
            Ok(found)
        }
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => match digits.parse::<usize>() {
                Ok(number) if (1..=outputs.len()).contains(&number) => Ok(Some(number - 1)),
                Ok(number) => Err(SqlError::new(
                    SqlState("42P10"),
                    format!("{clause} position {number} is not in select list"),
                )),
                Err(_) => Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("non-integer constant in {clause}"),
                )),
            },
            ast::Value::SingleQuotedString(_) | ast::Value::Boolean(_) | ast::Value::Null => {
                Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("non-integer constant in {clause}"),
                ))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}
