//! Aggregate functions with PostgreSQL's result types and overflow rules. DataFusion groups the rows and calls
//! these; only `count` is its own.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use bigdecimal::BigDecimal;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int16Type, Int32Type, Int64Type};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use neorunbase_storage::row::{decode_tuple, encode_tuple};
use neorunbase_types::datum::DatumKey;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};

use super::arrow::{data_type, datum_at, scalar};
use super::errors::to_datafusion;
use super::string_aggregate::string_aggregate;
use crate::bind::arithmetic::divide_numeric;

/// The aggregate functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AggregateFunction {
    /// `count(*)` and `count(x)`
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    StringAgg,
    /// Any of the group's values: they are all equal, but may print differently (`1.0`, `1.00`).
    AnyValue,
    /// The value of a scalar subquery: fails if there is a second row.
    SingleRow,
}

impl AggregateFunction {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "bool_and" | "every" => Self::BoolAnd,
            "bool_or" => Self::BoolOr,
            "string_agg" => Self::StringAgg,
            _ => return None,
        })
    }

    /// The result's type and what the arguments must be cast to; `None`: no such function.
    pub(crate) fn resolve(self, arguments: &[SqlType]) -> Option<(SqlType, Vec<SqlType>)> {
        use SqlType as T;
        if self == Self::StringAgg {
            let [
                T::Text | T::VarChar(_) | T::Char(_) | T::Name | T::Unknown,
                delimiter,
            ] = arguments
            else {
                return None;
            };
            return (delimiter.is_string() || *delimiter == T::Unknown)
                .then(|| (T::Text, vec![T::Text, T::Text]));
        }
        let argument = match arguments {
            [] if self == Self::Count => return Some((T::BigInt, Vec::new())),
            [argument] => argument.without_modifier(),
            _ => return None,
        };
        let result = match (self, &argument) {
            (Self::Count, _) => T::BigInt,
            (Self::Sum, T::SmallInt | T::Integer) => T::BigInt,
            (Self::Sum | Self::Avg, T::BigInt) | (Self::Avg, T::SmallInt | T::Integer) => T::Numeric(None),
            (Self::Sum | Self::Avg, T::Numeric(_)) => T::Numeric(None),
            (Self::Sum, T::Real) => T::Real,
            (Self::Sum, T::DoublePrecision) | (Self::Avg, T::Real | T::DoublePrecision) => T::DoublePrecision,
            (Self::Min | Self::Max, T::Unknown | T::VarChar(_)) => return Some((T::Text, vec![T::Text])),
            (Self::Min | Self::Max, T::Boolean | T::Uuid | T::Bytea | T::Name) => return None,
            (Self::Min | Self::Max, other) => other.clone(),
            (Self::BoolAnd | Self::BoolOr, T::Boolean | T::Unknown) => {
                return Some((T::Boolean, vec![T::Boolean]));
            }
            (Self::AnyValue | Self::SingleRow, _) => {
                return Some((arguments[0].clone(), vec![arguments[0].clone()]));
            }
            _ => return None,
        };
        let cast = if argument == T::Unknown {
            T::Text
        } else {
            arguments[0].clone()
        };
        Some((result, vec![cast]))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
            Self::StringAgg => "string_agg",
            Self::AnyValue => "any_value",
            Self::SingleRow => "single_row",
        }
    }
}

/// The function as DataFusion calls it. `arguments` and `result` come from [`AggregateFunction::resolve`].
pub(crate) fn aggregate_udf(
    function: AggregateFunction,
    arguments: Vec<SqlType>,
    result: SqlType,
    distinct: bool,
) -> Arc<AggregateUDF> {
    if function == AggregateFunction::Count && !distinct {
        return count_udaf();
    }
    if function == AggregateFunction::StringAgg {
        return string_aggregate(Vec::new());
    }
    let types = arguments.iter().map(data_type).collect();
    let name = arguments
        .iter()
        .fold(function.name().to_owned(), |name, sql_type| {
            name + "_" + sql_type.type_name()
        });
    // DataFusion knows by the name that a count of nothing is zero.
    let name = if function == AggregateFunction::Count {
        function.name().to_owned()
    } else {
        name
    };
    let signature = Signature::exact(types, Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(OwnAggregate {
        name,
        function,
        arguments,
        result,
        signature,
    }))
}

/// `count` under a name that DataFusion does not know. Of correlated subqueries it would treat a `count` specially,
/// which works for one of them in a query; whoever uses this makes NULL zero instead.
pub(crate) fn tally_udf(mut arguments: Vec<SqlType>) -> Arc<AggregateUDF> {
    if arguments.is_empty() {
        arguments.push(SqlType::BigInt);
    }
    let signature = Signature::exact(arguments.iter().map(data_type).collect(), Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(OwnAggregate {
        name: "tally".to_owned(),
        function: AggregateFunction::Count,
        arguments,
        result: SqlType::BigInt,
        signature,
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnAggregate {
    name: String,
    function: AggregateFunction,
    arguments: Vec<SqlType>,
    result: SqlType,
    signature: Signature,
}

impl AggregateUDFImpl for OwnAggregate {
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

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>, DataFusionError> {
        let own = Arc::new(Field::new(
            format!("{}[state]", args.name),
            DataType::Binary,
            true,
        ));
        Ok(std::iter::once(own)
            .chain(args.ordering_fields.iter().cloned())
            .collect())
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(OwnAccumulator {
            function: self.function,
            arguments: self.arguments.clone(),
            result: self.result.clone(),
            seen: args.is_distinct.then(BTreeSet::new),
            rows: 0,
            state: State::new(self.function, self.arguments.first()),
        }))
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue, DataFusionError> {
        let empty = if self.function == AggregateFunction::Count {
            Datum::BigInt(0)
        } else {
            Datum::Null
        };
        scalar(&empty, &self.result).map_err(to_datafusion)
    }
}

#[derive(Debug)]
enum State {
    /// Whole numbers: cannot overflow with fewer than 2^64 rows.
    Whole(i128),
    Real(f32),
    Double(f64),
    Numeric(BigDecimal),
    /// The value so far, for all that keep one of the values.
    Value(Datum),
}

impl State {
    fn new(function: AggregateFunction, argument: Option<&SqlType>) -> Self {
        match (function, argument) {
            (AggregateFunction::Sum, Some(SqlType::Real)) => Self::Real(0.0),
            (
                AggregateFunction::Sum | AggregateFunction::Avg,
                Some(SqlType::Real | SqlType::DoublePrecision),
            ) => Self::Double(0.0),
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(SqlType::Numeric(_))) => {
                Self::Numeric(BigDecimal::from(0))
            }
            (AggregateFunction::Sum | AggregateFunction::Avg | AggregateFunction::Count, _) => Self::Whole(0),
            _ => Self::Value(Datum::Null),
        }
    }
}

#[derive(Debug)]
struct OwnAccumulator {
    function: AggregateFunction,
    arguments: Vec<SqlType>,
    result: SqlType,
    /// DISTINCT: the values; they are added up at the end.
    seen: Option<BTreeSet<DatumKey>>,
    /// How many values were added.
    rows: i64,
    state: State,
}

impl OwnAccumulator {
    fn add(&mut self, value: &Datum) -> Result<()> {
        use AggregateFunction as F;
        if value.is_null() && self.function != F::SingleRow {
            return Ok(());
        }
        let first = self.rows == 0;
        self.rows += 1;
        match (&mut self.state, value) {
            (_, _) if self.function == F::Count => {}
            (State::Whole(sum), Datum::SmallInt(value)) => *sum += i128::from(*value),
            (State::Whole(sum), Datum::Integer(value)) => *sum += i128::from(*value),
            (State::Whole(sum), Datum::BigInt(value)) => *sum += i128::from(*value),
            (State::Real(sum), Datum::Real(value)) => {
                let added = *sum + value;
                check_float(added.is_infinite(), sum.is_infinite() || value.is_infinite())?;
                *sum = added;
            }
            (State::Double(sum), Datum::Real(value)) => *sum += f64::from(*value),
            (State::Double(sum), Datum::DoublePrecision(value)) => {
                let added = *sum + value;
                check_float(added.is_infinite(), sum.is_infinite() || value.is_infinite())?;
                *sum = added;
            }
            (State::Numeric(sum), Datum::Numeric(value)) => *sum += value,
            (State::Value(kept), value) => {
                let replace = match self.function {
                    F::Min => first || value.compare(kept).is_lt(),
                    F::Max => first || value.compare(kept).is_gt(),
                    F::BoolAnd => first || *value == Datum::Boolean(false),
                    F::BoolOr => first || *value == Datum::Boolean(true),
                    F::SingleRow if !first => {
                        return Err(SqlError::new(
                            SqlState::CARDINALITY_VIOLATION,
                            "more than one row returned by a subquery used as an expression",
                        ));
                    }
                    _ => first,
                };
                if replace {
                    *kept = value.clone();
                }
            }
            (state, value) => {
                return Err(SqlError::internal(format_args!(
                    "cannot aggregate {value:?} into {state:?}"
                )));
            }
        }
        Ok(())
    }

    /// The common types without a detour through [`Datum`].
    fn add_numbers(&mut self, array: &ArrayRef) -> bool {
        macro_rules! sum {
            ($array:expr, $sum:expr, $type:ty) => {{
                for value in $array.iter().flatten() {
                    *$sum += <$type>::from(value);
                    self.rows += 1;
                }
                true
            }};
        }
        match (&mut self.state, array.data_type()) {
            (State::Whole(sum), DataType::Int16) => sum!(array.as_primitive::<Int16Type>(), sum, i128),
            (State::Whole(sum), DataType::Int32) => sum!(array.as_primitive::<Int32Type>(), sum, i128),
            (State::Whole(sum), DataType::Int64) => sum!(array.as_primitive::<Int64Type>(), sum, i128),
            _ => false,
        }
    }

    fn finish(&self) -> Result<Datum> {
        use AggregateFunction as F;
        if self.function == F::Count {
            return Ok(Datum::BigInt(self.rows));
        }
        if self.rows == 0 {
            return Ok(Datum::Null);
        }
        Ok(match (&self.state, self.function, &self.result) {
            (State::Whole(sum), F::Sum, SqlType::BigInt) => {
                Datum::BigInt(i64::try_from(*sum).map_err(|_| {
                    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range")
                })?)
            }
            (State::Whole(sum), F::Sum, _) => Datum::Numeric(BigDecimal::from(*sum)),
            (State::Whole(sum), _, _) => Datum::Numeric(divide_numeric(
                &BigDecimal::from(*sum),
                &BigDecimal::from(self.rows),
            )?),
            (State::Numeric(sum), F::Avg, _) => {
                Datum::Numeric(divide_numeric(sum, &BigDecimal::from(self.rows))?)
            }
            (State::Numeric(sum), _, _) => Datum::Numeric(sum.clone()),
            (State::Double(sum), F::Avg, _) => Datum::DoublePrecision(sum / self.rows as f64),
            (State::Double(sum), _, _) => Datum::DoublePrecision(*sum),
            (State::Real(sum), _, _) => Datum::Real(*sum),
            (State::Value(value), _, _) => value.clone(),
        })
    }

    fn distinct_total(&self, seen: &BTreeSet<DatumKey>) -> Result<Datum> {
        let mut total = Self {
            function: self.function,
            arguments: self.arguments.clone(),
            result: self.result.clone(),
            seen: None,
            rows: 0,
            state: State::new(self.function, self.arguments.first()),
        };
        for value in seen {
            total.add(&value.0)?;
        }
        total.finish()
    }

    fn update(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(array) = values.first() else {
            return Ok(());
        };
        if self.seen.is_none() && self.add_numbers(array) {
            return Ok(());
        }
        for row in 0..array.len() {
            let value = datum_at(array, &self.arguments[0], row)?;
            match &mut self.seen {
                Some(_) if value.is_null() => {}
                Some(seen) => {
                    seen.insert(DatumKey(value));
                }
                None => self.add(&value)?,
            }
        }
        Ok(())
    }

    fn retract(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(array) = values.first() else {
            return Ok(());
        };
        for row in 0..array.len() {
            let value = datum_at(array, &self.arguments[0], row)?;
            if value.is_null() {
                continue;
            }
            self.rows -= 1;
            match (&mut self.state, value) {
                (State::Whole(sum), Datum::SmallInt(value)) => *sum -= i128::from(value),
                (State::Whole(sum), Datum::Integer(value)) => *sum -= i128::from(value),
                (State::Whole(sum), Datum::BigInt(value)) => *sum -= i128::from(value),
                (State::Real(sum), Datum::Real(value)) => *sum -= value,
                (State::Double(sum), Datum::Real(value)) => *sum -= f64::from(value),
                (State::Double(sum), Datum::DoublePrecision(value)) => *sum -= value,
                (State::Numeric(sum), Datum::Numeric(value)) => *sum -= value,
                _ => {
                    return Err(SqlError::unsupported(
                        "this aggregate function over a moving window frame",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everything needed to go on: the distinct values, or the count and the state.
    fn freeze(&self) -> Vec<Datum> {
        let state = match &self.state {
            State::Whole(sum) => Datum::Numeric(BigDecimal::from(*sum)),
            State::Real(sum) => Datum::Real(*sum),
            State::Double(sum) => Datum::DoublePrecision(*sum),
            State::Numeric(sum) => Datum::Numeric(sum.clone()),
            State::Value(value) => value.clone(),
        };
        let mut frozen = vec![Datum::BigInt(self.rows), state];
        if let Some(seen) = &self.seen {
            frozen.extend(seen.iter().map(|value| value.0.clone()));
        }
        frozen
    }

    fn thaw(&mut self, frozen: &[Datum]) -> Result<()> {
        let [Datum::BigInt(rows), state, distinct @ ..] = frozen else {
            return Err(SqlError::internal("the state of an aggregate is malformed"));
        };
        if let Some(seen) = &mut self.seen {
            seen.extend(distinct.iter().cloned().map(DatumKey));
            return Ok(());
        }
        if *rows == 0 {
            return Ok(());
        }
        match (&mut self.state, state) {
            (State::Whole(sum), Datum::Numeric(value)) => {
                let (unscaled, _) = value.as_bigint_and_scale();
                *sum += i128::try_from(unscaled.as_ref())
                    .map_err(|_| SqlError::internal("the state of an aggregate is out of range"))?;
                self.rows += rows;
            }
            (State::Real(sum), Datum::Real(value)) => {
                *sum += value;
                self.rows += rows;
            }
            (State::Double(sum), Datum::DoublePrecision(value)) => {
                *sum += value;
                self.rows += rows;
            }
            (State::Numeric(sum), Datum::Numeric(value)) => {
                *sum += value;
                self.rows += rows;
            }
            (_, value) => self.add(value)?,
        }
        Ok(())
    }
}

fn check_float(overflowed: bool, was_infinite: bool) -> Result<()> {
    if overflowed && !was_infinite {
        return Err(SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "value out of range: overflow",
        ));
    }
    Ok(())
}

impl Accumulator for OwnAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.update(values).map_err(to_datafusion)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.retract(values).map_err(to_datafusion)
    }

    fn supports_retract_batch(&self) -> bool {
        self.seen.is_none() && matches!(self.function, AggregateFunction::Sum | AggregateFunction::Avg)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let value = match &self.seen {
            Some(seen) => self.distinct_total(seen),
            None => self.finish(),
        };
        value
            .and_then(|value| scalar(&value, &self.result))
            .map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |seen| seen.len() * 64);
        let text = match &self.state {
            State::Value(Datum::Text(text)) => text.len(),
            _ => 0,
        };
        size_of::<Self>() + seen + text
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![ScalarValue::Binary(Some(
            encode_tuple(&self.freeze()).to_vec(),
        ))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let Some(array) = states.first() else {
            return Ok(());
        };
        for frozen in array.as_binary::<i32>().iter().flatten() {
            let frozen = decode_tuple(frozen).map_err(|error| to_datafusion(SqlError::internal(error)))?;
            self.thaw(&frozen).map_err(to_datafusion)?;
        }
        Ok(())
    }
}
