//! UNION ALL one input after the other. DataFusion's own operator yields a partition for each input, and bringing
//! those together takes tasks, which run outside of the simulated node.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

/// Replaces every union by [`Concatenate`].
#[derive(Debug)]
pub(crate) struct ConcatenateUnions;

impl PhysicalOptimizerRule for ConcatenateUnions {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        plan.transform_up(|node| {
            if let Some(union) = node.as_any().downcast_ref::<UnionExec>() {
                let inputs = union.inputs().clone();
                return Ok(Transformed::yes(
                    Arc::new(Concatenate::new(node.schema(), inputs)) as Arc<dyn ExecutionPlan>,
                ));
            }
            Ok(Transformed::no(node))
        })
        .data()
    }

    fn name(&self) -> &str {
        "concatenate_unions"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Concatenate {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl Concatenate {
    fn new(schema: SchemaRef, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            datafusion::physical_plan::execution_plan::EmissionType::Incremental,
            datafusion::physical_plan::execution_plan::Boundedness::Bounded,
        );
        Self {
            inputs,
            schema,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for Concatenate {
    fn fmt_as(&self, _format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Concatenate")
    }
}

impl ExecutionPlan for Concatenate {
    fn name(&self) -> &str {
        "Concatenate"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(Self::new(self.schema.clone(), children)))
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let (inputs, schema) = (self.inputs.clone(), self.schema.clone());
        let renamed = schema.clone();
        let parts: Vec<_> = inputs
            .into_iter()
            .flat_map(|input| {
                let partitions = input.output_partitioning().partition_count();
                (0..partitions).map(move |partition| (input.clone(), partition))
            })
            .collect();
        let batches = futures::stream::iter(parts)
            .map(move |(input, partition)| input.execute(partition, context.clone()))
            .try_flatten()
            // The inputs may name and declare their columns differently.
            .and_then(move |batch| futures::future::ready(batch.with_schema_of(&renamed)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

trait WithSchema: Sized {
    fn with_schema_of(self, schema: &SchemaRef) -> Result<Self, DataFusionError>;
}

impl WithSchema for datafusion::arrow::array::RecordBatch {
    fn with_schema_of(self, schema: &SchemaRef) -> Result<Self, DataFusionError> {
        let options =
            datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        Ok(Self::try_new_with_options(
            schema.clone(),
            self.columns().to_vec(),
            &options,
        )?)
    }
}
