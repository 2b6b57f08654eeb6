//! Queries and SELECTs: from syntax trees to logical plans.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use neorunbase_expression::{Expression, coerce};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, Distinct, OrderByKind, Query, Select, SetExpr};

use super::from::Locks;
use super::grouping::Grouping;
use super::lower::sort_value;
use super::order::{Limits, output_by_name_or_number};
use super::relation::{CommonTable, Relation, RelationColumn, build, output_name};
use super::subquery::{ScalarAggregates, ScalarParts};
use crate::bind::slots::{Slot, SortKey};
use crate::bind::{Binder, Output, coerce_unknown_to_text, sort_key};

/// An ORDER BY key of a SELECT, before grouping.
enum Order {
    /// One of the output columns.
    Output(usize, SortKey),
    /// An expression over the input.
    Input(SortKey),
}

impl Binder<'_> {
    /// Binds a query. `wanted`: types for outputs that are untyped literals.
    pub(crate) fn bind_query(&mut self, query: &Query, wanted: Option<&[SqlType]>) -> Result<Relation> {
        let mut relation = self.bind_untyped_query(query)?;
        self.settle_untyped(&mut relation, wanted)?;
        Ok(relation)
    }

    /// As [`bind_query`](Self::bind_query), but leaves untyped literals to the caller.
    pub(crate) fn bind_untyped_query(&mut self, query: &Query) -> Result<Relation> {
        if query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in query"));
        }
        let tables_before = self.tables_in_sight.len();
        let forbidden_before = self.forbidden_in.take();
        let bound = self.bind_query_with_tables(query);
        self.forbidden_in = forbidden_before;
        self.tables_in_sight.truncate(tables_before);
        bound
    }

    fn bind_query_with_tables(&mut self, query: &Query) -> Result<Relation> {
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                let name = &table.alias.name.value;
                let mut relation = if with.recursive && super::recursive::mentions(&table.query, name) {
                    self.bind_recursive(&table.query, name, &table.alias)?
                } else {
                    self.bind_query(&table.query, None)?
                };
                super::recursive::rename(&mut relation, &table.alias)?;
                self.tables_in_sight.push(CommonTable {
                    name: name.clone(),
                    relation: Arc::new(relation),
                });
            }
        }
        let order = match &query.order_by {
            None => &[][..],
            Some(order_by) => match &order_by.kind {
                OrderByKind::Expressions(keys) => keys,
                OrderByKind::All(_) => return Err(SqlError::unsupported("ORDER BY ALL")),
            },
        };
        let limits = self.bind_limits(query)?;
        let locks = bind_locks(query)?;
        match &*query.body {
            SetExpr::Select(select) => self.bind_select(select, order, limits, &locks),
            body => {
                if !locks.is_empty() {
                    let what = if matches!(body, SetExpr::Values(_)) {
                        "VALUES"
                    } else {
                        "UNION/INTERSECT/EXCEPT"
                    };
                    return Err(SqlError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("FOR UPDATE is not allowed with {what}"),
                    ));
                }
                let mut relation = self.bind_set_expression(body)?;
                if !order.is_empty() {
                    self.settle_untyped(&mut relation, None)?;
                }
                self.order_relation(relation, order, limits)
            }
        }
    }

    /// The body of a query.
    pub(crate) fn bind_set_expression(&mut self, body: &SetExpr) -> Result<Relation> {
        match body {
            SetExpr::Select(select) => self.bind_select(select, &[], Limits::default(), &Locks::new()),
            SetExpr::Query(query) => self.bind_untyped_query(query),
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => self.bind_set_operation(*op, *set_quantifier, left, right),
            SetExpr::Values(values) => self.bind_values(values),
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                Err(SqlError::unsupported("TABLE as a query").with_hint(format!("SELECT * FROM {name}.")))
            }
            _ => Err(
                SqlError::unsupported("a statement that changes data inside of a query")
                    .with_hint("Run the statements one after the other in a transaction."),
            ),
        }
    }

    fn bind_select(
        &mut self,
        select: &Select,
        order: &[ast::OrderByExpr],
        limits: Limits,
        locks: &Locks,
    ) -> Result<Relation> {
        if select.into.is_some() {
            return Err(SqlError::unsupported("SELECT INTO").with_hint("CREATE TABLE, then INSERT … SELECT."));
        }
        if select.top.is_some() || select.qualify.is_some() || !select.lateral_views.is_empty() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error in SELECT"));
        }
        if let Some(empty) = crate::system_tables::empty_select(select)? {
            return Ok(empty);
        }
        // Only this SELECT may hand parts of itself out, not those inside it.
        let mut scalar = self.scalar.take();
        let from = self.bind_from(&select.from, locks)?;
        self.scopes.push(from.scope);
        let bound = self.bind_select_in_scope(select, order, limits, from.plan, locks, &mut scalar);
        self.scopes.pop();
        self.scalar = scalar;
        bound
    }

    fn bind_select_in_scope(
        &mut self,
        select: &Select,
        order: &[ast::OrderByExpr],
        limits: Limits,
        mut plan: datafusion::logical_expr::LogicalPlan,
        locks: &Locks,
        scalar: &mut Option<ScalarParts>,
    ) -> Result<Relation> {
        let level = self.scopes.len() - 1;
        let filter = self.bind_where(select.selection.as_ref())?;
        self.named_windows.push(select.named_window.clone());
        let bound = self.bind_select_list(select, order);
        self.named_windows.pop();
        let (mut outputs, orders, distinct_on) = bound?;
        let having = match &select.having {
            Some(having) => {
                self.forbidden_in = None;
                let having = self.bind_condition(having, "HAVING")?;
                Some(self.settle_parameters(having))
            }
            None => None,
        };
        let keys = self.bind_group_by(&select.group_by, &outputs)?;
        let origins: Vec<_> = outputs
            .iter()
            .map(|output| self.output_origin(&output.value))
            .collect();
        let untyped: Vec<Option<Expression>> = outputs
            .iter_mut()
            .map(|output| {
                if output.value.sql_type() != SqlType::Unknown {
                    return Ok(None);
                }
                let literal = output.value.clone();
                output.value = coerce_unknown_to_text(literal.clone())?;
                Ok(matches!(literal, Expression::Literal { .. }).then_some(literal))
            })
            .collect::<Result<_>>()?;
        let mut outputs: Vec<Output> = outputs;
        let mut orders = orders;
        // From here on everything is computed over groups, if there are any.
        let mut values: Vec<&mut Expression> = outputs.iter_mut().map(|output| &mut output.value).collect();
        for order in &mut orders {
            if let Order::Input(key) = order {
                values.push(&mut key.value);
            }
        }
        let mut distinct_on = distinct_on;
        values.extend(distinct_on.iter_mut().flatten());
        let mut having = having;
        let grouped =
            !keys.is_empty() || having.is_some() || values.iter().any(|value| self.has_aggregate(value));
        // A lone aggregate: its subquery can be taken apart.
        let single = grouped
            && keys.is_empty()
            && having.is_none()
            && values.len() == 1
            && limits.is_none()
            && order.is_empty()
            && select.distinct.is_none()
            && !values.iter().any(|value| self.has_window(value));
        if let Some(filter) = filter {
            let mut conjuncts = filter.into_conjuncts();
            if let Some(scalar) = scalar
                && (single || !grouped)
            {
                let outer = |conjunct: &mut Expression| {
                    let inputs = conjunct.inputs();
                    let of_outer = |slot: &usize| {
                        self.slots
                            .column(*slot)
                            .is_some_and(|column| column.level < level)
                    };
                    !inputs.is_empty() && inputs.iter().all(of_outer)
                };
                scalar.conditions.extend(conjuncts.extract_if(.., outer));
            }
            if let Some(filter) = Expression::conjunction(conjuncts)
                && let Some(condition) = self.lower_filter(&filter, level)?.into_iter().reduce(Expr::and)
            {
                plan = build(LogicalPlanBuilder::from(plan).filter(condition))?;
            }
        }
        if grouped {
            if !locks.is_empty() {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "FOR UPDATE is not allowed with aggregate functions or GROUP BY",
                ));
            }
            let all = values.iter().map(|value| &**value).chain(having.as_ref());
            let has_conditions = scalar
                .as_ref()
                .is_some_and(|scalar| !scalar.conditions.is_empty());
            let correlated = has_conditions || !plan.all_out_ref_exprs().is_empty();
            let apart = single && scalar.is_some() && correlated;
            let grouping = Grouping::plan(self, keys, all, level)?;
            plan = grouping.aggregate(self, plan, apart)?;
            for value in values {
                *value = grouping.regroup(self, value)?;
            }
            if apart && let (Some(scalar), [output]) = (scalar, outputs.as_slice()) {
                let (plan, value) = (plan.clone(), output.value.clone());
                scalar.aggregates = Some(ScalarAggregates {
                    plan,
                    value,
                    results: grouping.results(),
                });
            }
            if let Some(having) = &mut having {
                *having = grouping.regroup(self, having)?;
                let condition = self.lower_filter(having, level)?.into_iter().reduce(Expr::and);
                if let Some(condition) = condition {
                    plan = build(LogicalPlanBuilder::from(plan).filter(condition))?;
                }
            }
        }
        let mut all: Vec<&mut Expression> = outputs.iter_mut().map(|output| &mut output.value).collect();
        for order in &mut orders {
            if let Order::Input(key) = order {
                all.push(&mut key.value);
            }
        }
        all.extend(distinct_on.iter_mut().flatten());
        plan = self.plan_windows(plan, &mut all, level)?;
        let columns = outputs
            .iter()
            .zip(origins)
            .zip(untyped)
            .map(|((output, origin), untyped)| RelationColumn {
                name: output.name.clone(),
                sql_type: output.value.sql_type(),
                nullable: self.is_nullable(&output.value),
                origin,
                untyped,
            })
            .collect();
        let distinct = matches!(select.distinct, Some(Distinct::Distinct));
        if (distinct || distinct_on.is_some()) && !locks.is_empty() {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "FOR UPDATE is not allowed with DISTINCT clause",
            ));
        }
        self.project_outputs(
            plan,
            &outputs,
            columns,
            orders,
            distinct,
            distinct_on,
            limits,
            level,
        )
    }

    /// Outputs, ORDER BY keys and DISTINCT ON expressions.
    fn bind_select_list(
        &mut self,
        select: &Select,
        order: &[ast::OrderByExpr],
    ) -> Result<(Vec<Output>, Vec<Order>, Option<Vec<Expression>>)> {
        self.forbidden_in = None;
        let outputs = self.bind_untyped_outputs(&select.projection)?;
        let orders = order
            .iter()
            .map(|key| self.bind_order(key, &outputs))
            .collect::<Result<Vec<_>>>()?;
        let distinct_on = match &select.distinct {
            Some(Distinct::On(expressions)) => Some(
                expressions
                    .iter()
                    .map(|expression| {
                        let key = ast::OrderByExpr {
                            expr: expression.clone(),
                            options: ast::OrderByOptions {
                                asc: None,
                                nulls_first: None,
                            },
                            with_fill: None,
                        };
                        Ok(match self.bind_order(&key, &outputs)? {
                            Order::Output(index, _) => outputs[index].value.clone(),
                            Order::Input(key) => key.value,
                        })
                    })
                    .collect::<Result<Vec<_>>>()?,
            ),
            _ => None,
        };
        Ok((outputs, orders, distinct_on))
    }

    /// An ORDER BY key: an output's name or number, or an expression over the input.
    fn bind_order(&mut self, key: &ast::OrderByExpr, outputs: &[Output]) -> Result<Order> {
        if let Some(index) = output_by_name_or_number(&key.expr, outputs, "ORDER BY")? {
            let value = outputs[index].value.clone();
            return Ok(Order::Output(index, sort_key(value, key)));
        }
        let value = coerce_unknown_to_text(self.bind_expression(&key.expr)?)?;
        let value = self.settle_parameters(value);
        if let Some(index) = outputs.iter().position(|output| output.value == value) {
            return Ok(Order::Output(index, sort_key(value, key)));
        }
        Ok(Order::Input(sort_key(value, key)))
    }

    #[allow(clippy::too_many_arguments)]
    fn project_outputs(
        &mut self,
        plan: datafusion::logical_expr::LogicalPlan,
        outputs: &[Output],
        columns: Vec<RelationColumn>,
        orders: Vec<Order>,
        distinct: bool,
        distinct_on: Option<Vec<Expression>>,
        limits: Limits,
        level: usize,
    ) -> Result<Relation> {
        let mut projection = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            projection.push(self.lower(&output.value, level)?.alias(output_name(index)));
        }
        let mut sorts = Vec::with_capacity(orders.len());
        let mut hidden = 0;
        for order in &orders {
            let (column, key) = match order {
                Order::Output(index, key) => (Relation::column(*index), key),
                Order::Input(key) => {
                    if distinct {
                        return Err(SqlError::new(
                            SqlState("42P10"),
                            "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                        ));
                    }
                    let name = format!("s{hidden}");
                    hidden += 1;
                    projection.push(self.lower(&key.value, level)?.alias(name.clone()));
                    (Expr::Column(Column::new_unqualified(name)), key)
                }
            };
            let sql_type = match order {
                Order::Output(index, _) => columns[*index].sql_type.clone(),
                Order::Input(key) => key.value.sql_type(),
            };
            sorts.push(sort_value(column, &sql_type).sort(!key.descending, key.nulls_first));
        }
        let mut partitions = Vec::new();
        if let Some(keys) = &distinct_on {
            let ordered = orders.iter().take(keys.len()).all(|order| match order {
                Order::Output(index, _) => keys.contains(&outputs[*index].value),
                Order::Input(key) => keys.contains(&key.value),
            });
            if !ordered {
                return Err(SqlError::new(
                    SqlState("42P10"),
                    "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                ));
            }
            for (index, key) in keys.iter().enumerate() {
                let name = format!("d{index}");
                projection.push(self.lower_key(key, level)?.alias(name.clone()));
                partitions.push(Expr::Column(Column::new_unqualified(name)));
            }
        }
        let extra = projection.len() > outputs.len();
        let mut plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        if distinct {
            plan = super::grouping::distinct(plan, &columns)?;
        }
        if distinct_on.is_some() {
            plan = super::windows::first_of_each(plan, partitions, sorts.clone())?;
        }
        if !sorts.is_empty() {
            plan = build(LogicalPlanBuilder::from(plan).sort(sorts))?;
        }
        plan = self.limit(plan, limits)?;
        if extra {
            plan = build(LogicalPlanBuilder::from(plan).project((0..columns.len()).map(Relation::column)))?;
        }
        Ok(Relation { plan, columns })
    }

    /// GROUP BY keys: input columns first, then output names and numbers, then expressions.
    fn bind_group_by(&mut self, group_by: &ast::GroupByExpr, outputs: &[Output]) -> Result<Vec<Expression>> {
        let (keys, modifiers) = match group_by {
            ast::GroupByExpr::All(_) => return Err(SqlError::unsupported("GROUP BY ALL")),
            ast::GroupByExpr::Expressions(keys, modifiers) => (keys, modifiers),
        };
        if !modifiers.is_empty() {
            return Err(SqlError::unsupported("this form of GROUP BY"));
        }
        let mut bound: Vec<Expression> = Vec::with_capacity(keys.len());
        for key in keys {
            if matches!(
                key,
                ast::Expr::Rollup(_) | ast::Expr::Cube(_) | ast::Expr::GroupingSets(_)
            ) {
                return Err(SqlError::unsupported("ROLLUP, CUBE and GROUPING SETS")
                    .with_hint("Combine several queries with UNION ALL."));
            }
            let parts = match key {
                ast::Expr::Tuple(parts) => parts.as_slice(),
                single => std::slice::from_ref(single),
            };
            for part in parts {
                let value = self.bind_group_key(part, outputs)?;
                if !bound.contains(&value) {
                    bound.push(value);
                }
            }
        }
        Ok(bound)
    }

    fn bind_group_key(&mut self, key: &ast::Expr, outputs: &[Output]) -> Result<Expression> {
        let named = matches!(key, ast::Expr::Identifier(_));
        if named {
            let column = self.without_aggregates("GROUP BY", |binder| binder.bind_expression(key));
            match column {
                Ok(column) => return Ok(column),
                Err(error) if error.state == SqlState::UNDEFINED_COLUMN => {
                    match output_by_name_or_number(key, outputs, "GROUP BY")? {
                        Some(index) => return self.checked_group_key(outputs[index].value.clone()),
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(index) = output_by_name_or_number(key, outputs, "GROUP BY")? {
            return self.checked_group_key(outputs[index].value.clone());
        }
        let value = self.without_aggregates("GROUP BY", |binder| binder.bind_expression(key))?;
        let value = coerce_unknown_to_text(value)?;
        Ok(self.settle_parameters(value))
    }

    fn checked_group_key(&self, key: Expression) -> Result<Expression> {
        for slot in key.inputs() {
            match self.slots.get(slot) {
                Some(Slot::Aggregate(_)) => {
                    return Err(SqlError::new(
                        SqlState::GROUPING_ERROR,
                        "aggregate functions are not allowed in GROUP BY",
                    ));
                }
                Some(Slot::Window(_)) => {
                    return Err(SqlError::new(
                        SqlState("42P20"),
                        "window functions are not allowed in GROUP BY",
                    ));
                }
                _ => {}
            }
        }
        coerce_unknown_to_text(key)
    }

    fn has_window(&self, value: &Expression) -> bool {
        value
            .inputs()
            .iter()
            .any(|slot| matches!(self.slots.get(*slot), Some(Slot::Window(_))))
    }

    fn output_origin(&self, value: &Expression) -> Option<(u32, u32)> {
        match value {
            Expression::Input { index, .. } => self.slots.column(*index)?.origin,
            _ => None,
        }
    }

    fn is_nullable(&self, value: &Expression) -> bool {
        match value {
            Expression::Input { index, .. } => self.slots.column(*index).is_none_or(|column| column.nullable),
            Expression::Literal { value, .. } => value.is_null(),
            _ => true,
        }
    }

    /// Gives the columns that are still untyped literals their types: those wanted, or text.
    pub(crate) fn settle_untyped(
        &mut self,
        relation: &mut Relation,
        wanted: Option<&[SqlType]>,
    ) -> Result<()> {
        if relation.columns.iter().all(|column| column.untyped.is_none()) {
            return Ok(());
        }
        let mut projection = Vec::with_capacity(relation.columns.len());
        for (index, column) in relation.columns.iter_mut().enumerate() {
            let target = wanted.and_then(|wanted| wanted.get(index));
            match (column.untyped.take(), target) {
                (Some(literal), Some(target)) => {
                    let value = coerce(literal, target, CastContext::Assignment)?;
                    column.sql_type = value.sql_type();
                    projection.push(self.lower_untyped(&value)?.alias(output_name(index)));
                }
                _ => projection.push(Relation::column(index)),
            }
        }
        let plan = relation.plan.clone();
        relation.plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        Ok(())
    }

    pub(crate) fn lower_untyped(&self, value: &Expression) -> Result<Expr> {
        self.lower(value, self.scopes.len())
    }
}

/// FOR UPDATE and friends, by relation.
fn bind_locks(query: &Query) -> Result<Locks> {
    let mut locks = Locks::new();
    for clause in &query.locks {
        let of = clause
            .of
            .as_ref()
            .map(|name| crate::bind::split_name(name).map(|(_, name)| name))
            .transpose()?;
        locks.push((of, crate::bind::row_locking(clause)));
    }
    Ok(locks)
}
