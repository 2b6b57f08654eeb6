//! Conversions that the context asks for, decided before anything runs.

use neorunbase_types::cast::no_cast;
use neorunbase_types::{
    CastContext, Datum, Result, SqlError, SqlState, SqlType, TypeCategory, can_cast, cast,
};

use crate::Expression;

/// Converts an expression to a type. Literals are converted at once; an untyped literal is read as the type, and
/// an untyped parameter becomes one of the type.
///
/// # Errors
/// `42846` if there is no such cast in this context; for an untyped literal, the error of its text.
pub fn coerce(expression: Expression, to: &SqlType, context: CastContext) -> Result<Expression> {
    let from = expression.sql_type();
    match expression {
        Expression::Literal {
            value,
            sql_type: SqlType::Unknown,
        } => coerce_unknown_literal(value, to, context),
        Expression::Parameter {
            index,
            sql_type: SqlType::Unknown,
        } => {
            let base = to.without_modifier();
            let parameter = Expression::Parameter {
                index,
                sql_type: base.clone(),
            };
            if base == *to {
                Ok(parameter)
            } else {
                Ok(cast_node(parameter, base, to, context))
            }
        }
        expression if *to == SqlType::Unknown || from == *to => Ok(expression),
        // A type without modifier takes all of its kind as they are.
        expression if from.same_base(to) && *to == to.without_modifier() => {
            if context == CastContext::Explicit {
                Ok(retyped(expression, from, to))
            } else {
                Ok(expression)
            }
        }
        expression => {
            if !can_cast(&from, to, context) {
                return Err(no_cast(&from, to));
            }
            // Between the texts nothing changes but the name.
            if context == CastContext::Implicit && from.is_string() && *to == SqlType::Text {
                return Ok(expression);
            }
            Ok(cast_node(expression, from, to, context))
        }
    }
}

/// As an explicit cast within one kind of type, of which only the declared type remains.
fn retyped(expression: Expression, from: SqlType, to: &SqlType) -> Expression {
    match expression {
        Expression::Literal { value, .. } => Expression::Literal {
            value,
            sql_type: to.clone(),
        },
        other => Expression::Cast {
            argument: Box::new(other),
            from,
            to: to.clone(),
            explicit: true,
        },
    }
}

fn cast_node(argument: Expression, from: SqlType, to: &SqlType, context: CastContext) -> Expression {
    let explicit = context == CastContext::Explicit;
    if let Expression::Literal { value, .. } = &argument
        && (value.is_null() || !Expression::cast_needs_clock(&from, to))
        // What fails stays, to fail only if it is reached.
        && let Ok(converted) = cast(value, &from, to, context)
    {
        return Expression::Literal {
            value: converted,
            sql_type: to.clone(),
        };
    }
    Expression::Cast {
        argument: Box::new(argument),
        from,
        to: to.clone(),
        explicit,
    }
}

fn coerce_unknown_literal(value: Datum, to: &SqlType, context: CastContext) -> Result<Expression> {
    if value.is_null() || *to == SqlType::Unknown {
        return Ok(Expression::Literal {
            value,
            sql_type: to.clone(),
        });
    }
    match cast(&value, &SqlType::Unknown, to, context) {
        Ok(value) => Ok(Expression::Literal {
            value,
            sql_type: to.clone(),
        }),
        // `now` and its like are read when the clock is at hand.
        Err(error)
            if error.state == SqlState::FEATURE_NOT_SUPPORTED
                && Expression::cast_needs_clock(&SqlType::Unknown, to) =>
        {
            Ok(Expression::Cast {
                argument: Box::new(Expression::Literal {
                    value,
                    sql_type: SqlType::Text,
                }),
                from: SqlType::Text,
                to: to.clone(),
                explicit: true,
            })
        }
        Err(error) => Err(error),
    }
}

/// The type that all of several expressions are converted to (manual, section 10.5), for an error that names the
/// construct, such as `CASE` or `UNION`.
///
/// # Errors
/// `42804` if they have none.
pub fn common_type_for(construct: &str, types: &[SqlType]) -> Result<SqlType> {
    let mut known = types.iter().filter(|sql_type| **sql_type != SqlType::Unknown);
    let Some(first) = known.next() else {
        return Ok(SqlType::Text);
    };
    if types.iter().all(|sql_type| sql_type == first) {
        return Ok(first.clone());
    }
    let mut chosen = first;
    for next in known {
        if next.same_base(chosen) {
            continue;
        }
        if next.category() != chosen.category() {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "{construct} types {} and {} cannot be matched",
                    chosen.base_name(),
                    next.base_name()
                ),
            ));
        }
        if !chosen.is_preferred()
            && can_cast(chosen, next, CastContext::Implicit)
            && !can_cast(next, chosen, CastContext::Implicit)
        {
            chosen = next;
        }
    }
    // PostgreSQL keeps a modifier that all share; an untyped literal has none to share.
    Ok(chosen.without_modifier())
}

/// As [`common_type_for`], without a construct to name.
///
/// # Errors
/// `42804` if there is none.
pub fn common_type(types: &[SqlType]) -> Result<SqlType> {
    common_type_for("CASE", types)
}

/// Converts several expressions to their common type.
///
/// # Errors
/// `42804` if they have none; errors of untyped literals' texts.
pub fn coerce_to_common_type(
    construct: &str,
    expressions: Vec<Expression>,
) -> Result<(Vec<Expression>, SqlType)> {
    let types: Vec<SqlType> = expressions.iter().map(Expression::sql_type).collect();
    let common = common_type_for(construct, &types)?;
    let converted = expressions
        .into_iter()
        .map(|expression| {
            let from = expression.sql_type();
            if from != SqlType::Unknown && !can_cast(&from, &common, CastContext::Implicit) {
                return Err(SqlError::new(
                    SqlState::CANNOT_COERCE,
                    format!(
                        "{construct} could not convert type {} to {}",
                        from.base_name(),
                        common.base_name()
                    ),
                ));
            }
            coerce(expression, &common, CastContext::Implicit)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((converted, common))
}

/// Makes a condition boolean, for `WHERE`, `AND`, `CASE WHEN`, ...
///
/// # Errors
/// `42804` `argument of WHERE must be type boolean, not type integer`
pub fn coerce_to_boolean(expression: Expression, construct: &str) -> Result<Expression> {
    let from = expression.sql_type();
    if !matches!(from.category(), TypeCategory::Boolean | TypeCategory::Unknown) {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of {construct} must be type boolean, not type {}",
                from.base_name()
            ),
        ));
    }
    coerce(expression, &SqlType::Boolean, CastContext::Implicit)
}

/// Converts a value for a column, with the error that names it.
///
/// # Errors
/// `42804` `column "a" is of type integer but expression is of type text`
pub fn coerce_for_column(expression: Expression, column: &str, to: &SqlType) -> Result<Expression> {
    let from = expression.sql_type();
    if !can_cast(&from, to, CastContext::Assignment) {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{column}\" is of type {} but expression is of type {}",
                to.base_name(),
                from.base_name()
            ),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    coerce(expression, to, CastContext::Assignment)
}
