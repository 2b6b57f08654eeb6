//! SQL: parsing, analysis, plans, and queries by DataFusion.

pub mod access;
mod bind;
pub mod cluster_view;
mod explain;
pub mod parser;
pub mod plan;
pub mod query;
mod system_tables;

#[cfg(test)]
mod tests;

pub use bind::{AnalysisContext, analyze};
pub use parser::{ParsedKind, ParsedStatement, parse};
pub use query::{QueryPlan, RowStream};
