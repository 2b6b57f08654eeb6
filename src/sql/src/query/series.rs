//! `generate_series` of numbers.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::{DefaultTableSource, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use neorunbase_expression::{EvaluationContext, Expression, coerce_to_common_type};
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, FunctionArgExpr};

use super::arrow::data_type;
use super::relation::{Relation, RelationColumn, build, output_name};
use crate::bind::Binder;

/// The name of the only column in plans.
const COLUMN: &str = "number";
/// Numbers of one batch.
const BATCH_ROWS: i64 = 8_192;

impl Binder<'_> {
    pub(crate) fn bind_generate_series(&mut self, arguments: &[ast::FunctionArg]) -> Result<Relation> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let ast::FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = argument else {
                return Err(SqlError::unsupported("this argument of generate_series"));
            };
            values
                .push(self.without_aggregates("functions in FROM", |binder| binder.bind_expression(value))?);
        }
        if !(2..=3).contains(&values.len()) {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                "function generate_series does not exist",
            ));
        }
        let (values, sql_type) = coerce_to_common_type("generate_series", values)?;
        if !matches!(sql_type, SqlType::Integer | SqlType::BigInt) {
            return Err(
                SqlError::unsupported(format_args!("generate_series of type {sql_type}"))
                    .with_hint("Generate integers and compute from them."),
            );
        }
        let number = |value: &Expression| match value
            .is_constant()
            .then(|| value.evaluate(&EvaluationContext::EMPTY))
        {
            Some(Ok(Datum::Integer(value))) => Ok(Some(i64::from(value))),
            Some(Ok(Datum::BigInt(value))) => Ok(Some(value)),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(SqlError::unsupported("generate_series of anything but constants")),
        };
        let step = values.get(2).map_or(Ok(Some(1)), number)?;
        if step == Some(0) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "step size cannot equal zero",
            ));
        }
        // NULL makes the series empty.
        let (start, stop, step) = match (number(&values[0])?, number(&values[1])?, step) {
            (Some(start), Some(stop), Some(step)) => (start, stop, step),
            _ => (1, 0, 1),
        };
        let field = Field::new(COLUMN, data_type(&sql_type), false);
        let schema = Arc::new(Schema::new(vec![field]));
        let series = Series {
            start,
            stop,
            step,
            narrow: sql_type == SqlType::Integer,
            schema,
        };
        let source = Arc::new(DefaultTableSource::new(Arc::new(series)));
        let qualifier = self.new_qualifier();
        let plan = build(
            LogicalPlanBuilder::scan(qualifier.clone(), source, None).and_then(|builder| {
                let column = datafusion::common::Column::new(Some(qualifier), COLUMN);
                builder.project(vec![Expr::Column(column).alias(output_name(0))])
            }),
        )?;
        let column = RelationColumn {
            name: "generate_series".to_owned(),
            sql_type,
            nullable: false,
            origin: None,
            untyped: None,
        };
        Ok(Relation {
            plan,
            columns: vec![column],
        })
    }
}

#[derive(Clone, Debug)]
struct Series {
    start: i64,
    stop: i64,
    step: i64,
    /// `integer` rather than `bigint`.
    narrow: bool,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Series {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let partition = Arc::new(self.clone());
        Ok(Arc::new(StreamingTableExec::try_new(
            self.schema.clone(),
            vec![partition],
            projection,
            None,
            false,
            limit,
        )?))
    }
}

impl Series {
    fn in_range(&self, value: i64) -> bool {
        if self.step > 0 {
            value <= self.stop
        } else {
            value >= self.stop
        }
    }

    fn batch(&self, next: &mut Option<i64>) -> Result<RecordBatch, DataFusionError> {
        let mut values = Vec::new();
        while let Some(value) = next.filter(|value| self.in_range(*value)) {
            values.push(value);
            *next = value.checked_add(self.step);
            if values.len() as i64 == BATCH_ROWS {
                break;
            }
        }
        let array: ArrayRef = if self.narrow {
            Arc::new(
                values
                    .iter()
                    .map(|value| i32::try_from(*value).ok())
                    .collect::<Int32Array>(),
            )
        } else {
            Arc::new(Int64Array::from(values))
        };
        Ok(RecordBatch::try_new(self.schema.clone(), vec![array])?)
    }
}

impl PartitionStream for Series {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let series = self.clone();
        let first = series.in_range(series.start).then_some(series.start);
        let batches = futures::stream::unfold((series, first), |(series, mut next)| async move {
            next.filter(|value| series.in_range(*value))?;
            let batch = series.batch(&mut next);
            Some((batch, (series, next)))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}
