//! Which rows a statement has to visit, read off its filter: equalities with values that are known before the
//! statement runs.

use std::collections::BTreeMap;

use bigdecimal::ToPrimitive;
use neorunbase_catalog::Table;
use neorunbase_expression::{ColumnId, Expression, Function};
use neorunbase_types::{Datum, SqlType};

use crate::access::AccessPath;

/// Most keys that are looked up one by one; longer lists scan.
const MAXIMUM_KEYS: usize = 4_096;

/// What an equality says of a column's value.
enum Value {
    /// It equals this (of the column's type).
    Known(Expression),
    /// No value of the column can be equal.
    Impossible,
}

/// Finds the path. `column_of` tells which column an input of the filter is.
pub(crate) fn detect(
    table: &Table,
    filter: Option<&Expression>,
    column_of: &dyn Fn(usize) -> Option<ColumnId>,
) -> AccessPath {
    let Some(filter) = filter else {
        return AccessPath::Full;
    };
    let mut known: BTreeMap<ColumnId, Vec<Expression>> = BTreeMap::new();
    for conjunct in filter.clone().into_conjuncts() {
        let Some((column, values)) = equality(table, &conjunct, column_of) else {
            continue;
        };
        // The first list that fits is as good as any: the filter stays in the program.
        let shorter = known
            .get(&column)
            .is_none_or(|before| before.len() > values.len());
        if shorter {
            known.insert(column, values);
        }
    }
    if known.values().any(Vec::is_empty) {
        return AccessPath::Keys(Vec::new());
    }
    let key_columns = table.key_columns();
    if let Some(keys) = all_keys(&key_columns, &known) {
        return AccessPath::Keys(keys);
    }
    let single = |column: &ColumnId| {
        known
            .get(column)
            .filter(|values| values.len() == 1)
            .map(|values| values[0].clone())
    };
    if let Some(shard_key) = table.shard_key.iter().map(single).collect::<Option<Vec<_>>>() {
        return AccessPath::ShardKey {
            shard_key,
            key_prefix: key_columns.iter().map_while(single).collect(),
        };
    }
    let best = table
        .indexes
        .iter()
        .enumerate()
        .map(|(index, definition)| {
            let prefix: Vec<Expression> = definition
                .columns
                .iter()
                .map_while(|(column, _)| single(column))
                .collect();
            (index, prefix)
        })
        .filter(|(_, prefix)| !prefix.is_empty())
        .max_by_key(|(index, prefix)| (prefix.len(), std::cmp::Reverse(*index)));
    match best {
        Some((index, prefix)) => AccessPath::Index { index, prefix },
        None => AccessPath::Full,
    }
}

/// Every combination of the values known for the key's columns.
fn all_keys(
    columns: &[ColumnId],
    known: &BTreeMap<ColumnId, Vec<Expression>>,
) -> Option<Vec<Vec<Expression>>> {
    let mut keys = vec![Vec::with_capacity(columns.len())];
    for column in columns {
        let values = known.get(column)?;
        if keys.len() * values.len() > MAXIMUM_KEYS {
            return None;
        }
        keys = keys
            .iter()
            .flat_map(|key: &Vec<Expression>| {
                values.iter().map(|value| {
                    let mut longer = key.clone();
                    longer.push(value.clone());
                    longer
                })
            })
            .collect();
    }
    Some(keys)
}

/// `column = value`, `column IN (values)`, or an OR of such for one column.
fn equality(
    table: &Table,
    condition: &Expression,
    column_of: &dyn Fn(usize) -> Option<ColumnId>,
) -> Option<(ColumnId, Vec<Expression>)> {
    let (column, candidates) = match condition {
        Expression::Call {
            function: Function::Equal,
            arguments,
            ..
        } => {
            let [left, right] = arguments.as_slice() else {
                return None;
            };
            match (column_side(left, column_of), column_side(right, column_of)) {
                (Some(column), _) if right.is_row_independent() => (column, vec![right]),
                (_, Some(column)) if left.is_row_independent() => (column, vec![left]),
                _ => return None,
            }
        }
        Expression::InList {
            argument,
            list,
            negated: false,
        } => {
            let column = column_side(argument, column_of)?;
            if !list.iter().all(Expression::is_row_independent) {
                return None;
            }
            (column, list.iter().collect())
        }
        Expression::Or(parts) => {
            let mut together: Option<(ColumnId, Vec<Expression>)> = None;
            for part in parts {
                let (column, values) = equality(table, part, column_of)?;
                match &mut together {
                    None => together = Some((column, values)),
                    Some((known, all)) if *known == column => {
                        for value in values {
                            if !all.contains(&value) {
                                all.push(value);
                            }
                        }
                    }
                    Some(_) => return None,
                }
            }
            return together;
        }
        _ => return None,
    };
    let wanted = table.key_column_type(column);
    let mut values = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match key_value(candidate, &wanted)? {
            Value::Known(value) if !values.contains(&value) => values.push(value),
            Value::Known(_) | Value::Impossible => {}
        }
    }
    Some((column, values))
}

/// The column, if this is one: as it is, or widened without loss to compare it.
fn column_side(side: &Expression, column_of: &dyn Fn(usize) -> Option<ColumnId>) -> Option<ColumnId> {
    match side {
        Expression::Input { index, .. } => column_of(*index),
        Expression::Cast {
            argument, from, to, ..
        } if is_integer(from) => match (&**argument, to) {
            (Expression::Input { index, .. }, SqlType::Numeric(None)) => column_of(*index),
            (Expression::Input { index, .. }, to) if is_integer(to) => column_of(*index),
            _ => None,
        },
        _ => None,
    }
}

fn is_integer(sql_type: &SqlType) -> bool {
    integer_range(sql_type).is_some()
}

fn integer_range(sql_type: &SqlType) -> Option<(i64, i64)> {
    Some(match sql_type {
        SqlType::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
        SqlType::Integer => (i64::from(i32::MIN), i64::from(i32::MAX)),
        SqlType::BigInt => (i64::MIN, i64::MAX),
        _ => return None,
    })
}

fn integer_of_type(value: i64, sql_type: &SqlType) -> Option<Datum> {
    match sql_type {
        SqlType::SmallInt => i16::try_from(value).ok().map(Datum::SmallInt),
        SqlType::Integer => i32::try_from(value).ok().map(Datum::Integer),
        SqlType::BigInt => Some(Datum::BigInt(value)),
        _ => None,
    }
}

/// The value as one of the column's type; `None` if that cannot be told without loss.
fn key_value(candidate: &Expression, wanted: &SqlType) -> Option<Value> {
    let found = candidate.sql_type();
    if let Expression::Literal {
        value: Datum::Null, ..
    } = candidate
    {
        // Nothing equals NULL.
        return Some(Value::Impossible);
    }
    if found.same_base(wanted) || (found.is_string() && wanted.is_string()) {
        return Some(Value::Known(candidate.clone()));
    }
    let (minimum, maximum) = integer_range(wanted)?;
    if let Expression::Literal { value, .. } = candidate {
        let whole = match value {
            Datum::SmallInt(value) => Some(i64::from(*value)),
            Datum::Integer(value) => Some(i64::from(*value)),
            Datum::BigInt(value) => Some(*value),
            Datum::Numeric(value) if value.is_integer() => value.to_i64(),
            Datum::Numeric(_) => None,
            _ => return None,
        };
        return Some(match whole.and_then(|whole| integer_of_type(whole, wanted)) {
            Some(value) => Value::Known(Expression::literal(value, wanted.clone())),
            None => Value::Impossible,
        });
    }
    if !is_integer(&found) {
        return None;
    }
    // A wider integer that is known only later: NULL, which no key equals, if it is out of range.
    let bound =
        |limit: i64| integer_of_type(limit, &found).map(|value| Expression::literal(value, found.clone()));
    let compare = |function, limit| Expression::Call {
        function,
        arguments: vec![candidate.clone(), limit],
        sql_type: SqlType::Boolean,
    };
    let in_range = Expression::And(vec![
        compare(Function::GreaterOrEqual, bound(minimum)?),
        compare(Function::LessOrEqual, bound(maximum)?),
    ]);
    let narrowed = Expression::Cast {
        argument: Box::new(candidate.clone()),
        from: found.clone(),
        to: wanted.clone(),
        explicit: true,
    };
    Some(Value::Known(Expression::Case {
        branches: vec![(in_range, narrowed)],
        otherwise: None,
        sql_type: wanted.clone(),
    }))
}
