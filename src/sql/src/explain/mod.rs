//! EXPLAIN: the plan as lines of text, with the shards that it visits.

mod expression;
mod query;

use neorunbase_catalog::{CatalogSnapshot, Table};
use neorunbase_expression::{Expression, InputColumn};

use crate::access::{AccessPath, RowLocking};
use crate::plan::{InsertSource, Plan};
pub(crate) use expression::show;

/// The plan as text lines.
pub(crate) fn explain(plan: &Plan, catalog: &CatalogSnapshot) -> Vec<String> {
    let mut lines = Lines::default();
    match plan {
        Plan::SimpleSelect(select) => {
            let name = format!("{}Scan on {}", lock_prefix(select.locking), select.table.name);
            scan(
                &mut lines,
                catalog,
                &name,
                &select.table,
                &select.path,
                &select.program.inputs,
                select.program.filter.as_ref(),
            );
            if let Some(limit) = &select.limit {
                lines.detail(&format!("Limit: {}", show(limit, &|index| format!("#{index}"))));
            }
        }
        Plan::Modify(modify) => {
            let verb = if modify.delete { "Delete" } else { "Update" };
            let name = format!("{verb} on {}", modify.table.name);
            scan(
                &mut lines,
                catalog,
                &name,
                &modify.table,
                &modify.path,
                &modify.program.inputs,
                modify.program.filter.as_ref(),
            );
        }
        Plan::ModifyByQuery(modify) => {
            lines.node(&format!(
                "{} on {}",
                if modify.delete { "Delete" } else { "Update" },
                modify.table.name
            ));
            lines.nested(|lines| query::explain_query(lines, &modify.query, catalog));
        }
        Plan::Insert(insert) => {
            lines.node(&format!("Insert on {}", insert.table.name));
            lines.nested(|lines| match &insert.source {
                InsertSource::Values(rows) => lines.node(&format!("Values ({} rows)", rows.len())),
                InsertSource::Query(query, _) => query::explain_query(lines, query, catalog),
            });
        }
        Plan::Query(query) => query::explain_query(&mut lines, query, catalog),
        Plan::Values(rows) => lines.node(&format!(
            "Result ({} row{})",
            rows.len(),
            if rows.len() == 1 { "" } else { "s" }
        )),
        Plan::Copy(copy) => match (&copy.query, &copy.table) {
            (Some(query), _) => query::explain_query(&mut lines, query, catalog),
            (None, Some(table)) => lines.node(&format!("Copy into {}", table.name)),
            (None, None) => {}
        },
        _ => lines.node("Utility Statement"),
    }
    lines.text
}

/// Lines that grow into a tree.
#[derive(Default)]
pub(crate) struct Lines {
    text: Vec<String>,
    depth: usize,
}

impl Lines {
    /// A step of the plan.
    fn node(&mut self, text: &str) {
        let line = match self.depth {
            0 => text.to_owned(),
            depth => format!("{}->  {text}", " ".repeat(depth * 6 - 4)),
        };
        self.text.push(line);
    }

    /// A property of the step above.
    fn detail(&mut self, text: &str) {
        self.text
            .push(format!("{}{text}", " ".repeat(self.depth * 6 + 2)));
    }

    fn nested(&mut self, below: impl FnOnce(&mut Self)) {
        self.depth += 1;
        below(self);
        self.depth -= 1;
    }
}

fn lock_prefix(locking: Option<RowLocking>) -> &'static str {
    if locking.is_some() { "Locking " } else { "" }
}

/// A step that visits a table.
fn scan(
    lines: &mut Lines,
    catalog: &CatalogSnapshot,
    name: &str,
    table: &Table,
    path: &AccessPath,
    inputs: &[InputColumn],
    filter: Option<&Expression>,
) {
    let shards = catalog.group_of(table).map_or(1, |group| group.shards);
    lines.node(name);
    let values = |values: &[Expression]| {
        values
            .iter()
            .map(|value| show(value, &|index| format!("#{index}")))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let columns = |ids: &mut dyn Iterator<Item = u32>| {
        ids.filter_map(|id| table.column_by_id(id))
            .map(|column| column.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match path {
        AccessPath::Keys(keys) if keys.is_empty() => lines.detail("Shards: none (no row can match)"),
        AccessPath::Keys(keys) => {
            let key = columns(&mut table.key_columns().into_iter());
            match keys.as_slice() {
                [one] => {
                    lines.detail(&format!("Shards: 1 of {shards} (by primary key)"));
                    lines.detail(&format!("Primary Key: ({key}) = ({})", values(one)));
                }
                many => {
                    lines.detail(&format!(
                        "Shards: at most {} of {shards} (by primary keys)",
                        many.len().min(shards as usize)
                    ));
                    lines.detail(&format!("Primary Key: ({key}) = any of {} keys", many.len()));
                }
            }
        }
        AccessPath::ShardKey {
            shard_key,
            key_prefix,
        } => {
            lines.detail(&format!("Shards: 1 of {shards} (by shard key)"));
            let key = columns(&mut table.shard_key.iter().copied());
            lines.detail(&format!("Shard Key: ({key}) = ({})", values(shard_key)));
            if !key_prefix.is_empty() {
                let key = columns(&mut table.key_columns().into_iter().take(key_prefix.len()));
                lines.detail(&format!("Primary Key Prefix: ({key}) = ({})", values(key_prefix)));
            }
        }
        AccessPath::Index { index, prefix } => {
            lines.detail(&format!("Shards: all {shards}"));
            if let Some(index) = table.indexes.get(*index) {
                let key = columns(&mut index.columns.iter().map(|(id, _)| *id).take(prefix.len()));
                lines.detail(&format!("Index: {} ({key}) = ({})", index.name, values(prefix)));
            }
        }
        AccessPath::Full => lines.detail(&format!("Shards: all {shards}")),
    }
    if let Some(filter) = filter {
        let column = |index: usize| {
            let id = inputs.get(index).map(|input| input.column);
            id.and_then(|id| table.column_by_id(id))
                .map_or_else(|| "row id".to_owned(), |column| column.name.clone())
        };
        lines.detail(&format!("Filter: {}", show(filter, &column)));
    }
}
