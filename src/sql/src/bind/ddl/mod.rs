//! CREATE, ALTER, DROP and TRUNCATE.

mod alter_table;
mod create_index;
mod create_table;

use std::sync::Arc;

use neorunbase_catalog::Table;
use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{self, ObjectType, Statement};

use super::names::{display_name, split_name};
use super::{Binder, Bound};
use crate::plan::{Definition, Plan};

fn definition(definition: Definition) -> Bound {
    Bound::command(Plan::Definition(Arc::new(definition)), false)
}

impl Binder<'_> {
    pub(super) fn bind_definition(&mut self, statement: &Statement) -> Result<Bound> {
        match statement {
            Statement::CreateIndex(index) => self.bind_create_index(index),
            Statement::AlterTable(alter) => self.bind_alter_table(alter),
            Statement::Drop {
                object_type: ObjectType::Table,
                if_exists,
                names,
                ..
            } => self.bind_drop_tables(names, *if_exists),
            Statement::Drop {
                object_type: ObjectType::Index,
                if_exists,
                names,
                ..
            } => self.bind_drop_indexes(names, *if_exists),
            Statement::Truncate(truncate) => {
                let mut tables = Vec::with_capacity(truncate.table_names.len());
                for target in &truncate.table_names {
                    tables.push(self.find_table(&target.name)?.id);
                }
                Ok(definition(Definition::Truncate { tables }))
            }
            other => Err(SqlError::unsupported(super::first_words(other))),
        }
    }

    fn bind_drop_tables(&self, names: &[ast::ObjectName], if_exists: bool) -> Result<Bound> {
        let (mut tables, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match self.find_table(name) {
                Ok(table) => tables.push(table.id),
                Err(error) if error.state == SqlState::UNDEFINED_TABLE => {
                    if !if_exists {
                        let shown = display_name(name);
                        return Err(SqlError::new(
                            SqlState::UNDEFINED_TABLE,
                            format!("table \"{shown}\" does not exist"),
                        ));
                    }
                    missing.push(split_name(name)?.1);
                }
                Err(error) => return Err(error),
            }
        }
        tables.dedup();
        Ok(definition(Definition::DropTables { tables, missing }))
    }

    fn bind_drop_indexes(&self, names: &[ast::ObjectName], if_exists: bool) -> Result<Bound> {
        let (mut indexes, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            let (schema, plain) = split_name(name)?;
            let in_schema =
                |table: &&Arc<Table>| schema.as_ref().is_none_or(|schema| table.schema == *schema);
            let mut tables = self.context.catalog.tables.values().filter(in_schema);
            if let Some(table) = tables
                .clone()
                .find(|table| table.primary_key.as_ref().is_some_and(|key| key.name == plain))
            {
                return Err(SqlError::new(
                    SqlState("2BP01"),
                    format!(
                        "cannot drop index {plain} because constraint {plain} on table {} requires it",
                        table.name
                    ),
                ));
            }
            match tables.find_map(|table| table.indexes.iter().find(|index| index.name == plain)) {
                Some(index) => indexes.push(index.id),
                None if if_exists => missing.push(plain),
                None => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("index \"{}\" does not exist", display_name(name)),
                    ));
                }
            }
        }
        Ok(definition(Definition::DropIndexes { indexes, missing }))
    }

    /// Schema and name of something that is about to be created.
    fn name_to_create(&self, name: &ast::ObjectName) -> Result<(String, String)> {
        let (schema, plain) = split_name(name)?;
        let schemas = &self.context.catalog.schemas;
        let schema = match schema {
            Some(schema) if super::table::SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
                return Err(SqlError::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    format!("permission denied to create \"{schema}.{plain}\""),
                )
                .with_detail("System catalog modifications are currently disallowed."));
            }
            Some(schema) if schemas.contains(&schema) => schema,
            Some(schema) => {
                return Err(SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{schema}\" does not exist"),
                ));
            }
            None => self
                .context
                .search_path
                .iter()
                .find(|schema| schemas.contains(schema))
                .cloned()
                .ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_SCHEMA_NAME,
                        "no schema has been selected to create in",
                    )
                })?,
        };
        Ok((schema, plain))
    }

    /// Whether a table, index or primary key has this name.
    fn relation_exists(&self, schema: &str, name: &str) -> bool {
        self.context
            .catalog
            .tables
            .values()
            .filter(|table| table.schema == schema)
            .any(|table| {
                table.name == name
                    || table.primary_key.as_ref().is_some_and(|key| key.name == name)
                    || table.indexes.iter().any(|index| index.name == name)
            })
    }
}

/// `42P07`
fn duplicate_relation(name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::DUPLICATE_TABLE,
        format!("relation \"{name}\" already exists"),
    )
}

/// `0A000` for constraints that are not there yet.
fn unsupported_constraint(what: &str) -> Box<SqlError> {
    let hint = match what {
        "UNIQUE constraints" => {
            "Use CREATE UNIQUE INDEX on columns that include the shard key, or make the columns the primary key."
        }
        _ => "Leave the constraint out and check it in the application.",
    };
    SqlError::unsupported(what).with_hint(hint)
}

/// Storage parameters are checked by name; those that exist have no effect on how rows are stored here.
fn check_storage_parameters(options: &[ast::SqlOption]) -> Result<()> {
    for option in options {
        let name = match option {
            ast::SqlOption::KeyValue { key, .. } => &key.value,
            ast::SqlOption::Ident(ident) => &ident.value,
            other => {
                return Err(SqlError::unsupported(format_args!(
                    "the storage parameter {other}"
                )));
            }
        };
        let known = [
            "fillfactor",
            "parallel_workers",
            "deduplicate_items",
            "user_catalog_table",
            "vacuum_truncate",
        ];
        if !known.contains(&name.as_str()) && !name.starts_with("autovacuum_") && !name.starts_with("toast") {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unrecognized parameter \"{name}\""),
            ));
        }
    }
    Ok(())
}
