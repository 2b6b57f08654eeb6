//! Our tables as DataFusion sees them: filters, projections and limits go down to the Data Nodes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::{DefaultTableSource, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableScan, TableSource};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt};
use neorunbase_catalog::Table;
use neorunbase_catalog::schema::ROW_ID_COLUMN;
use neorunbase_expression::{ColumnId, Expression, ScanProgram};
use neorunbase_types::{Datum, Result, SqlError, SqlType};

use super::arrow::{ColumnBuilder, data_type};
use super::errors::to_datafusion;
use super::execute::QueryRuntime;
use super::raise::raise_filter;
use crate::access::{RowLocking, ScanRequest};
use crate::bind::{ProgramBuilder, column_in_plan, detect_access_path};

/// A table of the catalog, in one FROM item.
#[derive(Debug)]
pub(crate) struct ShardedTable {
    pub(crate) table: Arc<Table>,
    pub(crate) locking: Option<RowLocking>,
    /// Column ids in the order of the schema's fields.
    columns: Vec<ColumnId>,
    schema: SchemaRef,
}

/// The table for a logical plan.
pub(crate) fn table_source(table: Arc<Table>, locking: Option<RowLocking>) -> Arc<dyn TableSource> {
    let mut columns: Vec<ColumnId> = table.columns.iter().map(|column| column.id).collect();
    if table.primary_key.is_none() {
        columns.push(ROW_ID_COLUMN);
    }
    let fields: Vec<Field> = columns
        .iter()
        .map(|id| {
            let nullable = table.column_by_id(*id).is_some_and(|column| !column.not_null);
            Field::new(
                column_in_plan(*id),
                data_type(&table.key_column_type(*id)),
                nullable,
            )
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    Arc::new(DefaultTableSource::new(Arc::new(ShardedTable {
        table,
        locking,
        columns,
        schema,
    })))
}

/// The table of a scan in a logical plan, if it is one of ours.
pub(crate) fn sharded_table(scan: &TableScan) -> Option<&ShardedTable> {
    let source = scan.source.as_any().downcast_ref::<DefaultTableSource>()?;
    source.table_provider.as_any().downcast_ref::<ShardedTable>()
}

impl ShardedTable {
    /// The program and path for a scan.
    pub(crate) fn program(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<(ScanProgram, crate::access::AccessPath)> {
        let mut builder = ProgramBuilder::new(&self.table);
        let mut conditions = Vec::with_capacity(filters.len());
        for filter in filters {
            let condition = raise_filter(filter, &self.table, &mut |column| builder.input(column))
                .ok_or_else(|| SqlError::internal("a filter was pushed to a table that cannot apply it"))?;
            conditions.push(condition);
        }
        let filter = Expression::conjunction(conditions);
        let output = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.columns.len()).collect(),
        };
        let output = output
            .into_iter()
            .map(|index| {
                let id = self.columns[index];
                Expression::input(builder.input(id), self.table.key_column_type(id))
            })
            .collect();
        let inputs = builder.inputs;
        let path = detect_access_path(&self.table, filter.as_ref(), &|index| {
            inputs.get(index).map(|input| input.column)
        });
        Ok((
            ScanProgram {
                inputs,
                filter,
                output,
            },
            path,
        ))
    }
}

#[async_trait]
impl TableProvider for ShardedTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(filters
            .iter()
            .map(|filter| match raise_filter(filter, &self.table, &mut |_| 0) {
                Some(_) => TableProviderFilterPushDown::Exact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let runtime = state
            .config()
            .get_extension::<QueryRuntime>()
            .ok_or_else(|| to_datafusion(SqlError::internal("a query runs without access to tables")))?;
        let (program, path) = self.program(projection, filters).map_err(to_datafusion)?;
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => self.schema.clone(),
        };
        let types = program.output.iter().map(Expression::sql_type).collect();
        let request = ScanRequest {
            table: self.table.clone(),
            path,
            program: Arc::new(program),
            parameters: runtime.parameters.clone(),
            limit: limit.map(|limit| limit as u64),
            locking: self.locking,
        };
        let scan = Arc::new(Scan {
            request,
            runtime,
            schema: schema.clone(),
            types,
        });
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            vec![scan],
            None,
            None,
            false,
            limit,
        )?))
    }
}

/// One scan while a query runs.
struct Scan {
    request: ScanRequest,
    runtime: Arc<QueryRuntime>,
    schema: SchemaRef,
    types: Vec<SqlType>,
}

impl fmt::Debug for Scan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Scan")
            .field("table", &self.request.table.name)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (runtime, request) = (self.runtime.clone(), self.request.clone());
        let (schema, types) = (self.schema.clone(), self.types.clone());
        let batches = futures::stream::once(async move { runtime.access.scan(request).await })
            .try_flatten()
            .map(move |tuples| {
                tuples
                    .and_then(|tuples| decode(&tuples, &schema, &types))
                    .map_err(to_datafusion)
            });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// Encoded tuples as a batch.
fn decode(tuples: &[Bytes], schema: &SchemaRef, types: &[SqlType]) -> Result<RecordBatch> {
    let mut builders: Vec<ColumnBuilder> = types
        .iter()
        .map(|sql_type| ColumnBuilder::new(sql_type, tuples.len()))
        .collect();
    let mut row: Vec<Datum> = Vec::with_capacity(types.len());
    for tuple in tuples {
        row.clear();
        neorunbase_storage::row::decode_tuple_into(tuple, &mut row).map_err(SqlError::internal)?;
        if row.len() != builders.len() {
            return Err(SqlError::internal("a Data Node returned a row of another width"));
        }
        for (builder, value) in builders.iter_mut().zip(&row) {
            builder.append(value)?;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(tuples.len()));
    let columns = builders.into_iter().map(ColumnBuilder::finish).collect();
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(SqlError::internal)
}
