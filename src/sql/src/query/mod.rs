//! Queries that need more than one table's rows as they are: planned and run by DataFusion.

pub(crate) mod aggregates;
mod arrow;
mod errors;
mod ordered_bytes;
pub(crate) mod windows;

use std::sync::Arc;

use futures::stream::BoxStream;
use neorunbase_catalog::Table;
use neorunbase_expression::Expression;
use neorunbase_types::{Datum, Result, SqlError, SqlType};
use sqlparser::ast;

use crate::access::TableAccess;
use crate::bind::{Binder, Bound, ScopeRelation};
use crate::plan::ResultColumn;

/// Rows of a query, in batches.
pub type RowStream = BoxStream<'static, Result<Vec<Vec<Datum>>>>;

/// A planned query.
pub struct QueryPlan {}

impl QueryPlan {
    /// Runs the query.
    ///
    /// # Errors
    /// What planning with the parameters' values reports; later errors end the stream.
    pub async fn execute(
        &self,
        _parameters: Arc<[Datum]>,
        _access: Arc<dyn TableAccess>,
        _transaction_time_unix_micros: i64,
    ) -> Result<RowStream> {
        Err(SqlError::unsupported("this query"))
    }
}

#[derive(Clone)]
pub(crate) struct CommonTable {}

pub(crate) struct ModifyQuery<'a> {
    pub(crate) table: &'a Table,
    pub(crate) target: ScopeRelation,
    pub(crate) others: &'a [ast::TableWithJoins],
}

impl Binder<'_> {
    pub(crate) fn bind_full_query(&mut self, _query: &ast::Query) -> Result<Bound> {
        Err(SqlError::unsupported("this query"))
    }
    pub(crate) fn plan_query(
        &mut self,
        _query: &ast::Query,
        _wanted: Option<&[SqlType]>,
    ) -> Result<(QueryPlan, Vec<ResultColumn>)> {
        Err(SqlError::unsupported("this query"))
    }
    pub(crate) fn plan_rows(
        &mut self,
        _rows: Vec<Vec<Expression>>,
        _types: Vec<SqlType>,
    ) -> Result<(QueryPlan, Vec<Expression>)> {
        Err(SqlError::unsupported("this query"))
    }
    pub(crate) fn plan_modification(
        &mut self,
        modify: ModifyQuery<'_>,
        _selection: Option<&ast::Expr>,
        _bind_values: impl FnOnce(&mut Self) -> Result<Option<Vec<Expression>>>,
        _positions: &[usize],
    ) -> Result<QueryPlan> {
        let _ = (modify.table, modify.target, modify.others);
        Err(SqlError::unsupported("this query"))
    }
    pub(crate) fn bind_in_subquery(
        &mut self,
        _operand: &ast::Expr,
        _query: &ast::Query,
    ) -> Result<Expression> {
        Err(SqlError::unsupported("a subquery"))
    }
    pub(crate) fn bind_exists(&mut self, _query: &ast::Query) -> Result<Expression> {
        Err(SqlError::unsupported("a subquery"))
    }
    pub(crate) fn bind_scalar_subquery(&mut self, _query: &ast::Query) -> Result<Expression> {
        Err(SqlError::unsupported("a subquery"))
    }
    pub(crate) fn bind_window_function(
        &mut self,
        _name: &str,
        _arguments: &crate::bind::CallArguments,
        _filter: Option<&ast::Expr>,
        _over: &ast::WindowType,
    ) -> Result<Expression> {
        Err(SqlError::unsupported("a window function"))
    }
}
