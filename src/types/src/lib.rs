//! PostgreSQL's types and values: what a column may hold, how it reads and prints in text and binary, and the
//! error type that carries an SQLSTATE. Everything that speaks SQL speaks these.

pub mod binary;
pub mod calendar;
pub mod cast;
mod datetime_decode;
pub mod datetime_input;
mod datetime_tokens;
pub mod datum;
mod datum_serde;
pub mod error;
pub mod float_format;
pub mod interval;
mod interval_input;
pub mod numeric;
pub mod numeric_arithmetic;
pub mod sql_type;
pub mod text_input;
pub mod text_output;

pub use cast::{CastContext, can_cast, cast, cast_at};
pub use datum::{Datum, DatumKey, Interval};
pub use error::{Result, SqlError, SqlState};
pub use sql_type::{SqlType, TypeCategory};
