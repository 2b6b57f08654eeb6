//! COPY.

use std::sync::Arc;

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast;

use super::{Binder, Bound};
use crate::parser::{CopySource, CopyStatement};
use crate::plan::{Copy, Plan};

impl Binder<'_> {
    pub(super) fn bind_copy(&mut self, copy: &CopyStatement) -> Result<Bound> {
        let options = &copy.options;
        if options.header && !options.csv {
            return Err(SqlError::unsupported("HEADER in the text format").with_hint("Use FORMAT csv."));
        }
        let default_delimiter = if options.csv { b',' } else { b'\t' };
        let delimiter = options.delimiter.unwrap_or(default_delimiter);
        let default_null = if options.csv { "" } else { "\\N" };
        let null = options.null.clone().unwrap_or_else(|| default_null.to_owned());
        if null.contains(char::from(delimiter)) {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "COPY delimiter must not appear in the NULL specification",
            ));
        }
        let (table, columns, query) = match &copy.source {
            CopySource::Table(name, columns) if !copy.to_client => {
                let table = self.find_table(name)?;
                let columns = self.target_columns(&table, columns)?;
                (Some(table), columns, None)
            }
            CopySource::Table(name, columns) => {
                // COPY t TO is COPY (SELECT … FROM t) TO; an unknown column is named as COPY names it.
                let table = self.find_table(name)?;
                self.target_columns(&table, columns)?;
                let query = select_from(name, columns);
                (None, Vec::new(), Some(self.plan_query(&query, None)?.0))
            }
            CopySource::Query(query) => (None, Vec::new(), Some(self.plan_query(query, None)?.0)),
        };
        let read_only = table.is_none();
        let plan = Plan::Copy(Arc::new(Copy {
            table,
            columns,
            query: query.map(Arc::new),
            csv: options.csv,
            header: options.header,
            delimiter,
            null,
        }));
        Ok(Bound {
            plan,
            columns: None,
            read_only,
        })
    }
}

/// `SELECT columns FROM name`
fn select_from(name: &ast::ObjectName, columns: &[ast::Ident]) -> ast::Query {
    use ast::helpers::attached_token::AttachedToken;
    let projection = if columns.is_empty() {
        vec![ast::SelectItem::Wildcard(
            ast::WildcardAdditionalOptions::default(),
        )]
    } else {
        columns
            .iter()
            .map(|column| ast::SelectItem::UnnamedExpr(ast::Expr::Identifier(column.clone())))
            .collect()
    };
    let relation = ast::TableFactor::Table {
        name: name.clone(),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    let select = ast::Select {
        select_token: AttachedToken::empty(),
        optimizer_hint: None,
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from: vec![ast::TableWithJoins {
            relation,
            joins: Vec::new(),
        }],
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: ast::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    };
    ast::Query {
        with: None,
        body: Box::new(ast::SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
