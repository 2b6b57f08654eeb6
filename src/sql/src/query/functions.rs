//! Our expressions as DataFusion's scalar functions: one evaluator for every path a query may take.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Float32Array, Float64Array};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use neorunbase_expression::{EvaluationContext, Expression};
use neorunbase_types::{Datum, Result, SqlError, SqlType};

use super::arrow::{ColumnBuilder, data_type, datum_at, scalar};
use super::errors::to_datafusion;
use super::ordered_bytes;

/// An expression whose inputs are the function's arguments.
#[derive(Debug)]
pub(crate) struct ExpressionFunction {
    name: String,
    pub(crate) expression: Expression,
    /// Types of the arguments that are inputs.
    pub(crate) arguments: Vec<SqlType>,
    /// There is one more argument: the transaction's time.
    clock: bool,
    pub(crate) result: SqlType,
    signature: Signature,
}

impl PartialEq for ExpressionFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.expression == other.expression
    }
}

impl Eq for ExpressionFunction {}

impl Hash for ExpressionFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// FNV-1a: the same name for the same expression, today and tomorrow.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Calls an expression; with a `clock`, that argument (microseconds since 1970) comes last.
pub(crate) fn call_expression(
    expression: Expression,
    arguments: Vec<SqlType>,
    mut values: Vec<Expr>,
    clock: Option<Expr>,
) -> Expr {
    let mut types: Vec<DataType> = arguments.iter().map(data_type).collect();
    let has_clock = clock.is_some();
    if let Some(clock) = clock {
        types.push(DataType::Int64);
        values.push(clock);
    }
    let signature = if types.is_empty() {
        Signature::nullary(Volatility::Immutable)
    } else {
        Signature::exact(types, Volatility::Immutable)
    };
    let function = ExpressionFunction {
        name: format!("f{:016x}", digest(&format!("{expression:?}"))),
        result: expression.sql_type(),
        expression,
        arguments,
        clock: has_clock,
        signature,
    };
    ScalarUDF::new_from_impl(function).call(values)
}

impl ExpressionFunction {
    fn invoke(&self, values: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
        let types = self
            .arguments
            .iter()
            .chain(self.clock.then_some(&SqlType::BigInt));
        let mut row = Vec::with_capacity(values.len());
        let mut arrays = Vec::new();
        for (index, (value, sql_type)) in values.iter().zip(types).enumerate() {
            match value {
                ColumnarValue::Scalar(value) => {
                    let array = value.to_array().map_err(SqlError::internal)?;
                    row.push(datum_at(&array, sql_type, 0)?);
                }
                ColumnarValue::Array(array) => {
                    row.push(Datum::Null);
                    arrays.push((index, array, sql_type));
                }
            }
        }
        let now = |row: &[Datum]| match row.last() {
            Some(Datum::BigInt(now)) if self.clock => *now,
            _ => 0,
        };
        let evaluate = |row: &[Datum]| {
            self.expression.evaluate(&EvaluationContext {
                row,
                parameters: &[],
                statement_time_unix_micros: now(row),
            })
        };
        if arrays.is_empty() {
            return Ok(ColumnarValue::Scalar(scalar(&evaluate(&row)?, &self.result)?));
        }
        let mut builder = ColumnBuilder::new(&self.result, rows);
        for position in 0..rows {
            for (index, array, sql_type) in &arrays {
                row[*index] = datum_at(array, sql_type, position)?;
            }
            builder.append(&evaluate(&row)?)?;
        }
        Ok(ColumnarValue::Array(builder.finish()))
    }
}

impl ScalarUDFImpl for ExpressionFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(data_type(&self.result))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        self.invoke(&args.args, args.number_rows).map_err(to_datafusion)
    }

    fn short_circuits(&self) -> bool {
        // Keeps parts of a CASE from being computed before the CASE decides.
        matches!(
            self.expression,
            Expression::Case { .. } | Expression::Coalesce { .. }
        )
    }
}

/// What comparisons see of a value whose bytes say more than its value: `1.0` and `1.00`, `-0` and `0`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyFunction {
    name: String,
    pub(crate) sql_type: SqlType,
    signature: Signature,
}

/// Whether values must pass through [`comparison_key`] to be compared, grouped, sorted or joined.
pub(crate) fn needs_key(sql_type: &SqlType) -> bool {
    ordered_bytes::has_suffix(sql_type) || matches!(sql_type, SqlType::Real | SqlType::DoublePrecision)
}

/// Whether equal values may print differently.
pub(crate) fn prints_differently(sql_type: &SqlType) -> bool {
    match sql_type {
        // Of a column with a scale all values have that scale.
        SqlType::Numeric(modifier) => modifier.is_none(),
        other => needs_key(other),
    }
}

/// The form of a value that compares as PostgreSQL compares.
pub(crate) fn comparison_key(value: Expr, sql_type: &SqlType) -> Expr {
    if !needs_key(sql_type) {
        return value;
    }
    let sql_type = sql_type.without_modifier();
    let signature = Signature::exact(vec![data_type(&sql_type)], Volatility::Immutable);
    let name = format!("key_{}", sql_type.type_name());
    ScalarUDF::new_from_impl(KeyFunction {
        name,
        sql_type,
        signature,
    })
    .call(vec![value])
}

impl KeyFunction {
    fn apply(&self, array: &ArrayRef) -> ArrayRef {
        match self.sql_type {
            SqlType::Real => {
                let array = array.as_primitive::<Float32Type>();
                Arc::new(
                    array
                        .iter()
                        .map(|value| value.map(canonical_real))
                        .collect::<Float32Array>(),
                )
            }
            SqlType::DoublePrecision => {
                let array = array.as_primitive::<Float64Type>();
                Arc::new(
                    array
                        .iter()
                        .map(|value| value.map(canonical_double))
                        .collect::<Float64Array>(),
                )
            }
            _ => {
                let array = array.as_binary::<i32>();
                let mut builder = BinaryBuilder::with_capacity(array.len(), array.len() * 8);
                for value in array {
                    builder.append_option(
                        value.map(|value| &value[..ordered_bytes::key_length(&self.sql_type, value)]),
                    );
                }
                Arc::new(builder.finish())
            }
        }
    }
}

fn canonical_real(value: f32) -> f32 {
    if value == 0.0 {
        0.0
    } else if value.is_nan() {
        f32::NAN
    } else {
        value
    }
}

fn canonical_double(value: f64) -> f64 {
    if value == 0.0 {
        0.0
    } else if value.is_nan() {
        f64::NAN
    } else {
        value
    }
}

impl ScalarUDFImpl for KeyFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(data_type(&self.sql_type))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let Some(value) = args.args.first() else {
            return Err(to_datafusion(SqlError::internal(
                "a comparison key without value",
            )));
        };
        match value {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(self.apply(array))),
            ColumnarValue::Scalar(value) => {
                let array = self.apply(&value.to_array()?);
                Ok(ColumnarValue::Scalar(
                    datafusion::common::ScalarValue::try_from_array(&array, 0)?,
                ))
            }
        }
    }
}
