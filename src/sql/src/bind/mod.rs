//! Analysis: what names, operators and types in a syntax tree mean, given the catalog.

mod access_path;
pub(crate) mod arithmetic;
mod column_name;
mod copy;
mod ddl;
mod expression;
mod function;
mod insert;
mod literal;
mod modify;
mod names;
mod program;
mod scope;
mod session_function;
mod simple_select;
pub(crate) mod slots;
mod table;
mod types;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use neorunbase_catalog::CatalogSnapshot;
use neorunbase_types::{Result, SqlError, SqlType};
use sqlparser::ast;
use sqlparser::tokenizer::Span;

pub(crate) use access_path::detect as detect_access_path;
pub(crate) use column_name::column_name;
pub(crate) use function::{CallArguments, coerce_unknown_to_text, sort_key};
pub(crate) use names::{display_name, split_name};
pub(crate) use program::ProgramBuilder;
pub(crate) use scope::{Scope, ScopeColumn, ScopeRelation};
pub(crate) use simple_select::{Output, row_locking};
use slots::Slots;
pub(crate) use table::{column_from_plan, column_in_plan, rename_columns};

use crate::cluster_view::{ClusterView, NoCluster};
use crate::parser::{ParsedKind, ParsedStatement, Source};
use crate::plan::{Plan, ResultColumn, SettingCommand, Statement};

/// What a statement's meaning depends on besides its text.
#[derive(Clone, Debug)]
pub struct AnalysisContext {
    /// Tables.
    pub catalog: Arc<CatalogSnapshot>,
    /// `current_user`
    pub user: String,
    /// `current_database()`
    pub database: String,
    /// Schemas that unqualified names are looked up in, `pg_catalog` aside (it is always searched first).
    pub search_path: Vec<String>,
    /// `pg_backend_pid()`
    pub process_id: i32,
    /// Values of settings, for `current_setting()`.
    pub settings: BTreeMap<String, String>,
    /// Where shards are, for `neorunbase_shards`.
    pub cluster: Arc<dyn ClusterView>,
    /// `cluster_logical_timestamp()`, once it is known.
    pub logical_timestamp: Option<u64>,
}

impl AnalysisContext {
    /// The context of a session with default settings.
    pub fn new(catalog: Arc<CatalogSnapshot>, user: impl Into<String>) -> Self {
        Self {
            catalog,
            user: user.into(),
            database: "neorunbase".to_owned(),
            search_path: vec![neorunbase_catalog::snapshot::DEFAULT_SCHEMA.to_owned()],
            process_id: 0,
            settings: BTreeMap::new(),
            cluster: Arc::new(NoCluster),
            logical_timestamp: None,
        }
    }
}

/// Analyses a statement. `parameter_types`: what the client says of `$1`, …; the rest is inferred.
///
/// The result may hold constants that came from the session (`current_user`, `current_setting()`): cache it for
/// that session only.
///
/// # Errors
/// Whatever is wrong with the statement, with PostgreSQL's SQLSTATE and words.
pub fn analyze(
    statement: &ParsedStatement,
    parameter_types: &[Option<SqlType>],
    context: &AnalysisContext,
) -> Result<Statement> {
    let mut binder = Binder::new(context, &statement.source, parameter_types);
    let bound = binder.bind_kind(&statement.kind)?;
    Ok(Statement {
        plan: bound.plan,
        parameter_types: binder.final_parameter_types()?,
        columns: bound.columns,
        catalog_version: context.catalog.version,
        read_only: bound.read_only,
        uses_logical_timestamp: binder.uses_logical_timestamp,
    })
}

/// A statement's plan before its parameters are counted.
pub(crate) struct Bound {
    pub(crate) plan: Plan,
    pub(crate) columns: Option<Vec<ResultColumn>>,
    pub(crate) read_only: bool,
}

impl Bound {
    /// A plan that returns no rows.
    pub(crate) fn command(plan: Plan, read_only: bool) -> Self {
        Self {
            plan,
            columns: None,
            read_only,
        }
    }
}

/// The state of one analysis.
pub(crate) struct Binder<'a> {
    pub(crate) context: &'a AnalysisContext,
    source: &'a Source,
    parameter_types: Vec<Option<SqlType>>,
    pub(crate) slots: Slots,
    /// Outermost first.
    pub(crate) scopes: Vec<Scope>,
    /// Common table expressions in sight, innermost last.
    pub(crate) tables_in_sight: Vec<crate::query::CommonTable>,
    /// While the SELECT of a scalar subquery is bound: what it hands to the query around it.
    pub(crate) scalar: Option<crate::query::ScalarParts>,
    /// WINDOW clauses of the queries around.
    pub(crate) named_windows: Vec<Vec<ast::NamedWindowDefinition>>,
    /// Where aggregates and window functions may not stand; `None` where they may.
    pub(crate) forbidden_in: Option<&'static str>,
    next_qualifier: Cell<usize>,
    depth: usize,
    /// `cluster_logical_timestamp()` was met.
    uses_logical_timestamp: bool,
}

impl<'a> Binder<'a> {
    fn new(context: &'a AnalysisContext, source: &'a Source, parameter_types: &[Option<SqlType>]) -> Self {
        let parameter_types = parameter_types
            .iter()
            .map(|sql_type| sql_type.clone().filter(|sql_type| *sql_type != SqlType::Unknown))
            .collect();
        Self {
            context,
            source,
            parameter_types,
            slots: Slots::default(),
            scopes: Vec::new(),
            tables_in_sight: Vec::new(),
            scalar: None,
            named_windows: Vec::new(),
            forbidden_in: Some("this context"),
            next_qualifier: Cell::new(0),
            depth: 0,
            uses_logical_timestamp: false,
        }
    }

    /// A name for a relation that no other relation of the statement has.
    pub(crate) fn new_qualifier(&self) -> String {
        self.new_name("r")
    }

    /// A name that nothing else in the statement's plan has.
    pub(crate) fn new_name(&self, prefix: &str) -> String {
        self.next_qualifier.set(self.next_qualifier.get() + 1);
        format!("{prefix}{}", self.next_qualifier.get())
    }

    /// How many parameters were seen so far.
    pub(crate) fn parameter_count(&self) -> usize {
        self.parameter_types.len()
    }

    /// Binds something where aggregates and window functions are not allowed; `place` as errors call it.
    pub(crate) fn without_aggregates<T>(
        &mut self,
        place: &'static str,
        bind: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.forbidden_in.replace(place);
        let bound = bind(self);
        self.forbidden_in = before;
        bound
    }

    /// Adds the position of `span` to an error that has none.
    pub(crate) fn at(&self, mut error: Box<SqlError>, span: Option<Span>) -> Box<SqlError> {
        if error.position.is_none()
            && let Some(span) = span
            && span.start.line > 0
        {
            error.position = Some(self.source.position(span));
        }
        error
    }

    fn bind_kind(&mut self, kind: &ParsedKind) -> Result<Bound> {
        Ok(match kind {
            ParsedKind::Empty => Bound::command(Plan::Empty, true),
            ParsedKind::Sql(statement) => self.bind_sql(statement)?,
            ParsedKind::CreateTable(statement, shards) => match &**statement {
                ast::Statement::CreateTable(table) => self.bind_create_table(table, shards)?,
                other => return Err(SqlError::unsupported(first_words(other))),
            },
            ParsedKind::Copy(copy) => self.bind_copy(copy)?,
            ParsedKind::Transaction(command) => Bound::command(Plan::Transaction(command.clone()), true),
            ParsedKind::Setting(command) => bind_setting(command),
            ParsedKind::Maintenance { tag, tables } => {
                for name in tables {
                    self.find_table(name)?;
                }
                Bound::command(Plan::Maintenance { tag }, false)
            }
            ParsedKind::Role(definition) => {
                Bound::command(Plan::Definition(Arc::new(definition.clone())), false)
            }
            ParsedKind::Explain { analyze, statement } => {
                if *analyze {
                    return Err(SqlError::unsupported("EXPLAIN ANALYZE").with_hint("EXPLAIN shows the plan."));
                }
                let bound = self.bind_kind(statement)?;
                Bound {
                    plan: Plan::Explain(crate::explain::explain(&bound.plan, &self.context.catalog)),
                    columns: Some(vec![text_column("QUERY PLAN")]),
                    read_only: true,
                }
            }
        })
    }

    fn bind_sql(&mut self, statement: &ast::Statement) -> Result<Bound> {
        match statement {
            ast::Statement::Query(query) => self.bind_query_statement(query),
            ast::Statement::Insert(insert) => self.bind_insert(insert),
            ast::Statement::Update(update) => self.bind_update(update),
            ast::Statement::Delete(delete) => self.bind_delete(delete),
            ast::Statement::CreateIndex(_)
            | ast::Statement::AlterTable(_)
            | ast::Statement::Drop { .. }
            | ast::Statement::Truncate(_) => self.bind_definition(statement),
            other => Err(SqlError::unsupported(first_words(other))),
        }
    }
}

/// SHOW returns a row.
fn bind_setting(command: &SettingCommand) -> Bound {
    let columns = match command {
        SettingCommand::Show(name) if name == "all" => Some(
            ["name", "setting", "description"]
                .into_iter()
                .map(text_column)
                .collect(),
        ),
        SettingCommand::Show(name) => Some(vec![text_column(name)]),
        _ => None,
    };
    Bound {
        plan: Plan::Setting(command.clone()),
        columns,
        read_only: true,
    }
}

fn text_column(name: &str) -> ResultColumn {
    ResultColumn {
        name: name.to_owned(),
        sql_type: SqlType::Text,
        origin: (0, 0),
    }
}

/// The command of a statement, for `… is not supported`.
fn first_words(statement: &ast::Statement) -> String {
    statement
        .to_string()
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
        .to_uppercase()
}
