//! Expressions as text that resembles SQL.

use neorunbase_expression::{Expression, Function};
use neorunbase_types::SqlType;

/// The expression; `input` names its inputs.
pub(crate) fn show(expression: &Expression, input: &dyn Fn(usize) -> String) -> String {
    let inner = |part: &Expression| show(part, input);
    let list =
        |parts: &[Expression], separator: &str| parts.iter().map(inner).collect::<Vec<_>>().join(separator);
    let not = |negated: bool| if negated { "NOT " } else { "" };
    match expression {
        Expression::Literal { value, sql_type } => literal(value, sql_type),
        Expression::Input { index, .. } => input(*index),
        Expression::Parameter { index, .. } => format!("${}", index + 1),
        Expression::Cast { argument, to, .. } => format!("({})::{to}", inner(argument)),
        Expression::Call {
            function, arguments, ..
        } => match (operator(*function), arguments.as_slice()) {
            (Some(operator), [left, right]) => format!("({} {operator} {})", inner(left), inner(right)),
            (Some(operator), [only]) => format!("({operator} {})", inner(only)),
            _ => format!(
                "{}({})",
                format!("{function:?}").to_lowercase(),
                list(arguments, ", ")
            ),
        },
        Expression::And(parts) => format!("({})", list(parts, " AND ")),
        Expression::Or(parts) => format!("({})", list(parts, " OR ")),
        Expression::Not(argument) => format!("(NOT {})", inner(argument)),
        Expression::IsNull { argument, negated } => format!("({} IS {}NULL)", inner(argument), not(*negated)),
        Expression::IsBoolean {
            argument,
            value,
            negated,
        } => {
            let value = match value {
                Some(true) => "TRUE",
                Some(false) => "FALSE",
                None => "UNKNOWN",
            };
            format!("({} IS {}{value})", inner(argument), not(*negated))
        }
        Expression::IsDistinctFrom { left, right, negated } => {
            format!(
                "({} IS {}DISTINCT FROM {})",
                inner(left),
                not(*negated),
                inner(right)
            )
        }
        Expression::Case {
            branches, otherwise, ..
        } => {
            let branches: Vec<String> = branches
                .iter()
                .map(|(when, then)| format!("WHEN {} THEN {}", inner(when), inner(then)))
                .collect();
            let otherwise = otherwise
                .as_ref()
                .map(|value| format!(" ELSE {}", inner(value)))
                .unwrap_or_default();
            format!("CASE {}{otherwise} END", branches.join(" "))
        }
        Expression::Coalesce { arguments, .. } => format!("COALESCE({})", list(arguments, ", ")),
        Expression::NullIf { left, right } => format!("NULLIF({}, {})", inner(left), inner(right)),
        Expression::Greatest { arguments, .. } => format!("GREATEST({})", list(arguments, ", ")),
        Expression::Least { arguments, .. } => format!("LEAST({})", list(arguments, ", ")),
        Expression::InList {
            argument,
            list: items,
            negated,
        } => {
            format!(
                "({} {}IN ({}))",
                inner(argument),
                not(*negated),
                list(items, ", ")
            )
        }
        Expression::Like {
            argument,
            pattern,
            case_insensitive,
            negated,
            ..
        } => {
            let operator = if *case_insensitive { "ILIKE" } else { "LIKE" };
            format!(
                "({} {}{operator} {})",
                inner(argument),
                not(*negated),
                inner(pattern)
            )
        }
    }
}

fn literal(value: &neorunbase_types::Datum, sql_type: &SqlType) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let text = value.to_text(sql_type);
    if sql_type.is_numeric() || *sql_type == SqlType::Boolean {
        return text;
    }
    format!("'{}'::{sql_type}", text.replace('\'', "''"))
}

fn operator(function: Function) -> Option<&'static str> {
    Some(match function {
        Function::Equal => "=",
        Function::NotEqual => "<>",
        Function::Less => "<",
        Function::LessOrEqual => "<=",
        Function::Greater => ">",
        Function::GreaterOrEqual => ">=",
        Function::Add => "+",
        Function::Subtract | Function::Negate => "-",
        Function::Multiply => "*",
        Function::Divide => "/",
        Function::Modulo => "%",
        Function::Concatenate => "||",
        Function::RegexMatches => "~",
        Function::RegexNotMatches => "!~",
        _ => return None,
    })
}
