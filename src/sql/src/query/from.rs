//! FROM clauses: tables, subqueries, functions and joins.

use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery};
use neorunbase_expression::{Expression, resolve_coalesce, resolve_operator};
use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{
    self, JoinConstraint, JoinOperator, Query, Select, SetExpr, TableAlias, TableFactor, TableWithJoins,
};

use super::provider;
use super::relation::build;
use crate::access::RowLocking;
use crate::bind::slots::{ColumnSlot, Slot};
use crate::bind::{Binder, Scope, ScopeColumn, ScopeRelation, display_name, split_name};

/// A FROM item: what can be named in it and how it is computed.
pub(crate) struct FromItem {
    pub(crate) scope: Scope,
    pub(crate) plan: LogicalPlan,
}

/// Row locks asked for by a query, by the relation's name; `None` stands for all relations.
pub(crate) type Locks = Vec<(Option<String>, RowLocking)>;

impl Binder<'_> {
    /// Binds a FROM clause; without one there is a single empty row.
    pub(crate) fn bind_from(&mut self, from: &[TableWithJoins], locks: &Locks) -> Result<FromItem> {
        let mut all: Option<FromItem> = None;
        for item in from {
            let item = self.bind_joined(item, all.as_ref().map(|all| &all.scope), locks)?;
            all = Some(match all {
                None => item,
                Some(left) => cross_join(left, item)?,
            });
        }
        match all {
            Some(all) => Ok(all),
            None => Ok(FromItem {
                scope: Scope::default(),
                plan: build(Ok(LogicalPlanBuilder::empty(true)))?,
            }),
        }
    }

    fn bind_joined(
        &mut self,
        item: &TableWithJoins,
        before: Option<&Scope>,
        locks: &Locks,
    ) -> Result<FromItem> {
        let mut left = self.bind_factor(&item.relation, before, locks)?;
        for join in &item.joins {
            left = self.bind_join(left, join, before, locks)?;
        }
        Ok(left)
    }

    fn bind_join(
        &mut self,
        left: FromItem,
        join: &ast::Join,
        before: Option<&Scope>,
        locks: &Locks,
    ) -> Result<FromItem> {
        let (join_type, constraint) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (JoinType::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (JoinType::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (JoinType::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (JoinType::Full, constraint),
            JoinOperator::CrossJoin(constraint) => (JoinType::Inner, constraint),
            _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in JOIN")),
        };
        let cross = matches!(&join.join_operator, JoinOperator::CrossJoin(_));
        if matches!(constraint, JoinConstraint::None) && !cross {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "syntax error: JOIN without ON or USING",
            ));
        }
        let mut visible = before.cloned().unwrap_or_default();
        visible.append(left.scope.clone())?;
        if let Some(select) = computed_columns(&join.relation)
            && join_type == JoinType::Inner
            && is_true(constraint)
        {
            return self.bind_computed_columns(left, visible, select, &join.relation);
        }
        let right = self.bind_factor(&join.relation, Some(&visible), locks)?;
        self.mark_nullable(join_type, &left.scope, &right.scope);
        let (condition, scope) = self.bind_join_constraint(constraint, left.scope, right.scope, join_type)?;
        let parts = match &condition {
            Some(condition) => self.lower_join_condition(condition, join_type)?,
            None => Vec::new(),
        };
        let builder = LogicalPlanBuilder::from(left.plan);
        let plan = match parts {
            parts if parts.is_empty() && join_type == JoinType::Inner => {
                build(builder.cross_join(right.plan))?
            }
            parts if parts.is_empty() => {
                build(builder.join_on(right.plan, join_type, [datafusion::logical_expr::lit(true)]))?
            }
            parts => build(builder.join_on(right.plan, join_type, parts))?,
        };
        Ok(FromItem { scope, plan })
    }

    fn lower_join_condition(&self, condition: &Expression, join_type: JoinType) -> Result<Vec<Expr>> {
        let subquery = condition
            .inputs()
            .iter()
            .any(|slot| matches!(self.slots.get(*slot), Some(Slot::Subquery(_))));
        if subquery {
            let advice = if join_type == JoinType::Inner {
                "Put it into WHERE."
            } else {
                "Join the subquery instead."
            };
            return Err(SqlError::unsupported("a subquery in a join condition").with_hint(advice));
        }
        self.lower_filter(condition, self.scopes.len())
    }

    /// Outer joins make columns NULL that are never NULL in their tables.
    fn mark_nullable(&mut self, join_type: JoinType, left: &Scope, right: &Scope) {
        let sides: &[&Scope] = match join_type {
            JoinType::Left => &[right],
            JoinType::Right => &[left],
            JoinType::Full => &[left, right],
            _ => &[],
        };
        for relation in sides.iter().flat_map(|scope| &scope.relations) {
            for column in &relation.columns {
                for slot in column.value.inputs() {
                    self.slots.mark_nullable(slot);
                }
            }
        }
    }

    fn bind_join_constraint(
        &mut self,
        constraint: &JoinConstraint,
        left: Scope,
        right: Scope,
        join_type: JoinType,
    ) -> Result<(Option<Expression>, Scope)> {
        let names: Vec<String> = match constraint {
            JoinConstraint::On(condition) => {
                let mut scope = left;
                scope.append(right)?;
                self.scopes.push(scope);
                let bound = self.without_aggregates("JOIN conditions", |binder| {
                    binder.bind_condition(condition, "JOIN/ON")
                });
                let scope = self.scopes.pop().unwrap_or_default();
                return Ok((Some(self.settle_parameters(bound?)), scope));
            }
            JoinConstraint::None => {
                let mut scope = left;
                scope.append(right)?;
                return Ok((None, scope));
            }
            JoinConstraint::Using(columns) => columns
                .iter()
                .map(|column| Ok(split_name(column)?.1))
                .collect::<Result<_>>()?,
            JoinConstraint::Natural => left
                .star
                .iter()
                .filter(|column| right.star.iter().any(|other| other.name == column.name))
                .map(|column| column.name.clone())
                .collect(),
        };
        let (mut conditions, mut merged) = (Vec::new(), Vec::new());
        for name in &names {
            let side = |scope: &Scope, which: &str| {
                scope.find(name)?.cloned().ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{name}\" specified in USING clause does not exist in {which} table"
                        ),
                    )
                })
            };
            let (in_left, in_right) = (side(&left, "left")?, side(&right, "right")?);
            conditions.push(resolve_operator("=", Some(in_left.clone()), in_right.clone())?);
            let value = match join_type {
                JoinType::Right => in_right,
                JoinType::Full => resolve_coalesce(vec![in_left, in_right])?,
                _ => in_left,
            };
            merged.push(ScopeColumn {
                name: name.clone(),
                value,
            });
        }
        let rest = |scope: &Scope| {
            scope
                .star
                .iter()
                .filter(|column| !names.contains(&column.name))
                .cloned()
                .collect::<Vec<_>>()
        };
        let star = [merged, rest(&left), rest(&right)].concat();
        let mut scope = left;
        scope.append(right)?;
        scope.star = star;
        Ok((Expression::conjunction(conditions), scope))
    }

    fn bind_factor(
        &mut self,
        factor: &TableFactor,
        before: Option<&Scope>,
        locks: &Locks,
    ) -> Result<FromItem> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                sample: None,
                version: None,
                with_ordinality: false,
                ..
            } => self.bind_table(name, alias.as_ref(), locks),
            TableFactor::Table {
                name,
                alias,
                args: Some(arguments),
                with_ordinality: false,
                ..
            } => self.bind_table_function(name, &arguments.args, alias.as_ref()),
            TableFactor::Function {
                name, args, alias, ..
            } => self.bind_table_function(name, args, alias.as_ref()),
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let Some(alias) = alias else {
                    return Err(
                        SqlError::new(SqlState::SYNTAX_ERROR, "subquery in FROM must have an alias")
                            .with_hint("For example, FROM (SELECT ...) [AS] foo."),
                    );
                };
                if *lateral && let Some(before) = before {
                    return self.bind_lateral(subquery, alias, before);
                }
                let relation = self.bind_query(subquery, None)?;
                let (relation, plan) = self.relation_in_scope(relation, &alias.name.value, Some(alias))?;
                Ok(FromItem {
                    scope: Scope::of_relation(relation),
                    plan,
                })
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => self.bind_joined(table_with_joins, before, locks),
            other => Err(SqlError::unsupported(format_args!("the FROM item {other}"))),
        }
    }

    fn bind_table(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&TableAlias>,
        locks: &Locks,
    ) -> Result<FromItem> {
        let (schema, plain) = split_name(name)?;
        if schema.is_none()
            && let Some(common) = self
                .tables_in_sight
                .iter()
                .rev()
                .find(|common| common.name == plain)
                .cloned()
        {
            let shown = alias
                .map_or(common.name.as_str(), |alias| alias.name.value.as_str())
                .to_owned();
            let (relation, plan) = self.relation_in_scope(common.relation.as_ref().clone(), &shown, alias)?;
            return Ok(FromItem {
                scope: Scope::of_relation(relation),
                plan,
            });
        }
        // The system's schema is searched first, as PostgreSQL does.
        if let Some(relation) = crate::system_tables::relation(self.context, schema.as_deref(), &plain)? {
            let shown = alias
                .map_or(plain.as_str(), |alias| alias.name.value.as_str())
                .to_owned();
            let (relation, plan) = self.relation_in_scope(relation, &shown, alias)?;
            return Ok(FromItem {
                scope: Scope::of_relation(relation),
                plan,
            });
        }
        let Some(table) = self.lookup_table(name)?.cloned() else {
            return Err(self.undefined_table(name));
        };
        let relation = self.table_relation(&table, alias)?;
        let locking = locks
            .iter()
            .find(|(of, _)| of.as_ref().is_none_or(|of| *of == relation.name))
            .map(|(_, locking)| *locking);
        let plan = build(LogicalPlanBuilder::scan(
            relation.qualifier.clone(),
            provider::table_source(table, locking),
            None,
        ))?;
        Ok(FromItem {
            scope: Scope::of_relation(relation),
            plan,
        })
    }

    /// A subquery that sees what stands left of it.
    fn bind_lateral(&mut self, query: &Query, alias: &TableAlias, before: &Scope) -> Result<FromItem> {
        self.scopes.push(before.clone());
        let bound = self.bind_query(query, None);
        self.scopes.pop();
        let relation = bound?;
        let outer_ref_columns = relation.plan.all_out_ref_exprs();
        if outer_ref_columns.is_empty() {
            let (relation, plan) = self.relation_in_scope(relation, &alias.name.value, Some(alias))?;
            return Ok(FromItem {
                scope: Scope::of_relation(relation),
                plan,
            });
        }
        // The join's right side has to be the subquery itself: its columns get their qualifier inside.
        let qualifier = self.new_qualifier();
        let columns = relation.columns.len();
        let qualified = (0..columns).map(|index| {
            let name = super::relation::name_in_relation(&qualifier, index);
            super::relation::Relation::column(index).alias_qualified(Some(qualifier.clone()), name)
        });
        let inner = build(LogicalPlanBuilder::from(relation.plan).project(qualified.collect::<Vec<_>>()))?;
        let level = self.scopes.len();
        let mut scope_columns = Vec::with_capacity(columns);
        for (index, column) in relation.columns.into_iter().enumerate() {
            let slot = self.slots.add_column(ColumnSlot {
                level,
                qualifier: Some(qualifier.clone()),
                column: super::relation::name_in_relation(&qualifier, index),
                sql_type: column.sql_type.clone(),
                nullable: true,
                display: format!("{}.{}", alias.name.value, column.name),
                origin: None,
            });
            scope_columns.push(ScopeColumn {
                name: column.name,
                value: Expression::input(slot, column.sql_type),
            });
        }
        crate::bind::rename_columns(&mut scope_columns, alias)?;
        let relation = ScopeRelation {
            name: alias.name.value.clone(),
            schema: None,
            hidden_name: None,
            qualifier,
            columns: scope_columns,
        };
        let plan = LogicalPlan::Subquery(Subquery {
            subquery: Arc::new(inner),
            outer_ref_columns,
            spans: datafusion::common::Spans::new(),
        });
        Ok(FromItem {
            scope: Scope::of_relation(relation),
            plan,
        })
    }

    /// `CROSS JOIN LATERAL (SELECT expressions) AS alias`: columns computed from the left side's.
    fn bind_computed_columns(
        &mut self,
        left: FromItem,
        visible: Scope,
        select: &Select,
        factor: &TableFactor,
    ) -> Result<FromItem> {
        let TableFactor::Derived {
            alias: Some(alias), ..
        } = factor
        else {
            return Err(
                SqlError::new(SqlState::SYNTAX_ERROR, "subquery in FROM must have an alias")
                    .with_hint("For example, FROM (SELECT ...) [AS] foo."),
            );
        };
        self.scopes.push(visible);
        let outputs = self.without_aggregates("LATERAL", |binder| binder.bind_outputs(&select.projection));
        self.scopes.pop();
        let outputs = outputs?;
        let level = self.scopes.len();
        let prefix = self.new_qualifier();
        let mut projection: Vec<Expr> = left
            .plan
            .schema()
            .iter()
            .map(|field| Expr::Column(Column::from(field)))
            .collect();
        let mut columns = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.into_iter().enumerate() {
            let value = self.settle_parameters(output.value);
            let column = format!("{prefix}_{index}");
            projection.push(self.lower(&value, level)?.alias(column.clone()));
            let slot = self.slots.add_column(ColumnSlot {
                level,
                qualifier: None,
                column,
                sql_type: value.sql_type(),
                nullable: true,
                display: format!("{}.{}", alias.name.value, output.name),
                origin: None,
            });
            columns.push(ScopeColumn {
                name: output.name,
                value: Expression::input(slot, value.sql_type()),
            });
        }
        crate::bind::rename_columns(&mut columns, alias)?;
        let plan = build(LogicalPlanBuilder::from(left.plan).project(projection))?;
        let mut scope = left.scope;
        scope.append(Scope::of_relation(ScopeRelation {
            name: alias.name.value.clone(),
            schema: None,
            hidden_name: None,
            qualifier: prefix,
            columns,
        }))?;
        Ok(FromItem { scope, plan })
    }

    fn bind_table_function(
        &mut self,
        name: &ast::ObjectName,
        arguments: &[ast::FunctionArg],
        alias: Option<&TableAlias>,
    ) -> Result<FromItem> {
        let (schema, function) = split_name(name)?;
        if function != "generate_series" || schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!(
                    "function {} does not exist or cannot be used in FROM",
                    display_name(name)
                ),
            ));
        }
        let relation = self.bind_generate_series(arguments)?;
        let shown = alias
            .map_or(function.as_str(), |alias| alias.name.value.as_str())
            .to_owned();
        let mut relation = relation;
        // A function's only column is called like the function, or like its alias.
        for column in &mut relation.columns {
            column.name.clone_from(&shown);
        }
        let (relation, plan) = self.relation_in_scope(relation, &shown, alias)?;
        Ok(FromItem {
            scope: Scope::of_relation(relation),
            plan,
        })
    }
}

pub(crate) fn cross_join(left: FromItem, right: FromItem) -> Result<FromItem> {
    let mut scope = left.scope;
    scope.append(right.scope)?;
    let plan = build(LogicalPlanBuilder::from(left.plan).cross_join(right.plan))?;
    Ok(FromItem { scope, plan })
}

/// The SELECT of `LATERAL (SELECT expressions)` without FROM.
fn computed_columns(factor: &TableFactor) -> Option<&Select> {
    let TableFactor::Derived {
        lateral: true,
        subquery,
        ..
    } = factor
    else {
        return None;
    };
    let SetExpr::Select(select) = &*subquery.body else {
        return None;
    };
    let plain = select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.distinct.is_none()
        && subquery.with.is_none()
        && subquery.limit_clause.is_none()
        && matches!(&select.group_by, ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
    plain.then_some(select)
}

fn is_true(constraint: &JoinConstraint) -> bool {
    match constraint {
        JoinConstraint::None => true,
        JoinConstraint::On(ast::Expr::Value(value)) => matches!(value.value, ast::Value::Boolean(true)),
        _ => false,
    }
}
