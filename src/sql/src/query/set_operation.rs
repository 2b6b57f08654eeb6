//! UNION, INTERSECT, EXCEPT, and VALUES.

use datafusion::common::Column;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use neorunbase_expression::{Expression, coerce, coerce_to_common_type, common_type_for};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, SetExpr, SetOperator, SetQuantifier};

use super::functions::comparison_key;
use super::relation::{Relation, RelationColumn, build, output_name};
use crate::bind::Binder;

impl Binder<'_> {
    pub(crate) fn bind_set_operation(
        &mut self,
        operator: SetOperator,
        quantifier: SetQuantifier,
        left: &SetExpr,
        right: &SetExpr,
    ) -> Result<Relation> {
        let all = match quantifier {
            SetQuantifier::All => true,
            SetQuantifier::Distinct | SetQuantifier::None => false,
            _ => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "syntax error at or near \"BY\"",
                ));
            }
        };
        let name = match operator {
            SetOperator::Union => "UNION",
            SetOperator::Except | SetOperator::Minus => "EXCEPT",
            SetOperator::Intersect => "INTERSECT",
        };
        let (mut left, mut right) = (self.bind_side(left)?, self.bind_side(right)?);
        if left.columns.len() != right.columns.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("each {name} query must have the same number of columns"),
            ));
        }
        let mut types = Vec::with_capacity(left.columns.len());
        for (left, right) in left.columns.iter().zip(&right.columns) {
            let of = |column: &RelationColumn| match column.untyped {
                Some(_) => SqlType::Unknown,
                None => column.sql_type.clone(),
            };
            types.push(common_type_for(name, &[of(left), of(right)])?);
        }
        self.cast_columns(&mut left, &types)?;
        self.cast_columns(&mut right, &types)?;
        let columns: Vec<RelationColumn> = left
            .columns
            .iter()
            .zip(&right.columns)
            .zip(&types)
            .map(|((left, right), sql_type)| RelationColumn {
                name: left.name.clone(),
                sql_type: sql_type.clone(),
                nullable: left.nullable || right.nullable,
                origin: None,
                untyped: None,
            })
            .collect();
        let plan = match operator {
            SetOperator::Union => {
                let union = build(LogicalPlanBuilder::from(left.plan).union(right.plan))?;
                if all {
                    union
                } else {
                    super::grouping::distinct(union, &columns)?
                }
            }
            _ => compare_sides(
                left.plan,
                right.plan,
                &columns,
                operator == SetOperator::Intersect,
                all,
            )?,
        };
        Ok(Relation { plan, columns })
    }

    /// A side may be a chain of set operations itself; limits of its own make it a query.
    fn bind_side(&mut self, side: &SetExpr) -> Result<Relation> {
        self.bind_set_expression(side)
    }

    /// Casts a query's columns; untyped literals become literals of the type.
    fn cast_columns(&mut self, relation: &mut Relation, types: &[SqlType]) -> Result<()> {
        let mut projection = Vec::with_capacity(types.len());
        for (index, (column, wanted)) in relation.columns.iter_mut().zip(types).enumerate() {
            let value = match column.untyped.take() {
                Some(literal) => self.lower_untyped(&coerce(literal, wanted, CastContext::Implicit)?)?,
                None => self.cast_output(Relation::column(index), &column.sql_type, wanted)?,
            };
            column.sql_type = wanted.clone();
            projection.push(value.alias(output_name(index)));
        }
        let plan = relation.plan.clone();
        relation.plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        Ok(())
    }

    /// `VALUES (…), (…)`: columns are called `column1`, …
    pub(crate) fn bind_values(&mut self, values: &ast::Values) -> Result<Relation> {
        let width = values.rows.first().map_or(0, Vec::len);
        let mut columns: Vec<Vec<Expression>> = vec![Vec::with_capacity(values.rows.len()); width];
        for row in &values.rows {
            if row.len() != width {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "VALUES lists must all be the same length",
                ));
            }
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(self.without_aggregates("VALUES", |binder| binder.bind_expression(value))?);
            }
        }
        let mut types = Vec::with_capacity(width);
        let mut cast = Vec::with_capacity(width);
        for column in columns {
            let (column, sql_type) = coerce_to_common_type("VALUES", column)?;
            for value in &column {
                self.learn_parameters(value)?;
            }
            types.push(sql_type);
            cast.push(column);
        }
        let mut rows = vec![Vec::with_capacity(width); values.rows.len()];
        for column in cast {
            for (row, value) in rows.iter_mut().zip(column) {
                row.push(self.settle_parameters(value));
            }
        }
        let plan = self.rows_plan(&rows)?;
        let columns = types
            .into_iter()
            .enumerate()
            .map(|(index, sql_type)| RelationColumn {
                name: format!("column{}", index + 1),
                sql_type,
                nullable: true,
                origin: None,
                untyped: None,
            })
            .collect();
        Ok(Relation { plan, columns })
    }

    /// A plan that yields rows of expressions, each column of one type.
    pub(crate) fn rows_plan(&self, rows: &[Vec<Expression>]) -> Result<LogicalPlan> {
        let level = self.scopes.len();
        let plain = rows.iter().flatten().all(Expression::is_row_independent);
        let lower = |row: &Vec<Expression>| {
            row.iter()
                .map(|value| self.lower(value, level))
                .collect::<Result<Vec<_>>>()
        };
        let rename = |names: usize, name: &dyn Fn(usize) -> String| {
            (0..names)
                .map(|index| Expr::Column(Column::new_unqualified(name(index))).alias(output_name(index)))
                .collect::<Vec<_>>()
        };
        let width = rows.first().map_or(0, Vec::len);
        if plain && width > 0 {
            let lowered = rows.iter().map(lower).collect::<Result<Vec<_>>>()?;
            let names = rename(width, &|index| format!("column{}", index + 1));
            return build(LogicalPlanBuilder::values(lowered).and_then(|builder| builder.project(names)));
        }
        let mut union: Option<LogicalPlan> = None;
        for row in rows {
            let values: Vec<Expr> = lower(row)?
                .into_iter()
                .enumerate()
                .map(|(index, value)| value.alias(output_name(index)))
                .collect();
            let one = build(LogicalPlanBuilder::empty(true).project(values))?;
            union = Some(match union {
                None => one,
                Some(rest) => build(LogicalPlanBuilder::from(rest).union(one))?,
            });
        }
        union.map_or_else(|| build(Ok(LogicalPlanBuilder::empty(false))), Ok)
    }
}

/// INTERSECT and EXCEPT: rows are marked with their side, grouped, and kept if the counts of the sides say so. For
/// ALL, equal rows are numbered first, so that the first left one pairs with the first right one, and so on.
fn compare_sides(
    left: LogicalPlan,
    right: LogicalPlan,
    columns: &[RelationColumn],
    intersect: bool,
    all: bool,
) -> Result<LogicalPlan> {
    use datafusion::functions_aggregate::expr_fn::sum;
    let (in_left, in_right, number) = ("in_left", "in_right", "number");
    let marked = |plan: LogicalPlan, is_left: bool| {
        let mut projection: Vec<Expr> = (0..columns.len()).map(Relation::column).collect();
        projection.push(lit(i64::from(is_left)).alias(in_left));
        projection.push(lit(i64::from(!is_left)).alias(in_right));
        let plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        if !all {
            return Ok(plan);
        }
        let keys = columns
            .iter()
            .enumerate()
            .map(|(index, column)| comparison_key(Relation::column(index), &column.sql_type))
            .collect();
        super::windows::numbered(plan, keys, Vec::<Sort>::new(), number)
    };
    let both = build(LogicalPlanBuilder::from(marked(left, true)?).union(marked(right, false)?))?;
    let mut groups: Vec<Expr> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            comparison_key(Relation::column(index), &column.sql_type).alias(format!("k{index}"))
        })
        .collect();
    let mut projection: Vec<Expr> = (0..columns.len()).map(Relation::column).collect();
    projection.append(&mut groups);
    let plain = |name: &str| Expr::Column(Column::new_unqualified(name));
    projection.extend([plain(in_left), plain(in_right)]);
    let mut keys: Vec<Expr> = (0..columns.len())
        .map(|index| plain(&format!("k{index}")))
        .collect();
    if all {
        projection.push(plain(number));
        keys.push(plain(number));
    }
    let mut calls = vec![
        sum(plain(in_left)).alias("left_rows"),
        sum(plain(in_right)).alias("right_rows"),
    ];
    for (index, column) in columns.iter().enumerate() {
        let sql_type = column.sql_type.clone();
        let any = super::aggregates::aggregate_udf(
            super::aggregates::AggregateFunction::AnyValue,
            vec![sql_type.clone()],
            sql_type,
            false,
        );
        calls.push(
            any.call(vec![Relation::column(index)])
                .alias(format!("any{index}")),
        );
    }
    let other = if intersect {
        plain("right_rows").gt(lit(0_i64))
    } else {
        plain("right_rows").eq(lit(0_i64))
    };
    let outputs: Vec<Expr> = (0..columns.len())
        .map(|index| plain(&format!("any{index}")).alias(output_name(index)))
        .collect();
    build(
        LogicalPlanBuilder::from(both)
            .project(projection)
            .and_then(|builder| builder.aggregate(keys, calls))
            .and_then(|builder| builder.filter(plain("left_rows").gt(lit(0_i64)).and(other)))
            .and_then(|builder| builder.project(outputs)),
    )
}
