//! Our expressions as DataFusion's. What DataFusion must understand to plan well (conjunctions, comparisons, NULL
//! tests, subqueries) becomes its own nodes; everything else becomes a call of [`functions`](super::functions), so
//! that its meaning stays PostgreSQL's.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::Column;
use datafusion::logical_expr::expr::{BinaryExpr, Exists, InList, InSubquery, Placeholder};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit};
use neorunbase_expression::{Expression, Function};
use neorunbase_types::{Result, SqlError, SqlType};

use super::aggregates::tally_udf;
use super::arrow::{data_type, scalar};
use super::errors::from_datafusion;
use super::functions::{call_expression, comparison_key, needs_key};
use super::grouping::is_true;
use crate::bind::Binder;
use crate::bind::slots::{ColumnSlot, Slot, SubqueryCall, SubqueryKind};

/// The hidden parameter that carries the transaction's time.
pub(crate) const TIME_PARAMETER: &str = "now";

/// Where an expression stands: subqueries become joins in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A part of a filter's conjunction: NULL counts as false.
    Conjunct,
    /// Anywhere else in a filter.
    Filter,
    /// Anywhere else.
    Value,
}

impl Place {
    fn nested(self) -> Self {
        if self == Self::Conjunct {
            Self::Filter
        } else {
            self
        }
    }
}

impl Binder<'_> {
    /// Lowers a value of the query level `level`.
    pub(crate) fn lower(&self, expression: &Expression, level: usize) -> Result<Expr> {
        self.lower_at(expression, level, Place::Value)
    }

    /// Lowers a condition to the parts of a conjunction.
    pub(crate) fn lower_filter(&self, condition: &Expression, level: usize) -> Result<Vec<Expr>> {
        condition
            .clone()
            .into_conjuncts()
            .iter()
            .map(|conjunct| self.lower_at(conjunct, level, Place::Conjunct))
            .collect()
    }

    /// Lowers a value to the form that is compared, grouped or sorted.
    pub(crate) fn lower_key(&self, expression: &Expression, level: usize) -> Result<Expr> {
        Ok(comparison_key(
            self.lower(expression, level)?,
            &expression.sql_type(),
        ))
    }

    fn lower_at(&self, expression: &Expression, level: usize, place: Place) -> Result<Expr> {
        // DataFusion's logical and physical plans do not agree whether IS TRUE may be NULL: it stays in filters.
        let truth_test = matches!(expression, Expression::IsBoolean { .. }) && place == Place::Value;
        let native = self.is_native(expression) && !truth_test;
        if !native && !self.holds_condition_subquery(expression) {
            return self.lower_call(expression, level, place.nested());
        }
        let nested = place.nested();
        let lower = |part: &Expression| self.lower_at(part, level, nested);
        Ok(match expression {
            Expression::Literal { value, sql_type } => Expr::Literal(scalar(value, sql_type)?, None),
            Expression::Input { index, .. } => self.lower_slot(*index, level, place)?,
            Expression::Parameter { index, sql_type } => {
                parameter(&(index + 1).to_string(), data_type(sql_type))
            }
            Expression::And(parts) => {
                join_with(parts.iter().map(lower).collect::<Result<_>>()?, Operator::And)
            }
            Expression::Or(parts) => join_with(parts.iter().map(lower).collect::<Result<_>>()?, Operator::Or),
            Expression::Not(inner) => match &**inner {
                Expression::Input { index, .. } => match self.slots.get(*index) {
                    Some(Slot::Subquery(call)) => self.lower_not_subquery(call, level, place)?,
                    _ => !lower(inner)?,
                },
                _ => !lower(inner)?,
            },
            Expression::IsNull { argument, negated } => {
                let argument = Box::new(lower(argument)?);
                if *negated {
                    Expr::IsNotNull(argument)
                } else {
                    Expr::IsNull(argument)
                }
            }
            Expression::IsBoolean {
                argument,
                value,
                negated,
            } => {
                let argument = Box::new(lower(argument)?);
                match (value, negated) {
                    (Some(true), false) => Expr::IsTrue(argument),
                    (Some(true), true) => Expr::IsNotTrue(argument),
                    (Some(false), false) => Expr::IsFalse(argument),
                    (Some(false), true) => Expr::IsNotFalse(argument),
                    (None, false) => Expr::IsUnknown(argument),
                    (None, true) => Expr::IsNotUnknown(argument),
                }
            }
            Expression::InList {
                argument,
                list,
                negated,
            } => Expr::InList(InList {
                expr: Box::new(self.lower_key(argument, level)?),
                list: list
                    .iter()
                    .map(|item| self.lower_key(item, level))
                    .collect::<Result<_>>()?,
                negated: *negated,
            }),
            Expression::Call {
                function, arguments, ..
            } if let Some(operator) = comparison_operator(*function) => {
                let [left, right] = arguments.as_slice() else {
                    return Err(SqlError::internal("a comparison without two sides"));
                };
                let side = |side: &Expression| {
                    lower(side).map(|lowered| Box::new(comparison_key(lowered, &side.sql_type())))
                };
                Expr::BinaryExpr(BinaryExpr {
                    left: side(left)?,
                    op: operator,
                    right: side(right)?,
                })
            }
            Expression::Cast { argument, to, .. } => {
                Expr::Cast(Cast::new(Box::new(lower(argument)?), data_type(to)))
            }
            _ => return self.lower_call(expression, level, nested),
        })
    }

    /// Whether DataFusion's own operators mean the same and cannot fail.
    fn is_native(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Literal { .. } | Expression::Input { .. } | Expression::Parameter { .. } => true,
            Expression::And(parts) | Expression::Or(parts) => parts.iter().all(|part| self.is_native(part)),
            Expression::Not(inner)
            | Expression::IsNull { argument: inner, .. }
            | Expression::IsBoolean { argument: inner, .. } => self.is_native(inner),
            Expression::InList { argument, list, .. } => {
                self.is_native(argument) && list.iter().all(|item| self.is_native(item))
            }
            Expression::Call {
                function, arguments, ..
            } => function.is_comparison() && arguments.iter().all(|argument| self.is_native(argument)),
            Expression::Cast {
                argument, from, to, ..
            } => is_lossless_cast(from, to) && self.is_native(argument),
            _ => false,
        }
    }

    /// Whether there is an EXISTS or IN inside: those DataFusion must see.
    fn holds_condition_subquery(&self, expression: &Expression) -> bool {
        let connective = matches!(
            expression,
            Expression::And(_)
                | Expression::Or(_)
                | Expression::Not(_)
                | Expression::IsNull { .. }
                | Expression::IsBoolean { .. }
        );
        connective
            && expression
                .inputs()
                .iter()
                .any(|slot| matches!(self.slots.get(*slot), Some(Slot::Subquery(_))))
    }

    /// Any expression as one function of its inputs and parameters.
    fn lower_call(&self, expression: &Expression, level: usize, place: Place) -> Result<Expr> {
        let (mut types, mut values) = (Vec::new(), Vec::new());
        let mut leaves: Vec<Expression> = Vec::new();
        let mut failure = None;
        let body = expression.clone().rewrite(&mut |node| match node {
            Expression::Input { ref sql_type, .. } | Expression::Parameter { ref sql_type, .. } => {
                let sql_type = sql_type.clone();
                let index = leaves.iter().position(|leaf| *leaf == node).unwrap_or_else(|| {
                    match self.lower_at(&node, level, place) {
                        Ok(value) => values.push(value),
                        Err(error) => failure = Some(error),
                    }
                    types.push(sql_type.clone());
                    leaves.push(node.clone());
                    leaves.len() - 1
                });
                Expression::Input { index, sql_type }
            }
            other => other,
        });
        if let Some(error) = failure {
            return Err(error);
        }
        let needs_clock = body.any(&|node| match node {
            Expression::Call { function, .. } => function.needs_clock(),
            Expression::Cast { from, to, .. } => {
                (from.is_string() || *from == SqlType::Unknown)
                    && matches!(
                        to,
                        SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz
                    )
            }
            // A time with zone is today's or yesterday's by the clock.
            _ => false,
        });
        let clock = needs_clock.then(|| parameter(TIME_PARAMETER, DataType::Int64));
        Ok(call_expression(body, types, values, clock))
    }

    fn lower_slot(&self, slot: usize, level: usize, place: Place) -> Result<Expr> {
        match self.slots.get(slot) {
            Some(Slot::Column(column)) => Ok(lower_column(column, level)),
            Some(Slot::Subquery(call)) => self.lower_subquery(call, level, place),
            Some(Slot::Aggregate(_) | Slot::Window(_)) => Err(SqlError::new(
                neorunbase_types::SqlState::GROUPING_ERROR,
                "aggregate functions are not allowed here",
            )),
            None => Err(SqlError::internal(
                "an expression refers to a column that nobody bound",
            )),
        }
    }

    fn lower_subquery(&self, call: &SubqueryCall, level: usize, place: Place) -> Result<Expr> {
        match &call.kind {
            SubqueryKind::Scalar => Ok(Expr::ScalarSubquery(subquery(&call.plan))),
            SubqueryKind::Exists => self.lower_exists(&call.plan, false, place),
            SubqueryKind::Any(operand, Function::Equal) if place == Place::Conjunct => {
                Ok(Expr::InSubquery(InSubquery {
                    expr: Box::new(self.lower_key(operand, level)?),
                    subquery: subquery(&call.plan),
                    negated: false,
                }))
            }
            SubqueryKind::Any(operand, function) if place == Place::Conjunct => {
                let matching = filter(&call.plan, self.compare_operand(call, operand, *function, level)?)?;
                self.lower_exists(&matching, false, place)
            }
            SubqueryKind::Any(operand, function) => {
                self.lower_any_with_nulls(call, operand, *function, level, place)
            }
        }
    }

    fn lower_not_subquery(&self, call: &SubqueryCall, level: usize, place: Place) -> Result<Expr> {
        match &call.kind {
            SubqueryKind::Exists => self.lower_exists(&call.plan, true, place),
            SubqueryKind::Any(operand, function) if place == Place::Conjunct => {
                let correlated = !call.plan.all_out_ref_exprs().is_empty();
                if *function == Function::Equal && !correlated {
                    return Ok(Expr::InSubquery(InSubquery {
                        expr: Box::new(self.lower_key(operand, level)?),
                        subquery: subquery(&call.plan),
                        negated: true,
                    }));
                }
                // True only if no row is equal or might be: NOT EXISTS (… WHERE (x = y) IS NOT FALSE).
                let matches = self.compare_operand(call, operand, *function, level)?;
                let plan = filter(&call.plan, Expr::IsNotFalse(Box::new(matches)))?;
                self.lower_exists(&plan, true, place)
            }
            _ => Ok(!self.lower_subquery(call, level, place)?),
        }
    }

    /// EXISTS; outside of filters DataFusion plans it only as a count.
    fn lower_exists(&self, plan: &Arc<LogicalPlan>, negated: bool, place: Place) -> Result<Expr> {
        if place != Place::Value {
            return Ok(Expr::Exists(Exists {
                subquery: subquery(plan),
                negated,
            }));
        }
        let count = tally_udf(Vec::new())
            .call(vec![lit(1_i64)])
            .alias(self.new_name("n"));
        let counted = LogicalPlanBuilder::from(plan.as_ref().clone())
            .aggregate(Vec::<Expr>::new(), vec![count])
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_datafusion)?;
        // Nothing is counted as zero, or as NULL where the subquery became an outer join.
        let some = is_true(&Expression::Call {
            function: Function::Greater,
            arguments: vec![
                Expression::input(0, SqlType::BigInt),
                Expression::literal(neorunbase_types::Datum::BigInt(0), SqlType::BigInt),
            ],
            sql_type: SqlType::Boolean,
        });
        let answer = if negated {
            Expression::Not(Box::new(some))
        } else {
            some
        };
        let count = Expr::ScalarSubquery(subquery(&Arc::new(counted)));
        Ok(call_expression(answer, vec![SqlType::BigInt], vec![count], None))
    }

    /// `operand <function> column` inside the subquery, where the operand is an outer reference.
    fn compare_operand(
        &self,
        call: &SubqueryCall,
        operand: &Expression,
        function: Function,
        level: usize,
    ) -> Result<Expr> {
        let op = comparison_operator(function).ok_or_else(|| SqlError::internal("a comparison is none"))?;
        let column = Expr::Column(Column::from(call.plan.schema().qualified_field(0)));
        let operand = self.lower_key(operand, level + 1)?;
        Ok(Expr::BinaryExpr(BinaryExpr {
            left: Box::new(operand),
            op,
            right: Box::new(column),
        }))
    }

    /// `x IN (…)` where it matters whether the answer is false or unknown.
    fn lower_any_with_nulls(
        &self,
        call: &SubqueryCall,
        operand: &Expression,
        function: Function,
        level: usize,
        place: Place,
    ) -> Result<Expr> {
        let column = Expr::Column(Column::from(call.plan.schema().qualified_field(0)));
        if place == Place::Value && function != Function::Equal {
            return self.lower_any_by_extremes(call, operand, function, level);
        }
        let matched = self.lower_exists(
            &filter(&call.plan, self.compare_operand(call, operand, function, level)?)?,
            false,
            place,
        )?;
        let operand_is_null = Expr::IsNull(Box::new(self.lower(operand, level)?));
        let mut unknown = operand_is_null.and(self.lower_exists(&call.plan, false, place)?);
        if call.column_nullable {
            let null_row = filter(&call.plan, Expr::IsNull(Box::new(column)))?;
            unknown = unknown.or(self.lower_exists(&null_row, false, place)?);
        }
        Ok(three_valued(matched, unknown))
    }

    /// `x < ANY (…)` among values: DataFusion joins no subquery by an inequality there, but the smallest and the
    /// largest row tell the answer.
    fn lower_any_by_extremes(
        &self,
        call: &SubqueryCall,
        operand: &Expression,
        function: Function,
        level: usize,
    ) -> Result<Expr> {
        use datafusion::functions_aggregate::expr_fn::{count, max, min};
        let op = comparison_operator(function).ok_or_else(|| SqlError::internal("a comparison is none"))?;
        let column = Expr::Column(Column::from(call.plan.schema().qualified_field(0)));
        let scalar = |aggregate: Expr| {
            let plan = LogicalPlanBuilder::from(call.plan.as_ref().clone())
                .aggregate(Vec::<Expr>::new(), vec![aggregate.alias(self.new_name("x"))])
                .and_then(LogicalPlanBuilder::build)
                .map_err(from_datafusion)?;
            Ok::<_, Box<SqlError>>(Expr::ScalarSubquery(subquery(&Arc::new(plan))))
        };
        let operand_key = self.lower_key(operand, level)?;
        let compare = |extreme: Expr| {
            Expr::BinaryExpr(BinaryExpr {
                left: Box::new(operand_key.clone()),
                op,
                right: Box::new(extreme),
            })
        };
        let matched = match function {
            Function::Less | Function::LessOrEqual => compare(scalar(max(column.clone()))?),
            Function::Greater | Function::GreaterOrEqual => compare(scalar(min(column.clone()))?),
            _ => compare(scalar(min(column.clone()))?).or(compare(scalar(max(column.clone()))?)),
        };
        let (rows, values) = (scalar(count(lit(1_i64)))?, scalar(count(column))?);
        let unknown = operand_key
            .is_null()
            .and(rows.clone().gt(lit(0_i64)))
            .or(values.lt(rows));
        Ok(three_valued(matched, unknown))
    }
}

/// True if it matched, NULL if it might have, else false. As one function, so that no optimiser takes it apart and
/// repeats the subqueries in it.
fn three_valued(matched: Expr, unknown: Expr) -> Expr {
    let input = |index| Expression::input(index, SqlType::Boolean);
    let expression = Expression::Case {
        branches: vec![
            (input(0), Expression::boolean(true)),
            (input(1), Expression::null(SqlType::Boolean)),
        ],
        otherwise: Some(Box::new(Expression::boolean(false))),
        sql_type: SqlType::Boolean,
    };
    call_expression(
        expression,
        vec![SqlType::Boolean, SqlType::Boolean],
        vec![matched, unknown],
        None,
    )
}

/// A column of this level, or of a query around it.
pub(crate) fn lower_column(column: &ColumnSlot, level: usize) -> Expr {
    let reference = Column::new(column.qualifier.clone(), column.column.clone());
    if column.level < level {
        let field = Field::new(&column.column, data_type(&column.sql_type), true);
        Expr::OuterReferenceColumn(Arc::new(field), reference)
    } else {
        Expr::Column(reference)
    }
}

/// A parameter, to be replaced by its value at each execution.
pub(crate) fn parameter(name: &str, data_type: DataType) -> Expr {
    let field = Arc::new(Field::new("", data_type, true));
    Expr::Placeholder(Placeholder {
        id: format!("${name}"),
        field: Some(field),
    })
}

fn subquery(plan: &Arc<LogicalPlan>) -> Subquery {
    Subquery {
        subquery: plan.clone(),
        outer_ref_columns: plan.all_out_ref_exprs(),
        spans: datafusion::common::Spans::new(),
    }
}

fn filter(plan: &Arc<LogicalPlan>, condition: Expr) -> Result<Arc<LogicalPlan>> {
    LogicalPlanBuilder::from(plan.as_ref().clone())
        .filter(condition)
        .and_then(LogicalPlanBuilder::build)
        .map(Arc::new)
        .map_err(from_datafusion)
}

fn join_with(parts: Vec<Expr>, operator: Operator) -> Expr {
    let neutral = operator == Operator::And;
    parts
        .into_iter()
        .reduce(|left, right| {
            Expr::BinaryExpr(BinaryExpr {
                left: Box::new(left),
                op: operator,
                right: Box::new(right),
            })
        })
        .unwrap_or_else(|| lit(neutral))
}

pub(crate) fn comparison_operator(function: Function) -> Option<Operator> {
    Some(match function {
        Function::Equal => Operator::Eq,
        Function::NotEqual => Operator::NotEq,
        Function::Less => Operator::Lt,
        Function::LessOrEqual => Operator::LtEq,
        Function::Greater => Operator::Gt,
        Function::GreaterOrEqual => Operator::GtEq,
        _ => return None,
    })
}

/// Casts that cannot fail and mean the same in Arrow: so that joins of different integer types stay equi-joins.
pub(crate) fn is_lossless_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    matches!(
        (from, to),
        (T::SmallInt, T::Integer | T::BigInt | T::DoublePrecision)
            | (T::Integer, T::BigInt | T::DoublePrecision)
            | (T::Real, T::DoublePrecision)
    ) || (from.is_string() && *to == T::Text)
}

/// A sort key's value.
pub(crate) fn sort_value(column: Expr, sql_type: &SqlType) -> Expr {
    if needs_key(sql_type) {
        comparison_key(column, sql_type)
    } else {
        column
    }
}
