//! What statements mean: plans, paths, types and errors.

use neorunbase_types::SqlType;

use super::database::Database;
use crate::access::AccessPath;
use crate::plan::{Definition, InsertSource, Plan};

fn accounts() -> Database {
    let mut database = Database::new();
    database.script(
        "create table accounts (aid int primary key, bid int not null, abalance int, filler char(84));
         create table wide (a bigint, b text, c numeric(10,2), d smallint, primary key (a, b)) shard key (a);
         create index wide_c on wide (c, d);
         create table heap (x int, y text)",
    );
    database
}

/// The path of a SELECT, UPDATE or DELETE, as a word and a count.
fn path(database: &Database, sql: &str) -> String {
    let statement = database
        .analyze(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let path = match &statement.plan {
        Plan::SimpleSelect(select) => select.path.clone(),
        Plan::Modify(modify) => modify.path.clone(),
        _ => panic!("{sql} has no path"),
    };
    match path {
        AccessPath::Keys(keys) => format!("keys {}", keys.len()),
        AccessPath::ShardKey { key_prefix, .. } => format!("shard {}", key_prefix.len()),
        AccessPath::Index { prefix, .. } => format!("index {}", prefix.len()),
        AccessPath::Full => "full".to_owned(),
    }
}

#[test]
fn equalities_with_constants_choose_the_path() {
    let database = accounts();
    for (condition, expected) in [
        ("aid = 1", "keys 1"),
        ("aid = $1", "keys 1"),
        ("1 = aid and bid > 3", "keys 1"),
        ("aid in (1, 2, 3, 2)", "keys 3"),
        ("aid = 1 or aid = 2", "keys 2"),
        ("aid = 1 or bid = 2", "full"),
        ("aid = '7'", "keys 1"),
        ("aid = 7.0", "keys 1"),
        ("aid = 7.5", "keys 0"),
        ("aid = 30000000000", "keys 0"),
        ("aid = $1::bigint", "keys 1"),
        ("aid = $1::numeric", "full"),
        ("aid = null", "keys 0"),
        ("aid > 1", "full"),
        ("aid + 0 = 1", "full"),
        ("aid = bid", "full"),
        ("not aid = 1", "full"),
        ("true", "full"),
    ] {
        assert_eq!(
            path(
                &database,
                &format!("select abalance from accounts where {condition}")
            ),
            expected,
            "{condition}"
        );
    }
    for (condition, expected) in [
        ("a = 1 and b = 'x'", "keys 1"),
        ("a in (1, 2) and b in ('x', 'y')", "keys 4"),
        ("a = 1", "shard 1"),
        ("b = 'x'", "full"),
        ("c = 1.5", "index 1"),
        ("c = 1.5 and d = 3", "index 2"),
        ("d = 3", "full"),
    ] {
        assert_eq!(
            path(&database, &format!("delete from wide where {condition}")),
            expected,
            "{condition}"
        );
    }
    assert_eq!(path(&database, "update heap set y = 'z' where x = 1"), "full");
}

#[test]
fn the_hot_path_needs_no_planner() {
    let database = accounts();
    for (sql, simple) in [
        ("select abalance from accounts where aid = $1", true),
        (
            "select a.*, abalance + 1 as more from accounts as a where a.bid < 5 limit 3",
            true,
        ),
        ("select aid from accounts where aid = 1 order by aid", true),
        ("select aid from accounts where aid = 1 for update", true),
        ("select aid from accounts order by aid", false),
        ("select count(*) from accounts", false),
        ("select distinct bid from accounts", false),
        ("select aid from accounts where exists (select 1)", false),
        ("select aid from accounts offset 1", false),
    ] {
        let statement = database
            .analyze(sql, &[])
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(matches!(statement.plan, Plan::SimpleSelect(_)), simple, "{sql}");
        assert!(simple || matches!(statement.plan, Plan::Query(_)), "{sql}");
    }
    let statement = database
        .analyze("select abalance from accounts where aid = $1", &[])
        .unwrap();
    assert_eq!(statement.parameter_types, [SqlType::Integer]);
    let columns = statement.columns.unwrap();
    assert_eq!(
        (columns[0].name.as_str(), &columns[0].sql_type),
        ("abalance", &SqlType::Integer)
    );
    assert_eq!(columns[0].origin.1, 3);
}

#[test]
fn a_query_that_locks_rows_anywhere_is_no_reading() {
    let database = accounts();
    for (sql, read_only) in [
        ("select aid from accounts order by aid", true),
        ("select aid from accounts order by aid for update", false),
        ("select * from (select aid from accounts for share) as a", false),
        (
            "select bid from accounts where aid in (select aid from accounts where bid = 1 for update)",
            false,
        ),
        (
            "with a as (select aid from accounts for update) select count(*) from a",
            false,
        ),
    ] {
        let statement = database
            .analyze(sql, &[])
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(statement.read_only, read_only, "{sql}");
    }
}

#[test]
fn parameters_take_the_types_of_their_surroundings() {
    let database = accounts();
    let types = |sql: &str| {
        database
            .analyze(sql, &[])
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .parameter_types
    };
    assert_eq!(
        types("insert into wide values ($1, $2, $3, $4)"),
        [
            SqlType::BigInt,
            SqlType::Text,
            SqlType::Numeric(None),
            SqlType::SmallInt
        ]
    );
    assert_eq!(
        types("update accounts set abalance = abalance + $1 where aid = $2"),
        [SqlType::Integer, SqlType::Integer]
    );
    assert_eq!(types("select $1, $2::date"), [SqlType::Text, SqlType::Date]);
    assert_eq!(
        types(
            "select bid, sum(abalance) from accounts where aid > $1 group by bid having sum(abalance) > $2"
        ),
        [SqlType::Integer, SqlType::BigInt]
    );
    assert_eq!(types("select aid from accounts limit $1"), [SqlType::BigInt]);
    let declared = database
        .analyze(
            "select abalance from accounts where aid = $1",
            &[Some(SqlType::BigInt)],
        )
        .unwrap();
    assert_eq!(declared.parameter_types, [SqlType::BigInt]);
}

#[test]
fn definitions_are_checked_against_the_catalog() {
    let mut database = accounts();
    for (sql, expected) in [
        (
            "create table accounts (a int)",
            "42P07: relation \"accounts\" already exists",
        ),
        (
            "create table t (a int, A text)",
            "42701: column \"a\" specified more than once",
        ),
        (
            "create table t (a int primary key, b int primary key)",
            "42P16: multiple primary keys for table \"t\" are not allowed",
        ),
        (
            "create table t (a int, primary key (b))",
            "42703: column \"b\" named in key does not exist",
        ),
        (
            "create table t (a int, b int, primary key (a)) shard key (b)",
            "0A000: a shard key column (\"b\") that is not part of the primary key is not supported",
        ),
        ("create table t (a foo)", "42704: type \"foo\" does not exist"),
        ("create table t (a serial)", "0A000: type serial is not supported"),
        (
            "create table t (a int unique)",
            "0A000: UNIQUE constraints is not supported",
        ),
        (
            "create table t (a int default 'x')",
            "22P02: invalid input syntax for type integer: \"x\"",
        ),
        (
            "create table t (a int default true)",
            "42804: column \"a\" is of type integer but default expression is of type boolean",
        ),
        ("create table no.t (a int)", "3F000: schema \"no\" does not exist"),
        (
            "create table t (a int) with (nonsense=1)",
            "22023: unrecognized parameter \"nonsense\"",
        ),
        ("drop table nowhere", "42P01: table \"nowhere\" does not exist"),
        ("truncate nowhere", "42P01: relation \"nowhere\" does not exist"),
        (
            "alter table accounts add primary key (bid)",
            "42P16: multiple primary keys for table \"accounts\" are not allowed",
        ),
        (
            "create unique index i on accounts (bid)",
            "0A000: a unique index without the shard key column \"aid\" is not supported",
        ),
        (
            "insert into accounts (aid, nope) values (1, 2)",
            "42703: column \"nope\" of relation \"accounts\" does not exist",
        ),
        (
            "insert into accounts values (1, 2, 3, 'x', 5)",
            "42601: INSERT has more expressions than target columns",
        ),
        (
            "insert into accounts (aid, bid) values (1)",
            "42601: INSERT has more target columns than expressions",
        ),
        (
            "insert into accounts (aid) values (true)",
            "42804: column \"aid\" is of type integer but expression is of type boolean",
        ),
        (
            "update accounts set nope = 1",
            "42703: column \"nope\" of relation \"accounts\" does not exist",
        ),
        (
            "delete from accounts where nope = 1",
            "42703: column \"nope\" does not exist",
        ),
        (
            "select accounts.aid from accounts a",
            "42P01: invalid reference to FROM-clause entry for table \"accounts\"",
        ),
        (
            "select b.aid from accounts a",
            "42P01: missing FROM-clause entry for table \"b\"",
        ),
        (
            "select a.nope from accounts a",
            "42703: column a.nope does not exist",
        ),
        (
            "select aid from accounts a, accounts b",
            "42702: column reference \"aid\" is ambiguous",
        ),
        (
            "select 1 from accounts, accounts",
            "42712: table name \"accounts\" specified more than once",
        ),
        (
            "select aid from accounts where bid",
            "42804: argument of WHERE must be type boolean, not type integer",
        ),
        (
            "select nofunction(1)",
            "42883: function nofunction(integer) does not exist",
        ),
        (
            "select 1 + true",
            "42883: operator does not exist: integer + boolean",
        ),
        (
            "select aid from accounts where count(*) > 1",
            "42803: aggregate functions are not allowed in WHERE",
        ),
        (
            "select bid, aid from accounts group by bid",
            "42803: column \"accounts.aid\" must appear in the GROUP BY clause or be used in an aggregate function",
        ),
        (
            "select aid, count(*) from accounts",
            "42803: column \"accounts.aid\" must appear in the GROUP BY clause or be used in an aggregate function",
        ),
        (
            "select sum(count(*)) from accounts",
            "42803: aggregate function calls cannot be nested",
        ),
        (
            "select row_number() from accounts",
            "42809: window function row_number requires an OVER clause",
        ),
        (
            "select 1 union select 1, 2",
            "42601: each UNION query must have the same number of columns",
        ),
        (
            "select 1 union select true",
            "42804: UNION types integer and boolean cannot be matched",
        ),
        (
            "select aid from accounts order by 2",
            "42P10: ORDER BY position 2 is not in select list",
        ),
        (
            "select distinct aid from accounts order by bid",
            "42P10: for SELECT DISTINCT, ORDER BY expressions must appear in select list",
        ),
        (
            "select (select aid, bid from accounts)",
            "42601: subquery must return only one column",
        ),
        (
            "select * from (select 1)",
            "42601: subquery in FROM must have an alias",
        ),
        (
            "select aid from accounts limit -1",
            "2201W: LIMIT must not be negative",
        ),
        (
            "select sum(filler) from accounts",
            "42883: function sum(character) does not exist",
        ),
    ] {
        assert_eq!(database.error(sql), expected, "{sql}");
    }
}

#[test]
fn positions_point_at_the_culprit() {
    let database = accounts();
    let position = |sql: &str| database.analyze(sql, &[]).err().unwrap().position;
    assert_eq!(position("SELECT * FROM nowhere"), Some(15));
    assert_eq!(position("SELECT aid, nope FROM accounts"), Some(13));
    assert_eq!(position("SELECT\n nope(1)"), Some(9));
}

#[test]
fn definitions_carry_types_keys_and_defaults() {
    let database = accounts();
    let statement = database
        .analyze(
            "create table t (a bigint, b float(24) not null, c decimal(5,1) default 1.25, d varchar, e timestamp default now(),
               constraint k primary key (a, d)) shards 8 shard key (a) replicas 2",
            &[],
        )
        .unwrap();
    let Plan::Definition(definition) = statement.plan else {
        panic!("no definition")
    };
    let Definition::CreateTable(create) = &*definition else {
        panic!("no table")
    };
    let types: Vec<String> = create
        .columns
        .iter()
        .map(|column| column.sql_type.to_string())
        .collect();
    assert_eq!(
        types,
        [
            "bigint",
            "real",
            "numeric(5,1)",
            "character varying",
            "timestamp without time zone"
        ]
    );
    assert_eq!(create.primary_key, Some(("k".to_owned(), vec![1, 4])));
    assert_eq!(
        (create.shard_key.clone(), create.shards, create.replicas),
        (Some(vec![1]), Some(8), Some(2))
    );
    assert!(create.columns[0].not_null && create.columns[3].not_null && !create.columns[2].not_null);
    assert_eq!(create.columns[4].default_text.as_deref(), Some("now()"));
}

#[test]
fn inserts_fill_in_defaults() {
    let mut database = Database::new();
    database.script("create table t (a int primary key, b text default 'none', c int)");
    let statement = database
        .analyze("insert into t (c, a) values (1, 2), (default, 3)", &[])
        .unwrap();
    let Plan::Insert(insert) = &statement.plan else {
        panic!("no insert")
    };
    assert!(matches!(&insert.source, InsertSource::Values(rows) if rows.len() == 2));
    database.script("insert into t (c, a) values (1, 2), (default, 3); insert into t values (4)");
}
