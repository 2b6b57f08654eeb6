//! `string_agg`, which sorts its values itself: several calls in one query may each want another order.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use neorunbase_storage::row::{decode_tuple, encode_tuple};
use neorunbase_types::datum::DatumKey;
use neorunbase_types::{Datum, Result, SqlError, SqlType};

use super::arrow::{data_type, datum_at};
use super::errors::to_datafusion;

/// One key of the ORDER BY inside the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OrderKey {
    pub(crate) sql_type: SqlType,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// `string_agg(value, delimiter)`; the keys' values follow as further arguments.
pub(crate) fn string_aggregate(order: Vec<OrderKey>) -> Arc<AggregateUDF> {
    let mut types = vec![DataType::Utf8, DataType::Utf8];
    types.extend(order.iter().map(|key| data_type(&key.sql_type)));
    let name = order.iter().fold("string_agg".to_owned(), |name, key| {
        format!(
            "{name}_{}{}{}",
            key.sql_type.type_name(),
            u8::from(key.descending),
            u8::from(key.nulls_first)
        )
    });
    let signature = Signature::exact(types, Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(StringAggregate {
        name,
        order,
        signature,
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StringAggregate {
    name: String,
    order: Vec<OrderKey>,
    signature: Signature,
}

impl AggregateUDFImpl for StringAggregate {
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
        Ok(DataType::Utf8)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![Arc::new(Field::new(
            format!("{}[state]", args.name),
            DataType::Binary,
            true,
        ))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(Collector {
            order: self.order.clone(),
            distinct: args.is_distinct,
            rows: Vec::new(),
            bytes: 0,
        }))
    }
}

/// A value that takes part.
#[derive(Debug)]
struct Item {
    keys: Vec<Datum>,
    value: Box<str>,
    delimiter: Option<Box<str>>,
}

#[derive(Debug)]
struct Collector {
    order: Vec<OrderKey>,
    distinct: bool,
    rows: Vec<Item>,
    bytes: usize,
}

impl Collector {
    fn push(&mut self, value: Datum, delimiter: Datum, keys: Vec<Datum>) {
        let Datum::Text(value) = value else { return };
        let delimiter = match delimiter {
            Datum::Text(delimiter) => Some(delimiter),
            _ => None,
        };
        self.bytes += value.len() + 64;
        self.rows.push(Item {
            keys,
            value,
            delimiter,
        });
    }

    fn update(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [value, delimiter, keys @ ..] = values else {
            return Err(SqlError::internal("string_agg without its arguments"));
        };
        for row in 0..value.len() {
            let keys = keys
                .iter()
                .zip(&self.order)
                .map(|(array, key)| datum_at(array, &key.sql_type, row))
                .collect::<Result<_>>()?;
            self.push(
                datum_at(value, &SqlType::Text, row)?,
                datum_at(delimiter, &SqlType::Text, row)?,
                keys,
            );
        }
        Ok(())
    }

    fn compare(&self, left: &[Datum], right: &[Datum]) -> Ordering {
        for ((key, left), right) in self.order.iter().zip(left).zip(right) {
            let order = match (left.is_null(), right.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) if key.nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if key.nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) if key.descending => right.compare(left),
                (false, false) => left.compare(right),
            };
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }

    fn finish(&mut self) -> Option<String> {
        let mut rows = std::mem::take(&mut self.rows);
        if self.distinct {
            // PostgreSQL sorts by the value to find duplicates.
            rows.sort_by(|left, right| left.value.as_bytes().cmp(right.value.as_bytes()));
            let mut seen = BTreeSet::new();
            rows.retain(|row| seen.insert(DatumKey(Datum::Text(row.value.clone()))));
        }
        rows.sort_by(|left, right| self.compare(&left.keys, &right.keys));
        let mut text: Option<String> = None;
        for row in &rows {
            match &mut text {
                Some(text) => {
                    text.push_str(row.delimiter.as_deref().unwrap_or_default());
                    text.push_str(&row.value);
                }
                None => text = Some(row.value.to_string()),
            }
        }
        self.rows = rows;
        text
    }
}

impl Accumulator for Collector {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.update(values).map_err(to_datafusion)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        Ok(ScalarValue::Utf8(self.finish()))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let mut tuple = Vec::with_capacity(self.rows.len() * (self.order.len() + 2));
        for row in &self.rows {
            tuple.push(Datum::Text(row.value.clone()));
            tuple.push(row.delimiter.clone().map_or(Datum::Null, Datum::Text));
            tuple.extend(row.keys.iter().cloned());
        }
        Ok(vec![ScalarValue::Binary(Some(encode_tuple(&tuple).to_vec()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let Some(array) = states.first() else {
            return Ok(());
        };
        for state in array.as_binary::<i32>().iter().flatten() {
            let tuple = decode_tuple(state).map_err(|error| to_datafusion(SqlError::internal(error)))?;
            for row in tuple.chunks_exact(self.order.len() + 2) {
                self.push(row[0].clone(), row[1].clone(), row[2..].to_vec());
            }
        }
        Ok(())
    }
}
