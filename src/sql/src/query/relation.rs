//! A query's result while a larger query is being bound around it.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use neorunbase_expression::{ColumnId, Expression};
use neorunbase_types::{Result, SqlType};
use sqlparser::ast;

use super::errors::from_datafusion;
use crate::bind::slots::ColumnSlot;
use crate::bind::{Binder, ScopeColumn, ScopeRelation};
use crate::plan::ResultColumn;

/// A bound query. Its plan's columns are called `o0`, `o1`, …
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) plan: LogicalPlan,
    pub(crate) columns: Vec<RelationColumn>,
}

/// A column of a bound query.
#[derive(Clone, Debug)]
pub(crate) struct RelationColumn {
    /// Its label.
    pub(crate) name: String,
    /// `Unknown` only while `untyped` says what it is.
    pub(crate) sql_type: SqlType,
    pub(crate) nullable: bool,
    /// The plain table column that it is.
    pub(crate) origin: Option<(u32, ColumnId)>,
    /// The untyped literal that it is, as long as a set operation or INSERT may still give it a type.
    pub(crate) untyped: Option<Expression>,
}

/// A common table expression.
#[derive(Clone, Debug)]
pub(crate) struct CommonTable {
    pub(crate) name: String,
    pub(crate) relation: Arc<Relation>,
}

/// The name of a query's column in its plan. DataFusion moves columns of inner queries outwards to turn subqueries
/// into joins, so no relation's columns may have names that a query's outputs have.
pub(crate) fn output_name(index: usize) -> String {
    format!("o{index}")
}

/// The name of a column of a query in a FROM clause.
pub(crate) fn name_in_relation(qualifier: &str, index: usize) -> String {
    format!("{qualifier}_{index}")
}

/// Finishes a step of a plan.
pub(crate) fn build(step: datafusion::common::Result<LogicalPlanBuilder>) -> Result<LogicalPlan> {
    step.and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}

impl Relation {
    /// A column of the plan.
    pub(crate) fn column(index: usize) -> Expr {
        Expr::Column(Column::new_unqualified(output_name(index)))
    }

    /// How the columns are described to the client.
    pub(crate) fn result_columns(&self) -> Vec<ResultColumn> {
        self.columns
            .iter()
            .map(|column| ResultColumn {
                name: column.name.clone(),
                sql_type: column.sql_type.clone(),
                origin: column
                    .origin
                    .and_then(|(table, column)| Some((table, i16::try_from(column).ok()?)))
                    .unwrap_or((0, 0)),
            })
            .collect()
    }
}

impl Binder<'_> {
    /// Puts a query into a FROM clause.
    pub(crate) fn relation_in_scope(
        &mut self,
        relation: Relation,
        name: &str,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(ScopeRelation, LogicalPlan)> {
        let qualifier = self.new_qualifier();
        // A projection rather than an alias: filters that DataFusion pulls out of subqueries get lost in aliases.
        let renamed: Vec<Expr> = (0..relation.columns.len())
            .map(|index| {
                let name = name_in_relation(&qualifier, index);
                Relation::column(index).alias_qualified(Some(qualifier.clone()), name)
            })
            .collect();
        let plan = build(LogicalPlanBuilder::from(relation.plan).project(renamed))?;
        let level = self.scopes.len();
        let mut columns: Vec<ScopeColumn> = relation
            .columns
            .into_iter()
            .enumerate()
            .map(|(index, column)| {
                let slot = self.slots.add_column(ColumnSlot {
                    level,
                    qualifier: Some(qualifier.clone()),
                    column: name_in_relation(&qualifier, index),
                    sql_type: column.sql_type.clone(),
                    nullable: column.nullable,
                    display: format!("{name}.{}", column.name),
                    origin: None,
                });
                ScopeColumn {
                    name: column.name,
                    value: Expression::input(slot, column.sql_type),
                }
            })
            .collect();
        if let Some(alias) = alias {
            crate::bind::rename_columns(&mut columns, alias)?;
        }
        let relation = ScopeRelation {
            name: name.to_owned(),
            schema: None,
            hidden_name: None,
            qualifier,
            columns,
        };
        Ok((relation, plan))
    }
}
