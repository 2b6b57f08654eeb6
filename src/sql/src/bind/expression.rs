//! Scalar expressions: from syntax trees to typed expressions whose inputs are slots.

use neorunbase_expression::{
    Expression, coerce, coerce_to_boolean, resolve_and, resolve_between, resolve_case, resolve_function,
    resolve_in_list, resolve_is_boolean, resolve_is_distinct_from, resolve_is_null, resolve_like,
    resolve_not, resolve_operator, resolve_or,
};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, BinaryOperator, Expr, UnaryOperator};

use super::Binder;
use super::literal;
use super::names::{parts, split_name};
use super::scope;
use super::types::bind_type;

/// How deep expressions may nest: what is bound here is evaluated, encoded and freed by recursion too.
const MAXIMUM_DEPTH: usize = 200;

impl Binder<'_> {
    /// Binds an expression.
    pub(crate) fn bind_expression(&mut self, expression: &Expr) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAXIMUM_DEPTH {
            return Err(SqlError::new(SqlState("54001"), "stack depth limit exceeded")
                .with_hint("Write the expression with fewer levels of nesting."));
        }
        let bound = self.bind_any(expression);
        self.depth -= 1;
        let bound = bound?;
        self.learn_parameters(&bound)?;
        Ok(bound)
    }

    /// Binds a condition: the result is boolean. `clause` names it in errors.
    pub(crate) fn bind_condition(&mut self, expression: &Expr, clause: &str) -> Result<Expression> {
        let bound = coerce_to_boolean(self.bind_expression(expression)?, clause)?;
        self.learn_parameters(&bound)?;
        Ok(bound)
    }

    fn bind_any(&mut self, expression: &Expr) -> Result<Expression> {
        match expression {
            Expr::Identifier(ident) => self.bind_column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(idents) => self.bind_column(idents),
            Expr::Nested(inner) => self.bind_expression(inner),
            Expr::Value(value) => self.bind_value(&value.value),
            Expr::UnaryOp { op, expr } => self.bind_unary(*op, expr),
            Expr::BinaryOp { left, op, right } => self.bind_binary(left, op, right),
            Expr::IsNull(inner) => Ok(resolve_is_null(self.bind_expression(inner)?, false)),
            Expr::IsNotNull(inner) => Ok(resolve_is_null(self.bind_expression(inner)?, true)),
            Expr::IsTrue(inner) => resolve_is_boolean(self.bind_expression(inner)?, Some(true), false),
            Expr::IsNotTrue(inner) => resolve_is_boolean(self.bind_expression(inner)?, Some(true), true),
            Expr::IsFalse(inner) => resolve_is_boolean(self.bind_expression(inner)?, Some(false), false),
            Expr::IsNotFalse(inner) => resolve_is_boolean(self.bind_expression(inner)?, Some(false), true),
            Expr::IsUnknown(inner) => resolve_is_boolean(self.bind_expression(inner)?, None, false),
            Expr::IsNotUnknown(inner) => resolve_is_boolean(self.bind_expression(inner)?, None, true),
            Expr::IsDistinctFrom(left, right) => {
                let (left, right) = (self.bind_expression(left)?, self.bind_expression(right)?);
                resolve_is_distinct_from(left, right, false)
            }
            Expr::IsNotDistinctFrom(left, right) => {
                let (left, right) = (self.bind_expression(left)?, self.bind_expression(right)?);
                resolve_is_distinct_from(left, right, true)
            }
            Expr::InList { expr, list, negated } => self.bind_in_list(expr, list, *negated),
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => {
                let found = self.bind_in_subquery(expr, subquery)?;
                Ok(if *negated {
                    Expression::Not(Box::new(found))
                } else {
                    found
                })
            }
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let operand = self.bind_expression(expr)?;
                let (low, high) = (self.bind_expression(low)?, self.bind_expression(high)?);
                resolve_between(operand, low, high, *negated)
            }
            Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => self.bind_like(expr, pattern, escape_char.as_ref(), false, *negated),
            Expr::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => self.bind_like(expr, pattern, escape_char.as_ref(), true, *negated),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.bind_quantified(left, compare_op, right, false),
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => self.bind_quantified(left, compare_op, right, true),
            Expr::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
                ..
            } => self.bind_cast(expr, data_type),
            Expr::TypedString(typed) => {
                let sql_type = bind_type(&typed.data_type)?;
                let text = self.bind_value(&typed.value.value)?;
                coerce(text, &sql_type, CastContext::Explicit)
            }
            Expr::Interval(interval) => self.bind_interval(interval),
            Expr::AtTimeZone { timestamp, time_zone } => {
                let zone = self.bind_expression(time_zone)?;
                let timestamp = self.bind_expression(timestamp)?;
                resolve_function("timezone", vec![zone, timestamp])
            }
            Expr::Extract { field, expr, .. } => {
                let field = Expression::unknown(&field.to_string().trim_matches('\'').to_lowercase());
                let argument = self.bind_expression(expr)?;
                resolve_function("extract", vec![field, argument])
            }
            Expr::Ceil {
                expr,
                field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => {
                let argument = self.bind_expression(expr)?;
                resolve_function("ceil", vec![argument])
            }
            Expr::Floor {
                expr,
                field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => {
                let argument = self.bind_expression(expr)?;
                resolve_function("floor", vec![argument])
            }
            Expr::Position { expr, r#in } => {
                // The function takes the text first.
                let (needle, text) = (self.bind_expression(expr)?, self.bind_expression(r#in)?);
                resolve_function("position", vec![text, needle])
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let mut arguments = vec![self.bind_expression(expr)?];
                match (substring_from, substring_for) {
                    (Some(from), length) => {
                        arguments.push(self.bind_expression(from)?);
                        if let Some(length) = length {
                            arguments.push(self.bind_expression(length)?);
                        }
                    }
                    (None, Some(length)) => {
                        arguments.push(literal::integer(1));
                        arguments.push(self.bind_expression(length)?);
                    }
                    (None, None) => {}
                }
                resolve_function("substring", arguments)
            }
            Expr::Trim {
                expr,
                trim_where,
                trim_what,
                trim_characters,
            } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut arguments = vec![self.bind_expression(expr)?];
                if let Some(what) = trim_what {
                    arguments.push(self.bind_expression(what)?);
                }
                for characters in trim_characters.iter().flatten() {
                    arguments.push(self.bind_expression(characters)?);
                }
                resolve_function(name, arguments)
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                let mut arguments = Vec::new();
                for part in [
                    Some(expr),
                    Some(overlay_what),
                    Some(overlay_from),
                    overlay_for.as_ref(),
                ]
                .into_iter()
                .flatten()
                {
                    arguments.push(self.bind_expression(part)?);
                }
                resolve_function("overlay", arguments)
            }
            Expr::Collate { expr, collation } => {
                let names = parts(collation)?;
                match names.last().map(|ident| ident.value.as_str()) {
                    Some("default" | "C" | "POSIX" | "ucs_basic" | "C.UTF-8") => self.bind_expression(expr),
                    other => Err(SqlError::unsupported(format_args!(
                        "collation \"{}\"",
                        other.unwrap_or_default()
                    ))
                    .with_hint("Text is ordered by its bytes: COLLATE \"C\".")),
                }
            }
            Expr::Function(function) => self.bind_function(function),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => self.bind_case(operand.as_deref(), conditions, else_result.as_deref()),
            Expr::Exists { subquery, negated } => {
                let found = self.bind_exists(subquery)?;
                Ok(if *negated {
                    Expression::Not(Box::new(found))
                } else {
                    found
                })
            }
            Expr::Subquery(query) => self.bind_scalar_subquery(query),
            Expr::Tuple(_) => Err(SqlError::unsupported("a row value in this place")),
            Expr::Array(_) => Err(SqlError::unsupported("an array in this place")),
            Expr::SimilarTo { .. } => Err(SqlError::unsupported("SIMILAR TO").with_hint("Use LIKE or ~.")),
            other => Err(SqlError::unsupported(format_args!("the expression {other}"))),
        }
    }

    fn bind_column(&mut self, idents: &[ast::Ident]) -> Result<Expression> {
        // A reserved word that the parser takes for a name.
        if let [
            ast::Ident {
                value,
                quote_style: None,
                ..
            },
        ] = idents
            && value == "current_schema"
            && let Some(answer) = self.bind_session_function(value, &[])?
        {
            return Ok(answer);
        }
        match scope::resolve(&self.scopes, idents) {
            Ok(found) => Ok(found.clone()),
            Err(error) => Err(self.at(error, idents.first().map(|ident| ident.span))),
        }
    }

    fn bind_unary(&mut self, operator: UnaryOperator, operand: &Expr) -> Result<Expression> {
        let name = match operator {
            UnaryOperator::Not => {
                return resolve_not(self.bind_expression(operand)?);
            }
            UnaryOperator::Minus => {
                // The smallest integers have no positive counterpart to negate.
                if let Expr::Value(value) = operand
                    && let ast::Value::Number(digits, _) = &value.value
                {
                    return literal::number(&format!("-{digits}"));
                }
                "-"
            }
            UnaryOperator::Plus => "+",
            UnaryOperator::BitwiseNot => "~",
            UnaryOperator::PGAbs => "@",
            UnaryOperator::PGSquareRoot => "|/",
            UnaryOperator::PGCubeRoot => "||/",
            other => return Err(SqlError::unsupported(format_args!("operator {other}"))),
        };
        let argument = self.bind_expression(operand)?;
        resolve_operator(name, None, argument)
    }

    fn bind_binary(&mut self, left: &Expr, operator: &BinaryOperator, right: &Expr) -> Result<Expression> {
        if matches!(operator, BinaryOperator::And | BinaryOperator::Or) {
            return self.bind_chain(left, operator, right);
        }
        if let (Expr::Tuple(lefts), Expr::Tuple(rights)) = (unnest(left), unnest(right)) {
            return self.bind_row_comparison(lefts, operator, rights);
        }
        let (left, right) = (self.bind_expression(left)?, self.bind_expression(right)?);
        apply_binary(left, operator, right)
    }

    /// A chain of ANDs or ORs, however long, becomes one node.
    fn bind_chain(&mut self, left: &Expr, operator: &BinaryOperator, right: &Expr) -> Result<Expression> {
        let mut operands = vec![right];
        let mut rest = left;
        while let Expr::BinaryOp { left, op, right } = rest
            && op == operator
        {
            operands.push(right);
            rest = left;
        }
        operands.push(rest);
        let parts = operands
            .into_iter()
            .rev()
            .map(|operand| self.bind_expression(operand))
            .collect::<Result<_>>()?;
        if *operator == BinaryOperator::And {
            resolve_and(parts)
        } else {
            resolve_or(parts)
        }
    }

    /// `(a, b) = (c, d)` and `<>`.
    fn bind_row_comparison(
        &mut self,
        lefts: &[Expr],
        operator: &BinaryOperator,
        rights: &[Expr],
    ) -> Result<Expression> {
        if lefts.len() != rights.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        }
        let mut parts = Vec::with_capacity(lefts.len());
        for (left, right) in lefts.iter().zip(rights) {
            let (left, right) = (self.bind_expression(left)?, self.bind_expression(right)?);
            parts.push(apply_binary(left, operator, right)?);
        }
        match operator {
            BinaryOperator::Eq => Ok(Expression::And(parts)),
            BinaryOperator::NotEq => Ok(Expression::Or(parts)),
            other => Err(SqlError::unsupported(format_args!(
                "operator {other} between rows"
            ))),
        }
    }

    fn bind_in_list(&mut self, operand: &Expr, list: &[Expr], negated: bool) -> Result<Expression> {
        if let Expr::Tuple(operands) = unnest(operand) {
            let mut rows = Vec::with_capacity(list.len());
            for item in list {
                let Expr::Tuple(items) = unnest(item) else {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "unequal number of entries in row expressions",
                    ));
                };
                rows.push(self.bind_row_comparison(operands, &BinaryOperator::Eq, items)?);
            }
            let found = Expression::Or(rows);
            return Ok(if negated {
                Expression::Not(Box::new(found))
            } else {
                found
            });
        }
        let argument = self.bind_expression(operand)?;
        let items = list
            .iter()
            .map(|item| self.bind_expression(item))
            .collect::<Result<_>>()?;
        resolve_in_list(argument, items, negated)
    }

    fn bind_like(
        &mut self,
        operand: &Expr,
        pattern: &Expr,
        escape: Option<&ast::Value>,
        case_insensitive: bool,
        negated: bool,
    ) -> Result<Expression> {
        let (operand, pattern) = (self.bind_expression(operand)?, self.bind_expression(pattern)?);
        let escape = escape.map(|value| self.bind_value(value)).transpose()?;
        resolve_like(operand, pattern, escape, case_insensitive, negated)
    }

    fn bind_cast(&mut self, inner: &Expr, data_type: &ast::DataType) -> Result<Expression> {
        let name = match data_type {
            ast::DataType::Regclass => Some("regclass".to_owned()),
            ast::DataType::Custom(name, _) => Some(split_name(name)?.1),
            _ => None,
        };
        if let Some(name) = name
            && let Some(cast) = self.bind_registry_cast(&name, unnest(inner))?
        {
            return Ok(cast);
        }
        let sql_type = bind_type(data_type)?;
        let argument = self.bind_expression(inner)?;
        coerce(argument, &sql_type, CastContext::Explicit)
    }

    fn bind_interval(&mut self, interval: &ast::Interval) -> Result<Expression> {
        if interval.leading_precision.is_some() || interval.last_field.is_some() {
            return Err(SqlError::unsupported("INTERVAL with a range of fields"));
        }
        let Expr::Value(value) = &*interval.value else {
            return Err(
                SqlError::unsupported("INTERVAL of an expression").with_hint("Multiply an interval instead.")
            );
        };
        let mut text = value
            .value
            .clone()
            .into_string()
            .unwrap_or_else(|| value.value.to_string());
        if let Some(field) = &interval.leading_field
            && text.trim().parse::<f64>().is_ok()
        {
            text = format!("{} {}", text.trim(), field.to_string().to_lowercase());
        }
        coerce(
            Expression::unknown(&text),
            &SqlType::Interval,
            CastContext::Explicit,
        )
    }

    fn bind_case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<Expression> {
        let operand = operand.map(|operand| self.bind_expression(operand)).transpose()?;
        let branches = conditions
            .iter()
            .map(|when| {
                Ok((
                    self.bind_expression(&when.condition)?,
                    self.bind_expression(&when.result)?,
                ))
            })
            .collect::<Result<_>>()?;
        let otherwise = otherwise
            .map(|otherwise| self.bind_expression(otherwise))
            .transpose()?;
        resolve_case(operand, branches, otherwise)
    }

    /// `x op ANY (…)` and `x op ALL (…)` over a subquery, or over an array that is spelled out.
    fn bind_quantified(
        &mut self,
        left: &Expr,
        operator: &BinaryOperator,
        right: &Expr,
        all: bool,
    ) -> Result<Expression> {
        if let Expr::Subquery(query) = unnest(right) {
            let operator = operator_name(operator)?;
            if !all {
                return self.bind_any_subquery(left, &operator, query);
            }
            // True of all means: the opposite of none.
            let opposite = match operator.as_str() {
                "=" => "<>",
                "<>" => "=",
                "<" => ">=",
                "<=" => ">",
                ">" => "<=",
                ">=" => "<",
                other => {
                    return Err(SqlError::unsupported(format_args!(
                        "operator {other} with ALL of a subquery"
                    )));
                }
            };
            return resolve_not(self.bind_any_subquery(left, opposite, query)?);
        }
        let left = self.bind_expression(left)?;
        let Some(items) = self.bind_constant_array(right, &left)? else {
            return Err(
                SqlError::unsupported("ANY or ALL of an array that is not spelled out")
                    .with_hint("Use ARRAY[…], a literal such as '{1,2}', or IN (…)."),
            );
        };
        let mut parts = Vec::with_capacity(items.len());
        for item in items {
            parts.push(apply_binary(left.clone(), operator, item)?);
        }
        Ok(match (parts.is_empty(), all) {
            (true, _) => Expression::boolean(all),
            (false, true) => Expression::And(parts),
            (false, false) => Expression::Or(parts),
        })
    }
}

/// Without parentheses around it.
pub(crate) fn unnest(expression: &Expr) -> &Expr {
    match expression {
        Expr::Nested(inner) => unnest(inner),
        other => other,
    }
}

/// Applies a binary operator other than AND and OR.
fn apply_binary(left: Expression, operator: &BinaryOperator, right: Expression) -> Result<Expression> {
    resolve_operator(&operator_name(operator)?, Some(left), right)
}

/// The operator's name in `pg_operator`.
fn operator_name(operator: &BinaryOperator) -> Result<String> {
    Ok(match operator {
        BinaryOperator::NotEq => "<>".to_owned(),
        BinaryOperator::PGLikeMatch => "~~".to_owned(),
        BinaryOperator::PGILikeMatch => "~~*".to_owned(),
        BinaryOperator::PGNotLikeMatch => "!~~".to_owned(),
        BinaryOperator::PGNotILikeMatch => "!~~*".to_owned(),
        BinaryOperator::PGCustomBinaryOperator(parts) => match parts.as_slice() {
            [name] => name.clone(),
            [schema, name] if schema == "pg_catalog" => name.clone(),
            _ => return Err(SqlError::unsupported(format_args!("operator {operator}"))),
        },
        other => other.to_string(),
    })
}
