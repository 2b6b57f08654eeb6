//! Queries that need more than one table's rows as they are. They are bound here, with PostgreSQL's rules for
//! names and types, to logical plans that DataFusion optimises and runs.

pub(crate) mod aggregates;
pub(crate) mod arrow;
mod concatenate;
mod errors;
mod execute;
mod first_row;
mod from;
pub(crate) mod functions;
mod grouping;
mod lower;
mod modification;
mod order;
mod ordered_bytes;
pub(crate) mod provider;
mod raise;
mod recursive;
pub(crate) mod relation;
mod select;
mod series;
mod set_operation;
mod string_aggregate;
mod subquery;
pub(crate) mod windows;

pub use execute::{QueryPlan, RowStream};
pub(crate) use modification::ModifyQuery;
pub(crate) use relation::CommonTable;
pub(crate) use subquery::ScalarParts;
