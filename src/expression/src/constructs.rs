//! The constructs of SQL that look like operators and functions: their typed forms.

use neorunbase_types::{CastContext, Result, SqlType};

use crate::Expression;
use crate::coerce::{coerce, coerce_to_boolean, coerce_to_common_type};
use crate::resolve::{
    comparison_type, narrow_integer_literals, resolve_operator, types_of, undefined_operator,
};
use crate::signatures::COMPARABLE;

/// `COALESCE`
///
/// # Errors
/// `42804` if the arguments have no common type.
pub fn resolve_coalesce(arguments: Vec<Expression>) -> Result<Expression> {
    let (arguments, sql_type) = coerce_to_common_type("COALESCE", arguments)?;
    Ok(Expression::Coalesce { arguments, sql_type })
}

pub(crate) fn resolve_extreme(arguments: Vec<Expression>, greatest: bool) -> Result<Expression> {
    let (arguments, sql_type) =
        coerce_to_common_type(if greatest { "GREATEST" } else { "LEAST" }, arguments)?;
    Ok(if greatest {
        Expression::Greatest { arguments, sql_type }
    } else {
        Expression::Least { arguments, sql_type }
    })
}

/// `NULLIF`
///
/// # Errors
/// `42883` if the two cannot be compared.
pub fn resolve_null_if(left: Expression, right: Expression) -> Result<Expression> {
    let common = comparison_type("=", &left, &right)?;
    Ok(Expression::NullIf {
        left: Box::new(coerce(left, &common, CastContext::Implicit)?),
        right: Box::new(coerce(right, &common, CastContext::Implicit)?),
    })
}

/// `IS [NOT] DISTINCT FROM`
///
/// # Errors
/// `42883` if the two cannot be compared.
pub fn resolve_is_distinct_from(left: Expression, right: Expression, negated: bool) -> Result<Expression> {
    let common = comparison_type("=", &left, &right)?;
    Ok(Expression::IsDistinctFrom {
        left: Box::new(coerce(left, &common, CastContext::Implicit)?),
        right: Box::new(coerce(right, &common, CastContext::Implicit)?),
        negated,
    })
}

/// `IS [NOT] NULL`
pub fn resolve_is_null(argument: Expression, negated: bool) -> Expression {
    let argument = match argument {
        Expression::Parameter {
            index,
            sql_type: SqlType::Unknown,
        } => Expression::Parameter {
            index,
            sql_type: SqlType::Text,
        },
        other => other,
    };
    Expression::IsNull {
        argument: Box::new(argument),
        negated,
    }
}

/// `IS [NOT] TRUE`, `FALSE`, `UNKNOWN` (`None`)
///
/// # Errors
/// `42804` if the argument is not boolean.
pub fn resolve_is_boolean(argument: Expression, value: Option<bool>, negated: bool) -> Result<Expression> {
    let construct = match (value, negated) {
        (Some(true), false) => "IS TRUE",
        (Some(true), true) => "IS NOT TRUE",
        (Some(false), false) => "IS FALSE",
        (Some(false), true) => "IS NOT FALSE",
        (None, false) => "IS UNKNOWN",
        (None, true) => "IS NOT UNKNOWN",
    };
    let argument = Box::new(coerce_to_boolean(argument, construct)?);
    Ok(Expression::IsBoolean {
        argument,
        value,
        negated,
    })
}

/// `AND` of all.
///
/// # Errors
/// `42804` if one is not boolean.
pub fn resolve_and(arguments: Vec<Expression>) -> Result<Expression> {
    let mut parts = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match coerce_to_boolean(argument, "AND")? {
            Expression::And(inner) => parts.extend(inner),
            other => parts.push(other),
        }
    }
    Ok(Expression::And(parts))
}

/// `OR` of all.
///
/// # Errors
/// `42804` if one is not boolean.
pub fn resolve_or(arguments: Vec<Expression>) -> Result<Expression> {
    let mut parts = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match coerce_to_boolean(argument, "OR")? {
            Expression::Or(inner) => parts.extend(inner),
            other => parts.push(other),
        }
    }
    Ok(Expression::Or(parts))
}

/// `NOT`
///
/// # Errors
/// `42804` if the argument is not boolean.
pub fn resolve_not(argument: Expression) -> Result<Expression> {
    Ok(Expression::Not(Box::new(coerce_to_boolean(argument, "NOT")?)))
}

/// `[NOT] IN (…)` of values.
///
/// # Errors
/// `42883` if the values cannot be compared, `42804` if they have no common type.
pub fn resolve_in_list(argument: Expression, list: Vec<Expression>, negated: bool) -> Result<Expression> {
    // As PostgreSQL: one common type of the list and the argument if there is one that compares, else an OR of
    // comparisons.
    let mut types = vec![argument.sql_type()];
    types.extend(types_of(&list));
    let common = crate::coerce::common_type_for("IN", &types)
        .ok()
        .filter(|common| {
            COMPARABLE
                .iter()
                .any(|[comparable, _]| comparable.same_base(common))
                || common.is_string()
        });
    if let Some(common) = common {
        let common = if matches!(common, SqlType::VarChar(_)) {
            SqlType::Text
        } else {
            common
        };
        let mut list = list;
        let argument_type = argument.sql_type();
        let narrowed: Vec<Expression> = if argument_type == common {
            std::mem::take(&mut list)
        } else {
            list.into_iter()
                .map(|item| narrow_integer_literals(argument.clone(), item, &common).1)
                .collect()
        };
        let common = if narrowed.iter().all(|item| item.sql_type() == argument_type) {
            argument_type
        } else {
            common
        };
        let list = narrowed
            .into_iter()
            .map(|item| coerce(item, &common, CastContext::Implicit))
            .collect::<Result<Vec<_>>>()?;
        let argument = Box::new(coerce(argument, &common, CastContext::Implicit)?);
        return Ok(Expression::InList {
            argument,
            list,
            negated,
        });
    }
    let comparisons = list
        .into_iter()
        .map(|item| {
            let operator = if negated { "<>" } else { "=" };
            resolve_operator(operator, Some(argument.clone()), item)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(if negated {
        Expression::And(comparisons)
    } else {
        Expression::Or(comparisons)
    })
}

/// `[NOT] BETWEEN low AND high`
///
/// # Errors
/// `42883` if the values cannot be compared.
pub fn resolve_between(
    argument: Expression,
    low: Expression,
    high: Expression,
    negated: bool,
) -> Result<Expression> {
    let (first, second) = if negated { ("<", ">") } else { (">=", "<=") };
    let parts = vec![
        resolve_operator(first, Some(argument.clone()), low)?,
        resolve_operator(second, Some(argument), high)?,
    ];
    Ok(if negated {
        Expression::Or(parts)
    } else {
        Expression::And(parts)
    })
}

/// `[NOT] LIKE` and `ILIKE`
///
/// # Errors
/// `42883` if the argument or the pattern is not text.
pub fn resolve_like(
    argument: Expression,
    pattern: Expression,
    escape: Option<Expression>,
    case_insensitive: bool,
    negated: bool,
) -> Result<Expression> {
    let types = [argument.sql_type(), pattern.sql_type()];
    let bytes = !case_insensitive
        && types.contains(&SqlType::Bytea)
        && types
            .iter()
            .all(|sql_type| matches!(sql_type, SqlType::Bytea | SqlType::Unknown));
    let text = |sql_type: &SqlType| sql_type.is_string() || *sql_type == SqlType::Unknown;
    if !bytes && !types.iter().all(text) {
        let operator = match (case_insensitive, negated) {
            (false, false) => "~~",
            (false, true) => "!~~",
            (true, false) => "~~*",
            (true, true) => "!~~*",
        };
        return Err(undefined_operator(operator, &types));
    }
    let wanted = if bytes { SqlType::Bytea } else { SqlType::Text };
    Ok(Expression::Like {
        argument: Box::new(coerce(argument, &wanted, CastContext::Implicit)?),
        pattern: Box::new(coerce(pattern, &wanted, CastContext::Implicit)?),
        escape: escape
            .map(|escape| coerce(escape, &SqlType::Text, CastContext::Implicit).map(Box::new))
            .transpose()?,
        case_insensitive,
        negated,
    })
}

/// `CASE [operand] WHEN … THEN … [ELSE …] END`
///
/// # Errors
/// `42804` if a condition is not boolean or the results have no common type, `42883` if the operand cannot be
/// compared.
pub fn resolve_case(
    operand: Option<Expression>,
    branches: Vec<(Expression, Expression)>,
    otherwise: Option<Expression>,
) -> Result<Expression> {
    // A bare literal operand is text.
    let operand = match operand {
        Some(operand) if operand.sql_type() == SqlType::Unknown => {
            Some(coerce(operand, &SqlType::Text, CastContext::Implicit)?)
        }
        other => other,
    };
    let mut conditions = Vec::with_capacity(branches.len());
    // PostgreSQL looks at ELSE first when it chooses the type.
    let has_otherwise = otherwise.is_some();
    let mut results: Vec<Expression> = otherwise.into_iter().collect();
    for (condition, result) in branches {
        conditions.push(match &operand {
            Some(operand) => resolve_operator("=", Some(operand.clone()), condition)?,
            None => coerce_to_boolean(condition, "CASE/WHEN")?,
        });
        results.push(result);
    }
    let (results, sql_type) = coerce_to_common_type("CASE", results)?;
    let mut results = results.into_iter();
    let otherwise = if has_otherwise {
        results.next().map(Box::new)
    } else {
        None
    };
    Ok(Expression::Case {
        branches: conditions.into_iter().zip(results).collect(),
        otherwise,
        sql_type,
    })
}
