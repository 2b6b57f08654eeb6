//! WITH RECURSIVE.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::datasource::DefaultTableSource;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::logical_expr::LogicalPlanBuilder;
use neorunbase_types::{Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, Query, SetExpr, SetOperator, SetQuantifier};

use super::functions::prints_differently;
use super::relation::{CommonTable, Relation, RelationColumn, build, output_name};
use crate::bind::Binder;

impl Binder<'_> {
    /// `first term UNION [ALL] recursive term`
    pub(super) fn bind_recursive(
        &mut self,
        query: &Query,
        name: &str,
        alias: &ast::TableAlias,
    ) -> Result<Relation> {
        let SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier,
            left,
            right,
        } = &*query.body
        else {
            return Err(SqlError::new(
                SqlState("42P19"),
                format!(
                    "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] recursive-term"
                ),
            ));
        };
        if query.order_by.is_some() || query.limit_clause.is_some() || query.with.is_some() {
            return Err(SqlError::unsupported(
                "ORDER BY, LIMIT or WITH in a recursive query",
            ));
        }
        let mut first = self.bind_set_expression(left)?;
        self.settle_untyped(&mut first, None)?;
        rename(&mut first, alias)?;
        let distinct = !matches!(set_quantifier, SetQuantifier::All);
        if distinct
            && first
                .columns
                .iter()
                .any(|column| prints_differently(&column.sql_type))
        {
            return Err(SqlError::unsupported(
                "recursive UNION of numeric, interval or floating-point columns",
            )
            .with_hint("Use UNION ALL."));
        }
        // Two recursive queries of one statement must not share their work table.
        let work_table = self.new_name("work");
        let fields = first
            .plan
            .schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(
            fields.collect::<Vec<_>>(),
        ));
        let source = Arc::new(DefaultTableSource::new(Arc::new(CteWorkTable::new(
            &work_table,
            schema,
        ))));
        let outputs = (0..first.columns.len()).map(|index| {
            let column = datafusion::common::Column::new(Some(work_table.clone()), output_name(index));
            datafusion::logical_expr::Expr::Column(column).alias(output_name(index))
        });
        let outputs: Vec<_> = outputs.collect();
        let scan = LogicalPlanBuilder::scan(work_table.clone(), source, None)
            .and_then(|builder| builder.project(outputs));
        let columns: Vec<RelationColumn> = first
            .columns
            .iter()
            .map(|column| RelationColumn {
                nullable: true,
                origin: None,
                ..column.clone()
            })
            .collect();
        let own = Relation {
            plan: build(scan)?,
            columns: columns.clone(),
        };
        self.tables_in_sight.push(CommonTable {
            name: name.to_owned(),
            relation: Arc::new(own),
        });
        let bound = self.bind_set_expression(right);
        self.tables_in_sight.pop();
        let mut second = bound?;
        let wanted: Vec<SqlType> = columns.iter().map(|column| column.sql_type.clone()).collect();
        self.settle_untyped(&mut second, Some(&wanted))?;
        if second.columns.len() != columns.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "each UNION query must have the same number of columns",
            ));
        }
        for (index, (first, second)) in columns.iter().zip(&second.columns).enumerate() {
            if !first.sql_type.same_base(&second.sql_type) {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} overall",
                        index + 1,
                        first.sql_type,
                        second.sql_type
                    ),
                )
                .with_hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        let plan = build(LogicalPlanBuilder::from(first.plan).to_recursive_query(
            work_table,
            second.plan,
            distinct,
        ))?;
        Ok(Relation { plan, columns })
    }
}

/// `WITH name (a, b) AS …`
pub(super) fn rename(relation: &mut Relation, alias: &ast::TableAlias) -> Result<()> {
    if alias.columns.len() > relation.columns.len() {
        return Err(SqlError::new(
            SqlState("42P10"),
            format!(
                "WITH query \"{}\" has {} columns available but {} columns specified",
                alias.name.value,
                relation.columns.len(),
                alias.columns.len()
            ),
        ));
    }
    for (column, new) in relation.columns.iter_mut().zip(&alias.columns) {
        column.name.clone_from(&new.name.value);
    }
    Ok(())
}

/// Whether a query of a recursive WITH refers to itself.
pub(super) fn mentions(query: &Query, name: &str) -> bool {
    ast::visit_relations(query, |relation| {
        if crate::bind::display_name(relation) == name {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .is_break()
}
