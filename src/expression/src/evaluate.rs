//! Evaluation of expression trees. Values that exist already (the row's, constants, parameters) are borrowed:
//! filters over them allocate nothing.

use std::borrow::Cow;
use std::cmp::Ordering;

use bytes::BytesMut;
use neorunbase_types::{CastContext, Datum, Result, SqlError, SqlType, cast_at};

use crate::function::Function;
use crate::{Expression, call, pattern};

/// What an expression is evaluated over.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationContext<'a> {
    /// The row: `Input` indexes count in it.
    pub row: &'a [Datum],
    /// Values of the statement's parameters.
    pub parameters: &'a [Datum],
    /// The transaction's time in microseconds since 1970-01-01 UTC: what `now()` returns.
    pub statement_time_unix_micros: i64,
}

impl EvaluationContext<'static> {
    /// For expressions that need nothing.
    pub const EMPTY: Self = Self {
        row: &[],
        parameters: &[],
        statement_time_unix_micros: 0,
    };
}

type Value<'a> = Cow<'a, Datum>;

const TRUE: Datum = Datum::Boolean(true);
const FALSE: Datum = Datum::Boolean(false);
static NULL: Datum = Datum::Null;

fn truth(value: Option<bool>) -> Value<'static> {
    Cow::Owned(match value {
        Some(true) => TRUE,
        Some(false) => FALSE,
        None => Datum::Null,
    })
}

impl Expression {
    /// The value.
    ///
    /// # Errors
    /// Division by zero, overflow, bad casts, ... with PostgreSQL's SQLSTATEs.
    pub fn evaluate(&self, context: &EvaluationContext<'_>) -> Result<Datum> {
        self.value(context).map(Cow::into_owned)
    }

    /// Whether the value is true; false and NULL are not.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn evaluate_filter(&self, context: &EvaluationContext<'_>) -> Result<bool> {
        Ok(self.truth_value(context)? == Some(true))
    }

    /// The value of a condition. Comparisons and connectives are decided here without making a `Datum` of each
    /// answer.
    fn truth_value(&self, context: &EvaluationContext<'_>) -> Result<Option<bool>> {
        Ok(match self {
            Self::Call {
                function, arguments, ..
            } if function.is_comparison() => {
                let [left, right] = arguments.as_slice() else {
                    return Err(call::mismatch(*function));
                };
                let (left, right) = (left.value(context)?, right.value(context)?);
                if left.is_null() || right.is_null() {
                    return Ok(None);
                }
                Some(compare(*function, &left, &right))
            }
            Self::And(parts) => {
                let mut result = Some(true);
                for part in parts {
                    match part.truth_value(context)? {
                        Some(false) => return Ok(Some(false)),
                        Some(true) => {}
                        None => result = None,
                    }
                }
                result
            }
            Self::Or(parts) => {
                let mut result = Some(false);
                for part in parts {
                    match part.truth_value(context)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => result = None,
                    }
                }
                result
            }
            Self::Not(argument) => argument.truth_value(context)?.map(|value| !value),
            Self::IsNull { argument, negated } => Some(argument.value(context)?.is_null() != *negated),
            Self::IsBoolean {
                argument,
                value,
                negated,
            } => Some((argument.truth_value(context)? == *value) != *negated),
            Self::IsDistinctFrom { left, right, negated } => {
                let (left, right) = (left.value(context)?, right.value(context)?);
                Some((left.compare(&right) != Ordering::Equal) != *negated)
            }
            Self::InList {
                argument,
                list,
                negated,
            } => {
                let value = argument.value(context)?;
                if value.is_null() && !list.is_empty() {
                    return Ok(None);
                }
                let mut null_seen = false;
                for item in list {
                    let item = item.value(context)?;
                    if item.is_null() {
                        null_seen = true;
                    } else if value.compare(&item) == Ordering::Equal {
                        return Ok(Some(!*negated));
                    }
                }
                if null_seen { None } else { Some(*negated) }
            }
            Self::Like {
                argument,
                pattern,
                escape,
                case_insensitive,
                negated,
            } => {
                let value = argument.value(context)?;
                let wanted = pattern.value(context)?;
                let escape = escape.as_ref().map(|escape| escape.value(context)).transpose()?;
                if value.is_null()
                    || wanted.is_null()
                    || escape.as_ref().is_some_and(|escape| escape.is_null())
                {
                    return Ok(None);
                }
                let escape = escape.as_deref();
                let matched = match padded(argument, &value) {
                    Some(text) => {
                        pattern::like(&Datum::Text(text.into()), &wanted, escape, *case_insensitive)?
                    }
                    None => pattern::like(&value, &wanted, escape, *case_insensitive)?,
                };
                Some(matched != *negated)
            }
            _ => match self.value(context)?.as_ref() {
                Datum::Boolean(value) => Some(*value),
                Datum::Null => None,
                _ => return Err(SqlError::internal("a condition is not boolean")),
            },
        })
    }

    /// The value, borrowed where it exists already.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn value<'a>(&'a self, context: &EvaluationContext<'a>) -> Result<Cow<'a, Datum>> {
        Ok(match self {
            Self::Literal { value, .. } => Cow::Borrowed(value),
            Self::Input { index, .. } => Cow::Borrowed(
                context
                    .row
                    .get(*index)
                    .ok_or_else(|| SqlError::internal("an input is not in the row"))?,
            ),
            Self::Parameter { index, .. } => {
                Cow::Borrowed(context.parameters.get(*index).ok_or_else(|| {
                    SqlError::internal(format!("there is no value for parameter ${}", index + 1))
                })?)
            }
            Self::Cast {
                argument,
                from,
                to,
                explicit,
            } => {
                let value = argument.value(context)?;
                if value.is_null() {
                    return Ok(Cow::Borrowed(&NULL));
                }
                let cast_context = if *explicit {
                    CastContext::Explicit
                } else {
                    CastContext::Assignment
                };
                let now = Some(context.statement_time_unix_micros);
                Cow::Owned(cast_at(&value, from, to, cast_context, now)?)
            }
            Self::Call {
                function,
                arguments,
                sql_type,
            } => evaluate_call(*function, arguments, sql_type, context)?,
            Self::Case {
                branches, otherwise, ..
            } => {
                for (condition, result) in branches {
                    if condition.evaluate_filter(context)? {
                        return result.value(context);
                    }
                }
                match otherwise {
                    Some(otherwise) => otherwise.value(context)?,
                    None => Cow::Borrowed(&NULL),
                }
            }
            Self::Coalesce { arguments, .. } => {
                for argument in arguments {
                    let value = argument.value(context)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Cow::Borrowed(&NULL)
            }
            Self::NullIf { left, right } => {
                let value = left.value(context)?;
                if value.is_null() {
                    return Ok(value);
                }
                let other = right.value(context)?;
                if !other.is_null() && value.compare(&other) == Ordering::Equal {
                    return Ok(Cow::Borrowed(&NULL));
                }
                value
            }
            Self::Greatest { arguments, .. } => extreme(arguments, Ordering::Greater, context)?,
            Self::Least { arguments, .. } => extreme(arguments, Ordering::Less, context)?,
            Self::And(_)
            | Self::Or(_)
            | Self::Not(_)
            | Self::IsNull { .. }
            | Self::IsBoolean { .. }
            | Self::IsDistinctFrom { .. }
            | Self::InList { .. }
            | Self::Like { .. } => truth(self.truth_value(context)?),
        })
    }

    /// Whether a constant part of the tree can be computed now: nothing volatile, and no error that evaluation
    /// might never reach.
    pub(crate) fn fold_node(self) -> Self {
        if matches!(self, Self::Literal { .. }) || !self.is_constant() {
            return self;
        }
        match self.evaluate(&EvaluationContext::EMPTY) {
            Ok(value) => Self::Literal {
                value,
                sql_type: self.sql_type(),
            },
            Err(_) => self,
        }
    }

    /// Computes the constant parts. Those that fail stay as they are, to fail when they are reached.
    #[must_use]
    pub fn fold_constants(self) -> Self {
        self.rewrite(&mut |node| match node {
            Self::And(parts) => fold_connective(parts, false),
            Self::Or(parts) => fold_connective(parts, true),
            Self::Case {
                mut branches,
                otherwise,
                sql_type,
            } => {
                // Branches that are never taken go; one that is always taken ends the list.
                branches.retain(|(condition, _)| !is_never_true(condition));
                if let Some(position) = branches
                    .iter()
                    .position(|(condition, _)| is_boolean(condition, true))
                {
                    let mut tail = branches.drain(position..);
                    let last = tail.next().map(|(_, result)| Box::new(result));
                    drop(tail);
                    return finish_case(branches, last, sql_type);
                }
                finish_case(branches, otherwise, sql_type)
            }
            other if has_only_literals(&other) => other.fold_node(),
            other => other,
        })
    }
}

fn finish_case(
    branches: Vec<(Expression, Expression)>,
    otherwise: Option<Box<Expression>>,
    sql_type: SqlType,
) -> Expression {
    if branches.is_empty() {
        let result = otherwise.map_or_else(|| Expression::null(sql_type.clone()), |result| *result);
        if result.sql_type() == sql_type {
            return result;
        }
        return Expression::Case {
            branches,
            otherwise: Some(Box::new(result)),
            sql_type,
        };
    }
    Expression::Case {
        branches,
        otherwise,
        sql_type,
    }
}

fn has_only_literals(expression: &Expression) -> bool {
    let mut only = true;
    expression.for_each_child(&mut |child| only = only && matches!(child, Expression::Literal { .. }));
    only
}

fn is_boolean(expression: &Expression, wanted: bool) -> bool {
    matches!(expression, Expression::Literal { value: Datum::Boolean(value), .. } if *value == wanted)
}

fn is_never_true(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Literal {
            value: Datum::Boolean(false) | Datum::Null,
            ..
        }
    )
}

/// `AND` (absorbed by false) or `OR` (absorbed by true) without its constant parts.
fn fold_connective(parts: Vec<Expression>, absorbing: bool) -> Expression {
    if parts.iter().any(|part| is_boolean(part, absorbing)) {
        return Expression::boolean(absorbing);
    }
    let mut kept: Vec<Expression> = parts
        .into_iter()
        .filter(|part| !is_boolean(part, !absorbing))
        .collect();
    match kept.len() {
        0 => Expression::boolean(!absorbing),
        1 => kept.swap_remove(0),
        _ if absorbing => Expression::Or(kept),
        _ => Expression::And(kept),
    }
}

fn extreme<'a>(
    arguments: &'a [Expression],
    wanted: Ordering,
    context: &EvaluationContext<'a>,
) -> Result<Value<'a>> {
    let mut best: Option<Value<'a>> = None;
    for argument in arguments {
        let value = argument.value(context)?;
        if !value.is_null() && best.as_ref().is_none_or(|best| value.compare(best) == wanted) {
            best = Some(value);
        }
    }
    Ok(best.unwrap_or(Cow::Borrowed(&NULL)))
}

/// The text of a `character(n)` with its blanks, for what counts them.
fn padded(argument: &Expression, value: &Datum) -> Option<String> {
    match argument.sql_type() {
        sql_type @ SqlType::Char(1..) => Some(value.to_text(&sql_type)),
        _ => None,
    }
}

fn compare(function: Function, left: &Datum, right: &Datum) -> bool {
    let ordering = left.compare(right);
    match function {
        Function::Equal => ordering == Ordering::Equal,
        Function::NotEqual => ordering != Ordering::Equal,
        Function::Less => ordering == Ordering::Less,
        Function::LessOrEqual => ordering != Ordering::Greater,
        Function::Greater => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    }
}

fn evaluate_call<'a>(
    function: Function,
    arguments: &'a [Expression],
    sql_type: &SqlType,
    context: &EvaluationContext<'a>,
) -> Result<Value<'a>> {
    match (function, arguments) {
        (Function::Concat, _) => return concat(arguments, context).map(Cow::Owned),
        (Function::ConcatWithSeparator, [separator, rest @ ..]) => {
            return concat_with_separator(separator, rest, context).map(Cow::Owned);
        }
        // These count the blanks of `character(n)`.
        (Function::OctetLength | Function::BitLength, [argument]) => {
            let value = argument.value(context)?;
            if !value.is_null()
                && let Some(text) = padded(argument, &value)
            {
                return call::unary(function, &Datum::Text(text.into())).map(Cow::Owned);
            }
        }
        (
            Function::RegexMatches
            | Function::RegexMatchesInsensitive
            | Function::RegexNotMatches
            | Function::RegexNotMatchesInsensitive,
            [argument, pattern],
        ) if matches!(argument.sql_type(), SqlType::Char(1..)) => {
            let (value, pattern) = (argument.value(context)?, pattern.value(context)?);
            if !value.is_null()
                && !pattern.is_null()
                && let Some(text) = padded(argument, &value)
            {
                return call::binary(function, &Datum::Text(text.into()), &pattern).map(Cow::Owned);
            }
        }
        _ => {}
    }
    let result = match arguments {
        [] => call::nullary(function, context.statement_time_unix_micros)?,
        [argument] => {
            let argument = argument.value(context)?;
            if argument.is_null() {
                return Ok(Cow::Borrowed(&NULL));
            }
            call::unary(function, &argument)?
        }
        [left, right] => {
            let left = left.value(context)?;
            if left.is_null() {
                return Ok(Cow::Borrowed(&NULL));
            }
            let right = right.value(context)?;
            if right.is_null() {
                return Ok(Cow::Borrowed(&NULL));
            }
            if function.is_comparison() {
                return Ok(truth(Some(compare(function, &left, &right))));
            }
            call::binary(function, &left, &right)?
        }
        _ => {
            let mut values = Vec::with_capacity(arguments.len());
            for argument in arguments {
                let value = argument.evaluate(context)?;
                if value.is_null() {
                    return Ok(Cow::Borrowed(&NULL));
                }
                values.push(value);
            }
            call::many(function, &values, sql_type)?
        }
    };
    Ok(Cow::Owned(result))
}

fn concat(arguments: &[Expression], context: &EvaluationContext<'_>) -> Result<Datum> {
    let mut output = BytesMut::new();
    for argument in arguments {
        argument
            .value(context)?
            .write_text(&argument.sql_type(), &mut output);
    }
    Ok(text_of(&output))
}

fn concat_with_separator(
    separator: &Expression,
    arguments: &[Expression],
    context: &EvaluationContext<'_>,
) -> Result<Datum> {
    let separator = separator.value(context)?;
    let Datum::Text(separator) = separator.as_ref() else {
        return Ok(Datum::Null);
    };
    let mut output = BytesMut::new();
    let mut first = true;
    for argument in arguments {
        let value = argument.value(context)?;
        if value.is_null() {
            continue;
        }
        if !std::mem::take(&mut first) {
            output.extend_from_slice(separator.as_bytes());
        }
        value.write_text(&argument.sql_type(), &mut output);
    }
    Ok(text_of(&output))
}

/// Output functions write UTF-8 only.
fn text_of(bytes: &BytesMut) -> Datum {
    Datum::Text(String::from_utf8_lossy(bytes).into())
}
