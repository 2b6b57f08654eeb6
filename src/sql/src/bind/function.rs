//! Function calls.

use neorunbase_expression::{Expression, coerce, resolve_function};
use neorunbase_types::{CastContext, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::{
    self, DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
};

use super::Binder;
use super::names::{display_name, split_name};
use super::slots::{AggregateCall, Slot, SortKey};
use crate::query::aggregates::AggregateFunction;

/// The arguments of a call.
pub(crate) struct CallArguments {
    pub(crate) values: Vec<Expr>,
    /// `count(*)`
    pub(crate) star: bool,
    pub(crate) distinct: bool,
    pub(crate) order_by: Vec<ast::OrderByExpr>,
}

impl Binder<'_> {
    pub(crate) fn bind_function(&mut self, function: &ast::Function) -> Result<Expression> {
        let (schema, name) = split_name(&function.name)?;
        let span = super::names::parts(&function.name)?
            .first()
            .map(|ident| ident.span);
        let bound = if schema.as_deref().is_none_or(|schema| schema == "pg_catalog") {
            self.bind_known_function(function, &name)
        } else {
            let shown = display_name(&function.name);
            Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {shown} does not exist"),
            ))
        };
        bound.map_err(|error| match error.state {
            SqlState::UNDEFINED_FUNCTION | SqlState::GROUPING_ERROR | SqlState("42P20") => {
                self.at(error, span)
            }
            _ => error,
        })
    }

    fn bind_known_function(&mut self, function: &ast::Function, name: &str) -> Result<Expression> {
        let arguments = call_arguments(function)?;
        if let Some(over) = &function.over {
            return self.bind_window_function(name, &arguments, function.filter.as_deref(), over);
        }
        if let Some(aggregate) = AggregateFunction::from_name(name) {
            return self.bind_aggregate(aggregate, name, &arguments, function.filter.as_deref());
        }
        if crate::query::windows::is_window_function(name) {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("window function {name} requires an OVER clause"),
            ));
        }
        let not_an_aggregate = if arguments.distinct {
            Some("DISTINCT")
        } else if !arguments.order_by.is_empty() {
            Some("ORDER BY")
        } else if function.filter.is_some() {
            Some("FILTER")
        } else {
            None
        };
        if let Some(word) = not_an_aggregate {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("{word} specified, but {name} is not an aggregate function"),
            ));
        }
        if arguments.star {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("{name}(*) specified, but {name} is not an aggregate function"),
            ));
        }
        if let Some(answer) = self.bind_session_function(name, &arguments.values)? {
            return Ok(answer);
        }
        const KNOWN_MISSING: &[&str] = &[
            "array_agg",
            "grouping",
            "json_agg",
            "jsonb_agg",
            "json_object_agg",
            "json_build_object",
            "to_json",
            "to_jsonb",
            "row_to_json",
            "unnest",
            "generate_series",
            "stddev",
            "stddev_pop",
            "stddev_samp",
            "variance",
            "var_pop",
            "var_samp",
            "corr",
            "bit_and",
            "bit_or",
            "random",
            "gen_random_uuid",
            "nextval",
            "currval",
            "setval",
            "lastval",
            "regexp_matches",
            "regexp_split_to_table",
            "string_to_array",
            "pg_sleep",
            "pg_advisory_lock",
            "pg_terminate_backend",
            "pg_cancel_backend",
            "clock_timestamp",
            "timeofday",
        ];
        if KNOWN_MISSING.contains(&name) {
            return Err(SqlError::unsupported(format_args!("function {name}")));
        }
        if let Some(answer) = self.bind_catalog_function(name, &arguments.values)? {
            return Ok(answer);
        }
        let values = arguments
            .values
            .iter()
            .map(|value| self.bind_expression(value))
            .collect::<Result<_>>()?;
        resolve_function(name, values)
    }

    fn bind_aggregate(
        &mut self,
        aggregate: AggregateFunction,
        name: &str,
        arguments: &CallArguments,
        filter: Option<&Expr>,
    ) -> Result<Expression> {
        if let Some(place) = self.forbidden_in {
            return Err(SqlError::new(
                SqlState::GROUPING_ERROR,
                format!("aggregate functions are not allowed in {place}"),
            ));
        }
        let call = self.without_aggregates_nested(|binder| {
            binder.bind_aggregate_call(aggregate, name, arguments, filter)
        })?;
        let sql_type = call.sql_type.clone();
        let slot = self.slots.add(Slot::Aggregate(call));
        Ok(Expression::input(slot, sql_type))
    }

    /// Aggregates do not nest; PostgreSQL has words of its own for that.
    fn without_aggregates_nested<T>(&mut self, bind: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let bound = self.without_aggregates("an aggregate's arguments", bind);
        bound.map_err(|mut error| {
            if error.message == "aggregate functions are not allowed in an aggregate's arguments" {
                "aggregate function calls cannot be nested".clone_into(&mut error.message);
            }
            error
        })
    }

    /// Binds the parts of an aggregate call; also of one that is used as a window function.
    pub(crate) fn bind_aggregate_call(
        &mut self,
        aggregate: AggregateFunction,
        name: &str,
        arguments: &CallArguments,
        filter: Option<&Expr>,
    ) -> Result<AggregateCall> {
        let mut values = arguments
            .values
            .iter()
            .map(|value| self.bind_expression(value))
            .collect::<Result<Vec<_>>>()?;
        let types: Vec<SqlType> = values.iter().map(Expression::sql_type).collect();
        let undefined = || {
            let shown: Vec<&str> = types.iter().map(SqlType::base_name).collect();
            SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}({}) does not exist", shown.join(", ")))
                .with_hint(
                    "No function matches the given name and argument types. You might need to add explicit type casts.",
                )
        };
        if aggregate == AggregateFunction::Count && values.is_empty() && !arguments.star {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                "count(*) must be used to call a parameterless aggregate function",
            ));
        }
        if arguments.star && aggregate != AggregateFunction::Count {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name}() does not exist"),
            ));
        }
        let (sql_type, wanted) = aggregate.resolve(&types).ok_or_else(undefined)?;
        values = values
            .into_iter()
            .zip(&wanted)
            .map(|(value, wanted)| coerce(value, wanted, CastContext::Implicit))
            .collect::<Result<_>>()?;
        for value in &values {
            self.learn_parameters(value)?;
        }
        let filter = filter
            .map(|filter| self.bind_condition(filter, "FILTER"))
            .transpose()?;
        let order_by = self.bind_sort_keys(&arguments.order_by)?;
        if arguments.distinct && order_by.iter().any(|key| !values.contains(&key.value)) {
            return Err(SqlError::new(
                SqlState("42P10"),
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
            ));
        }
        Ok(AggregateCall {
            level: self.scopes.len().saturating_sub(1),
            function: aggregate,
            arguments: values,
            distinct: arguments.distinct,
            filter,
            order_by,
            sql_type,
        })
    }

    /// Binds the keys of an ORDER BY inside a call or window: expressions only.
    pub(crate) fn bind_sort_keys(&mut self, keys: &[ast::OrderByExpr]) -> Result<Vec<SortKey>> {
        keys.iter()
            .map(|key| {
                let value = self.bind_expression(&key.expr)?;
                let value = coerce_unknown_to_text(value)?;
                Ok(sort_key(value, key))
            })
            .collect()
    }
}

/// NULLs come last ascending, first descending, unless told otherwise.
pub(crate) fn sort_key(value: Expression, key: &ast::OrderByExpr) -> SortKey {
    let descending = key.options.asc == Some(false);
    SortKey {
        value,
        descending,
        nulls_first: key.options.nulls_first.unwrap_or(descending),
    }
}

/// An untyped literal that nothing else decides is text.
pub(crate) fn coerce_unknown_to_text(value: Expression) -> Result<Expression> {
    if value.sql_type() == SqlType::Unknown {
        coerce(value, &SqlType::Text, CastContext::Implicit)
    } else {
        Ok(value)
    }
}

pub(crate) fn call_arguments(function: &ast::Function) -> Result<CallArguments> {
    let mut arguments = CallArguments {
        values: Vec::new(),
        star: false,
        distinct: false,
        order_by: Vec::new(),
    };
    if !function.within_group.is_empty() {
        return Err(SqlError::unsupported("WITHIN GROUP"));
    }
    if function.null_treatment.is_some() {
        return Err(SqlError::unsupported("IGNORE NULLS and RESPECT NULLS"));
    }
    let list = match &function.args {
        FunctionArguments::None => return Ok(arguments),
        FunctionArguments::Subquery(_) => {
            return Err(SqlError::unsupported(
                "a subquery without parentheses as an argument",
            ));
        }
        FunctionArguments::List(list) => list,
    };
    arguments.distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => arguments.values.push(value.clone()),
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => arguments.star = true,
            FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_)) => {
                return Err(SqlError::unsupported("a whole row as an argument"));
            }
            FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                return Err(SqlError::unsupported("named arguments"));
            }
        }
    }
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::OrderBy(keys) => arguments.order_by.clone_from(keys),
            other => return Err(SqlError::unsupported(format_args!("{other} in a function call"))),
        }
    }
    Ok(arguments)
}
