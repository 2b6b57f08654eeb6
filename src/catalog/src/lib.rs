//! What the cluster knows of itself: schemas, tables, shard groups, users; how a row finds its shard; and the
//! store that keeps it all.

pub mod routing;
pub mod schema;
pub mod snapshot;

pub use schema::{Column, Index, PrimaryKey, Table};
pub use snapshot::CatalogSnapshot;
