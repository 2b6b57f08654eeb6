//! Errors on their way through DataFusion: ours come out as they went in, its own get an SQLSTATE.

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use neorunbase_types::{SqlError, SqlState};

/// Wraps an error of ours.
pub(crate) fn to_datafusion(error: Box<SqlError>) -> DataFusionError {
    DataFusionError::External(error)
}

/// What the client is told.
pub(crate) fn from_datafusion(error: DataFusionError) -> Box<SqlError> {
    if let Some(own) = find_own(&error) {
        return Box::new(own.clone());
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => {
            SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory for this query")
                .with_detail(message.clone())
        }
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::NotImplemented(message) => {
            SqlError::unsupported("this form of query").with_detail(message.clone())
        }
        // What the planner refuses although it is well formed: correlated subqueries that it cannot turn into joins.
        DataFusionError::Plan(message) | DataFusionError::Context(message, _) => {
            SqlError::unsupported("this form of query").with_detail(message.clone())
        }
        DataFusionError::Execution(message) if message.contains("must be >= 0") => {
            SqlError::new(SqlState("2201W"), "LIMIT must not be negative")
        }
        other => {
            tracing::error!(error = %other, "the query engine failed");
            SqlError::internal("the query engine failed").with_detail(first_line(&other.to_string()))
        }
    }
}

fn find_own(error: &DataFusionError) -> Option<&SqlError> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(own) = error.downcast_ref::<SqlError>() {
            return Some(own);
        }
        if let Some(own) = error.downcast_ref::<Box<SqlError>>() {
            return Some(own);
        }
        current = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ArrowError(inner, _)) => Some(inner.as_ref()),
            Some(DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner)) => {
                Some(inner.as_ref())
            }
            Some(DataFusionError::Collection(errors)) => errors.first().map(|error| error as _),
            _ => match error.downcast_ref::<ArrowError>() {
                Some(ArrowError::ExternalError(inner)) => Some(inner.as_ref()),
                _ => error.source(),
            },
        };
    }
    None
}

fn from_arrow(error: &ArrowError) -> Box<SqlError> {
    match error {
        ArrowError::DivideByZero => SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => {
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
        }
        other => SqlError::internal("the query engine failed").with_detail(first_line(&other.to_string())),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
