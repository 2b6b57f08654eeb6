//! Queries that find the rows of an UPDATE or DELETE with joins, subqueries or new keys.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use neorunbase_catalog::Table;
use neorunbase_expression::Expression;
use neorunbase_types::{Result, SqlType};
use sqlparser::ast;

use super::execute::QueryPlan;
use super::from::{FromItem, Locks, cross_join};
use super::provider::sharded_table;
use super::relation::{Relation, RelationColumn, build, output_name};
use crate::access::RowLocking;
use crate::bind::{Binder, Scope, ScopeRelation};

/// The statement's relations.
pub(crate) struct ModifyQuery<'a> {
    pub(crate) table: &'a std::sync::Arc<Table>,
    /// The table that changes.
    pub(crate) target: ScopeRelation,
    /// FROM or USING.
    pub(crate) others: &'a [ast::TableWithJoins],
}

impl Binder<'_> {
    /// Plans the query: the row id of tables without key, the old row, and for UPDATE the new row. `bind_values`
    /// binds the new values of the columns at `positions`, or yields `None` for DELETE.
    pub(crate) fn plan_modification(
        &mut self,
        modify: ModifyQuery<'_>,
        selection: Option<&ast::Expr>,
        bind_values: impl FnOnce(&mut Self) -> Result<Option<Vec<Expression>>>,
        positions: &[usize],
    ) -> Result<QueryPlan> {
        let ModifyQuery {
            table,
            target,
            others,
        } = modify;
        let level = self.scopes.len();
        // The rows are locked as they are found.
        let locking = RowLocking {
            exclusive: true,
            no_wait: false,
            skip_locked: false,
        };
        let source = super::provider::table_source(table.clone(), Some(locking));
        let plan = build(LogicalPlanBuilder::scan(target.qualifier.clone(), source, None))?;
        let old: Vec<Expression> = target.columns.iter().map(|column| column.value.clone()).collect();
        let row_id = table
            .primary_key
            .is_none()
            .then(|| self.row_id_column(table, &target.qualifier));
        let mut from = FromItem {
            scope: Scope::of_relation(target),
            plan,
        };
        if !others.is_empty() {
            from = cross_join(from, self.bind_from(others, &Locks::new())?)?;
        }
        let mut plan = from.plan;
        self.scopes.push(from.scope);
        let filter = self.bind_where(selection)?;
        let values = bind_values(self)?;
        if let Some(filter) = filter
            && let Some(condition) = self.lower_filter(&filter, level)?.into_iter().reduce(Expr::and)
        {
            plan = build(LogicalPlanBuilder::from(plan).filter(condition))?;
        }
        self.scopes.pop();
        let mut outputs: Vec<Expression> = row_id.iter().cloned().chain(old.iter().cloned()).collect();
        if let Some(values) = values {
            let mut new = old;
            for (position, value) in positions.iter().zip(values) {
                new[*position] = value;
            }
            outputs.extend(new);
        }
        let mut projection = Vec::with_capacity(outputs.len() + 1);
        for (index, output) in outputs.iter().enumerate() {
            projection.push(self.lower(output, level)?.alias(output_name(index)));
        }
        plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        if !others.is_empty() {
            // A row that several others match changes once.
            let first = usize::from(row_id.is_some());
            let keys = match &row_id {
                Some(_) => vec![Relation::column(0)],
                None => table
                    .key_columns()
                    .iter()
                    .filter_map(|key| table.columns.iter().position(|column| column.id == *key))
                    .map(|position| {
                        super::functions::comparison_key(
                            Relation::column(first + position),
                            &table.columns[position].sql_type,
                        )
                    })
                    .collect(),
            };
            plan = super::windows::first_of_each(plan, keys, Vec::new())?;
        }
        let columns = outputs
            .iter()
            .map(|output| RelationColumn {
                name: String::new(),
                sql_type: output.sql_type(),
                nullable: true,
                origin: None,
                untyped: None,
            })
            .collect();
        QueryPlan::new(&Relation { plan, columns })
    }

    /// Plans a query that is a part of another statement.
    pub(crate) fn plan_query(
        &mut self,
        query: &ast::Query,
        wanted: Option<&[SqlType]>,
    ) -> Result<(QueryPlan, Vec<crate::plan::ResultColumn>)> {
        let relation = self.bind_query(query, wanted)?;
        let columns = relation.result_columns();
        Ok((QueryPlan::new(&relation)?, columns))
    }

    /// Plans rows of expressions that hold subqueries, each column already of the type wanted.
    pub(crate) fn plan_rows(
        &mut self,
        rows: Vec<Vec<Expression>>,
        types: Vec<SqlType>,
    ) -> Result<(QueryPlan, Vec<Expression>)> {
        let rows: Vec<Vec<Expression>> = rows
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|value| self.settle_parameters(value))
                    .collect()
            })
            .collect();
        let plan = self.rows_plan(&rows)?;
        let width = rows.first().map_or(0, Vec::len);
        let columns: Vec<RelationColumn> = types
            .into_iter()
            .take(width)
            .map(|sql_type| RelationColumn {
                name: String::new(),
                sql_type,
                nullable: true,
                origin: None,
                untyped: None,
            })
            .collect();
        let casts = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Expression::input(index, column.sql_type.clone()))
            .collect();
        Ok((QueryPlan::new(&Relation { plan, columns })?, casts))
    }

    /// A query as a statement of its own.
    pub(crate) fn bind_full_query(&mut self, query: &ast::Query) -> Result<crate::bind::Bound> {
        let relation = self.bind_query(query, None)?;
        let columns = relation.result_columns();
        let locks_rows = locks_rows(&relation.plan);
        let plan = QueryPlan::new(&relation)?;
        Ok(crate::bind::Bound {
            plan: crate::plan::Plan::Query(std::sync::Arc::new(plan)),
            columns: Some(columns),
            read_only: !locks_rows,
        })
    }
}

/// Whether a query locks rows somewhere, be it in a subquery.
fn locks_rows(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= sharded_table(scan).is_some_and(|table| table.locking.is_some());
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    found || walked.is_err()
}
