//! CREATE TABLE.

use neorunbase_catalog::Column;
use neorunbase_expression::{ColumnId, EvaluationContext, Expression, coerce_for_column};
use neorunbase_types::{Datum, Result, SqlError, SqlState};
use sqlparser::ast::{self, ColumnDef, ColumnOption, CreateTableOptions, TableConstraint};

use super::super::types::bind_type;
use super::super::{Binder, Bound};
use super::{check_storage_parameters, definition, duplicate_relation, unsupported_constraint};
use crate::parser::ShardClauses;
use crate::plan::{CreateTable, Definition};

/// Most columns of a table.
const MAXIMUM_COLUMNS: usize = 1_600;
/// Names that PostgreSQL keeps for itself in every table.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"];

/// A column definition's parts.
pub(super) struct NewColumn {
    pub(super) column: Column,
    /// PRIMARY KEY on the column, and the constraint's name if it has one.
    pub(super) primary_key: Option<Option<String>>,
}

impl Binder<'_> {
    pub(in crate::bind) fn bind_create_table(
        &mut self,
        create: &ast::CreateTable,
        shards: &ShardClauses,
    ) -> Result<Bound> {
        reject_odd_clauses(create)?;
        let (schema, name) = self.name_to_create(&create.name)?;
        if !create.if_not_exists && self.relation_exists(&schema, &name) {
            return Err(duplicate_relation(&name));
        }
        if create.columns.len() > MAXIMUM_COLUMNS {
            return Err(SqlError::new(
                SqlState("54011"),
                format!("tables can have at most {MAXIMUM_COLUMNS} columns"),
            ));
        }
        let mut columns: Vec<Column> = Vec::with_capacity(create.columns.len());
        let mut primary_key: Option<(Option<String>, Vec<ColumnId>)> = None;
        let several_keys = || {
            SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("multiple primary keys for table \"{name}\" are not allowed"),
            )
        };
        for (index, definition) in create.columns.iter().enumerate() {
            let id = ColumnId::try_from(index + 1).unwrap_or(ColumnId::MAX);
            let new = self.bind_column_definition(definition, id)?;
            if columns.iter().any(|known| known.name == new.column.name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", new.column.name),
                ));
            }
            if let Some(constraint) = new.primary_key
                && primary_key.replace((constraint, vec![id])).is_some()
            {
                return Err(several_keys());
            }
            columns.push(new.column);
        }
        for constraint in &create.constraints {
            let TableConstraint::PrimaryKey(key) = constraint else {
                return Err(unsupported_table_constraint(constraint));
            };
            let ids = key_columns(&columns, &key.columns)?;
            let constraint_name = key.name.as_ref().map(|ident| ident.value.clone());
            if primary_key.replace((constraint_name, ids)).is_some() {
                return Err(several_keys());
            }
        }
        if let Some((_, ids)) = &primary_key {
            for column in columns.iter_mut().filter(|column| ids.contains(&column.id)) {
                column.not_null = true;
            }
        }
        let shard_key = self.bind_shard_key(
            shards,
            &columns,
            primary_key.as_ref().map(|(_, ids)| ids.as_slice()),
        )?;
        let primary_key =
            primary_key.map(|(constraint, ids)| (constraint.unwrap_or_else(|| format!("{name}_pkey")), ids));
        if let Some((constraint, _)) = &primary_key
            && !create.if_not_exists
            && (self.relation_exists(&schema, constraint) || *constraint == name)
        {
            return Err(duplicate_relation(constraint));
        }
        Ok(definition(Definition::CreateTable(CreateTable {
            schema,
            name,
            columns,
            primary_key,
            shard_key,
            shards: shards.shards,
            replicas: shards.replicas,
            if_not_exists: create.if_not_exists,
        })))
    }

    fn bind_shard_key(
        &self,
        shards: &ShardClauses,
        columns: &[Column],
        primary_key: Option<&[ColumnId]>,
    ) -> Result<Option<Vec<ColumnId>>> {
        let Some(idents) = &shards.key else {
            return Ok(None);
        };
        let mut ids = Vec::with_capacity(idents.len());
        for ident in idents {
            let column = columns
                .iter()
                .find(|column| column.name == ident.value)
                .ok_or_else(|| {
                    let error = SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!("column \"{}\" named in shard key does not exist", ident.value),
                    );
                    self.at(error, Some(ident.span))
                })?;
            if ids.contains(&column.id) {
                let error = SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" appears twice in shard key", ident.value),
                );
                return Err(self.at(error, Some(ident.span)));
            }
            if !primary_key.is_some_and(|key| key.contains(&column.id)) {
                let error = SqlError::unsupported(format_args!(
                    "a shard key column (\"{}\") that is not part of the primary key",
                    ident.value
                ))
                .with_hint(
                    "Add the column to the PRIMARY KEY, or leave out SHARD KEY to shard by the primary key.",
                );
                return Err(self.at(error, Some(ident.span)));
            }
            ids.push(column.id);
        }
        Ok(Some(ids))
    }

    /// A column of CREATE TABLE or ADD COLUMN.
    pub(super) fn bind_column_definition(
        &mut self,
        definition: &ColumnDef,
        id: ColumnId,
    ) -> Result<NewColumn> {
        let name = definition.name.value.clone();
        if SYSTEM_COLUMNS.contains(&name.as_str()) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column name \"{name}\" conflicts with a system column name"),
            ));
        }
        let sql_type = bind_type(&definition.data_type)?;
        let mut column = Column {
            id,
            name,
            sql_type,
            not_null: false,
            default: None,
            default_text: None,
            missing: Datum::Null,
        };
        let (mut primary_key, mut nullable) = (None, false);
        for option in &definition.options {
            match &option.option {
                ColumnOption::Null => nullable = true,
                ColumnOption::NotNull => column.not_null = true,
                ColumnOption::Default(value) => {
                    column.default = Some(self.bind_default(value, &column)?);
                    column.default_text = Some(value.to_string());
                }
                ColumnOption::PrimaryKey(_) => {
                    primary_key = Some(option.name.as_ref().map(|ident| ident.value.clone()));
                    column.not_null = true;
                }
                ColumnOption::Collation(collation) => {
                    let shown = collation.to_string().replace('"', "");
                    if !matches!(
                        shown.rsplit('.').next(),
                        Some("C" | "POSIX" | "default" | "ucs_basic")
                    ) {
                        return Err(SqlError::unsupported(format_args!("collation \"{shown}\""))
                            .with_hint("Text is ordered by its bytes: COLLATE \"C\"."));
                    }
                }
                ColumnOption::Unique(_) => return Err(unsupported_constraint("UNIQUE constraints")),
                ColumnOption::Check(_) => return Err(unsupported_constraint("CHECK constraints")),
                ColumnOption::ForeignKey(_) => return Err(unsupported_constraint("FOREIGN KEY constraints")),
                ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                    return Err(SqlError::unsupported("GENERATED columns")
                        .with_hint("Sequences are not available; supply the values."));
                }
                other => return Err(SqlError::unsupported(format_args!("the column option {other}"))),
            }
        }
        if nullable && column.not_null {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!(
                    "conflicting NULL/NOT NULL declarations for column \"{}\"",
                    column.name
                ),
            ));
        }
        Ok(NewColumn { column, primary_key })
    }

    /// DEFAULT, cast to the column's type.
    fn bind_default(&mut self, value: &ast::Expr, column: &Column) -> Result<Expression> {
        let parameters = self.parameter_count();
        let bound = self.without_aggregates("DEFAULT expressions", |binder| binder.bind_expression(value));
        let bound = bound.map_err(|mut error| {
            if error.state == SqlState::UNDEFINED_COLUMN || error.state == SqlState::UNDEFINED_TABLE {
                error.state = SqlState::FEATURE_NOT_SUPPORTED;
                "cannot use column reference in DEFAULT expression".clone_into(&mut error.message);
            }
            error
        })?;
        if self.parameter_count() > parameters {
            return Err(SqlError::new(
                SqlState::UNDEFINED_PARAMETER,
                "there is no parameter $1",
            ));
        }
        if !bound.is_row_independent() {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot use subquery in DEFAULT expression",
            ));
        }
        let found = bound.sql_type();
        coerce_for_column(bound, &column.name, &column.sql_type).map_err(|mut error| {
            if error.state == SqlState::DATATYPE_MISMATCH {
                error.message = format!(
                    "column \"{}\" is of type {} but default expression is of type {}",
                    column.name,
                    column.sql_type.base_name(),
                    found.base_name()
                );
            }
            error
        })
    }
}

/// The value that rows from before the column have, if it is known now.
pub(super) fn missing_value(column: &Column) -> Result<Datum> {
    match &column.default {
        Some(default) if default.is_constant() => default.evaluate(&EvaluationContext::EMPTY),
        _ => Ok(Datum::Null),
    }
}

/// The columns of a PRIMARY KEY.
pub(super) fn key_columns(columns: &[Column], named: &[ast::IndexColumn]) -> Result<Vec<ColumnId>> {
    let mut ids = Vec::with_capacity(named.len());
    for entry in named {
        let ast::Expr::Identifier(ident) = &entry.column.expr else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "syntax error: a primary key is made of columns",
            ));
        };
        let column = columns
            .iter()
            .find(|column| column.name == ident.value)
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{}\" named in key does not exist", ident.value),
                )
            })?;
        if ids.contains(&column.id) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "column \"{}\" appears twice in primary key constraint",
                    ident.value
                ),
            ));
        }
        ids.push(column.id);
    }
    Ok(ids)
}

pub(super) fn unsupported_table_constraint(constraint: &TableConstraint) -> Box<SqlError> {
    match constraint {
        TableConstraint::Unique(_) => unsupported_constraint("UNIQUE constraints"),
        TableConstraint::ForeignKey(_) => unsupported_constraint("FOREIGN KEY constraints"),
        TableConstraint::Check(_) => unsupported_constraint("CHECK constraints"),
        other => SqlError::unsupported(format_args!("the constraint {other}")),
    }
}

fn reject_odd_clauses(create: &ast::CreateTable) -> Result<()> {
    if create.temporary {
        return Err(SqlError::unsupported("CREATE TEMPORARY TABLE")
            .with_hint("Create a table and drop it afterwards."));
    }
    if create.query.is_some() {
        return Err(SqlError::unsupported("CREATE TABLE AS").with_hint("CREATE TABLE, then INSERT … SELECT."));
    }
    if create.like.is_some() {
        return Err(SqlError::unsupported("CREATE TABLE … LIKE"));
    }
    if create.inherits.is_some() || create.partition_of.is_some() || create.partition_by.is_some() {
        return Err(SqlError::unsupported("table inheritance and partitioning")
            .with_hint("Rows are spread by SHARD KEY (columns) SHARDS n instead."));
    }
    if create.on_commit.is_some() || create.or_replace || create.external || create.clone.is_some() {
        return Err(SqlError::unsupported("this clause of CREATE TABLE"));
    }
    match &create.table_options {
        CreateTableOptions::None => Ok(()),
        CreateTableOptions::With(options) => check_storage_parameters(options),
        _ => Err(SqlError::unsupported("this clause of CREATE TABLE")),
    }
}
