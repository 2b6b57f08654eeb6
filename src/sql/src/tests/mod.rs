//! Statements run end to end over rows in memory: analysis, paths and queries, without a cluster. What PostgreSQL
//! answers to the same statements was recorded from version 15.
#![allow(clippy::unwrap_used)]

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
