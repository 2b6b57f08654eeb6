//! Compares types, values and errors with what PostgreSQL 15 answered (`record.py` asked it).
#![allow(clippy::unwrap_used)]

mod binder;

use neorunbase_expression::{EvaluationContext, Expression, coerce};
use neorunbase_types::{CastContext, SqlError, SqlType};

fn describe_error(error: &SqlError) -> String {
    let hint = error
        .hint
        .as_ref()
        .map(|hint| format!(" | {hint}"))
        .unwrap_or_default();
    format!("!{} {}{hint}", error.state.0, error.message)
}

fn answer(expression: Expression) -> String {
    let expression = if expression.sql_type() == SqlType::Unknown {
        coerce(expression, &SqlType::Text, CastContext::Implicit).unwrap()
    } else {
        expression
    };
    let sql_type = expression.sql_type();
    match expression.evaluate(&EvaluationContext::EMPTY) {
        Ok(value) if value.is_null() => format!("{} NULL", sql_type.base_name()),
        Ok(value) => format!("{}={}", sql_type.base_name(), value.to_text(&sql_type)).replace('\n', "\\n"),
        Err(error) => describe_error(&error),
    }
}

/// Answers, with a note if folding constants changes any.
fn answer_both_ways(text: &str) -> Option<String> {
    Some(match binder::bind(text)? {
        Err(error) => describe_error(&error),
        Ok(expression) => {
            let plain = answer(expression.clone());
            let folded = answer(expression.fold_constants());
            if plain == folded {
                plain
            } else {
                format!("{plain} but folded {folded}")
            }
        }
    })
}

fn check(table: &str) {
    let mut failures = Vec::new();
    let mut checked = 0;
    for line in table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (text, expected) = line.split_once('\t').unwrap();
        let Some(actual) = answer_both_ways(text) else {
            failures.push(format!("{text}\n    was not parsed"));
            continue;
        };
        checked += 1;
        if actual != expected {
            failures.push(format!("{text}\n    expected {expected}\n    got      {actual}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {checked} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn input_functions() {
    check(include_str!("postgresql15/input.tsv"));
}

#[test]
fn casts() {
    check(include_str!("postgresql15/casts.tsv"));
}

#[test]
fn operators() {
    check(include_str!("postgresql15/operators.tsv"));
}

#[test]
fn constructs() {
    check(include_str!("postgresql15/constructs.tsv"));
}

#[test]
fn functions() {
    check(include_str!("postgresql15/functions.tsv"));
}
