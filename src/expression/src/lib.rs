//! The one evaluator of expressions. The binder resolves SQL's operators and functions to typed trees here; the
//! Coordinator evaluates them, and so do the Data Nodes, which get filters and assignments as programs.

mod arithmetic;
mod call;
pub mod coerce;
pub mod constructs;
mod datetime_fields;
mod datetime_functions;
pub mod depth;
mod encoding;
mod evaluate;
pub mod expression;
mod format;
mod format_keyword;
mod format_number;
pub mod function;
mod mathematics;
mod overload;
mod parse_format;
mod pattern;
pub mod program;
pub mod quoting;
pub mod resolve;
mod signatures;
mod text;
mod type_name;

pub use coerce::{
    coerce, coerce_for_column, coerce_to_boolean, coerce_to_common_type, common_type, common_type_for,
};
pub use constructs::{
    resolve_and, resolve_between, resolve_case, resolve_coalesce, resolve_in_list, resolve_is_boolean,
    resolve_is_distinct_from, resolve_is_null, resolve_like, resolve_not, resolve_null_if, resolve_or,
};
pub use evaluate::EvaluationContext;
pub use expression::{ColumnId, Expression};
pub use function::Function;
pub use program::{CheckedColumn, InputColumn, NotNullCheck, ScanProgram, WriteProgram, null_in_column};
pub use quoting::{quote_identifier, quote_literal};
pub use resolve::{function_exists, resolve_function, resolve_operator};
