//! Rows of `pg_catalog`.

use neorunbase_catalog::{Index, Table};
use neorunbase_types::sql_type::TypeCategory;
use neorunbase_types::{Datum, SqlType};

use super::definitions::ALL;
use super::{FIRST_USER, INFORMATION_SCHEMA, PG_CATALOG, primary_key_oid, schema_oid, user_oid};
use crate::bind::AnalysisContext;

/// Oid of the access method of tables.
const HEAP: u32 = 2;
/// Oid of the access method of indexes.
const BTREE: u32 = 403;

pub(super) fn text(value: &str) -> Datum {
    Datum::text(value)
}

fn oid(value: u32) -> Datum {
    Datum::Oid(value)
}

fn flag(value: bool) -> Datum {
    Datum::Boolean(value)
}

fn count(value: usize) -> Datum {
    Datum::SmallInt(i16::try_from(value).unwrap_or(i16::MAX))
}

const NULL: Datum = Datum::Null;

/// The rows of a table; those that have none are not mentioned here.
pub(super) fn rows(context: &AnalysisContext, name: &str) -> Vec<Vec<Datum>> {
    match name {
        "pg_class" => classes(context),
        "pg_namespace" => namespaces(context),
        "pg_attribute" => attributes(context),
        "pg_type" => types(),
        "pg_index" => all_indexes(context).map(|index| index_row(&index)).collect(),
        "pg_constraint" => all_indexes(context)
            .filter(|index| index.primary)
            .map(|index| constraint(context, &index))
            .collect(),
        "pg_attrdef" => defaults(context),
        "pg_am" => vec![
            vec![oid(HEAP), text("heap"), text("heap_tableam_handler"), text("t")],
            vec![oid(BTREE), text("btree"), text("bthandler"), text("i")],
        ],
        "pg_database" => vec![database(context)],
        "pg_roles" => roles(context),
        "pg_user" => users(context),
        "pg_tables" => tables(context),
        "pg_indexes" => all_indexes(context)
            .map(|index| {
                vec![
                    text(&index.table.schema),
                    text(&index.table.name),
                    text(index.name),
                    NULL,
                    text(&index.definition()),
                ]
            })
            .collect(),
        "pg_settings" => context
            .settings
            .iter()
            .map(|(name, value)| vec![text(name), text(value), NULL, NULL, NULL, text("session")])
            .collect(),
        _ => Vec::new(),
    }
}

/// An index, the primary key's included.
pub(super) struct AnyIndex<'a> {
    pub(super) table: &'a Table,
    pub(super) oid: u32,
    pub(super) name: &'a str,
    pub(super) columns: Vec<(u32, bool)>,
    pub(super) unique: bool,
    pub(super) primary: bool,
}

impl AnyIndex<'_> {
    fn column_list(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|(id, descending)| {
                let name = self
                    .table
                    .column_by_id(*id)
                    .map_or("?", |column| column.name.as_str());
                if *descending {
                    format!("{name} DESC")
                } else {
                    name.to_owned()
                }
            })
            .collect();
        names.join(", ")
    }

    /// As `pg_get_indexdef` prints it.
    pub(super) fn definition(&self) -> String {
        format!(
            "CREATE {}INDEX {} ON {}.{} USING btree ({})",
            if self.unique { "UNIQUE " } else { "" },
            self.name,
            self.table.schema,
            self.table.name,
            self.column_list()
        )
    }

    /// As `pg_get_constraintdef` prints it.
    pub(super) fn constraint_definition(&self) -> String {
        format!("PRIMARY KEY ({})", self.column_list())
    }

    /// Oid of the constraint of a primary key.
    pub(super) fn constraint_oid(&self) -> u32 {
        self.oid | 0x4000_0000
    }
}

pub(super) fn all_indexes(context: &AnalysisContext) -> impl Iterator<Item = AnyIndex<'_>> {
    context.catalog.tables.values().flat_map(|table| {
        let primary = table.primary_key.iter().map(|key| AnyIndex {
            table,
            oid: primary_key_oid(table.id),
            name: &key.name,
            columns: key.columns.iter().map(|column| (*column, false)).collect(),
            unique: true,
            primary: true,
        });
        let others = table.indexes.iter().map(|index: &Index| AnyIndex {
            table,
            oid: index.id,
            name: &index.name,
            columns: index.columns.clone(),
            unique: index.unique,
            primary: false,
        });
        primary.chain(others)
    })
}

/// What differs between the rows of `pg_class`.
struct Class<'a> {
    oid: u32,
    name: &'a str,
    schema: u32,
    owner: u32,
    access_method: u32,
    has_index: bool,
    kind: &'a str,
    columns: usize,
}

fn classes(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for definition in ALL {
        let schema = if definition.schema == "pg_catalog" {
            PG_CATALOG
        } else {
            INFORMATION_SCHEMA
        };
        rows.push(class(&Class {
            oid: definition.oid,
            name: definition.name,
            schema,
            owner: FIRST_USER,
            access_method: HEAP,
            has_index: false,
            kind: if schema == PG_CATALOG { "r" } else { "v" },
            columns: definition.columns().len(),
        }));
    }
    for table in context.catalog.tables.values() {
        rows.push(class(&Class {
            oid: table.id,
            name: &table.name,
            schema: schema_oid(context, &table.schema),
            owner: user_oid(context, &table.owner),
            access_method: HEAP,
            has_index: table.primary_key.is_some() || !table.indexes.is_empty(),
            kind: "r",
            columns: table.columns.len(),
        }));
    }
    for index in all_indexes(context) {
        rows.push(class(&Class {
            oid: index.oid,
            name: index.name,
            schema: schema_oid(context, &index.table.schema),
            owner: user_oid(context, &index.table.owner),
            access_method: BTREE,
            has_index: false,
            kind: "i",
            columns: index.columns.len(),
        }));
    }
    rows
}

fn class(class: &Class<'_>) -> Vec<Datum> {
    vec![
        oid(class.oid),
        text(class.name),
        oid(class.schema),
        oid(0),
        oid(0),
        oid(class.owner),
        oid(class.access_method),
        oid(class.oid),
        oid(0),
        Datum::Integer(0),
        Datum::Real(-1.0),
        Datum::Integer(0),
        oid(0),
        flag(class.has_index),
        flag(false),
        text("p"),
        text(class.kind),
        count(class.columns),
        count(0),
        flag(false),
        flag(false),
        flag(false),
        flag(false),
        flag(false),
        flag(true),
        text(if class.kind == "r" { "d" } else { "n" }),
        flag(false),
        oid(0),
        NULL,
        NULL,
        NULL,
    ]
}

fn namespaces(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let row = |id: u32, name: &str| vec![oid(id), text(name), oid(FIRST_USER), NULL];
    let mut rows = vec![
        row(PG_CATALOG, "pg_catalog"),
        row(INFORMATION_SCHEMA, "information_schema"),
    ];
    rows.extend(
        context
            .catalog
            .schemas
            .iter()
            .map(|schema| row(schema_oid(context, schema), schema)),
    );
    rows
}

fn attributes(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables.values() {
        for column in &table.columns {
            rows.push(attribute(
                table.id,
                &column.name,
                column.id,
                &column.sql_type,
                column.not_null,
                column.default.is_some(),
            ));
        }
    }
    for index in all_indexes(context) {
        for (number, (id, _)) in index.columns.iter().enumerate() {
            if let Some(column) = index.table.column_by_id(*id) {
                rows.push(attribute(
                    index.oid,
                    &column.name,
                    number as u32 + 1,
                    &column.sql_type,
                    false,
                    false,
                ));
            }
        }
    }
    rows
}

fn attribute(
    relation: u32,
    name: &str,
    number: u32,
    sql_type: &SqlType,
    not_null: bool,
    default: bool,
) -> Vec<Datum> {
    let variable = sql_type.type_length() < 0;
    vec![
        oid(relation),
        text(name),
        oid(sql_type.oid()),
        Datum::Integer(-1),
        Datum::SmallInt(sql_type.type_length()),
        Datum::SmallInt(i16::try_from(number).unwrap_or(i16::MAX)),
        Datum::Integer(0),
        Datum::Integer(-1),
        Datum::Integer(sql_type.type_modifier()),
        flag(!variable),
        text("i"),
        text(if variable { "x" } else { "p" }),
        text(""),
        flag(not_null),
        flag(default),
        flag(false),
        text(""),
        text(""),
        flag(false),
        flag(true),
        Datum::Integer(0),
        oid(0),
        NULL,
        NULL,
        NULL,
        NULL,
    ]
}

/// Every type that a column may have.
pub(super) fn all_types() -> Vec<SqlType> {
    const OIDS: [u32; 20] = [
        16, 17, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1700, 2950,
    ];
    OIDS.iter().filter_map(|oid| SqlType::from_oid(*oid)).collect()
}

fn types() -> Vec<Vec<Datum>> {
    all_types()
        .into_iter()
        .map(|sql_type| {
            let name = sql_type.type_name();
            let category = match sql_type.category() {
                TypeCategory::Boolean => "B",
                TypeCategory::Numeric => "N",
                TypeCategory::String => "S",
                TypeCategory::DateTime => "D",
                TypeCategory::Timespan => "T",
                TypeCategory::UserDefined => "U",
                TypeCategory::Unknown => "X",
            };
            let variable = sql_type.type_length() < 0;
            vec![
                oid(sql_type.oid()),
                text(name),
                oid(PG_CATALOG),
                oid(FIRST_USER),
                Datum::SmallInt(sql_type.type_length()),
                flag(!variable),
                text(if sql_type == SqlType::Unknown { "p" } else { "b" }),
                text(category),
                flag(sql_type.is_preferred()),
                flag(true),
                text(","),
                oid(0),
                text("-"),
                oid(0),
                oid(0),
                text(&format!("{name}in")),
                text(&format!("{name}out")),
                text(&format!("{name}recv")),
                text(&format!("{name}send")),
                text("-"),
                text("-"),
                text("-"),
                text("i"),
                text(if variable { "x" } else { "p" }),
                flag(false),
                oid(0),
                Datum::Integer(-1),
                Datum::Integer(0),
                oid(0),
                NULL,
                NULL,
                NULL,
            ]
        })
        .collect()
}

fn index_row(index: &AnyIndex<'_>) -> Vec<Datum> {
    let each = |value: &dyn Fn(&(u32, bool)) -> String| {
        text(&index.columns.iter().map(value).collect::<Vec<_>>().join(" "))
    };
    vec![
        oid(index.oid),
        oid(index.table.id),
        count(index.columns.len()),
        count(index.columns.len()),
        flag(index.unique),
        flag(false),
        flag(index.primary),
        flag(false),
        flag(true),
        flag(false),
        flag(true),
        flag(false),
        flag(true),
        flag(true),
        flag(false),
        each(&|(column, _)| column.to_string()),
        each(&|_| "0".to_owned()),
        each(&|_| "0".to_owned()),
        each(&|(_, descending)| if *descending { "3" } else { "0" }.to_owned()),
        NULL,
        NULL,
    ]
}

fn constraint(context: &AnalysisContext, index: &AnyIndex<'_>) -> Vec<Datum> {
    let key: Vec<String> = index
        .columns
        .iter()
        .map(|(column, _)| column.to_string())
        .collect();
    vec![
        oid(index.constraint_oid()),
        text(index.name),
        oid(schema_oid(context, &index.table.schema)),
        text("p"),
        flag(false),
        flag(false),
        flag(true),
        oid(index.table.id),
        oid(0),
        oid(index.oid),
        oid(0),
        oid(0),
        text(" "),
        text(" "),
        text(" "),
        flag(true),
        Datum::Integer(0),
        flag(true),
        text(&format!("{{{}}}", key.join(","))),
        NULL,
        NULL,
    ]
}

fn defaults(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables.values() {
        for column in &table.columns {
            if let Some(default) = &column.default_text {
                rows.push(vec![
                    oid((table.id << 11) | column.id),
                    oid(table.id),
                    Datum::SmallInt(i16::try_from(column.id).unwrap_or(i16::MAX)),
                    text(default),
                ]);
            }
        }
    }
    rows
}

fn database(context: &AnalysisContext) -> Vec<Datum> {
    vec![
        oid(5),
        text(&context.database),
        oid(FIRST_USER),
        Datum::Integer(6),
        text("c"),
        flag(false),
        flag(true),
        Datum::Integer(-1),
        Datum::BigInt(0),
        Datum::BigInt(0),
        oid(1663),
        text("C.UTF-8"),
        text("C.UTF-8"),
        NULL,
        NULL,
        NULL,
    ]
}

fn roles(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let row = |user: &neorunbase_catalog::schema::User| {
        vec![
            text(&user.name),
            flag(user.superuser),
            flag(true),
            flag(user.superuser),
            flag(user.superuser),
            flag(true),
            flag(false),
            Datum::Integer(-1),
            text("********"),
            NULL,
            flag(user.superuser),
            NULL,
            oid(user_oid(context, &user.name)),
        ]
    };
    context.catalog.users.values().map(row).collect()
}

fn users(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let row = |user: &neorunbase_catalog::schema::User| {
        vec![
            text(&user.name),
            oid(user_oid(context, &user.name)),
            flag(user.superuser),
            flag(user.superuser),
            flag(false),
            flag(user.superuser),
            text("********"),
            NULL,
            NULL,
        ]
    };
    context.catalog.users.values().map(row).collect()
}

fn tables(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let row = |table: &std::sync::Arc<Table>| {
        vec![
            text(&table.schema),
            text(&table.name),
            text(&table.owner),
            NULL,
            flag(table.primary_key.is_some() || !table.indexes.is_empty()),
            flag(false),
            flag(false),
            flag(false),
        ]
    };
    context.catalog.tables.values().map(row).collect()
}
