//! Arithmetic that aggregates need, by the same evaluator as everything else.

use bigdecimal::BigDecimal;
use neorunbase_expression::{EvaluationContext, Expression, Function};
use neorunbase_types::{Datum, Result, SqlError, SqlType};

/// `left / right` with PostgreSQL's display scale.
pub(crate) fn divide_numeric(left: &BigDecimal, right: &BigDecimal) -> Result<BigDecimal> {
    let numeric =
        |value: &BigDecimal| Expression::literal(Datum::Numeric(value.clone()), SqlType::Numeric(None));
    let quotient = Expression::Call {
        function: Function::Divide,
        arguments: vec![numeric(left), numeric(right)],
        sql_type: SqlType::Numeric(None),
    };
    match quotient.evaluate(&EvaluationContext::EMPTY)? {
        Datum::Numeric(value) => Ok(value),
        other => Err(SqlError::internal(format_args!(
            "a quotient of numerics is {other:?}"
        ))),
    }
}
