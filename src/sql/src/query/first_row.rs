//! `ORDER BY … LIMIT 1` of a correlated subquery as an aggregate, which DataFusion can turn into a join.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::utils::{compare_rows, get_row_at_idx};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
    Signature, Volatility,
};
use neorunbase_types::Result;

use super::errors::from_datafusion;
use super::relation::build;

/// Rewrites a correlated plan that ends in `LIMIT 1`; any other plan stays `None`.
pub(super) fn first_row_plan(plan: &LogicalPlan, name: String) -> Result<Option<LogicalPlan>> {
    let (value, limited) = match plan {
        LogicalPlan::Projection(projection) => match projection.expr.as_slice() {
            [Expr::Column(column)] => (column.clone(), projection.input.as_ref()),
            _ => return Ok(None),
        },
        other => (Column::from(other.schema().qualified_field(0)), other),
    };
    let LogicalPlan::Limit(limit) = limited else {
        return Ok(None);
    };
    let one = matches!(
        limit.fetch.as_deref(),
        Some(Expr::Literal(ScalarValue::Int64(Some(1)), _))
    );
    if !one || limit.skip.is_some() {
        return Ok(None);
    }
    let (keys, input) = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => (sort.expr.as_slice(), sort.input.as_ref()),
        other => (&[][..], other),
    };
    let mut arguments = vec![Expr::Column(value)];
    arguments.extend(keys.iter().map(|key| key.expr.clone()));
    let types = arguments
        .iter()
        .map(|argument| argument.get_type(input.schema().as_ref()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(from_datafusion)?;
    let function = FirstRow {
        order: keys
            .iter()
            .map(|key| SortOptions::new(!key.asc, key.nulls_first))
            .collect(),
        signature: Signature::exact(types, Volatility::Immutable),
    };
    let call = AggregateUDF::new_from_impl(function).call(arguments).alias(name);
    build(LogicalPlanBuilder::from(input.clone()).aggregate(Vec::<Expr>::new(), vec![call])).map(Some)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FirstRow {
    /// Of each key.
    order: Vec<SortOptions>,
    signature: Signature,
}

impl AggregateUDFImpl for FirstRow {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        "first_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>, DataFusionError> {
        let fields = args.input_fields.iter().enumerate();
        let mut state: Vec<FieldRef> = fields
            .map(|(index, field)| {
                Arc::new(Field::new(
                    format!("{}[{index}]", args.name),
                    field.data_type().clone(),
                    true,
                ))
            })
            .collect();
        state.push(Arc::new(Field::new(
            format!("{}[found]", args.name),
            DataType::Boolean,
            true,
        )));
        Ok(state)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let empty = args
            .expr_fields
            .iter()
            .map(|field| ScalarValue::try_from(field.data_type()))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(Best {
            order: self.order.clone(),
            row: empty,
            found: false,
        }))
    }
}

/// The first row so far: its value, then its keys.
#[derive(Debug)]
struct Best {
    order: Vec<SortOptions>,
    row: Vec<ScalarValue>,
    found: bool,
}

impl Best {
    fn offer(&mut self, row: Vec<ScalarValue>) -> Result<(), DataFusionError> {
        if !self.found || compare_rows(&row[1..], &self.row[1..], &self.order)?.is_lt() {
            self.row = row;
            self.found = true;
        }
        Ok(())
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for index in 0..values.first().map_or(0, |array| array.len()) {
            self.offer(get_row_at_idx(values, index)?)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        Ok(self.row[0].clone())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.row.iter().map(ScalarValue::size).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let mut state = self.row.clone();
        state.push(ScalarValue::Boolean(Some(self.found)));
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let Some((found, columns)) = states.split_last() else {
            return Ok(());
        };
        for index in 0..found.len() {
            if ScalarValue::try_from_array(found, index)? == ScalarValue::Boolean(Some(true)) {
                self.offer(get_row_at_idx(columns, index)?)?;
            }
        }
        Ok(())
    }
}
