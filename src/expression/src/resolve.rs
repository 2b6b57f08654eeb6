//! From SQL's names to typed calls: operators, functions and the constructs that look like them.

use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType, TypeCategory};

use crate::coerce::{coerce, coerce_to_boolean, coerce_to_common_type};
use crate::function::Function;
use crate::overload::{Choice, choose};
use crate::signatures::{BINARY_OPERATORS, COMPARABLE, FUNCTIONS, PREFIX_OPERATORS, Signature};
use crate::{Expression, type_name};

fn types_of(expressions: &[Expression]) -> Vec<SqlType> {
    expressions.iter().map(Expression::sql_type).collect()
}

fn comparison(operator: &str) -> Option<Function> {
    Some(match operator {
        "=" => Function::Equal,
        "<>" | "!=" => Function::NotEqual,
        "<" => Function::Less,
        "<=" => Function::LessOrEqual,
        ">" => Function::Greater,
        ">=" => Function::GreaterOrEqual,
        _ => return None,
    })
}

fn undefined_operator(operator: &str, types: &[SqlType]) -> Box<SqlError> {
    let (shown, hint) = match types {
        [argument] => (
            format!("{operator} {}", argument.base_name()),
            "No operator matches the given name and argument type. You might need to add an explicit type cast.",
        ),
        [left, right, ..] => (
            format!("{} {operator} {}", left.base_name(), right.base_name()),
            "No operator matches the given name and argument types. You might need to add explicit type casts.",
        ),
        [] => (operator.to_owned(), "No operator matches the given name."),
    };
    SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("operator does not exist: {shown}"),
    )
    .with_hint(hint)
}

fn ambiguous_operator(operator: &str, types: &[SqlType]) -> Box<SqlError> {
    let shown = match types {
        [argument] => format!("{operator} {}", argument.base_name()),
        [left, right, ..] => format!("{} {operator} {}", left.base_name(), right.base_name()),
        [] => operator.to_owned(),
    };
    SqlError::new(
        SqlState::AMBIGUOUS_FUNCTION,
        format!("operator is not unique: {shown}"),
    )
    .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts.")
}

/// Converts arguments to what the chosen overload takes, and builds the call.
fn call(
    function: Function,
    arguments: Vec<Expression>,
    wanted: &[SqlType],
    result: SqlType,
) -> Result<Expression> {
    // The evaluator has no operators on floats of two widths.
    let widened = wanted.contains(&SqlType::Real) && wanted.contains(&SqlType::DoublePrecision);
    let arguments = arguments
        .into_iter()
        .zip(wanted)
        .map(|(argument, wanted)| {
            let wanted = if widened && *wanted == SqlType::Real {
                &SqlType::DoublePrecision
            } else {
                wanted
            };
            coerce(argument, wanted, CastContext::Implicit)
        })
        .collect::<Result<Vec<_>>>()?;
    if function == Function::UnaryPlus {
        return arguments
            .into_iter()
            .next()
            .ok_or_else(|| SqlError::internal("prefix operator without operand"));
    }
    Ok(Expression::Call {
        function,
        arguments,
        sql_type: result,
    })
}

/// An operator on one or two operands; `left` is `None` for prefix operators. `!=` is `<>`; `LIKE` and its family
/// are known by their operator names `~~`, `!~~`, `~~*`, `!~~*`.
///
/// # Errors
/// `42883` if no such operator takes these types, `42725` if several do; errors of untyped literals' texts.
pub fn resolve_operator(operator: &str, left: Option<Expression>, right: Expression) -> Result<Expression> {
    let Some(left) = left else {
        return resolve_prefix(operator, right);
    };
    if let Some(function) = comparison(operator) {
        return resolve_comparison(operator, function, left, right);
    }
    match operator {
        "||" => return resolve_concatenation(left, right),
        "~~" => return resolve_like(left, right, None, false, false),
        "!~~" => return resolve_like(left, right, None, false, true),
        "~~*" => return resolve_like(left, right, None, true, false),
        "!~~*" => return resolve_like(left, right, None, true, true),
        _ => {}
    }
    let candidates: Vec<&Signature> = BINARY_OPERATORS
        .iter()
        .filter(|signature| signature.name == operator)
        .collect();
    let arguments: Vec<&[SqlType]> = candidates.iter().map(|signature| signature.arguments).collect();
    let types = [left.sql_type(), right.sql_type()];
    match choose(&arguments, &types, true) {
        Choice::One(index) => {
            let signature = candidates[index];
            call(
                signature.function,
                vec![left, right],
                signature.arguments,
                signature.result.clone(),
            )
        }
        Choice::None => Err(undefined_operator(operator, &types)),
        Choice::Ambiguous => Err(ambiguous_operator(operator, &types)),
    }
}

fn resolve_prefix(operator: &str, operand: Expression) -> Result<Expression> {
    let candidates: Vec<&Signature> = PREFIX_OPERATORS
        .iter()
        .filter(|signature| signature.name == operator)
        .collect();
    let arguments: Vec<&[SqlType]> = candidates.iter().map(|signature| signature.arguments).collect();
    let types = [operand.sql_type()];
    match choose(&arguments, &types, false) {
        Choice::One(index) => {
            let signature = candidates[index];
            let call = call(
                signature.function,
                vec![operand],
                signature.arguments,
                signature.result.clone(),
            )?;
            // The minus of a constant is part of it.
            Ok(if signature.function == Function::Negate {
                call.fold_node()
            } else {
                call
            })
        }
        Choice::None => Err(undefined_operator(operator, &types)),
        Choice::Ambiguous => Err(ambiguous_operator(operator, &types)),
    }
}

fn comparison_type(operator: &str, left: &Expression, right: &Expression) -> Result<SqlType> {
    let types = [left.sql_type(), right.sql_type()];
    let candidates: Vec<&[SqlType]> = COMPARABLE.iter().map(<[SqlType; 2]>::as_slice).collect();
    match choose(&candidates, &types, true) {
        Choice::One(index) => {
            let [left, right] = &COMPARABLE[index];
            Ok(if *right == SqlType::DoublePrecision {
                right.clone()
            } else {
                left.clone()
            })
        }
        Choice::None => Err(undefined_operator(operator, &types)),
        Choice::Ambiguous => Err(ambiguous_operator(operator, &types)),
    }
}

fn resolve_comparison(
    operator: &str,
    function: Function,
    left: Expression,
    right: Expression,
) -> Result<Expression> {
    let common = comparison_type(operator, &left, &right)?;
    let (left, right) = narrow_integer_literals(left, right, &common);
    let common = if left.sql_type() == right.sql_type() {
        left.sql_type()
    } else {
        common
    };
    let wanted = [common.clone(), common];
    call(function, vec![left, right], &wanted, SqlType::Boolean)
}

/// A constant that fits the other side's narrower integer type takes it, so that columns are compared as they are
/// and indexes can be used: `small_column = 5`.
fn narrow_integer_literals(
    left: Expression,
    right: Expression,
    common: &SqlType,
) -> (Expression, Expression) {
    let integer =
        |sql_type: &SqlType| matches!(sql_type, SqlType::SmallInt | SqlType::Integer | SqlType::BigInt);
    let narrow = |literal: Expression, to: &SqlType| match &literal {
        Expression::Literal { value, sql_type } if integer(sql_type) && integer(to) && sql_type != to => {
            match neorunbase_types::cast(value, sql_type, to, CastContext::Explicit) {
                Ok(value) => Expression::Literal {
                    value,
                    sql_type: to.clone(),
                },
                Err(_) => literal,
            }
        }
        _ => literal,
    };
    if !integer(common) {
        return (left, right);
    }
    let (left_type, right_type) = (left.sql_type(), right.sql_type());
    (narrow(left, &right_type), narrow(right, &left_type))
}

fn resolve_concatenation(left: Expression, right: Expression) -> Result<Expression> {
    let types = [left.sql_type(), right.sql_type()];
    let bytea = |index: usize| types[index] == SqlType::Bytea;
    let string = |index: usize| {
        matches!(
            types[index].category(),
            TypeCategory::String | TypeCategory::Unknown
        )
    };
    if (bytea(0) && (bytea(1) || types[1] == SqlType::Unknown)) || (bytea(1) && types[0] == SqlType::Unknown)
    {
        let wanted = [SqlType::Bytea, SqlType::Bytea];
        return call(Function::Concatenate, vec![left, right], &wanted, SqlType::Bytea);
    }
    if !string(0) && !string(1) {
        return Err(undefined_operator("||", &types));
    }
    let text = |side: Expression| {
        let context = if side.sql_type().is_string() || side.sql_type() == SqlType::Unknown {
            CastContext::Implicit
        } else {
            CastContext::Explicit
        };
        coerce(side, &SqlType::Text, context)
    };
    let arguments = vec![text(left)?, text(right)?];
    Ok(Expression::Call {
        function: Function::Concatenate,
        arguments,
        sql_type: SqlType::Text,
    })
}

/// A function by its (lower-case, unqualified) name. `coalesce`, `nullif`, `greatest`, `least`, `concat` and
/// `concat_ws` take any number of arguments; a type's name with one argument is a cast.
///
/// # Errors
/// `42883` if no such function takes these types, `42725` if several do; errors of untyped literals' texts.
pub fn resolve_function(name: &str, arguments: Vec<Expression>) -> Result<Expression> {
    match (name, arguments.len()) {
        ("coalesce", 1..) => return resolve_coalesce(arguments),
        ("greatest" | "least", 1..) => return resolve_extreme(arguments, name == "greatest"),
        ("nullif", 2) => {
            let mut sides = arguments.into_iter();
            if let (Some(left), Some(right)) = (sides.next(), sides.next()) {
                return resolve_null_if(left, right);
            }
            return Err(SqlError::internal("nullif without arguments"));
        }
        ("concat", 1..) => return resolve_concat(Function::Concat, arguments),
        ("concat_ws", 2..) => return resolve_concat(Function::ConcatWithSeparator, arguments),
        ("age", 1) => return resolve_age_from_today(arguments),
        _ => {}
    }
    let types = types_of(&arguments);
    let candidates: Vec<&Signature> = FUNCTIONS
        .iter()
        .filter(|signature| signature.name == name)
        .collect();
    let wanted: Vec<&[SqlType]> = candidates.iter().map(|signature| signature.arguments).collect();
    let described = || {
        let shown: Vec<&str> = types.iter().map(SqlType::base_name).collect();
        format!("{name}({})", shown.join(", "))
    };
    match choose(&wanted, &types, false) {
        Choice::One(index) => {
            let signature = candidates[index];
            call(
                signature.function,
                arguments,
                signature.arguments,
                signature.result.clone(),
            )
        }
        Choice::None => {
            if let (Some(to), [from]) = (type_name::from_function_name(name), types.as_slice())
                && neorunbase_types::can_cast(from, &to, CastContext::Explicit)
                && let Some(argument) = arguments.into_iter().next()
            {
                return coerce(argument, &to, CastContext::Explicit);
            }
            Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {} does not exist", described()),
            )
            .with_hint(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            ))
        }
        Choice::Ambiguous => Err(SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("function {} is not unique", described()),
        )
        .with_hint("Could not choose a best candidate function. You might need to add explicit type casts.")),
    }
}

/// Whether there is a function of this name, with any arguments.
pub fn function_exists(name: &str) -> bool {
    matches!(
        name,
        "coalesce" | "greatest" | "least" | "nullif" | "concat" | "concat_ws"
    ) || FUNCTIONS.iter().any(|signature| signature.name == name)
}

fn resolve_concat(function: Function, arguments: Vec<Expression>) -> Result<Expression> {
    let separator = function == Function::ConcatWithSeparator;
    let arguments = arguments
        .into_iter()
        .enumerate()
        .map(|(index, argument)| {
            let from = argument.sql_type();
            if (separator && index == 0) || from == SqlType::Unknown {
                coerce(argument, &SqlType::Text, CastContext::Implicit)
            } else {
                Ok(argument)
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Expression::Call {
        function,
        arguments,
        sql_type: SqlType::Text,
    })
}

/// `age(x)`: from the midnight of today.
fn resolve_age_from_today(arguments: Vec<Expression>) -> Result<Expression> {
    let zoned = arguments
        .first()
        .is_some_and(|argument| argument.sql_type() == SqlType::TimestampTz);
    let to = if zoned {
        SqlType::TimestampTz
    } else {
        SqlType::Timestamp
    };
    let today = coerce(
        resolve_function("current_date", Vec::new())?,
        &to,
        CastContext::Implicit,
    )?;
    let mut all = vec![today];
    all.extend(arguments);
    resolve_function("age", all)
}

/// `COALESCE`
///
/// # Errors
/// `42804` if the arguments have no common type.
pub fn resolve_coalesce(arguments: Vec<Expression>) -> Result<Expression> {
    let (arguments, sql_type) = coerce_to_common_type("COALESCE", arguments)?;
    Ok(Expression::Coalesce { arguments, sql_type })
}

fn resolve_extreme(arguments: Vec<Expression>, greatest: bool) -> Result<Expression> {
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
