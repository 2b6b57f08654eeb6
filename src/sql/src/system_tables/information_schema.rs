//! Rows of `information_schema`.

use neorunbase_types::{Datum, SqlType};

use super::pg_catalog::{all_indexes, text};
use crate::bind::AnalysisContext;

const NULL: Datum = Datum::Null;

pub(super) fn rows(context: &AnalysisContext, name: &str) -> Vec<Vec<Datum>> {
    let database = || text(&context.database);
    match name {
        "tables" => context
            .catalog
            .tables
            .values()
            .map(|table| {
                let mut row = vec![
                    database(),
                    text(&table.schema),
                    text(&table.name),
                    text("BASE TABLE"),
                ];
                row.extend([NULL, NULL, NULL, NULL, NULL, text("YES"), text("NO"), NULL]);
                row
            })
            .collect(),
        "columns" => columns(context),
        "schemata" => {
            let system = ["pg_catalog", "information_schema"].into_iter();
            let all = system.chain(context.catalog.schemas.iter().map(String::as_str));
            let owner = context.catalog.users.keys().next().map_or("", String::as_str);
            all.map(|schema| vec![database(), text(schema), text(owner)])
                .collect()
        }
        "table_constraints" => all_indexes(context)
            .filter(|index| index.primary)
            .map(|index| {
                vec![
                    database(),
                    text(&index.table.schema),
                    text(index.name),
                    database(),
                    text(&index.table.schema),
                    text(&index.table.name),
                    text("PRIMARY KEY"),
                    text("NO"),
                    text("NO"),
                    text("YES"),
                ]
            })
            .collect(),
        "key_column_usage" => {
            let mut rows = Vec::new();
            for index in all_indexes(context).filter(|index| index.primary) {
                for (number, (column, _)) in index.columns.iter().enumerate() {
                    let name = index
                        .table
                        .column_by_id(*column)
                        .map_or("", |column| column.name.as_str());
                    rows.push(vec![
                        database(),
                        text(&index.table.schema),
                        text(index.name),
                        database(),
                        text(&index.table.schema),
                        text(&index.table.name),
                        text(name),
                        Datum::Integer(number as i32 + 1),
                        NULL,
                    ]);
                }
            }
            rows
        }
        _ => Vec::new(),
    }
}

fn columns(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables.values() {
        for (position, column) in table.columns.iter().enumerate() {
            let number = |value: i32| Datum::Integer(value);
            let length = match column.sql_type {
                SqlType::VarChar(Some(length)) | SqlType::Char(length @ 1..) => number(length as i32),
                _ => NULL,
            };
            let (precision, radix, scale) = match &column.sql_type {
                SqlType::SmallInt => (number(16), number(2), number(0)),
                SqlType::Integer => (number(32), number(2), number(0)),
                SqlType::BigInt => (number(64), number(2), number(0)),
                SqlType::Real => (number(24), number(2), NULL),
                SqlType::DoublePrecision => (number(53), number(2), NULL),
                SqlType::Numeric(Some((precision, scale))) => (
                    number(i32::from(*precision)),
                    number(10),
                    number(i32::from(*scale)),
                ),
                SqlType::Numeric(None) => (NULL, number(10), NULL),
                _ => (NULL, NULL, NULL),
            };
            let datetime = match column.sql_type {
                SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz | SqlType::Interval => number(6),
                SqlType::Date => number(0),
                _ => NULL,
            };
            let octets = match column.sql_type {
                SqlType::VarChar(Some(length)) | SqlType::Char(length @ 1..) => {
                    number((length as i32).saturating_mul(4))
                }
                SqlType::Text | SqlType::VarChar(None) => number(1_073_741_824),
                _ => NULL,
            };
            rows.push(vec![
                text(&context.database),
                text(&table.schema),
                text(&table.name),
                text(&column.name),
                number(position as i32 + 1),
                column.default_text.as_deref().map_or(NULL, text),
                text(if column.not_null { "NO" } else { "YES" }),
                text(column.sql_type.base_name()),
                length,
                octets,
                precision,
                radix,
                scale,
                datetime,
                text(&context.database),
                text("pg_catalog"),
                text(column.sql_type.type_name()),
                text("NO"),
                text("NEVER"),
                text("YES"),
            ]);
        }
    }
    rows
}
