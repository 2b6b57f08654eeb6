//! ALTER TABLE.

use neorunbase_catalog::Table;
use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{self, AlterTableOperation as Operation, RenameTableNameKind, TableConstraint};

use super::super::{Binder, Bound};
use super::create_table::{key_columns, missing_value, unsupported_table_constraint};
use super::{definition, duplicate_relation};
use crate::plan::Definition;

impl Binder<'_> {
    pub(super) fn bind_alter_table(&mut self, alter: &ast::AlterTable) -> Result<Bound> {
        let table = self.find_table(&alter.name)?;
        let [operation] = alter.operations.as_slice() else {
            return Err(SqlError::unsupported("several actions in one ALTER TABLE")
                .with_hint("Run them one at a time."));
        };
        let id = table.id;
        let bound = match operation {
            Operation::AddConstraint {
                constraint: TableConstraint::PrimaryKey(key),
                ..
            } => {
                if table.primary_key.is_some() {
                    return Err(SqlError::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        format!(
                            "multiple primary keys for table \"{}\" are not allowed",
                            table.name
                        ),
                    ));
                }
                if key.index_name.is_some() {
                    return Err(SqlError::unsupported("PRIMARY KEY USING INDEX"));
                }
                let name = key
                    .name
                    .as_ref()
                    .map_or_else(|| format!("{}_pkey", table.name), |name| name.value.clone());
                if self.relation_exists(&table.schema, &name) {
                    return Err(duplicate_relation(&name));
                }
                let columns = key_columns(&table.columns, &key.columns).map_err(|mut error| {
                    if error.state == SqlState::UNDEFINED_COLUMN {
                        error.message = error.message.replace(
                            " named in key does not exist",
                            &format!(" of relation \"{}\" does not exist", table.name),
                        );
                    }
                    error
                })?;
                Definition::AddPrimaryKey {
                    table: id,
                    name,
                    columns,
                }
            }
            Operation::AddConstraint { constraint, .. } => {
                return Err(unsupported_table_constraint(constraint));
            }
            Operation::AddColumn {
                if_not_exists,
                column_def,
                ..
            } => {
                let mut new = self.bind_column_definition(column_def, table.next_column_id)?;
                if new.primary_key.is_some() {
                    return Err(SqlError::unsupported("ADD COLUMN … PRIMARY KEY")
                        .with_hint("Add the column, fill it, then ALTER TABLE … ADD PRIMARY KEY."));
                }
                if table.column(&new.column.name).is_some() && !*if_not_exists {
                    return Err(duplicate_column(&table, &new.column.name));
                }
                new.column.missing = missing_value(&new.column)?;
                Definition::AddColumn {
                    table: id,
                    column: new.column,
                    if_not_exists: *if_not_exists,
                }
            }
            Operation::DropColumn { column_names, .. } => {
                let [name] = column_names.as_slice() else {
                    return Err(SqlError::unsupported("several columns in one DROP COLUMN"));
                };
                let column = &table.columns[self.target_column(&table, name)?];
                if table.key_columns().contains(&column.id) || table.shard_key.contains(&column.id) {
                    return Err(SqlError::unsupported(format_args!(
                        "DROP COLUMN of the key column \"{}\"",
                        column.name
                    ))
                    .with_hint("Create a new table and INSERT … SELECT into it."));
                }
                if let Some(index) = table
                    .indexes
                    .iter()
                    .find(|index| index.columns.iter().any(|(indexed, _)| *indexed == column.id))
                {
                    return Err(SqlError::unsupported(format_args!(
                        "DROP COLUMN of the indexed column \"{}\"",
                        column.name
                    ))
                    .with_hint(format!("DROP INDEX {} first.", index.name)));
                }
                Definition::DropColumn {
                    table: id,
                    column: column.id,
                }
            }
            Operation::RenameTable {
                table_name: RenameTableNameKind::To(name),
            } => {
                let (_, name) = super::split_name(name)?;
                if self.relation_exists(&table.schema, &name) {
                    return Err(duplicate_relation(&name));
                }
                Definition::RenameTable { table: id, name }
            }
            Operation::RenameColumn {
                old_column_name,
                new_column_name,
            } => {
                let column = table
                    .columns
                    .iter()
                    .find(|column| column.name == old_column_name.value)
                    .ok_or_else(|| {
                        SqlError::new(
                            SqlState::UNDEFINED_COLUMN,
                            format!("column \"{}\" does not exist", old_column_name.value),
                        )
                    })?;
                if table.column(&new_column_name.value).is_some() {
                    return Err(duplicate_column(&table, &new_column_name.value));
                }
                Definition::RenameColumn {
                    table: id,
                    column: column.id,
                    name: new_column_name.value.clone(),
                }
            }
            other => {
                return Err(SqlError::unsupported(format_args!(
                    "ALTER TABLE … {}",
                    first_two_words(other)
                )));
            }
        };
        Ok(definition(bound))
    }
}

fn duplicate_column(table: &Table, name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::DUPLICATE_COLUMN,
        format!("column \"{name}\" of relation \"{}\" already exists", table.name),
    )
}

fn first_two_words(operation: &Operation) -> String {
    operation
        .to_string()
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
        .to_uppercase()
}
