//! PostgreSQL's types and values: what a column may hold, how it reads and prints in text and binary, and the
//! error type that carries an SQLSTATE. Everything that speaks SQL speaks these.

pub mod datum;
pub mod error;
pub mod sql_type;

pub use datum::{Datum, Interval};
pub use error::{Result, SqlError, SqlState};
pub use sql_type::SqlType;
