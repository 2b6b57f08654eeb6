//! Just enough of a binder to read the tables' expressions.

use neorunbase_expression::{
    Expression, Function, coerce, resolve_and, resolve_between, resolve_case, resolve_function,
    resolve_in_list, resolve_is_boolean, resolve_is_distinct_from, resolve_is_null, resolve_like,
    resolve_not, resolve_operator, resolve_or,
};
use neorunbase_types::{CastContext, Datum, Result, SqlType};
use sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
    UnaryOperator,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// `None` if the parser does not understand the text.
pub fn bind(text: &str) -> Option<Result<Expression>> {
    let parsed = Parser::new(&PostgreSqlDialect {})
        .try_with_sql(text)
        .ok()?
        .parse_expr()
        .ok()?;
    Some(expression(&parsed))
}

fn number(text: &str) -> Result<Expression> {
    for sql_type in [SqlType::Integer, SqlType::BigInt] {
        if let Ok(value) = Datum::from_text(&sql_type, text) {
            return Ok(Expression::literal(value, sql_type));
        }
    }
    let sql_type = SqlType::Numeric(None);
    Ok(Expression::literal(Datum::from_text(&sql_type, text)?, sql_type))
}

pub fn sql_type(data_type: &DataType) -> SqlType {
    let text = data_type.to_string().to_lowercase();
    let (base, modifier) = match text.split_once('(') {
        Some((base, rest)) => (base.to_owned(), Some(rest.trim_end_matches(')').to_owned())),
        None => (text, None),
    };
    let length = || modifier.as_ref().and_then(|text| text.parse::<u32>().ok());
    match base.trim() {
        "int" | "integer" | "int4" => SqlType::Integer,
        "smallint" | "int2" => SqlType::SmallInt,
        "bigint" | "int8" => SqlType::BigInt,
        "float4" | "real" => SqlType::Real,
        "float8" | "double precision" => SqlType::DoublePrecision,
        "numeric" | "decimal" => SqlType::Numeric(modifier.as_ref().map(|text| {
            let (precision, scale) = text.split_once(',').unwrap_or((text, "0"));
            (
                precision.trim().parse().expect("precision"),
                scale.trim().parse().expect("scale"),
            )
        })),
        "text" => SqlType::Text,
        "varchar" | "character varying" => SqlType::VarChar(length()),
        "char" | "character" => SqlType::Char(length().unwrap_or(1)),
        "bool" | "boolean" => SqlType::Boolean,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "oid" => SqlType::Oid,
        "name" => SqlType::Name,
        other => panic!("type {other}"),
    }
}

fn all(parts: &[Expr]) -> Result<Vec<Expression>> {
    parts.iter().map(expression).collect()
}

fn call(name: &str, parts: &[&Expr]) -> Result<Expression> {
    resolve_function(
        name,
        parts.iter().map(|part| expression(part)).collect::<Result<_>>()?,
    )
}

fn escape(text: &Option<ast::Value>) -> Option<Expression> {
    text.as_ref().map(|value| match value {
        ast::Value::SingleQuotedString(text) => Expression::unknown(text),
        other => panic!("escape {other}"),
    })
}

fn expression(parsed: &Expr) -> Result<Expression> {
    match parsed {
        Expr::Nested(inner) => expression(inner),
        Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => number(text),
            ast::Value::SingleQuotedString(text) => Ok(Expression::unknown(text)),
            ast::Value::Boolean(value) => Ok(Expression::boolean(*value)),
            ast::Value::Null => Ok(Expression::null(SqlType::Unknown)),
            other => panic!("value {other}"),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => resolve_not(expression(expr)?),
        Expr::UnaryOp { op, expr } => {
            // A sign belongs to the number's text, so that the least integer can be written.
            if let (UnaryOperator::Minus, Expr::Value(value)) = (op, expr.as_ref())
                && let ast::Value::Number(text, _) = &value.value
            {
                return number(&format!("-{text}"));
            }
            resolve_operator(&op.to_string(), None, expression(expr)?)
        }
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (expression(left)?, expression(right)?);
            match op {
                BinaryOperator::And => resolve_and(vec![left, right]),
                BinaryOperator::Or => resolve_or(vec![left, right]),
                other => resolve_operator(&other.to_string(), Some(left), right),
            }
        }
        Expr::Cast {
            kind: CastKind::DoubleColon | CastKind::Cast,
            expr,
            data_type,
            ..
        } => coerce(expression(expr)?, &sql_type(data_type), CastContext::Explicit),
        Expr::TypedString(typed) => {
            let ast::Value::SingleQuotedString(text) = &typed.value.value else {
                panic!("typed string")
            };
            coerce(
                Expression::unknown(text),
                &sql_type(&typed.data_type),
                CastContext::Explicit,
            )
        }
        Expr::Interval(interval) => coerce(
            expression(&interval.value)?,
            &SqlType::Interval,
            CastContext::Explicit,
        ),
        Expr::IsNull(inner) => Ok(resolve_is_null(expression(inner)?, false)),
        Expr::IsNotNull(inner) => Ok(resolve_is_null(expression(inner)?, true)),
        Expr::IsTrue(inner) => resolve_is_boolean(expression(inner)?, Some(true), false),
        Expr::IsNotTrue(inner) => resolve_is_boolean(expression(inner)?, Some(true), true),
        Expr::IsFalse(inner) => resolve_is_boolean(expression(inner)?, Some(false), false),
        Expr::IsUnknown(inner) => resolve_is_boolean(expression(inner)?, None, false),
        Expr::IsDistinctFrom(left, right) => {
            resolve_is_distinct_from(expression(left)?, expression(right)?, false)
        }
        Expr::IsNotDistinctFrom(left, right) => {
            resolve_is_distinct_from(expression(left)?, expression(right)?, true)
        }
        Expr::InList { expr, list, negated } => resolve_in_list(expression(expr)?, all(list)?, *negated),
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => resolve_between(expression(expr)?, expression(low)?, expression(high)?, *negated),
        Expr::Like {
            negated,
            expr,
            pattern,
            escape_char,
            ..
        } => resolve_like(
            expression(expr)?,
            expression(pattern)?,
            escape(escape_char),
            false,
            *negated,
        ),
        Expr::ILike {
            negated,
            expr,
            pattern,
            escape_char,
            ..
        } => resolve_like(
            expression(expr)?,
            expression(pattern)?,
            escape(escape_char),
            true,
            *negated,
        ),
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => {
            let operand = operand.as_deref().map(expression).transpose()?;
            let branches = conditions
                .iter()
                .map(|branch| Ok((expression(&branch.condition)?, expression(&branch.result)?)))
                .collect::<Result<_>>()?;
            resolve_case(
                operand,
                branches,
                else_result.as_deref().map(expression).transpose()?,
            )
        }
        Expr::Extract { field, expr, .. } => {
            let field = Expression::unknown(&field.to_string().to_lowercase());
            resolve_function("extract", vec![field, expression(expr)?])
        }
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let one = number("1")?;
            let mut arguments = vec![expression(expr)?];
            arguments.push(substring_from.as_deref().map_or(Ok(one), expression)?);
            arguments.extend(substring_for.as_deref().map(expression).transpose()?);
            resolve_function("substring", arguments)
        }
        Expr::Trim {
            expr,
            trim_where,
            trim_what,
            ..
        } => {
            let name = match trim_where {
                Some(ast::TrimWhereField::Leading) => "ltrim",
                Some(ast::TrimWhereField::Trailing) => "rtrim",
                _ => "btrim",
            };
            let mut arguments = vec![expression(expr)?];
            arguments.extend(trim_what.as_deref().map(expression).transpose()?);
            resolve_function(name, arguments)
        }
        Expr::Position { expr, r#in } => call("position", &[r#in, expr]),
        Expr::Overlay {
            expr,
            overlay_what,
            overlay_from,
            overlay_for,
        } => {
            let mut parts = vec![expr.as_ref(), overlay_what, overlay_from];
            parts.extend(overlay_for.as_deref());
            call("overlay", &parts)
        }
        Expr::Ceil { expr, .. } => call("ceil", &[expr]),
        Expr::Floor { expr, .. } => call("floor", &[expr]),
        Expr::AtTimeZone { timestamp, time_zone } => call("timezone", &[time_zone, timestamp]),
        Expr::Function(function) => {
            let FunctionArguments::List(list) = &function.args else {
                panic!("arguments of {function}")
            };
            let arguments = list
                .args
                .iter()
                .map(|argument| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => expression(argument),
                    other => panic!("argument {other}"),
                })
                .collect::<Result<Vec<_>>>()?;
            resolve_function(&function.name.to_string().to_lowercase(), arguments)
        }
        other => panic!("expression {other:?}"),
    }
}

/// Whether a tree holds a call of a function.
#[allow(dead_code)]
pub fn calls(expression: &Expression, wanted: Function) -> bool {
    expression.any(&|node| matches!(node, Expression::Call { function, .. } if *function == wanted))
}
