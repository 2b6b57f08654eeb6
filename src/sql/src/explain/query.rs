//! Logical plans of queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, TableScan};
use neorunbase_catalog::{CatalogSnapshot, Table};
use neorunbase_expression::Expression;

use super::{Lines, lock_prefix, scan, show};
use crate::bind::column_from_plan;
use crate::query::functions::{ExpressionFunction, KeyFunction};
use crate::query::{QueryPlan, provider};

/// Adds a query's plan.
pub(super) fn explain_query(lines: &mut Lines, query: &QueryPlan, catalog: &CatalogSnapshot) {
    let mut names = Names {
        tables: BTreeMap::new(),
    };
    // Nothing here can fail.
    let _ = query.logical.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = provider::sharded_table(scan)
        {
            names
                .tables
                .insert(scan.table_name.to_string(), table.table.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    node(lines, &query.logical, &names, catalog);
}

/// What the plan's names stand for.
struct Names {
    tables: BTreeMap<String, Arc<Table>>,
}

fn node(lines: &mut Lines, plan: &LogicalPlan, names: &Names, catalog: &CatalogSnapshot) {
    let list = |values: &[Expr]| {
        values
            .iter()
            .map(|value| names.show(value))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match plan {
        // They only name things.
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            for input in plan.inputs() {
                node(lines, input, names, catalog);
            }
            return;
        }
        LogicalPlan::TableScan(table) => {
            table_scan(lines, table, catalog);
            return;
        }
        LogicalPlan::Filter(filter) => {
            lines.node("Filter");
            lines.detail(&format!("Condition: {}", names.show(&filter.predicate)));
        }
        LogicalPlan::Join(join) => {
            let kind = match join.join_type {
                JoinType::Inner if join.on.is_empty() && join.filter.is_none() => "Cross",
                JoinType::Inner => "Inner",
                JoinType::Left => "Left",
                JoinType::Right => "Right",
                JoinType::Full => "Full",
                JoinType::LeftSemi | JoinType::RightSemi => "Semi",
                JoinType::LeftAnti | JoinType::RightAnti => "Anti",
                JoinType::LeftMark | JoinType::RightMark => "Mark",
            };
            let method = if join.on.is_empty() { "Nested Loop" } else { "Hash" };
            lines.node(&format!("{method} {kind} Join"));
            if !join.on.is_empty() {
                let on: Vec<String> = join
                    .on
                    .iter()
                    .map(|(left, right)| format!("({} = {})", names.show(left), names.show(right)))
                    .collect();
                lines.detail(&format!("Condition: {}", on.join(" AND ")));
            }
            if let Some(filter) = &join.filter {
                lines.detail(&format!("Join Filter: {}", names.show(filter)));
            }
        }
        LogicalPlan::Aggregate(aggregate) => {
            lines.node(if aggregate.group_expr.is_empty() {
                "Aggregate"
            } else {
                "HashAggregate"
            });
            if !aggregate.group_expr.is_empty() {
                lines.detail(&format!("Group Key: {}", list(&aggregate.group_expr)));
            }
        }
        LogicalPlan::Window(_) => lines.node("WindowAgg"),
        LogicalPlan::Sort(sort) => {
            lines.node("Sort");
            let keys: Vec<String> = sort.expr.iter().map(|key| names.show_sort(key)).collect();
            lines.detail(&format!("Sort Key: {}", keys.join(", ")));
            if let Some(fetch) = sort.fetch {
                lines.detail(&format!("Limit: {fetch}"));
            }
        }
        LogicalPlan::Limit(limit) => {
            lines.node("Limit");
            let part = |label: &str, value: &Option<Box<Expr>>| {
                value
                    .as_ref()
                    .map(|value| format!("{label}: {}", names.show(value)))
            };
            for detail in [part("Rows", &limit.fetch), part("Skip", &limit.skip)]
                .into_iter()
                .flatten()
            {
                lines.detail(&detail);
            }
        }
        LogicalPlan::Distinct(_) => lines.node("Unique"),
        LogicalPlan::Union(_) => lines.node("Append"),
        LogicalPlan::Values(values) => lines.node(&format!("Values ({} rows)", values.values.len())),
        LogicalPlan::EmptyRelation(empty) => {
            lines.node(if empty.produce_one_row {
                "Result"
            } else {
                "Result (no rows)"
            });
        }
        other => lines.node(other.display().to_string().split(':').next().unwrap_or("Step")),
    }
    let inputs: Vec<&LogicalPlan> = plan.inputs();
    lines.nested(|lines| {
        for input in inputs {
            node(lines, input, names, catalog);
        }
    });
}

fn table_scan(lines: &mut Lines, plan: &TableScan, catalog: &CatalogSnapshot) {
    let Some(table) = provider::sharded_table(plan) else {
        lines.node("System Table Scan");
        return;
    };
    let name = format!("{}Scan on {}", lock_prefix(table.locking), table.table.name);
    match table.program(plan.projection.as_ref(), &plan.filters) {
        Ok((program, path)) => {
            scan(
                lines,
                catalog,
                &name,
                &table.table,
                &path,
                &program.inputs,
                program.filter.as_ref(),
            );
        }
        Err(_) => lines.node(&name),
    }
    if let Some(fetch) = plan.fetch {
        lines.detail(&format!("Limit: {fetch}"));
    }
}

impl Names {
    fn show(&self, expr: &Expr) -> String {
        match expr {
            Expr::Alias(alias) => self.show(&alias.expr),
            Expr::Column(column) => {
                let table = column
                    .relation
                    .as_ref()
                    .and_then(|relation| self.tables.get(&relation.to_string()));
                let own = table.and_then(|table| table.column_by_id(column_from_plan(&column.name)?));
                match (table, own) {
                    (Some(table), Some(own)) => format!("{}.{}", table.name, own.name),
                    _ => column.name.clone(),
                }
            }
            Expr::BinaryExpr(binary) => {
                format!(
                    "({} {} {})",
                    self.show(&binary.left),
                    binary.op,
                    self.show(&binary.right)
                )
            }
            Expr::Not(inner) => format!("(NOT {})", self.show(inner)),
            Expr::IsNull(inner) => format!("({} IS NULL)", self.show(inner)),
            Expr::IsNotNull(inner) => format!("({} IS NOT NULL)", self.show(inner)),
            Expr::Cast(cast) => self.show(&cast.expr),
            Expr::Placeholder(placeholder) => placeholder.id.clone(),
            Expr::Literal(value, _) => value.to_string(),
            Expr::ScalarFunction(call) => {
                let function = call.func.inner().as_any();
                if function.is::<KeyFunction>() {
                    return call.args.iter().map(|argument| self.show(argument)).collect();
                }
                match function.downcast_ref::<ExpressionFunction>() {
                    Some(function) => self.show_call(&function.expression, &call.args),
                    None => expr.to_string(),
                }
            }
            other => other.to_string(),
        }
    }

    fn show_call(&self, expression: &Expression, arguments: &[Expr]) -> String {
        show(expression, &|index| {
            arguments
                .get(index)
                .map_or_else(String::new, |argument| self.show(argument))
        })
    }

    fn show_sort(&self, key: &Sort) -> String {
        let order = match (key.asc, key.nulls_first) {
            (true, false) => "",
            (true, true) => " NULLS FIRST",
            (false, true) => " DESC",
            (false, false) => " DESC NULLS LAST",
        };
        format!("{}{order}", self.show(&key.expr))
    }
}
