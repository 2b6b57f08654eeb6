//! Statements run end to end over rows in memory: analysis, paths and queries, without a cluster. What PostgreSQL
//! answers to the same statements was recorded from version 15.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // nothing else runs beside a test

mod analysis;
mod catalogs;
mod database;
mod queries;

use database::{Answer, Database};

/// The script of a user's first session prints what PostgreSQL prints.
#[test]
fn quickstart_reads_as_postgresql_prints_it() {
    let mut database = Database::new();
    let mut printed = String::new();
    for statement in crate::parse(include_str!("quickstart.sql")).unwrap() {
        match database.run(&statement, &[]) {
            Ok(Answer::Rows { names, rows, types }) => {
                printed += &(names.join("|") + "\n");
                for row in &rows {
                    printed += &(database::print_row(row, &types) + "\n");
                }
                printed += &format!("({} row{})\n", rows.len(), if rows.len() == 1 { "" } else { "s" });
            }
            Ok(Answer::Tag(tag)) => printed += &(tag + "\n"),
            Err(error) => printed += &format!("ERROR:  {}\n", error.message),
        }
    }
    let expected = include_str!("quickstart.expected");
    for (number, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(printed, expected, "line {}", number + 1);
    }
    assert_eq!(printed.lines().count(), expected.lines().count());
}

/// A hundred and more statements answer as PostgreSQL answered them, errors included.
#[test]
fn recorded_answers_are_given_again() {
    let mut parts = include_str!("recorded.txt").split("@@ ");
    let mut database = Database::new();
    database.script(parts.next().unwrap());
    let mut failures = Vec::new();
    for part in parts {
        let (sql, expected) = part.split_once('\n').unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        let answer = match database.query_with(sql, &[]) {
            Ok(rows) => rows,
            Err(error) => vec![format!("ERROR {error}")],
        };
        if answer != expected {
            failures.push(format!("{sql}\n  expected {expected:?}\n  got      {answer:?}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
