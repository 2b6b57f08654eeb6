#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan::{IsolationLevel, TransactionModes};

fn one(sql: &str) -> ParsedKind {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).kind
}

fn failure(sql: &str) -> (String, &'static str, Option<u32>) {
    let error = parse(sql).err().unwrap_or_else(|| panic!("{sql} parses"));
    (error.message.clone(), error.state.0, error.position)
}

#[test]
fn scripts_are_split_at_semicolons_outside_of_strings() {
    let statements = parse("select ';' ; ; /* ; */ select 2;\n-- ;\n").unwrap();
    let texts: Vec<&str> = statements.iter().map(|statement| &*statement.text).collect();
    assert_eq!(texts, ["select ';'", "select 2"]);
    assert!(matches!(parse(" -- nothing").unwrap()[0].kind, ParsedKind::Empty));
    assert!(matches!(parse(";;").unwrap()[0].kind, ParsedKind::Empty));
}

#[test]
fn syntax_errors_read_as_postgresql_words_them() {
    assert_eq!(
        failure("selec 1"),
        ("syntax error at or near \"selec\"".to_owned(), "42601", Some(1))
    );
    assert_eq!(
        failure("select 1 frm t"),
        ("syntax error at or near \"t\"".to_owned(), "42601", Some(14))
    );
    assert_eq!(
        failure("select *\nfrom"),
        ("syntax error at end of input".to_owned(), "42601", Some(14))
    );
    assert_eq!(
        failure("select 1; insert into"),
        ("syntax error at end of input".to_owned(), "42601", Some(22))
    );
    assert_eq!(
        failure("select 'abc"),
        (
            "unterminated quoted string at or near \"'abc\"".to_owned(),
            "42601",
            Some(8)
        )
    );
    assert_eq!(
        failure("select )"),
        ("syntax error at or near \")\"".to_owned(), "42601", Some(8))
    );
}

#[test]
fn create_table_takes_sharding_clauses_in_any_order() {
    let ParsedKind::CreateTable(statement, shards) = one(
        "CREATE TABLE \"T\" (Id BIGINT PRIMARY KEY, s varchar(9)) REPLICAS 2 SHARD KEY (ID) WITH (fillfactor=100) SHARDS 4",
    ) else {
        panic!("not a table");
    };
    assert_eq!((shards.shards, shards.replicas), (Some(4), Some(2)));
    assert_eq!(shards.key.unwrap()[0].value, "id");
    let ast::Statement::CreateTable(table) = *statement else {
        panic!("not a table")
    };
    assert_eq!(table.name.to_string(), "\"T\"");
    assert_eq!(table.columns[0].name.value, "id");
    assert_eq!(failure("create table t (a int) shards 0").1, "22023");
    assert_eq!(
        failure("create table t (a int) shards x").0,
        "syntax error at or near \"x\""
    );
    assert_eq!(failure("create table t (a int) shards 1 shards 2").1, "42601");
}

#[test]
fn pgbench_initialisation_parses() {
    for sql in [
        "drop table if exists pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers",
        "create table pgbench_history(tid int,bid int,aid    int,delta int,mtime timestamp,filler char(22))",
        "create table pgbench_tellers(tid int not null,bid int,tbalance int,filler char(84)) with (fillfactor=100)",
        "truncate table pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers",
        "insert into pgbench_branches(bid,bbalance) values(1,0)",
        "alter table pgbench_branches add primary key (bid)",
        "vacuum analyze pgbench_branches",
        "vacuum pgbench_branches",
        "truncate pgbench_history",
        "select o.n, p.partstrat, pg_catalog.count(i.inhparent) from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on (n.oid = c.relnamespace) cross join lateral (select pg_catalog.array_position(pg_catalog.current_schemas(true), n.nspname)) as o(n) left join pg_catalog.pg_partitioned_table as p on (p.partrelid = c.oid) left join pg_catalog.pg_inherits as i on (c.oid = i.inhparent) where c.relname = 'pgbench_accounts' and o.n is not null group by 1, 2 order by 1 asc limit 1",
    ] {
        one(sql);
    }
    let ParsedKind::Copy(copy) = one("copy pgbench_accounts from stdin with (freeze on)") else {
        panic!("not COPY")
    };
    assert!(!copy.to_client && !copy.options.csv);
}

#[test]
fn copy_options_of_both_ages() {
    let options = |sql: &str| match one(sql) {
        ParsedKind::Copy(copy) => copy.options,
        other => panic!("{other:?}"),
    };
    let csv = CopyOptions {
        csv: true,
        header: true,
        delimiter: Some(b';'),
        null: Some("x".to_owned()),
    };
    assert_eq!(
        options("copy t (a, b) from stdin with (format csv, header, delimiter ';', null 'x')"),
        csv
    );
    assert_eq!(
        options("copy t from stdin csv header delimiter as ';' null 'x'"),
        csv
    );
    assert_eq!(options("COPY (select (1), 2) TO STDOUT"), CopyOptions::default());
    assert_eq!(failure("copy t from '/etc/passwd'").1, "0A000");
    assert_eq!(failure("copy t from stdin (format binary)").1, "0A000");
}

#[test]
fn transactions_and_settings() {
    let begin = |isolation, read_only| {
        TransactionCommand::Begin(TransactionModes {
            isolation,
            read_only,
            deferrable: None,
            as_of: None,
        })
    };
    let transaction = |sql: &str| match one(sql) {
        ParsedKind::Transaction(command) => command,
        other => panic!("{other:?}"),
    };
    assert_eq!(transaction("BEGIN"), begin(None, None));
    assert_eq!(
        transaction("start transaction isolation level repeatable read, read only"),
        begin(Some(IsolationLevel::RepeatableRead), Some(true))
    );
    assert_eq!(transaction("END"), TransactionCommand::Commit);
    assert_eq!(transaction("abort work"), TransactionCommand::Rollback);
    assert!(matches!(
        transaction("set transaction read write"),
        TransactionCommand::SetModes(_)
    ));
    assert_eq!(
        transaction("savepoint Before"),
        TransactionCommand::Savepoint("before".into())
    );
    for sql in ["rollback to before", "ROLLBACK WORK TO SAVEPOINT \"before\""] {
        assert_eq!(transaction(sql), TransactionCommand::RollbackTo("before".into()));
    }
    for sql in ["release before", "RELEASE SAVEPOINT before"] {
        assert_eq!(transaction(sql), TransactionCommand::Release("before".into()));
    }
    assert_eq!(failure("savepoint").1, "42601");
    assert_eq!(failure("release savepoint a b").1, "42601");
    let setting = |sql: &str| match one(sql) {
        ParsedKind::Setting(command) => command,
        other => panic!("{other:?}"),
    };
    let set = |name: &str, value: &str, local| SettingCommand::Set {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        local,
    };
    assert_eq!(
        setting("SET DateStyle TO ISO, MDY"),
        set("datestyle", "iso, mdy", false)
    );
    assert_eq!(
        setting("set local statement_timeout = '5s'"),
        set("statement_timeout", "5s", true)
    );
    assert_eq!(
        setting("set extra_float_digits = -3"),
        set("extra_float_digits", "-3", false)
    );
    assert_eq!(
        setting("set search_path to \"$user\", public"),
        set("search_path", "\"$user\", public", false)
    );
    assert_eq!(setting("set time zone 'UTC'"), set("timezone", "UTC", false));
    assert_eq!(
        setting("show transaction isolation level"),
        SettingCommand::Show("transaction_isolation".to_owned())
    );
    assert_eq!(setting("reset all"), SettingCommand::Reset("all".to_owned()));
    assert_eq!(setting("discard all"), SettingCommand::Discard);
}

#[test]
fn deep_nesting_is_refused_not_crashed_on() {
    let deep = format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(failure(&deep).1, "54001");
}

#[test]
fn unsupported_statements_say_so() {
    for sql in [
        "create view v as select 1",
        "listen x",
        "grant select on t to u",
        "create sequence s",
        "declare c cursor for select 1",
    ] {
        assert_eq!(failure(sql).1, "0A000", "{sql}");
    }
}
