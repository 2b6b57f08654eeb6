//! Window functions.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_window as udwf;
use datafusion::logical_expr::expr::{
    Sort, WindowFunction as WindowCallExpr, WindowFunctionDefinition, WindowFunctionParams,
};
use datafusion::logical_expr::{
    Cast, Expr, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits, lit,
};
use neorunbase_expression::{Expression, coerce, coerce_to_common_type};
use neorunbase_types::{CastContext, Datum, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, NamedWindowExpr, WindowType};

use super::aggregates::{AggregateFunction, aggregate_udf};
use super::errors::from_datafusion;
use super::lower::sort_value;
use super::relation::build;
use crate::bind::slots::{ColumnSlot, Slot, SortKey, WindowCall};
use crate::bind::{Binder, CallArguments, coerce_unknown_to_text};

/// The window functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowFunction {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile,
    Lag,
    Lead,
    FirstValue,
    LastValue,
    NthValue,
    /// An aggregate over the window.
    Aggregate(AggregateFunction),
}

impl WindowFunction {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "row_number" => Self::RowNumber,
            "rank" => Self::Rank,
            "dense_rank" => Self::DenseRank,
            "percent_rank" => Self::PercentRank,
            "cume_dist" => Self::CumeDist,
            "ntile" => Self::Ntile,
            "lag" => Self::Lag,
            "lead" => Self::Lead,
            "first_value" => Self::FirstValue,
            "last_value" => Self::LastValue,
            "nth_value" => Self::NthValue,
            _ => return AggregateFunction::from_name(name).map(Self::Aggregate),
        })
    }

    fn definition(self, arguments: &[Expression], result: &SqlType) -> WindowFunctionDefinition {
        let function = match self {
            Self::RowNumber => udwf::row_number::row_number_udwf(),
            Self::Rank => udwf::rank::rank_udwf(),
            Self::DenseRank => udwf::rank::dense_rank_udwf(),
            Self::PercentRank => udwf::rank::percent_rank_udwf(),
            Self::CumeDist => udwf::cume_dist::cume_dist_udwf(),
            Self::Ntile => udwf::ntile::ntile_udwf(),
            Self::Lag => udwf::lead_lag::lag_udwf(),
            Self::Lead => udwf::lead_lag::lead_udwf(),
            Self::FirstValue => udwf::nth_value::first_value_udwf(),
            Self::LastValue => udwf::nth_value::last_value_udwf(),
            Self::NthValue => udwf::nth_value::nth_value_udwf(),
            Self::Aggregate(function) => {
                let types = arguments.iter().map(Expression::sql_type).collect();
                return WindowFunctionDefinition::AggregateUDF(aggregate_udf(
                    function,
                    types,
                    result.clone(),
                    false,
                ));
            }
        };
        WindowFunctionDefinition::WindowUDF(function)
    }

    /// The type that DataFusion gives the result, where it is not the Arrow form of PostgreSQL's.
    fn needs_cast(self) -> Option<DataType> {
        match self {
            Self::RowNumber | Self::Rank | Self::DenseRank => Some(DataType::Int64),
            Self::Ntile => Some(DataType::Int32),
            _ => None,
        }
    }
}

/// Whether the function makes sense with OVER only.
pub(crate) fn is_window_function(name: &str) -> bool {
    matches!(WindowFunction::from_name(name), Some(function) if !matches!(function, WindowFunction::Aggregate(_)))
}

impl Binder<'_> {
    /// `name(arguments) OVER (…)`
    pub(crate) fn bind_window_function(
        &mut self,
        name: &str,
        arguments: &CallArguments,
        filter: Option<&ast::Expr>,
        over: &WindowType,
    ) -> Result<Expression> {
        if let Some(place) = self.forbidden_in {
            return Err(SqlError::new(
                SqlState("42P20"),
                format!("window functions are not allowed in {place}"),
            ));
        }
        let function = WindowFunction::from_name(name).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name} does not exist, or is neither a window function nor an aggregate function"),
            )
        })?;
        if arguments.distinct {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "DISTINCT is not implemented for window functions",
            ));
        }
        if !arguments.order_by.is_empty() {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "aggregate ORDER BY is not implemented for window functions",
            ));
        }
        let (values, filter, sql_type) = match function {
            WindowFunction::Aggregate(aggregate) => {
                let call = self.bind_aggregate_call(aggregate, name, arguments, filter)?;
                (call.arguments, call.filter, call.sql_type)
            }
            _ => {
                if filter.is_some() {
                    return Err(SqlError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "FILTER is not implemented for non-aggregate window functions",
                    ));
                }
                let values = arguments
                    .values
                    .iter()
                    .map(|value| self.bind_expression(value))
                    .collect::<Result<Vec<_>>>()?;
                let (values, sql_type) = self.window_arguments(function, name, values)?;
                (values, None, sql_type)
            }
        };
        let spec = self.window_specification(over)?;
        let partition_by = spec
            .partition_by
            .iter()
            .map(|key| coerce_unknown_to_text(self.bind_expression(key)?))
            .collect::<Result<Vec<_>>>()?;
        let order_by = self.bind_sort_keys(&spec.order_by)?;
        let frame = window_frame(spec.window_frame.as_ref(), &order_by)?;
        let call = WindowCall {
            level: self.scopes.len().saturating_sub(1),
            function,
            arguments: values,
            filter,
            partition_by,
            order_by,
            frame,
            sql_type: sql_type.clone(),
        };
        let slot = self.slots.add(Slot::Window(call));
        Ok(Expression::input(slot, sql_type))
    }

    fn window_arguments(
        &mut self,
        function: WindowFunction,
        name: &str,
        mut values: Vec<Expression>,
    ) -> Result<(Vec<Expression>, SqlType)> {
        use WindowFunction as W;
        let types: Vec<SqlType> = values.iter().map(Expression::sql_type).collect();
        let undefined = || {
            let shown: Vec<&str> = types.iter().map(SqlType::base_name).collect();
            SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name}({}) does not exist", shown.join(", ")),
            )
        };
        let integer = |value: Expression| coerce(value, &SqlType::Integer, CastContext::Implicit);
        let sql_type = match (function, values.len()) {
            (W::RowNumber | W::Rank | W::DenseRank, 0) => SqlType::BigInt,
            (W::PercentRank | W::CumeDist, 0) => SqlType::DoublePrecision,
            (W::Ntile, 1) => {
                values = values.into_iter().map(integer).collect::<Result<_>>()?;
                SqlType::Integer
            }
            (W::FirstValue | W::LastValue, 1) => coerce_unknown_to_text(values[0].clone())?.sql_type(),
            (W::NthValue, 2) | (W::Lag | W::Lead, 1..=3) => {
                let default = if values.len() == 3 { values.pop() } else { None };
                let offset = if values.len() == 2 {
                    values.pop().map(integer).transpose()?
                } else {
                    None
                };
                let mut sides: Vec<Expression> = values;
                sides.extend(default);
                let (sides, sql_type) = coerce_to_common_type(name, sides)?;
                let mut sides = sides.into_iter();
                values = sides.next().into_iter().collect();
                values.extend(offset);
                values.extend(sides);
                return Ok((values, sql_type));
            }
            _ => return Err(undefined()),
        };
        values = values
            .into_iter()
            .map(coerce_unknown_to_text)
            .collect::<Result<_>>()?;
        Ok((values, sql_type))
    }

    fn window_specification(&self, over: &WindowType) -> Result<ast::WindowSpec> {
        match over {
            WindowType::WindowSpec(spec) => match &spec.window_name {
                None => Ok(spec.clone()),
                Some(name) => {
                    let mut named = self.named_window(&name.value)?;
                    if !spec.partition_by.is_empty() {
                        return Err(SqlError::new(
                            SqlState("42P20"),
                            format!("cannot override PARTITION BY clause of window \"{}\"", name.value),
                        ));
                    }
                    if !spec.order_by.is_empty() {
                        named.order_by.clone_from(&spec.order_by);
                    }
                    named.window_frame.clone_from(&spec.window_frame);
                    Ok(named)
                }
            },
            WindowType::NamedWindow(name) => self.named_window(&name.value),
        }
    }

    fn named_window(&self, name: &str) -> Result<ast::WindowSpec> {
        let definitions = self.named_windows.last();
        let found = definitions.and_then(|all| all.iter().find(|definition| definition.0.value == name));
        match found.map(|definition| &definition.1) {
            Some(NamedWindowExpr::WindowSpec(spec)) if spec.window_name.is_none() => Ok(spec.clone()),
            Some(_) => Err(SqlError::unsupported(
                "a window that is defined by another window",
            )),
            None => Err(SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("window \"{name}\" does not exist"),
            )),
        }
    }

    /// Adds the window functions that `values` use, and makes the values refer to their results.
    pub(crate) fn plan_windows(
        &mut self,
        plan: LogicalPlan,
        values: &mut [&mut Expression],
        level: usize,
    ) -> Result<LogicalPlan> {
        let mut calls = Vec::new();
        for value in values.iter() {
            for slot in value.inputs() {
                if let Some(Slot::Window(call)) = self.slots.get(slot)
                    && !calls.iter().any(|(known, _)| *known == slot)
                {
                    calls.push((slot, call.clone()));
                }
            }
        }
        if calls.is_empty() {
            return Ok(plan);
        }
        let (mut windows, mut outputs, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, call) in calls {
            let window = self.lower_window(&call, level)?;
            let computed = Expr::Column(Column::new_unqualified(window.schema_name().to_string()));
            let computed = match call.function.needs_cast() {
                Some(data_type) => Expr::Cast(Cast::new(Box::new(computed), data_type)),
                None => computed,
            };
            let name = format!("w{slot}_{}", self.new_qualifier());
            outputs.push(computed.alias(name.clone()));
            if !windows.contains(&window) {
                windows.push(window);
            }
            let result = self.slots.add_column(ColumnSlot {
                level,
                qualifier: None,
                column: name.clone(),
                sql_type: call.sql_type.clone(),
                nullable: true,
                display: name,
                origin: None,
            });
            results.push((slot, result));
        }
        let mut projection: Vec<Expr> = plan
            .schema()
            .iter()
            .map(|field| Expr::Column(Column::from(field)))
            .collect();
        projection.extend(outputs);
        let plan = LogicalPlanBuilder::window_plan(plan, windows).map_err(from_datafusion)?;
        let plan = build(LogicalPlanBuilder::from(plan).project(projection))?;
        for value in values {
            let owned = std::mem::replace(*value, Expression::null(SqlType::Unknown));
            **value = owned.map_inputs(&mut |slot| {
                results
                    .iter()
                    .find(|(window, _)| *window == slot)
                    .map_or(slot, |(_, result)| *result)
            });
        }
        Ok(plan)
    }

    fn lower_window(&self, call: &WindowCall, level: usize) -> Result<Expr> {
        let mut args = Vec::with_capacity(call.arguments.len());
        for (index, argument) in call.arguments.iter().enumerate() {
            let constant = match (call.function, index) {
                (WindowFunction::Ntile, 0) => Some("ntile"),
                (WindowFunction::Lag | WindowFunction::Lead, 1..) => Some("lag and lead"),
                (WindowFunction::NthValue, 1) => Some("nth_value"),
                _ => None,
            };
            args.push(match (constant, argument) {
                (None, argument) => self.lower(argument, level)?,
                (
                    Some(_),
                    Expression::Literal {
                        value: Datum::Integer(value),
                        ..
                    },
                ) if index == 1 || call.arguments.len() == 1 => lit(i64::from(*value)),
                (Some(_), Expression::Literal { value, sql_type }) => {
                    Expr::Literal(super::arrow::scalar(value, sql_type)?, None)
                }
                (Some(name), _) => {
                    return Err(SqlError::unsupported(format_args!(
                        "an argument of {name} that is not a constant"
                    )));
                }
            });
        }
        if args.is_empty() && call.function == WindowFunction::Aggregate(AggregateFunction::Count) {
            args.push(lit(1_i64));
        }
        let params = WindowFunctionParams {
            args,
            partition_by: call
                .partition_by
                .iter()
                .map(|key| self.lower_key(key, level))
                .collect::<Result<_>>()?,
            order_by: call
                .order_by
                .iter()
                .map(|key| {
                    let value = sort_value(self.lower(&key.value, level)?, &key.value.sql_type());
                    Ok(value.sort(!key.descending, key.nulls_first))
                })
                .collect::<Result<_>>()?,
            window_frame: call.frame.clone(),
            filter: call
                .filter
                .as_ref()
                .map(|filter| self.lower(&super::grouping::is_true(filter), level).map(Box::new))
                .transpose()?,
            null_treatment: None,
            distinct: false,
        };
        let fun = call.function.definition(&call.arguments, &call.sql_type);
        Ok(Expr::WindowFunction(Box::new(WindowCallExpr { fun, params })))
    }
}

fn window_frame(frame: Option<&ast::WindowFrame>, order_by: &[SortKey]) -> Result<WindowFrame> {
    let Some(frame) = frame else {
        return Ok(up_to_current_row(!order_by.is_empty()));
    };
    let units = match frame.units {
        ast::WindowFrameUnits::Rows => WindowFrameUnits::Rows,
        ast::WindowFrameUnits::Range => WindowFrameUnits::Range,
        ast::WindowFrameUnits::Groups => WindowFrameUnits::Groups,
    };
    let offset = |value: Option<&ast::Expr>| -> Result<ScalarValue> {
        let Some(value) = value else {
            return Ok(ScalarValue::UInt64(None));
        };
        let number = match value {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => digits.parse::<u64>().ok(),
                _ => None,
            },
            _ => None,
        };
        match (number, units) {
            (Some(_), WindowFrameUnits::Range) => {
                Err(SqlError::unsupported("RANGE with an offset").with_hint("Use ROWS or GROUPS."))
            }
            (Some(number), _) => Ok(ScalarValue::UInt64(Some(number))),
            (None, _) => Err(SqlError::unsupported("a frame offset that is not a constant")),
        }
    };
    let bound = |bound: &ast::WindowFrameBound| {
        Ok::<_, Box<SqlError>>(match bound {
            ast::WindowFrameBound::CurrentRow => WindowFrameBound::CurrentRow,
            ast::WindowFrameBound::Preceding(value) => WindowFrameBound::Preceding(offset(value.as_deref())?),
            ast::WindowFrameBound::Following(value) => WindowFrameBound::Following(offset(value.as_deref())?),
        })
    };
    if units == WindowFrameUnits::Groups && order_by.is_empty() {
        return Err(SqlError::new(
            SqlState("42P20"),
            "GROUPS mode requires an ORDER BY clause",
        ));
    }
    let start = bound(&frame.start_bound)?;
    let end = match &frame.end_bound {
        Some(end) => bound(end)?,
        None => WindowFrameBound::CurrentRow,
    };
    if matches!(&start, WindowFrameBound::Following(value) if value.is_null()) {
        return Err(SqlError::new(
            SqlState("42P20"),
            "frame start cannot be UNBOUNDED FOLLOWING",
        ));
    }
    if matches!(&end, WindowFrameBound::Preceding(value) if value.is_null()) {
        return Err(SqlError::new(
            SqlState("42P20"),
            "frame end cannot be UNBOUNDED PRECEDING",
        ));
    }
    Ok(match units {
        // Without offsets a range is made of whole groups of peers; DataFusion compares ranges of few types only.
        WindowFrameUnits::Range if order_by.is_empty() => whole_partition(),
        WindowFrameUnits::Range => WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end),
        units => WindowFrame::new_bounds(units, start, end),
    })
}

/// The frame of a window that names none.
fn up_to_current_row(ordered: bool) -> WindowFrame {
    if ordered {
        let start = WindowFrameBound::Preceding(ScalarValue::UInt64(None));
        WindowFrame::new_bounds(WindowFrameUnits::Groups, start, WindowFrameBound::CurrentRow)
    } else {
        whole_partition()
    }
}

fn whole_partition() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Following(ScalarValue::UInt64(None)),
    )
}

/// Adds a column with the number of each row among those with equal keys.
pub(crate) fn numbered(
    plan: LogicalPlan,
    keys: Vec<Expr>,
    order: Vec<Sort>,
    name: &str,
) -> Result<LogicalPlan> {
    let mut projection: Vec<Expr> = plan
        .schema()
        .iter()
        .map(|field| Expr::Column(Column::from(field)))
        .collect();
    let window = Expr::WindowFunction(Box::new(WindowCallExpr {
        fun: WindowFunctionDefinition::WindowUDF(udwf::row_number::row_number_udwf()),
        params: WindowFunctionParams {
            args: Vec::new(),
            partition_by: keys,
            window_frame: up_to_current_row(!order.is_empty()),
            order_by: order,
            filter: None,
            null_treatment: None,
            distinct: false,
        },
    }));
    let number = Expr::Column(Column::new_unqualified(window.schema_name().to_string()));
    projection.push(number.alias(name));
    let plan = LogicalPlanBuilder::window_plan(plan, vec![window]).map_err(from_datafusion)?;
    build(LogicalPlanBuilder::from(plan).project(projection))
}

/// DISTINCT ON: the first row of each set with equal keys.
pub(crate) fn first_of_each(plan: LogicalPlan, keys: Vec<Expr>, order: Vec<Sort>) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .map(|field| Expr::Column(Column::from(field)))
        .collect();
    let plan = numbered(plan, keys, order, "number")?;
    let first = Expr::Column(Column::new_unqualified("number")).eq(lit(1_u64));
    build(
        LogicalPlanBuilder::from(plan)
            .filter(first)
            .and_then(|builder| builder.project(columns)),
    )
}
