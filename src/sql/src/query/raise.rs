//! DataFusion's filters back into our expressions, so that Data Nodes can apply them. Only what means exactly the
//! same is translated; anything else stays with DataFusion.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use neorunbase_catalog::Table;
use neorunbase_expression::{ColumnId, Expression, Function};
use neorunbase_types::{Datum, SqlType};

use super::arrow::datum_at;
use super::functions::{ExpressionFunction, KeyFunction};
use super::lower::{TIME_PARAMETER, is_lossless_cast};
use super::ordered_bytes;
use crate::bind::column_from_plan;

/// Translates a filter on a table. `input` numbers the columns as they are met.
pub(crate) fn raise_filter(
    filter: &Expr,
    table: &Table,
    input: &mut dyn FnMut(ColumnId) -> usize,
) -> Option<Expression> {
    Raiser { table, input }.raise(filter, Some(&SqlType::Boolean))
}

struct Raiser<'a> {
    table: &'a Table,
    input: &'a mut dyn FnMut(ColumnId) -> usize,
}

impl Raiser<'_> {
    /// `expected`: the type that the surroundings want; Arrow's types alone do not tell a date from an integer.
    fn raise(&mut self, expr: &Expr, expected: Option<&SqlType>) -> Option<Expression> {
        Some(match expr {
            Expr::Alias(alias) => self.raise(&alias.expr, expected)?,
            Expr::Column(column) => {
                let id = column_from_plan(&column.name)?;
                let sql_type = self.table.key_column_type(id);
                Expression::input((self.input)(id), sql_type)
            }
            Expr::Literal(value, _) => literal(value, expected?)?,
            Expr::Placeholder(placeholder) => {
                let number = placeholder
                    .id
                    .strip_prefix('$')
                    .filter(|name| *name != TIME_PARAMETER)?;
                Expression::Parameter {
                    index: number.parse::<usize>().ok()?.checked_sub(1)?,
                    sql_type: expected?.without_modifier(),
                }
            }
            Expr::BinaryExpr(binary) => match binary.op {
                Operator::And => {
                    let parts = self.both(&binary.left, &binary.right, &SqlType::Boolean)?;
                    Expression::conjunction(parts)?
                }
                Operator::Or => {
                    let mut parts = Vec::new();
                    for part in self.both(&binary.left, &binary.right, &SqlType::Boolean)? {
                        match part {
                            Expression::Or(inner) => parts.extend(inner),
                            other => parts.push(other),
                        }
                    }
                    Expression::Or(parts)
                }
                operator => {
                    let function = comparison_function(operator)?;
                    let arguments = self.sides(&binary.left, &binary.right)?;
                    Expression::Call {
                        function,
                        arguments,
                        sql_type: SqlType::Boolean,
                    }
                }
            },
            Expr::Not(inner) => Expression::Not(Box::new(self.raise(inner, Some(&SqlType::Boolean))?)),
            Expr::IsNull(inner) => self.is_null(inner, false)?,
            Expr::IsNotNull(inner) => self.is_null(inner, true)?,
            Expr::IsTrue(inner) => self.is_boolean(inner, Some(true), false)?,
            Expr::IsNotTrue(inner) => self.is_boolean(inner, Some(true), true)?,
            Expr::IsFalse(inner) => self.is_boolean(inner, Some(false), false)?,
            Expr::IsNotFalse(inner) => self.is_boolean(inner, Some(false), true)?,
            Expr::IsUnknown(inner) => self.is_boolean(inner, None, false)?,
            Expr::IsNotUnknown(inner) => self.is_boolean(inner, None, true)?,
            Expr::InList(list) => {
                let wanted = self
                    .type_of(&list.expr)
                    .or_else(|| list.list.iter().find_map(|item| self.type_of(item)))?;
                Expression::InList {
                    argument: Box::new(self.raise(&list.expr, Some(&wanted))?),
                    list: list
                        .list
                        .iter()
                        .map(|item| self.raise_compared(item, &wanted))
                        .collect::<Option<_>>()?,
                    negated: list.negated,
                }
            }
            Expr::Between(between) => {
                let wanted = self.type_of(&between.expr)?;
                let operand = self.raise(&between.expr, Some(&wanted))?;
                let mut compare = |function, limit: &Expr| {
                    Some(Expression::Call {
                        function,
                        arguments: vec![operand.clone(), self.raise_compared(limit, &wanted)?],
                        sql_type: SqlType::Boolean,
                    })
                };
                if between.negated {
                    Expression::Or(vec![
                        compare(Function::Less, &between.low)?,
                        compare(Function::Greater, &between.high)?,
                    ])
                } else {
                    Expression::And(vec![
                        compare(Function::GreaterOrEqual, &between.low)?,
                        compare(Function::LessOrEqual, &between.high)?,
                    ])
                }
            }
            Expr::Cast(cast) => {
                let from = self.type_of(&cast.expr)?;
                let to = expected.filter(|to| is_lossless_cast(&from, to))?;
                Expression::Cast {
                    argument: Box::new(self.raise(&cast.expr, Some(&from))?),
                    from,
                    to: to.clone(),
                    explicit: false,
                }
            }
            Expr::ScalarFunction(call) => {
                let function = call.func.inner().as_any();
                if let Some(key) = function.downcast_ref::<KeyFunction>() {
                    return self.raise(call.args.first()?, Some(&key.sql_type));
                }
                let function = function.downcast_ref::<ExpressionFunction>()?;
                // The last argument may be the clock, which the Data Node has itself.
                let arguments = call
                    .args
                    .iter()
                    .zip(&function.arguments)
                    .map(|(argument, sql_type)| self.raise(argument, Some(sql_type)))
                    .collect::<Option<Vec<_>>>()?;
                function.expression.clone().substitute_inputs(&arguments)
            }
            _ => return None,
        })
    }

    /// A side of a comparison.
    fn raise_compared(&mut self, expr: &Expr, wanted: &SqlType) -> Option<Expression> {
        match expr {
            Expr::Literal(value, _) if ordered_bytes::has_suffix(wanted) => literal_from_key(value, wanted),
            other => self.raise(other, Some(wanted)),
        }
    }

    fn both(&mut self, left: &Expr, right: &Expr, wanted: &SqlType) -> Option<Vec<Expression>> {
        Some(vec![
            self.raise(left, Some(wanted))?,
            self.raise(right, Some(wanted))?,
        ])
    }

    /// The sides of a comparison: the one whose type is known tells the other's.
    fn sides(&mut self, left: &Expr, right: &Expr) -> Option<Vec<Expression>> {
        let wanted = match (self.type_of(left), self.type_of(right)) {
            (Some(left), Some(right))
                if left.same_base(&right) || (left.is_string() && right.is_string()) =>
            {
                left
            }
            // A cast has the type of what it is compared with.
            (Some(left), Some(_)) if matches!(right, Expr::Cast(_)) => left,
            (Some(_), Some(right)) if matches!(left, Expr::Cast(_)) => right,
            (Some(_), Some(_)) => return None,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return None,
        };
        let wanted = wanted.without_modifier();
        Some(vec![
            self.raise_compared(left, &wanted)?,
            self.raise_compared(right, &wanted)?,
        ])
    }

    fn is_null(&mut self, inner: &Expr, negated: bool) -> Option<Expression> {
        let sql_type = self.type_of(inner)?;
        Some(Expression::IsNull {
            argument: Box::new(self.raise(inner, Some(&sql_type))?),
            negated,
        })
    }

    fn is_boolean(&mut self, inner: &Expr, value: Option<bool>, negated: bool) -> Option<Expression> {
        Some(Expression::IsBoolean {
            argument: Box::new(self.raise(inner, Some(&SqlType::Boolean))?),
            value,
            negated,
        })
    }

    /// The SQL type, where the expression itself tells.
    fn type_of(&self, expr: &Expr) -> Option<SqlType> {
        Some(match expr {
            Expr::Alias(alias) => self.type_of(&alias.expr)?,
            Expr::Column(column) => self.table.key_column_type(column_from_plan(&column.name)?),
            Expr::ScalarFunction(call) => {
                let function = call.func.inner().as_any();
                if let Some(key) = function.downcast_ref::<KeyFunction>() {
                    key.sql_type.clone()
                } else {
                    function.downcast_ref::<ExpressionFunction>()?.result.clone()
                }
            }
            Expr::Cast(cast) => {
                let from = self.type_of(&cast.expr)?;
                // Only integers are widened to types that Arrow and SQL name alike.
                match &cast.data_type {
                    datafusion::arrow::datatypes::DataType::Int32 => SqlType::Integer,
                    datafusion::arrow::datatypes::DataType::Int64 => SqlType::BigInt,
                    datafusion::arrow::datatypes::DataType::Float64 => SqlType::DoublePrecision,
                    datafusion::arrow::datatypes::DataType::Utf8 if from.is_string() => SqlType::Text,
                    _ => return None,
                }
            }
            Expr::BinaryExpr(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList(_)
            | Expr::Literal(ScalarValue::Boolean(_), _) => SqlType::Boolean,
            _ => return None,
        })
    }
}

fn comparison_function(operator: Operator) -> Option<Function> {
    Some(match operator {
        Operator::Eq => Function::Equal,
        Operator::NotEq => Function::NotEqual,
        Operator::Lt => Function::Less,
        Operator::LtEq => Function::LessOrEqual,
        Operator::Gt => Function::Greater,
        Operator::GtEq => Function::GreaterOrEqual,
        _ => return None,
    })
}

/// A literal of a known type.
fn literal(value: &ScalarValue, sql_type: &SqlType) -> Option<Expression> {
    if value.is_null() {
        return Some(Expression::null(sql_type.clone()));
    }
    let array = value.to_array().ok()?;
    Some(Expression::literal(
        datum_at(&array, sql_type, 0).ok()?,
        sql_type.clone(),
    ))
}

/// A literal that DataFusion has already turned into its comparison key: some value that compares the same.
fn literal_from_key(value: &ScalarValue, sql_type: &SqlType) -> Option<Expression> {
    let datum = match value {
        ScalarValue::Binary(Some(key)) if matches!(sql_type, SqlType::Numeric(_)) => {
            Datum::Numeric(ordered_bytes::numeric_from_key(key)?)
        }
        ScalarValue::Binary(Some(key)) => Datum::Interval(ordered_bytes::interval_from_key(key)?),
        ScalarValue::Binary(None) => Datum::Null,
        _ => return None,
    };
    Some(Expression::literal(datum, sql_type.clone()))
}
