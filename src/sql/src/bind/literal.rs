//! Constants.

use neorunbase_expression::Expression;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType, numeric};
use sqlparser::ast::Value;

use super::Binder;

/// Most parameters that the protocol can number.
const MAXIMUM_PARAMETERS: usize = 65_535;

/// A number: `integer` if it fits, else `bigint`, else `numeric`.
pub(crate) fn number(text: &str) -> Result<Expression> {
    let plain = text.replace('_', "");
    if let Ok(value) = plain.parse::<i32>() {
        return Ok(integer(value));
    }
    if let Ok(value) = plain.parse::<i64>() {
        return Ok(Expression::literal(Datum::BigInt(value), SqlType::BigInt));
    }
    Ok(Expression::literal(
        Datum::Numeric(numeric::parse(&plain)?),
        SqlType::Numeric(None),
    ))
}

/// An `integer`.
pub(crate) fn integer(value: i32) -> Expression {
    Expression::literal(Datum::Integer(value), SqlType::Integer)
}

/// A text of the catalogs' `name` type.
pub(crate) fn name(text: &str) -> Expression {
    Expression::literal(Datum::text(text), SqlType::Name)
}

/// A `text`.
pub(crate) fn text(text: &str) -> Expression {
    Expression::literal(Datum::text(text), SqlType::Text)
}

impl Binder<'_> {
    /// A literal or parameter.
    pub(crate) fn bind_value(&mut self, value: &Value) -> Result<Expression> {
        Ok(match value {
            Value::Number(digits, _) => number(digits)?,
            Value::SingleQuotedString(text)
            | Value::EscapedStringLiteral(text)
            | Value::UnicodeStringLiteral(text)
            | Value::NationalStringLiteral(text) => Expression::unknown(text),
            Value::DollarQuotedString(quoted) => Expression::unknown(&quoted.value),
            Value::Boolean(value) => Expression::boolean(*value),
            Value::Null => Expression::null(SqlType::Unknown),
            Value::Placeholder(name) => self.bind_parameter(name)?,
            Value::HexStringLiteral(_) | Value::SingleQuotedByteStringLiteral(_) => {
                return Err(SqlError::unsupported("a bit string").with_hint("Write bytea as '\\x…'::bytea."));
            }
            other => return Err(SqlError::unsupported(format_args!("the literal {other}"))),
        })
    }

    fn bind_parameter(&mut self, name: &str) -> Result<Expression> {
        let number = name
            .strip_prefix('$')
            .and_then(|digits| digits.parse::<usize>().ok());
        let index = match number {
            Some(number @ 1..=MAXIMUM_PARAMETERS) => number - 1,
            _ => {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_PARAMETER,
                    format!("there is no parameter {name}"),
                ));
            }
        };
        if self.parameter_types.len() <= index {
            self.parameter_types.resize(index + 1, None);
        }
        let sql_type = self.parameter_types[index].clone().unwrap_or(SqlType::Unknown);
        Ok(Expression::Parameter { index, sql_type })
    }

    /// Remembers the types that parameters were given by their surroundings.
    pub(crate) fn learn_parameters(&mut self, expression: &Expression) -> Result<()> {
        if self.parameter_types.is_empty() {
            return Ok(());
        }
        for (index, sql_type) in expression.parameters() {
            let Some(known) = self.parameter_types.get_mut(index) else {
                continue;
            };
            match known {
                _ if sql_type == SqlType::Unknown => {}
                Some(known) if known.same_base(&sql_type) => {}
                Some(known) => {
                    return Err(SqlError::new(
                        SqlState("42P08"),
                        format!("inconsistent types deduced for parameter ${}", index + 1),
                    )
                    .with_detail(format!(
                        "{} versus {}",
                        known.base_name(),
                        sql_type.base_name()
                    )));
                }
                None => *known = Some(sql_type.without_modifier()),
            }
        }
        Ok(())
    }

    /// Gives parameters that were met before their type was known that type.
    pub(crate) fn settle_parameters(&self, expression: Expression) -> Expression {
        if self.parameter_types.is_empty() {
            return expression;
        }
        expression.rewrite(&mut |node| match node {
            Expression::Parameter {
                index,
                sql_type: SqlType::Unknown,
            } => Expression::Parameter {
                index,
                sql_type: self
                    .parameter_types
                    .get(index)
                    .cloned()
                    .flatten()
                    .unwrap_or(SqlType::Unknown),
            },
            other => other,
        })
    }

    /// The types of all parameters.
    pub(crate) fn final_parameter_types(&self) -> Result<Vec<SqlType>> {
        let known = self.parameter_types.iter().enumerate();
        known
            .map(|(index, sql_type)| {
                sql_type.clone().ok_or_else(|| {
                    SqlError::new(
                        SqlState::INDETERMINATE_DATATYPE,
                        format!("could not determine data type of parameter ${}", index + 1),
                    )
                })
            })
            .collect()
    }
}
