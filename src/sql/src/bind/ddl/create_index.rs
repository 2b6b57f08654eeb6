//! CREATE INDEX.

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{self, IndexType};

use super::super::{Binder, Bound};
use super::{definition, duplicate_relation};
use crate::plan::Definition;

/// Longest name that is made up for an index.
const MAXIMUM_NAME_BYTES: usize = 58;

impl Binder<'_> {
    pub(super) fn bind_create_index(&mut self, create: &ast::CreateIndex) -> Result<Bound> {
        let table = self.find_table(&create.table_name)?;
        match &create.using {
            None | Some(IndexType::BTree) => {}
            Some(other) => {
                return Err(SqlError::unsupported(format_args!(
                    "index method {}",
                    other.to_string().to_lowercase()
                ))
                .with_hint("Use btree."));
            }
        }
        if create.predicate.is_some() {
            return Err(SqlError::unsupported("a partial index").with_hint("Index all rows."));
        }
        if !create.include.is_empty() {
            return Err(SqlError::unsupported("INCLUDE").with_hint("Make the columns part of the index."));
        }
        if create.nulls_distinct == Some(false) {
            return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
        }
        let mut columns = Vec::with_capacity(create.columns.len());
        let mut names = Vec::with_capacity(create.columns.len());
        for entry in &create.columns {
            let ast::Expr::Identifier(ident) = &entry.column.expr else {
                return Err(SqlError::unsupported("an index on an expression").with_hint("Index a column."));
            };
            if entry.operator_class.is_some() {
                return Err(SqlError::unsupported("an operator class"));
            }
            let column = table.column(&ident.value).ok_or_else(|| {
                let error = SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{}\" does not exist", ident.value),
                );
                self.at(error, Some(ident.span))
            })?;
            let descending = entry.column.options.asc == Some(false);
            if entry
                .column
                .options
                .nulls_first
                .is_some_and(|nulls_first| nulls_first != descending)
            {
                return Err(SqlError::unsupported("this order of NULLs in an index")
                    .with_hint("Ascending columns have NULLS LAST, descending ones NULLS FIRST."));
            }
            columns.push((column.id, descending));
            names.push(column.name.clone());
        }
        if create.unique
            && let Some(outside) = table
                .shard_key
                .iter()
                .find(|id| !columns.iter().any(|(column, _)| column == *id))
        {
            let shown = table
                .column_by_id(*outside)
                .map_or("(row id)", |column| column.name.as_str());
            return Err(SqlError::unsupported(format_args!(
                "a unique index without the shard key column \"{shown}\""
            ))
            .with_hint("Add the shard key's columns to the index, or make these columns the primary key."));
        }
        let name = match &create.name {
            Some(name) => {
                let (_, name) = super::split_name(name)?;
                if self.relation_exists(&table.schema, &name) && !create.if_not_exists {
                    return Err(duplicate_relation(&name));
                }
                name
            }
            None => self.free_index_name(&table.schema, &format!("{}_{}", table.name, names.join("_"))),
        };
        Ok(definition(Definition::CreateIndex {
            table: table.id,
            name,
            columns,
            unique: create.unique,
            if_not_exists: create.if_not_exists,
        }))
    }

    /// `table_columns_idx`, with a number if that is taken.
    fn free_index_name(&self, schema: &str, stem: &str) -> String {
        let mut end = stem.len().min(MAXIMUM_NAME_BYTES);
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        let mut name = format!("{}_idx", &stem[..end]);
        let mut number = 0;
        while self.relation_exists(schema, &name) {
            number += 1;
            name = format!("{}_idx{number}", &stem[..end]);
        }
        name
    }
}
