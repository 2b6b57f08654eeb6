//! A database of rows in memory, with just enough of an executor to run what analysis produces. Every scan is
//! also run without its access path: a path may leave out only rows that the filter drops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use neorunbase_catalog::schema::{PrimaryKey, ROW_ID_COLUMN, ShardGroup};
use neorunbase_catalog::{CatalogSnapshot, Index, Table};
use neorunbase_expression::{ColumnId, EvaluationContext, Expression, InputColumn};
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};

use crate::access::{AccessPath, ScanRequest, TableAccess};
use crate::parser::ParsedStatement;
use crate::plan::{CreateTable, Definition, InsertSource, Plan, Statement, TransactionCommand};
use crate::{AnalysisContext, QueryPlan, analyze};

/// 2026-07-01 12:00:00 UTC
const NOW: i64 = 1_782_907_200_000_000;

type Row = BTreeMap<ColumnId, Datum>;

#[derive(Clone, Default)]
struct Rows(BTreeMap<u32, Vec<Row>>);

pub(super) struct Database {
    pub(super) catalog: CatalogSnapshot,
    rows: Arc<Mutex<Rows>>,
    saved: Option<Rows>,
    next_row_id: i64,
}

#[derive(Debug)]
pub(super) enum Answer {
    Rows {
        names: Vec<String>,
        rows: Vec<Vec<Datum>>,
        types: Vec<SqlType>,
    },
    Tag(String),
}

/// A row as `psql -A` prints it.
pub(super) fn print_row(row: &[Datum], types: &[SqlType]) -> String {
    let cells: Vec<String> = row
        .iter()
        .zip(types)
        .map(|(value, sql_type)| {
            if value.is_null() {
                String::new()
            } else {
                value.to_text(sql_type)
            }
        })
        .collect();
    cells.join("|")
}

struct Access(Arc<Mutex<Rows>>);

fn context<'a>(row: &'a [Datum], parameters: &'a [Datum]) -> EvaluationContext<'a> {
    EvaluationContext {
        row,
        parameters,
        statement_time_unix_micros: NOW,
    }
}

fn inputs(row: &Row, inputs: &[InputColumn]) -> Vec<Datum> {
    inputs
        .iter()
        .map(|input| {
            row.get(&input.column)
                .cloned()
                .unwrap_or_else(|| input.missing.clone())
        })
        .collect()
}

/// Whether the path visits the row.
fn visits(table: &Table, path: &AccessPath, row: &Row, parameters: &[Datum]) -> Result<bool> {
    let equal = |columns: &[ColumnId], values: &[Expression]| -> Result<bool> {
        for (column, value) in columns.iter().zip(values) {
            let value = value.evaluate(&context(&[], parameters))?;
            let wanted = row.get(column).unwrap_or(&Datum::Null);
            if value.is_null() || value.compare(wanted).is_ne() {
                return Ok(false);
            }
            assert_eq!(
                std::mem::discriminant(&value),
                std::mem::discriminant(wanted),
                "a key value of another type"
            );
        }
        Ok(true)
    };
    match path {
        AccessPath::Full => Ok(true),
        AccessPath::Keys(keys) => {
            for key in keys {
                assert_eq!(key.len(), table.key_columns().len());
                if equal(&table.key_columns(), key)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        AccessPath::ShardKey {
            shard_key,
            key_prefix,
        } => Ok(equal(&table.shard_key, shard_key)? && equal(&table.key_columns(), key_prefix)?),
        AccessPath::Index { index, prefix } => {
            let columns: Vec<ColumnId> = table.indexes[*index]
                .columns
                .iter()
                .map(|(column, _)| *column)
                .collect();
            equal(&columns, prefix)
        }
    }
}

fn scan(rows: &Rows, request: &ScanRequest) -> Result<Vec<Vec<Datum>>> {
    let mut found = Vec::new();
    for row in rows.0.get(&request.table.id).into_iter().flatten() {
        let values = inputs(row, &request.program.inputs);
        let context = context(&values, &request.parameters);
        let visited = visits(&request.table, &request.path, row, &request.parameters)?;
        if !visited && matches!(request.program.accepts(&context), Ok(true)) {
            panic!("the path {:?} misses the row {row:?}", request.path);
        }
        if visited && request.program.accepts(&context)? {
            found.push(request.program.project(&context)?);
        }
        if request.limit.is_some_and(|limit| found.len() as u64 >= limit) {
            break;
        }
    }
    Ok(found)
}

#[async_trait]
impl TableAccess for Access {
    async fn scan(&self, request: ScanRequest) -> Result<BoxStream<'static, Result<Vec<Bytes>>>> {
        let rows = self.0.lock().unwrap().clone();
        let found = scan(&rows, &request)?;
        let batches: Vec<Result<Vec<Bytes>>> = found
            .chunks(3)
            .map(|chunk| {
                Ok(chunk
                    .iter()
                    .map(|row| neorunbase_storage::row::encode_tuple(row))
                    .collect())
            })
            .collect();
        Ok(futures::stream::iter(batches).boxed())
    }
}

impl Database {
    pub(super) fn new() -> Self {
        let mut catalog = CatalogSnapshot::new();
        catalog.groups.insert(
            1,
            ShardGroup {
                id: 1,
                shards: 4,
                replicas: 1,
                key_signature: String::new(),
            },
        );
        Self {
            catalog,
            rows: Arc::default(),
            saved: None,
            next_row_id: 1,
        }
    }

    pub(super) fn context(&self) -> AnalysisContext {
        AnalysisContext::new(Arc::new(self.catalog.clone()), "admin")
    }

    pub(super) fn analyze(&self, sql: &str, types: &[Option<SqlType>]) -> Result<Statement> {
        let mut statements = crate::parse(sql)?;
        assert_eq!(statements.len(), 1);
        analyze(&statements.remove(0), types, &self.context())
    }

    /// Runs a script that must succeed.
    pub(super) fn script(&mut self, sql: &str) {
        for statement in crate::parse(sql).unwrap() {
            self.run(&statement, &[])
                .unwrap_or_else(|error| panic!("{}: {error}", statement.text));
        }
    }

    /// The rows of a query, as `psql -At` prints them, or the error's SQLSTATE and message.
    pub(super) fn query_with(
        &mut self,
        sql: &str,
        parameters: &[Datum],
    ) -> std::result::Result<Vec<String>, String> {
        let describe = |error: Box<SqlError>| {
            // What the engine said matters only where it should not have said anything.
            let detail = if error.state == SqlState::INTERNAL_ERROR {
                error.detail.clone()
            } else {
                None
            };
            format!(
                "{}: {}{}",
                error.state.0,
                error.message,
                detail.unwrap_or_default()
            )
        };
        let mut statements = crate::parse(sql).map_err(describe)?;
        match self.run(&statements.remove(0), parameters).map_err(describe)? {
            Answer::Rows { rows, types, .. } => Ok(rows.iter().map(|row| print_row(row, &types)).collect()),
            Answer::Tag(tag) => Ok(vec![tag]),
        }
    }

    pub(super) fn query(&mut self, sql: &str) -> Vec<String> {
        self.query_with(sql, &[])
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) fn error(&mut self, sql: &str) -> String {
        match self.query_with(sql, &[]) {
            Err(error) => error,
            Ok(rows) => panic!("{sql} succeeds: {rows:?}"),
        }
    }

    /// The plan of a query, logical and physical, to look at.
    #[allow(dead_code)]
    pub(super) fn show(&self, sql: &str) -> String {
        match self.analyze(sql, &[]) {
            Ok(Statement {
                plan: Plan::Query(query),
                ..
            }) => {
                let access = Arc::new(Access(self.rows.clone()));
                format!(
                    "{query:?}\n{}",
                    futures::executor::block_on(query.physical(access))
                )
            }
            Ok(_) => "no query".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    pub(super) fn run(&mut self, statement: &ParsedStatement, parameters: &[Datum]) -> Result<Answer> {
        let analyzed = analyze(statement, &[], &self.context())?;
        assert_eq!(
            analyzed.parameter_types.len(),
            parameters.len(),
            "{}",
            statement.text
        );
        let parameters: Arc<[Datum]> = parameters.into();
        let (names, types): (Vec<String>, Vec<SqlType>) = analyzed
            .columns
            .iter()
            .flatten()
            .map(|column| (column.name.clone(), column.sql_type.clone()))
            .unzip();
        let answer = |rows| {
            Ok(Answer::Rows {
                names: names.clone(),
                rows,
                types: types.clone(),
            })
        };
        match &analyzed.plan {
            Plan::Values(values) => answer(
                values
                    .iter()
                    .map(|row| {
                        row.iter()
                            .map(|value| value.evaluate(&context(&[], &parameters)))
                            .collect()
                    })
                    .collect::<Result<_>>()?,
            ),
            Plan::Query(query) => answer(self.execute(query, &parameters)?),
            Plan::SimpleSelect(select) => {
                let limit = match &select.limit {
                    Some(limit) => match limit.evaluate(&context(&[], &parameters))? {
                        Datum::BigInt(limit) => Some(limit as u64),
                        _ => None,
                    },
                    None => None,
                };
                let request = ScanRequest {
                    table: select.table.clone(),
                    path: select.path.clone(),
                    program: select.program.clone(),
                    parameters: parameters.clone(),
                    limit,
                    locking: select.locking,
                };
                if limit == Some(0) {
                    return answer(Vec::new());
                }
                answer(scan(&self.rows.lock().unwrap(), &request)?)
            }
            Plan::Insert(insert) => {
                let sources = match &insert.source {
                    InsertSource::Values(rows) => rows
                        .iter()
                        .map(|row| {
                            row.iter()
                                .map(|value| value.evaluate(&context(&[], &parameters)))
                                .collect()
                        })
                        .collect::<Result<Vec<Vec<Datum>>>>()?,
                    InsertSource::Query(query, casts) => {
                        let rows = self.execute(query, &parameters)?;
                        rows.iter()
                            .map(|row| {
                                casts
                                    .iter()
                                    .map(|cast| cast.evaluate(&context(row, &parameters)))
                                    .collect()
                            })
                            .collect::<Result<_>>()?
                    }
                };
                let mut returned = Vec::new();
                let mut count = 0;
                for source in sources {
                    let values: Vec<Datum> = insert
                        .row
                        .iter()
                        .map(|value| value.evaluate(&context(&source, &parameters)))
                        .collect::<Result<_>>()?;
                    if self.insert(&insert.table, &values, insert.skip_conflicts)? {
                        count += 1;
                        if let Some(returning) = &insert.returning {
                            let row = returning
                                .iter()
                                .map(|value| value.evaluate(&context(&values, &parameters)));
                            returned.push(row.collect::<Result<_>>()?);
                        }
                    }
                }
                if insert.returning.is_some() {
                    answer(returned)
                } else {
                    Ok(Answer::Tag(format!("INSERT 0 {count}")))
                }
            }
            Plan::Modify(modify) => {
                let mut rows = self.rows.lock().unwrap();
                let (mut returned, mut count) = (Vec::new(), 0);
                let mut kept = Vec::new();
                for mut row in rows.0.remove(&modify.table.id).unwrap_or_default() {
                    let mut values = inputs(&row, &modify.program.inputs);
                    let accepted = modify.program.accepts(&context(&values, &parameters))?;
                    let visited = visits(&modify.table, &modify.path, &row, &parameters)?;
                    assert!(visited || !accepted, "the path {:?} misses a row", modify.path);
                    if accepted {
                        count += 1;
                        let assigned = modify.program.assign(&context(&values, &parameters))?;
                        modify.program.apply(&mut values, &assigned);
                        row.extend(assigned);
                        returned.push(modify.program.return_row(&context(&values, &parameters))?);
                        if modify.delete {
                            continue;
                        }
                    }
                    kept.push(row);
                }
                rows.0.insert(modify.table.id, kept);
                let tag = if modify.delete { "DELETE" } else { "UPDATE" };
                if modify.returning {
                    answer(returned)
                } else {
                    Ok(Answer::Tag(format!("{tag} {count}")))
                }
            }
            Plan::ModifyByQuery(modify) => {
                let found = self.execute(&modify.query, &parameters)?;
                let width = modify.table.columns.len();
                let offset = usize::from(modify.table.primary_key.is_none());
                let mut returned = Vec::new();
                for row in &found {
                    let old = &row[offset..offset + width];
                    let new = if modify.delete {
                        old
                    } else {
                        &row[offset + width..]
                    };
                    let mut rows = self.rows.lock().unwrap();
                    let stored = rows.0.entry(modify.table.id).or_default();
                    let keys = modify.table.key_columns();
                    let position = stored.iter().position(|stored| match modify.table.primary_key {
                        None => stored[&ROW_ID_COLUMN] == row[0],
                        Some(_) => modify
                            .table
                            .columns
                            .iter()
                            .zip(old)
                            .filter(|(column, _)| keys.contains(&column.id))
                            .all(|(column, value)| stored[&column.id] == *value),
                    });
                    let position = position.expect("the query yields rows that exist");
                    if modify.delete {
                        stored.remove(position);
                    } else {
                        for (column, value) in modify.table.columns.iter().zip(new) {
                            stored[position].insert(column.id, value.clone());
                        }
                    }
                    if let Some(returning) = &modify.returning {
                        let row = returning
                            .iter()
                            .map(|value| value.evaluate(&context(new, &parameters)));
                        returned.push(row.collect::<Result<_>>()?);
                    }
                }
                let tag = if modify.delete { "DELETE" } else { "UPDATE" };
                if modify.returning.is_some() {
                    answer(returned)
                } else {
                    Ok(Answer::Tag(format!("{tag} {}", found.len())))
                }
            }
            Plan::Definition(definition) => self.define(definition).map(|tag| Answer::Tag(tag.to_owned())),
            Plan::Transaction(command) => Ok(Answer::Tag(
                match command {
                    TransactionCommand::Begin(_) => {
                        self.saved = Some(self.rows.lock().unwrap().clone());
                        "BEGIN"
                    }
                    TransactionCommand::Rollback => {
                        *self.rows.lock().unwrap() = self.saved.take().unwrap();
                        "ROLLBACK"
                    }
                    _ => "COMMIT",
                }
                .to_owned(),
            )),
            Plan::Explain(lines) => answer(
                lines
                    .iter()
                    .map(|line| vec![Datum::text(line.as_str())])
                    .collect(),
            ),
            Plan::Empty => Ok(Answer::Tag(String::new())),
            _ => Err(SqlError::unsupported("this statement in the tests")),
        }
    }

    fn execute(&self, query: &QueryPlan, parameters: &Arc<[Datum]>) -> Result<Vec<Vec<Datum>>> {
        let access = Arc::new(Access(self.rows.clone()));
        futures::executor::block_on(async {
            let stream = query.execute(parameters.clone(), access, NOW).await?;
            let batches: Vec<Vec<Vec<Datum>>> = stream.try_collect().await?;
            Ok(batches.into_iter().flatten().collect())
        })
    }

    fn insert(&mut self, table: &Table, values: &[Datum], skip_conflicts: bool) -> Result<bool> {
        let mut row: Row = table
            .columns
            .iter()
            .zip(values)
            .map(|(column, value)| (column.id, value.clone()))
            .collect();
        if table.primary_key.is_none() {
            row.insert(ROW_ID_COLUMN, Datum::BigInt(self.next_row_id));
            self.next_row_id += 1;
        }
        for column in &table.columns {
            if column.not_null && row[&column.id].is_null() {
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        column.name, table.name
                    ),
                ));
            }
        }
        let mut rows = self.rows.lock().unwrap();
        let stored = rows.0.entry(table.id).or_default();
        let keys = table.key_columns();
        if stored
            .iter()
            .any(|other| keys.iter().all(|key| other[key] == row[key]))
        {
            if skip_conflicts {
                return Ok(false);
            }
            let name = table.primary_key.as_ref().map_or("", |key| key.name.as_str());
            return Err(SqlError::new(
                SqlState::UNIQUE_VIOLATION,
                format!("duplicate key value violates unique constraint \"{name}\""),
            ));
        }
        stored.push(row);
        Ok(true)
    }

    fn define(&mut self, definition: &Definition) -> Result<&'static str> {
        self.catalog.version += 1;
        match definition {
            Definition::CreateTable(create) => {
                self.create_table(create);
                Ok("CREATE TABLE")
            }
            Definition::CreateIndex {
                table,
                name,
                columns,
                unique,
                ..
            } => {
                let id = self.catalog.next_object_id;
                self.catalog.next_object_id += 1;
                let table = Arc::make_mut(self.catalog.tables.get_mut(table).unwrap());
                let index = Index {
                    id,
                    storage: u64::from(id),
                    name: name.clone(),
                    columns: columns.clone(),
                    unique: *unique,
                };
                table.indexes.push(index);
                Ok("CREATE INDEX")
            }
            Definition::DropTables { tables, .. } => {
                for table in tables {
                    self.catalog.tables.remove(table);
                }
                Ok("DROP TABLE")
            }
            _ => Err(SqlError::unsupported("this definition in the tests")),
        }
    }

    fn create_table(&mut self, create: &CreateTable) {
        let id = self.catalog.next_object_id;
        self.catalog.next_object_id += 1;
        let primary_key = create.primary_key.as_ref().map(|(name, columns)| PrimaryKey {
            name: name.clone(),
            columns: columns.clone(),
        });
        let shard_key = create
            .shard_key
            .clone()
            .or_else(|| primary_key.as_ref().map(|key| key.columns.clone()))
            .unwrap_or_else(|| vec![ROW_ID_COLUMN]);
        let table = Table {
            id,
            schema: create.schema.clone(),
            name: create.name.clone(),
            columns: create.columns.clone(),
            primary_key,
            shard_key,
            indexes: Vec::new(),
            storage: u64::from(id),
            group: 1,
            version: 1,
            next_column_id: create.columns.len() as u32 + 1,
            owner: "admin".to_owned(),
            rows_since: 0,
        };
        self.catalog.tables.insert(id, Arc::new(table));
    }
}
