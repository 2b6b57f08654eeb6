//! From SQL's names to typed calls.

use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType, TypeCategory};

use crate::coerce::coerce;
use crate::constructs::{resolve_coalesce, resolve_extreme, resolve_like, resolve_null_if};
use crate::function::Function;
use crate::overload::{Choice, choose};
use crate::signatures::{BINARY_OPERATORS, COMPARABLE, FUNCTIONS, PREFIX_OPERATORS, Signature};
use crate::{Expression, type_name};

pub(crate) fn types_of(expressions: &[Expression]) -> Vec<SqlType> {
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

pub(crate) fn undefined_operator(operator: &str, types: &[SqlType]) -> Box<SqlError> {
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

pub(crate) fn comparison_type(operator: &str, left: &Expression, right: &Expression) -> Result<SqlType> {
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
pub(crate) fn narrow_integer_literals(
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
