//! Planning once, running many times.

use std::fmt;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use futures::stream::BoxStream;
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};

use super::arrow::{datum_at, scalar};
use super::concatenate::ConcatenateUnions;
use super::errors::from_datafusion;
use super::lower::TIME_PARAMETER;
use super::relation::Relation;
use crate::access::TableAccess;

/// Rows of a query, in batches.
pub type RowStream = BoxStream<'static, Result<Vec<Vec<Datum>>>>;

/// Most memory that one query may hold in hash tables and sorts.
const QUERY_MEMORY_BYTES: usize = 1 << 30;
/// Rows that operators hand over at once.
const BATCH_ROWS: usize = 8_192;

/// A planned query: optimised once, bound to parameters each time it runs.
pub struct QueryPlan {
    pub(crate) logical: LogicalPlan,
    types: Vec<SqlType>,
    /// Arrow types of the parameters that the plan mentions.
    parameters: Vec<(String, DataType)>,
}

impl fmt::Debug for QueryPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.logical.display_indent())
    }
}

/// What table scans need while a query runs.
pub(crate) struct QueryRuntime {
    pub(crate) access: Arc<dyn TableAccess>,
    pub(crate) parameters: Arc<[Datum]>,
}

/// One partition everywhere: nothing is spawned, so that queries also run on simulated nodes.
fn options() -> ConfigOptions {
    let mut options = ConfigOptions::new();
    options.execution.target_partitions = 1;
    options.execution.batch_size = BATCH_ROWS;
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.repartition_aggregations = false;
    options.optimizer.repartition_joins = false;
    options.optimizer.repartition_sorts = false;
    options.optimizer.repartition_windows = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.skip_failed_rules = false;
    options
}

static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(options()));

static OPTIMIZER: LazyLock<Optimizer> = LazyLock::new(|| {
    let mut optimizer = Optimizer::new();
    // It takes values apart that differ in their bytes but are equal (1.0 and 1.00).
    optimizer
        .rules
        .retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    optimizer
});

static PHYSICAL_RULES: LazyLock<PhysicalOptimizer> = LazyLock::new(|| {
    let mut optimizer = PhysicalOptimizer::new();
    optimizer.rules.insert(0, Arc::new(ConcatenateUnions));
    optimizer
});

impl QueryPlan {
    /// Optimises a bound query.
    pub(crate) fn new(relation: &Relation) -> Result<Self> {
        let analyzed = Analyzer::new()
            .execute_and_check(relation.plan.clone(), &OPTIONS, |_, _| {})
            .map_err(from_datafusion)?;
        let context =
            OptimizerContext::new_with_config_options(OPTIONS.clone()).without_query_execution_start_time();
        let logical = OPTIMIZER
            .optimize(analyzed, &context, |_, _| {})
            .map_err(from_datafusion)?;
        let mut parameters: Vec<(String, DataType)> = logical
            .get_parameter_fields()
            .map_err(from_datafusion)?
            .into_iter()
            .map(|(id, field)| {
                let data_type = field.map_or(DataType::Utf8, |field| field.data_type().clone());
                (id.trim_start_matches('$').to_owned(), data_type)
            })
            .collect();
        parameters.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let types = relation
            .columns
            .iter()
            .map(|column| column.sql_type.clone())
            .collect();
        Ok(Self {
            logical,
            types,
            parameters,
        })
    }

    /// Types of the result columns.
    pub fn types(&self) -> &[SqlType] {
        &self.types
    }

    /// Runs the query.
    ///
    /// # Errors
    /// What planning with the parameters' values reports; later errors end the stream.
    pub async fn execute(
        &self,
        parameters: Arc<[Datum]>,
        access: Arc<dyn TableAccess>,
        transaction_time_unix_micros: i64,
    ) -> Result<RowStream> {
        let plan = self.bind(&parameters, transaction_time_unix_micros)?;
        let state = session_state(Arc::new(QueryRuntime { access, parameters }))?;
        let physical = state
            .query_planner()
            .create_physical_plan(&plan, &state)
            .await
            .map_err(from_datafusion)?;
        let stream =
            datafusion::physical_plan::execute_stream(physical, state.task_ctx()).map_err(from_datafusion)?;
        let types = self.types.clone();
        Ok(stream
            .map(move |batch| {
                batch
                    .map_err(from_datafusion)
                    .and_then(|batch| rows(&batch, &types))
            })
            .boxed())
    }

    /// The physical plan, to look at.
    #[cfg(test)]
    pub(crate) async fn physical(&self, access: Arc<dyn TableAccess>) -> String {
        let state = session_state(Arc::new(QueryRuntime {
            access,
            parameters: Arc::from([]),
        }))
        .expect("a state");
        match state
            .query_planner()
            .create_physical_plan(&self.logical, &state)
            .await
        {
            Ok(plan) => datafusion::physical_plan::displayable(plan.as_ref())
                .indent(true)
                .to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn bind(&self, parameters: &[Datum], transaction_time_unix_micros: i64) -> Result<LogicalPlan> {
        if self.parameters.is_empty() {
            return Ok(self.logical.clone());
        }
        let mut values = Vec::with_capacity(self.parameters.len());
        for (name, data_type) in &self.parameters {
            let value = if name == TIME_PARAMETER {
                ScalarValue::Int64(Some(transaction_time_unix_micros))
            } else {
                let index = name
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| number.checked_sub(1));
                match index.and_then(|index| parameters.get(index)) {
                    None => {
                        return Err(SqlError::new(
                            SqlState::UNDEFINED_PARAMETER,
                            format!("there is no value for parameter ${name}"),
                        ));
                    }
                    Some(Datum::Null) => ScalarValue::try_from(data_type).map_err(from_datafusion)?,
                    Some(value) => scalar(value, &type_of(value))?,
                }
            };
            values.push((name.clone(), value));
        }
        self.logical
            .clone()
            .replace_params_with_values(&ParamValues::from(values))
            .map_err(from_datafusion)
    }
}

/// A type that the value is of.
fn type_of(value: &Datum) -> SqlType {
    match value {
        Datum::Null => SqlType::Unknown,
        Datum::Boolean(_) => SqlType::Boolean,
        Datum::SmallInt(_) => SqlType::SmallInt,
        Datum::Integer(_) => SqlType::Integer,
        Datum::BigInt(_) => SqlType::BigInt,
        Datum::Real(_) => SqlType::Real,
        Datum::DoublePrecision(_) => SqlType::DoublePrecision,
        Datum::Numeric(_) => SqlType::Numeric(None),
        Datum::Text(_) => SqlType::Text,
        Datum::Bytea(_) => SqlType::Bytea,
        Datum::Date(_) => SqlType::Date,
        Datum::Time(_) => SqlType::Time,
        Datum::Timestamp(_) => SqlType::Timestamp,
        Datum::TimestampTz(_) => SqlType::TimestampTz,
        Datum::Interval(_) => SqlType::Interval,
        Datum::Uuid(_) => SqlType::Uuid,
        Datum::Oid(_) => SqlType::Oid,
    }
}

fn session_state(runtime: Arc<QueryRuntime>) -> Result<SessionState> {
    let config = SessionConfig::from(OPTIONS.as_ref().clone()).with_extension(runtime);
    Ok(SessionStateBuilder::new()
        .with_session_id(String::new())
        .with_config(config)
        .with_runtime_env(runtime_environment()?)
        .with_physical_optimizer_rules(PHYSICAL_RULES.rules.clone())
        .build())
}

/// Limits of one query. Nothing spills: temporary files would be plaintext on disk.
fn runtime_environment() -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(QUERY_MEMORY_BYTES)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(from_datafusion)
}

fn rows(batch: &RecordBatch, types: &[SqlType]) -> Result<Vec<Vec<Datum>>> {
    (0..batch.num_rows())
        .map(|row| {
            batch
                .columns()
                .iter()
                .zip(types)
                .map(|(column, sql_type)| datum_at(column, sql_type, row))
                .collect()
        })
        .collect()
}
