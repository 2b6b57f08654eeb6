//! GROUP BY, aggregates and DISTINCT.

use datafusion::common::Column;
use datafusion::logical_expr::expr::{AggregateFunction as AggregateCallExpr, AggregateFunctionParams};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use neorunbase_expression::Expression;
use neorunbase_types::{Result, SqlError, SqlState, SqlType};

use super::aggregates::{AggregateFunction, aggregate_udf, tally_udf};
use super::functions::{comparison_key, prints_differently};
use super::relation::{Relation, RelationColumn, build, output_name};
use super::string_aggregate::{OrderKey, string_aggregate};
use crate::bind::Binder;
use crate::bind::slots::{AggregateCall, ColumnSlot, Slot, SlotId, SubqueryKind};

/// How the expressions of a grouped SELECT find their values after grouping.
pub(crate) struct Grouping {
    level: usize,
    /// Grouping expressions, and the slots that stand for them afterwards.
    keys: Vec<(Expression, SlotId)>,
    /// Aggregate slots, their calls, and the slots that stand for them afterwards.
    aggregates: Vec<(SlotId, AggregateCall, SlotId)>,
}

impl Binder<'_> {
    /// Whether a value contains an aggregate of this query.
    pub(crate) fn has_aggregate(&self, value: &Expression) -> bool {
        let mut found = Vec::new();
        self.collect_aggregates(value, &mut found);
        !found.is_empty()
    }

    /// Aggregate slots in a value, those in window calls and before subqueries included.
    fn collect_aggregates(&self, value: &Expression, found: &mut Vec<SlotId>) {
        for slot in value.inputs() {
            match self.slots.get(slot) {
                Some(Slot::Aggregate(_)) if !found.contains(&slot) => found.push(slot),
                Some(Slot::Window(call)) => {
                    let parts = call
                        .arguments
                        .iter()
                        .chain(&call.filter)
                        .chain(&call.partition_by);
                    for part in parts.chain(call.order_by.iter().map(|key| &key.value)) {
                        self.collect_aggregates(part, found);
                    }
                }
                Some(Slot::Subquery(call)) => {
                    if let SubqueryKind::Any(operand, _) = &call.kind {
                        self.collect_aggregates(operand, found);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Grouping {
    /// Decides what is computed: `keys` and every aggregate in `values`.
    pub(crate) fn plan<'a>(
        binder: &mut Binder<'_>,
        mut keys: Vec<Expression>,
        values: impl Iterator<Item = &'a Expression>,
        level: usize,
    ) -> Result<Self> {
        let (mut found, mut used) = (Vec::new(), Vec::new());
        for value in values {
            binder.collect_aggregates(value, &mut found);
            used.extend(value.inputs());
        }
        add_dependent_columns(binder, &mut keys, &used);
        let keys = keys
            .into_iter()
            .enumerate()
            .map(|(index, key)| {
                let slot = match &key {
                    // A plain column keeps its name, also for subqueries that refer to it.
                    Expression::Input { index, sql_type } if !prints_differently(sql_type) => *index,
                    _ => add_computed(binder, level, format!("g{index}"), &key.sql_type()),
                };
                (key, slot)
            })
            .collect();
        let aggregates = found
            .into_iter()
            .map(|slot| {
                let Some(Slot::Aggregate(call)) = binder.slots.get(slot).cloned() else {
                    return Err(SqlError::internal("an aggregate is none"));
                };
                let result = add_computed(binder, level, format!("a{slot}"), &call.sql_type);
                Ok((slot, call, result))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            level,
            keys,
            aggregates,
        })
    }

    /// The slots that stand for the aggregates' results, and whether the result is a count.
    pub(crate) fn results(&self) -> Vec<(SlotId, bool)> {
        self.aggregates
            .iter()
            .map(|(_, call, result)| (*result, call.function == AggregateFunction::Count))
            .collect()
    }

    /// Adds the projection of keys and arguments, and the aggregation. `tally`: counts are called so.
    pub(crate) fn aggregate(
        &self,
        binder: &Binder<'_>,
        input: LogicalPlan,
        tally: bool,
    ) -> Result<LogicalPlan> {
        let (mut projection, mut groups, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        let lower = |value: &Expression| binder.lower(value, self.level);
        for (index, (key, slot)) in self.keys.iter().enumerate() {
            let value = lower(key)?;
            let sql_type = key.sql_type();
            if prints_differently(&sql_type) {
                let (kept, compared) = (format!("v{index}"), format!("k{index}"));
                projection.push(value.clone().alias(kept.clone()));
                projection.push(comparison_key(value, &sql_type).alias(compared.clone()));
                groups.push(Expr::Column(Column::new_unqualified(compared)));
                let any = aggregate_udf(
                    AggregateFunction::AnyValue,
                    vec![sql_type.clone()],
                    sql_type,
                    false,
                );
                let name = computed_name(binder, *slot)?;
                calls.push(
                    any.call(vec![Expr::Column(Column::new_unqualified(kept))])
                        .alias(name),
                );
            } else if let Expr::Column(column) = value {
                projection.push(Expr::Column(column.clone()));
                groups.push(Expr::Column(column));
            } else {
                let name = computed_name(binder, *slot)?;
                projection.push(value.alias(name.clone()));
                groups.push(Expr::Column(Column::new_unqualified(name)));
            }
        }
        for (number, (_, call, slot)) in self.aggregates.iter().enumerate() {
            let mut argument = |label: &str, value: Expr| {
                let name = format!("{label}{number}");
                projection.push(value.alias(name.clone()));
                Expr::Column(Column::new_unqualified(name))
            };
            let mut arguments = Vec::with_capacity(call.arguments.len());
            for (index, value) in call.arguments.iter().enumerate() {
                arguments.push(match value {
                    Expression::Literal { .. } => lower(value)?,
                    value => argument(&format!("p{index}_"), lower(value)?),
                });
            }
            let filter = match &call.filter {
                // NULL must not count as true, which some of DataFusion's accumulators take it for.
                Some(filter) => Some(Box::new(argument("f", lower(&is_true(filter))?))),
                None => None,
            };
            // The order matters to one function only, which gets the keys as arguments.
            let mut order = Vec::new();
            if call.function == AggregateFunction::StringAgg {
                for (index, key) in call.order_by.iter().enumerate() {
                    arguments.push(argument(&format!("o{index}_"), lower(&key.value)?));
                    order.push(OrderKey {
                        sql_type: key.value.sql_type(),
                        descending: key.descending,
                        nulls_first: key.nulls_first,
                    });
                }
            }
            if arguments.is_empty() {
                arguments.push(lit(1_i64));
            }
            let types = call.arguments.iter().map(Expression::sql_type).collect();
            let params = AggregateFunctionParams {
                args: arguments,
                distinct: call.distinct,
                filter,
                order_by: Vec::new(),
                null_treatment: None,
            };
            let function = match call.function {
                AggregateFunction::StringAgg => string_aggregate(order),
                AggregateFunction::Count if tally => tally_udf(types),
                function => aggregate_udf(function, types, call.sql_type.clone(), call.distinct),
            };
            let name = computed_name(binder, *slot)?;
            calls.push(
                Expr::AggregateFunction(AggregateCallExpr {
                    func: function,
                    params,
                })
                .alias(name),
            );
        }
        if groups.is_empty() && calls.is_empty() {
            // HAVING alone: one group.
            calls.push(datafusion::functions_aggregate::expr_fn::count(lit(1_i64)).alias("rows"));
        }
        dedupe_columns(&mut projection);
        if projection.is_empty() {
            projection.push(lit(1_i64).alias("one"));
        }
        let builder = LogicalPlanBuilder::from(input).project(projection);
        build(builder.and_then(|builder| builder.aggregate(groups, calls)))
    }

    /// The value over the grouped rows.
    pub(crate) fn regroup(&self, binder: &mut Binder<'_>, value: &Expression) -> Result<Expression> {
        if let Some((key, slot)) = self.keys.iter().find(|(key, _)| key == value) {
            return Ok(Expression::input(*slot, key.sql_type()));
        }
        if let Expression::Input { index, sql_type } = value {
            return self.regroup_slot(binder, *index, sql_type);
        }
        let mut regrouped = value.clone();
        let mut failure = None;
        regrouped.for_each_child_mut(&mut |child| match self.regroup(binder, child) {
            Ok(new) => *child = new,
            Err(error) => {
                failure.get_or_insert(error);
            }
        });
        failure.map_or(Ok(regrouped), Err)
    }

    fn regroup_slot(&self, binder: &mut Binder<'_>, index: SlotId, sql_type: &SqlType) -> Result<Expression> {
        if let Some((_, _, result)) = self.aggregates.iter().find(|(slot, _, _)| *slot == index) {
            return Ok(Expression::input(*result, sql_type.clone()));
        }
        let unchanged = Expression::input(index, sql_type.clone());
        match binder.slots.get(index).cloned() {
            Some(Slot::Column(column)) if column.level == self.level => Err(SqlError::new(
                SqlState::GROUPING_ERROR,
                format!(
                    "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                    column.display
                ),
            )),
            Some(Slot::Window(mut call)) => {
                for part in call
                    .arguments
                    .iter_mut()
                    .chain(&mut call.partition_by)
                    .chain(&mut call.filter)
                {
                    *part = self.regroup(binder, part)?;
                }
                for key in &mut call.order_by {
                    key.value = self.regroup(binder, &key.value)?;
                }
                Ok(Expression::input(
                    binder.slots.add(Slot::Window(call)),
                    sql_type.clone(),
                ))
            }
            Some(Slot::Subquery(mut call)) => {
                self.check_outer_references(binder, &call.plan)?;
                if let SubqueryKind::Any(operand, _) = &mut call.kind {
                    *operand = self.regroup(binder, operand)?;
                }
                Ok(Expression::input(
                    binder.slots.add(Slot::Subquery(call)),
                    sql_type.clone(),
                ))
            }
            _ => Ok(unchanged),
        }
    }

    /// A subquery may refer to grouped columns only.
    fn check_outer_references(&self, binder: &Binder<'_>, plan: &LogicalPlan) -> Result<()> {
        for reference in plan.all_out_ref_exprs() {
            let Expr::OuterReferenceColumn(_, column) = reference else {
                continue;
            };
            let qualifier = column.relation.as_ref().map(ToString::to_string);
            let grouped = self.keys.iter().any(|(key, _)| match key {
                Expression::Input { index, .. } => binder
                    .slots
                    .column(*index)
                    .is_some_and(|key| key.qualifier == qualifier && key.column == column.name),
                _ => false,
            });
            let own = binder
                .slots
                .find_column(qualifier.as_deref(), &column.name)
                .filter(|own| own.level == self.level);
            if let Some(own) = own
                && !grouped
            {
                return Err(SqlError::new(
                    SqlState::GROUPING_ERROR,
                    format!(
                        "subquery uses ungrouped column \"{}\" from outer query",
                        own.display
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Columns of a table whose whole primary key is grouped by are as good as grouped by.
fn add_dependent_columns(binder: &Binder<'_>, keys: &mut Vec<Expression>, used: &[SlotId]) {
    let Some(scope) = binder.scopes.last() else { return };
    let mut added = Vec::new();
    for relation in &scope.relations {
        let origin = |value: &Expression| match value {
            Expression::Input { index, .. } => binder.slots.column(*index)?.origin,
            _ => None,
        };
        let Some((table, _)) = relation.columns.first().and_then(|column| origin(&column.value)) else {
            continue;
        };
        let Some(table) = binder.context.catalog.tables.get(&table) else {
            continue;
        };
        let Some(primary_key) = &table.primary_key else {
            continue;
        };
        let own: Vec<u32> = keys
            .iter()
            .filter(|key| relation.columns.iter().any(|column| column.value == **key))
            .filter_map(|key| origin(key).map(|(_, column)| column))
            .collect();
        if primary_key.columns.iter().all(|column| own.contains(column)) {
            let needed = |value: &Expression| value.inputs().iter().all(|slot| used.contains(slot));
            let columns = relation.columns.iter().map(|column| column.value.clone());
            added.extend(columns.filter(|value| needed(value) && !keys.contains(value)));
        }
    }
    keys.extend(added);
}

fn add_computed(binder: &mut Binder<'_>, level: usize, column: String, sql_type: &SqlType) -> SlotId {
    // The qualifier keeps slots of different queries apart; it is no part of the plan's name.
    let unique = binder.new_qualifier();
    binder.slots.add_column(ColumnSlot {
        level,
        qualifier: None,
        display: column.clone(),
        column: format!("{column}_{unique}"),
        sql_type: sql_type.clone(),
        nullable: true,
        origin: None,
    })
}

fn computed_name(binder: &Binder<'_>, slot: SlotId) -> Result<String> {
    binder
        .slots
        .column(slot)
        .map(|column| column.column.clone())
        .ok_or_else(|| SqlError::internal("a computed column has no name"))
}

/// `condition IS TRUE`
pub(crate) fn is_true(condition: &Expression) -> Expression {
    Expression::IsBoolean {
        argument: Box::new(condition.clone()),
        value: Some(true),
        negated: false,
    }
}

/// A projection must not name a column twice.
fn dedupe_columns(projection: &mut Vec<Expr>) {
    let mut kept: Vec<Expr> = Vec::with_capacity(projection.len());
    for value in projection.drain(..) {
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    *projection = kept;
}

/// SELECT DISTINCT and UNION: one row of each set of equal ones.
pub(crate) fn distinct(plan: LogicalPlan, columns: &[RelationColumn]) -> Result<LogicalPlan> {
    if !columns.iter().any(|column| prints_differently(&column.sql_type)) {
        return build(LogicalPlanBuilder::from(plan).distinct());
    }
    let (mut projection, mut groups, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (index, column) in columns.iter().enumerate() {
        let value = Relation::column(index);
        projection.push(value.clone());
        if prints_differently(&column.sql_type) {
            let key = format!("k{index}");
            projection.push(comparison_key(value.clone(), &column.sql_type).alias(key.clone()));
            groups.push(Expr::Column(Column::new_unqualified(key)));
            let sql_type = column.sql_type.clone();
            let any = aggregate_udf(
                AggregateFunction::AnyValue,
                vec![sql_type.clone()],
                sql_type,
                false,
            );
            calls.push(any.call(vec![value]).alias(format!("any{index}")));
        } else {
            groups.push(value);
        }
    }
    let outputs: Vec<Expr> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            if prints_differently(&column.sql_type) {
                Expr::Column(Column::new_unqualified(format!("any{index}"))).alias(output_name(index))
            } else {
                Relation::column(index)
            }
        })
        .collect();
    let builder = LogicalPlanBuilder::from(plan).project(projection);
    build(
        builder
            .and_then(|builder| builder.aggregate(groups, calls))
            .and_then(|builder| builder.project(outputs)),
    )
}
