//! Tables that statements name, and the scope that a single table makes.

use std::sync::Arc;

use neorunbase_catalog::Table;
use neorunbase_catalog::schema::{Column, ROW_ID_COLUMN};
use neorunbase_expression::{ColumnId, Expression};
use neorunbase_types::{Result, SqlError, SqlState, SqlType};
use sqlparser::ast;

use super::names::{display_name, parts, split_name};
use super::slots::ColumnSlot;
use super::{Binder, Scope, ScopeColumn, ScopeRelation};

/// Schemas that hold the system's own tables.
pub(crate) const SYSTEM_SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

impl Binder<'_> {
    /// A user's table, if it exists.
    pub(crate) fn lookup_table(&self, name: &ast::ObjectName) -> Result<Option<&Arc<Table>>> {
        let (schema, table) = split_name(name)?;
        let catalog = &self.context.catalog;
        Ok(match schema {
            Some(schema) => catalog.table(Some(&schema), &table),
            None => self
                .context
                .search_path
                .iter()
                .find_map(|schema| catalog.table(Some(schema), &table)),
        })
    }

    /// A user's table, for statements that change it.
    ///
    /// # Errors
    /// `42P01`
    pub(crate) fn find_table(&self, name: &ast::ObjectName) -> Result<Arc<Table>> {
        if let Some(table) = self.lookup_table(name)? {
            return Ok(table.clone());
        }
        let (schema, plain) = split_name(name)?;
        let system = schema
            .as_deref()
            .is_none_or(|schema| SYSTEM_SCHEMAS.contains(&schema))
            && crate::system_tables::exists(schema.as_deref(), &plain);
        if system {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{plain}\" is a system catalog"),
            ));
        }
        Err(self.undefined_table(name))
    }

    /// `relation "x" does not exist`
    pub(crate) fn undefined_table(&self, name: &ast::ObjectName) -> Box<SqlError> {
        let error = SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{}\" does not exist", display_name(name)),
        );
        let span = parts(name)
            .ok()
            .and_then(|parts| parts.first().map(|ident| ident.span));
        self.at(error, span)
    }

    /// The input for a column of a table that is in scope as `qualifier`.
    pub(crate) fn table_column(
        &mut self,
        table: &Table,
        column: &Column,
        alias: &str,
        qualifier: &str,
    ) -> Expression {
        let slot = self.slots.add_column(ColumnSlot {
            level: self.scopes.len(),
            qualifier: Some(qualifier.to_owned()),
            column: column_in_plan(column.id),
            sql_type: column.sql_type.clone(),
            nullable: !column.not_null,
            display: format!("{alias}.{}", column.name),
            origin: Some((table.id, column.id)),
        });
        Expression::input(slot, column.sql_type.clone())
    }

    /// The input for the hidden row id of a table without primary key.
    pub(crate) fn row_id_column(&mut self, table: &Table, qualifier: &str) -> Expression {
        let slot = self.slots.add_column(ColumnSlot {
            level: self.scopes.len(),
            qualifier: Some(qualifier.to_owned()),
            column: column_in_plan(ROW_ID_COLUMN),
            sql_type: SqlType::BigInt,
            nullable: false,
            display: format!("{}.(row id)", table.name),
            origin: Some((table.id, ROW_ID_COLUMN)),
        });
        Expression::input(slot, SqlType::BigInt)
    }

    /// A table as a relation of a FROM clause.
    pub(crate) fn table_relation(
        &mut self,
        table: &Table,
        alias: Option<&ast::TableAlias>,
    ) -> Result<ScopeRelation> {
        let qualifier = self.new_qualifier();
        let name = alias.map_or_else(|| table.name.clone(), |alias| alias.name.value.clone());
        let mut columns: Vec<ScopeColumn> = table
            .columns
            .iter()
            .map(|column| ScopeColumn {
                name: column.name.clone(),
                value: self.table_column(table, column, &name, &qualifier),
            })
            .collect();
        if let Some(alias) = alias {
            rename_columns(&mut columns, alias)?;
        }
        Ok(ScopeRelation {
            schema: alias.is_none().then(|| table.schema.clone()),
            hidden_name: alias.is_some().then(|| table.name.clone()),
            name,
            qualifier,
            columns,
        })
    }

    /// The scope of a statement about one table.
    pub(crate) fn enter_table(&mut self, table: &Table, alias: Option<&ast::TableAlias>) -> Result<()> {
        let relation = self.table_relation(table, alias)?;
        self.scopes.push(Scope::of_relation(relation));
        Ok(())
    }

    /// The position in `table.columns` of a column that a statement names as its target.
    pub(crate) fn target_column(&self, table: &Table, ident: &ast::Ident) -> Result<usize> {
        table
            .columns
            .iter()
            .position(|column| column.name == ident.value)
            .ok_or_else(|| {
                let error = SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{}\" of relation \"{}\" does not exist",
                        ident.value, table.name
                    ),
                );
                self.at(error, Some(ident.span))
            })
    }
}

/// `AS alias (a, b)`
pub(crate) fn rename_columns(columns: &mut [ScopeColumn], alias: &ast::TableAlias) -> Result<()> {
    if alias.columns.len() > columns.len() {
        return Err(SqlError::new(
            SqlState("42P10"),
            format!(
                "table \"{}\" has {} columns available but {} columns specified",
                alias.name.value,
                columns.len(),
                alias.columns.len()
            ),
        ));
    }
    for (column, new) in columns.iter_mut().zip(&alias.columns) {
        column.name.clone_from(&new.name.value);
    }
    Ok(())
}

/// What logical plans call a table's column.
pub(crate) fn column_in_plan(id: ColumnId) -> String {
    format!("c{id}")
}

/// The reverse of [`column_in_plan`].
pub(crate) fn column_from_plan(name: &str) -> Option<ColumnId> {
    name.strip_prefix('c')?.parse().ok()
}
