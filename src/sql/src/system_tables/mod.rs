//! `pg_catalog` and `information_schema`, computed from the catalog snapshot when a statement that reads them is
//! analysed: enough for pgbench, psql's `\d` family and the look-ups of drivers. Relations that we have no rows for
//! are there and empty.

mod cluster;
mod definitions;
mod functions;
mod information_schema;
mod pg_catalog;

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::MemTable;
use datafusion::common::{Column as PlanColumn, DFSchema};
use datafusion::datasource::DefaultTableSource;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder};
use neorunbase_types::{Datum, Result, SqlError, SqlType};
use sqlparser::ast::{self, Select, TableFactor};

use crate::bind::AnalysisContext;
use crate::query::aggregates::AggregateFunction;
use crate::query::arrow::{ColumnBuilder, data_type};
use crate::query::relation::{Relation, RelationColumn, build, output_name};
use definitions::{Definition, definition};

/// Oid of the schema `pg_catalog`.
const PG_CATALOG: u32 = 11;
/// Oid of the schema `information_schema`.
const INFORMATION_SCHEMA: u32 = 13_000;
/// Oid of the schema `public`; further schemas follow it.
const PUBLIC: u32 = 2_200;
/// Oid of the first user.
const FIRST_USER: u32 = 10;

/// Whether there is such a system table.
pub(crate) fn exists(schema: Option<&str>, name: &str) -> bool {
    find(schema, name).is_some()
}

/// The `pg_class.oid` of a system table.
pub(crate) fn oid(schema: Option<&str>, name: &str) -> Option<u32> {
    find(schema, name).map(|definition| definition.oid)
}

/// Unqualified names mean `pg_catalog` only.
fn find(schema: Option<&str>, name: &str) -> Option<&'static Definition> {
    definition(schema.unwrap_or("pg_catalog"), name)
}

/// A system table's rows as a relation of a query.
pub(crate) fn relation(
    context: &AnalysisContext,
    schema: Option<&str>,
    name: &str,
) -> Result<Option<Relation>> {
    let Some(definition) = find(schema, name) else {
        return Ok(None);
    };
    let columns = definition.columns();
    let rows = match definition.schema {
        "information_schema" => information_schema::rows(context, definition.name),
        _ => cluster::rows(context, definition.name)
            .unwrap_or_else(|| pg_catalog::rows(context, definition.name)),
    };
    Ok(Some(relation_of(&columns, &rows)?))
}

fn relation_of(columns: &[(String, SqlType)], rows: &[Vec<Datum>]) -> Result<Relation> {
    // Rows come from a table whose columns have names of their own; of no rows there is no table.
    let name = |index: usize| {
        if rows.is_empty() {
            output_name(index)
        } else {
            format!("s{index}")
        }
    };
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(index, (_, sql_type))| Field::new(name(index), data_type(sql_type), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let plan = if rows.is_empty() {
        let schema = DFSchema::try_from(schema).map_err(SqlError::internal)?;
        LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema: Arc::new(schema),
        })
    } else {
        let mut builders: Vec<ColumnBuilder> = columns
            .iter()
            .map(|(_, sql_type)| ColumnBuilder::new(sql_type, rows.len()))
            .collect();
        for row in rows {
            if row.len() != columns.len() {
                return Err(SqlError::internal(
                    "a system table's row does not fit its columns",
                ));
            }
            for (builder, value) in builders.iter_mut().zip(row) {
                builder.append(value)?;
            }
        }
        let arrays = builders.into_iter().map(ColumnBuilder::finish).collect();
        let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(SqlError::internal)?;
        let table = MemTable::try_new(schema, vec![vec![batch]]).map_err(SqlError::internal)?;
        let source = Arc::new(DefaultTableSource::new(Arc::new(table)));
        let outputs: Vec<Expr> = (0..columns.len())
            .map(|index| Expr::Column(PlanColumn::new(Some("system"), name(index))).alias(output_name(index)))
            .collect();
        build(LogicalPlanBuilder::scan("system", source, None).and_then(|builder| builder.project(outputs)))?
    };
    let columns = columns
        .iter()
        .map(|(name, sql_type)| RelationColumn {
            name: name.clone(),
            sql_type: sql_type.clone(),
            nullable: true,
            origin: None,
            untyped: None,
        })
        .collect();
    Ok(Relation { plan, columns })
}

/// The result of a SELECT that joins a system table which is always empty, such as `pg_policy`: no rows. Clients
/// ask about many things that do not exist here, with functions and types that are not needed for that answer, so
/// nothing else of such a query is looked at; its columns are of type text.
pub(crate) fn empty_select(select: &Select) -> Result<Option<Relation>> {
    let empty = select.from.iter().any(|item| {
        let inner = item.joins.iter().all(|join| {
            use ast::JoinOperator as J;
            matches!(
                join.join_operator,
                J::Join(_) | J::Inner(_) | J::Left(_) | J::LeftOuter(_) | J::CrossJoin(_)
            )
        });
        inner && is_always_empty(&item.relation)
    });
    let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if !empty || (has_aggregate(select) && !grouped) {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        let name = match item {
            ast::SelectItem::UnnamedExpr(expression) => crate::bind::column_name(expression),
            ast::SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            _ => return Ok(None),
        };
        columns.push((name, SqlType::Text));
    }
    relation_of(&columns, &[]).map(Some)
}

fn is_always_empty(factor: &TableFactor) -> bool {
    let TableFactor::Table { name, args: None, .. } = factor else {
        return false;
    };
    match crate::bind::split_name(name) {
        Ok((schema, name)) => {
            find(schema.as_deref(), &name).is_some_and(|definition| definition.always_empty)
        }
        Err(_) => false,
    }
}

/// Whether the SELECT itself aggregates, rather than a query inside of it.
fn has_aggregate(select: &Select) -> bool {
    struct Finder {
        depth: usize,
    }
    impl ast::Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expression: &ast::Expr) -> ControlFlow<()> {
            let ast::Expr::Function(function) = expression else {
                return ControlFlow::Continue(());
            };
            let name = crate::bind::split_name(&function.name);
            let aggregate = name.is_ok_and(|(_, name)| AggregateFunction::from_name(&name).is_some());
            if aggregate && self.depth == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    ast::Visit::visit(&select.projection, &mut Finder { depth: 0 }).is_break()
}

/// The oid of a schema.
fn schema_oid(context: &AnalysisContext, name: &str) -> u32 {
    if name == neorunbase_catalog::snapshot::DEFAULT_SCHEMA {
        return PUBLIC;
    }
    let position = context
        .catalog
        .schemas
        .iter()
        .position(|schema| schema == name)
        .unwrap_or(0);
    PUBLIC + 1 + position as u32
}

/// The oid of a user; users are numbered in the order of their names.
fn user_oid(context: &AnalysisContext, name: &str) -> u32 {
    let position = context
        .catalog
        .users
        .keys()
        .position(|user| user == name)
        .unwrap_or(0);
    FIRST_USER + position as u32
}

/// The oid of a primary key's index, which has none of its own in the catalog.
fn primary_key_oid(table: u32) -> u32 {
    table | 0x8000_0000
}
