//! Queries and what PostgreSQL 15 answers to them.

use neorunbase_types::Datum;

use super::database::Database;

fn database() -> Database {
    let mut database = Database::new();
    database.script(
        "create table t (id int primary key, a int, b bigint, n numeric, m numeric(8,2), f double precision, s text, d date, ok boolean, c char(5));
         insert into t values
           (1, 10, 100, 1.5, 1.5, 1.5, 'one', '2020-01-01', true, 'x'),
           (2, 20, 200, 1.50, 2.25, -0.0, 'two', '2020-02-01', false, 'y'),
           (3, null, 300, 3, null, 0.0, null, null, null, null),
           (4, 10, 400, 0.001, 4, 'NaN', 'four', '2019-12-31', true, 'x');
         create table u (id int primary key, t_id int, v text);
         insert into u values (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, null, 'd'), (5, 9, 'e')",
    );
    database
}

#[test]
fn answers_agree_with_postgresql() {
    let mut database = database();
    let cases: &[(&str, &[&str])] = &[
        (
            "select count(*), count(a), count(distinct a), sum(a), sum(b), avg(a), avg(b), min(n), max(n) from t",
            &["4|3|2|40|1000|13.3333333333333333|250.0000000000000000|0.001|3"],
        ),
        (
            "select sum(n), avg(n), sum(m), avg(m), avg(f), max(f), min(f) from t",
            &["6.001|1.5002500000000000|7.75|2.5833333333333333|NaN|NaN|0"],
        ),
        (
            "select sum(a), avg(a), min(s), count(*) from t where id > 100",
            &["|||0"],
        ),
        (
            "select a, count(*) from t group by a order by a",
            &["10|2", "20|1", "|1"],
        ),
        (
            "select a, count(*) from t group by a order by a desc",
            &["|1", "20|1", "10|2"],
        ),
        (
            "select a, count(*) from t group by 1 having count(*) > 1",
            &["10|2"],
        ),
        (
            "select n, count(*) from t group by n order by n",
            &["0.001|1", "1.5|2", "3|1"],
        ),
        (
            "select f, count(*) from t group by f order by f",
            &["0|2", "1.5|1", "NaN|1"],
        ),
        ("select distinct n from t order by n", &["0.001", "1.5", "3"]),
        (
            "select distinct on (a) a, id from t order by a, id desc",
            &["10|4", "20|2", "|3"],
        ),
        ("select id from t order by n desc, id", &["3", "1", "2", "4"]),
        (
            "select id, n from t where n = 1.5 order by id",
            &["1|1.5", "2|1.50"],
        ),
        (
            "select id from t where n in (1.500, 3.0) order by 1",
            &["1", "2", "3"],
        ),
        ("select id from t where f = 0 order by id", &["2", "3"]),
        (
            "select id from t where m > 1.5 and m <= 4.000 order by id",
            &["2", "4"],
        ),
        ("select id from t where d < '2020-01-15' order by d", &["4", "1"]),
        ("select id from t where c = 'x' order by id", &["1", "4"]),
        ("select id from t where not ok order by id", &["2"]),
        ("select id from t where ok is not true order by id", &["2", "3"]),
        (
            "select id from t where s like '%o%' and s not like 't%' order by id",
            &["1", "4"],
        ),
        (
            "select id from t where a between 10 and 15 order by id",
            &["1", "4"],
        ),
        ("select id from t where a is null or s is null", &["3"]),
        (
            "select id, a / 3, a % 3, -a, a * 1.5, b / a from t where a is not null order by id",
            &["1|3|1|-10|15.0|10", "2|6|2|-20|30.0|10", "4|3|1|-10|15.0|40"],
        ),
        (
            "select id, case when a > 15 then 'big' when a is null then 'none' else 'small' end from t order by id",
            &["1|small", "2|big", "3|none", "4|small"],
        ),
        (
            "select id, coalesce(a, 0) + 1, nullif(a, 10), greatest(a, id), upper(s) || '!' from t order by id",
            &["1|11||10|ONE!", "2|21|20|20|TWO!", "3|1||3|", "4|11||10|FOUR!"],
        ),
        (
            "select t.id, u.v from t join u on u.t_id = t.id order by u.id",
            &["1|a", "1|b", "2|c"],
        ),
        (
            "select t.id, u.v from t left join u on u.t_id = t.id order by t.id, u.v",
            &["1|a", "1|b", "2|c", "3|", "4|"],
        ),
        (
            "select t.id, u.v from t right join u on u.t_id = t.id order by u.id",
            &["1|a", "1|b", "2|c", "|d", "|e"],
        ),
        (
            "select t.id, u.v from t full join u on u.t_id = t.id order by t.id, u.v",
            &["1|a", "1|b", "2|c", "3|", "4|", "|d", "|e"],
        ),
        (
            "select t.id, x.id from t cross join t as x where t.id < x.id and t.a = x.a",
            &["1|4"],
        ),
        (
            "select id, t_id, v from u natural join (select 1 as id) one",
            &["1|1|a"],
        ),
        (
            "select id, x.a from (select id, a from t where a > 5) x where x.a < 15 order by id",
            &["1|10", "4|10"],
        ),
        (
            "select id from t where id in (select t_id from u) order by id",
            &["1", "2"],
        ),
        (
            "select id from t where id not in (select t_id from u where t_id is not null) order by id",
            &["3", "4"],
        ),
        (
            "select id from t where id not in (select t_id from u) order by id",
            &[],
        ),
        (
            "select id from t where a not in (select id from u where id > 100) order by id",
            &["1", "2", "3", "4"],
        ),
        (
            "select id from t where exists (select 1 from u where u.t_id = t.id) order by id",
            &["1", "2"],
        ),
        (
            "select id from t where not exists (select 1 from u where u.t_id = t.id) order by id",
            &["3", "4"],
        ),
        (
            "select id from t where id = 3 or id in (select t_id from u) order by id",
            &["1", "2", "3"],
        ),
        (
            "select id, (select count(*) from u where u.t_id = t.id) from t order by id",
            &["1|2", "2|1", "3|0", "4|0"],
        ),
        (
            "select id, (select max(v) from u where u.t_id = t.id) as m from t order by m, id",
            &["1|b", "2|c", "3|", "4|"],
        ),
        (
            "select id, exists (select 1 from u where u.t_id = t.id) from t order by id",
            &["1|t", "2|t", "3|f", "4|f"],
        ),
        (
            "select id, id in (select t_id from u) from t order by id",
            &["1|t", "2|t", "3|", "4|"],
        ),
        ("select id from t where a = (select max(a) from t)", &["2"]),
        (
            "select id from t where a > any (select 5) order by id",
            &["1", "2", "4"],
        ),
        (
            "with x as (select a, count(*) as n from t group by a) select x.n, t.id from x join t on t.a = x.a order by t.id",
            &["2|1", "1|2", "2|4"],
        ),
        ("select 1 union select 2 union select 1 order by 1", &["1", "2"]),
        ("select 1 union all select 1", &["1", "1"]),
        ("select null union select 1 order by 1", &["1", ""]),
        ("select '1' union select 2.50 order by 1", &["1", "2.50"]),
        ("select a from t intersect select 10", &["10"]),
        ("select a from t except select 20 order by a", &["10", ""]),
        (
            "select a from t except all select 10 order by a",
            &["10", "20", ""],
        ),
        (
            "select a from t intersect all select a from t order by a",
            &["10", "10", "20", ""],
        ),
        (
            "(select id from t order by id desc limit 1) union all (select id from u order by id limit 1)",
            &["4", "1"],
        ),
        ("values (1, 'a'), (2, null)", &["1|a", "2|"]),
        (
            "select column1 + 1 from (values (1), (2)) v order by 1 desc",
            &["3", "2"],
        ),
        (
            "select id, row_number() over (order by id desc), rank() over (order by a), sum(a) over (order by id), lag(id) over (order by id), count(*) over (partition by a) from t order by id",
            &["1|4|1|10||2", "2|3|3|30|1|1", "3|2|4|30|2|1", "4|1|1|40|3|2"],
        ),
        (
            "select id, sum(b) over w, first_value(id) over w from t window w as (partition by ok order by id) order by id",
            &["1|100|1", "2|200|2", "3|300|3", "4|500|1"],
        ),
        (
            "select id, avg(a) over (order by id rows between 1 preceding and current row) from t order by id",
            &[
                "1|10.0000000000000000",
                "2|15.0000000000000000",
                "3|20.0000000000000000",
                "4|10.0000000000000000",
            ],
        ),
        (
            "select a, sum(count(*)) over () from t group by a order by a",
            &["10|4", "20|4", "|4"],
        ),
        (
            "select ok, string_agg(s, ',' order by id desc), bool_and(ok), every(id > 0) from t group by ok order by ok",
            &["f|two|f|t", "t|four,one|t|t", "|||t"],
        ),
        (
            "select count(*) filter (where a = 10), sum(a) filter (where id > 1) from t",
            &["2|30"],
        ),
        (
            "select id from t order by a nulls first, id limit 2 offset 1",
            &["1", "4"],
        ),
        (
            "select id from t order by -id fetch first 2 rows only",
            &["4", "3"],
        ),
        ("select a + 1 as a from t order by a limit 1", &["11"]),
        ("select id as a from t order by a desc limit 1", &["4"]),
        (
            "select t.id, t.s from t join u on u.t_id = t.id group by t.id order by t.id",
            &["1|one", "2|two"],
        ),
        (
            "select x.n, count(*) from t cross join lateral (select t.a * 2) as x (n) group by 1 order by 1",
            &["20|2", "40|1", "|1"],
        ),
        (
            "select t.id, x.v from t, lateral (select v from u where u.t_id = t.id) x order by 1, 2",
            &["1|a", "1|b", "2|c"],
        ),
        (
            "select g, g * g from generate_series(1, 3) as g",
            &["1|1", "2|4", "3|9"],
        ),
        (
            "select count(*), sum(x) from generate_series(1, 100000) x",
            &["100000|5000050000"],
        ),
        (
            "select id from t where id = any (array[1, 3]) order by id",
            &["1", "3"],
        ),
        (
            "select id from t where id = any ('{2,4}'::int[]) order by id",
            &["2", "4"],
        ),
        (
            "select id from t where id <> all ('{2,4}') order by id",
            &["1", "3"],
        ),
        (
            "select id from t where (id, a) in ((1, 10), (2, 10)) order by id",
            &["1"],
        ),
        (
            "select id from t where a >= all (select a from t where a is not null) order by id",
            &["2"],
        ),
        (
            "select id from t where a > all (select a from t) order by id",
            &[],
        ),
        (
            "select id, a < any (select a from t) from t order by id",
            &["1|t", "2|", "3|", "4|t"],
        ),
        (
            "select id, (select count(*) + 1 from u where u.t_id = t.id) from t order by id",
            &["1|3", "2|2", "3|1", "4|1"],
        ),
        (
            "select id, (select count(distinct t_id) from u where u.t_id = t.id) from t order by id",
            &["1|1", "2|1", "3|0", "4|0"],
        ),
        (
            "select string_agg(s, ',' order by id desc), string_agg(s, '-' order by s), string_agg(distinct c, '' order by c) from t",
            &["four,two,one|four-one-two|xy"],
        ),
        (
            "select id, (select v from u where u.t_id = t.id order by v desc limit 1) from t order by id",
            &["1|b", "2|c", "3|", "4|"],
        ),
        (
            "select id, (select v from u where u.id = t.id and t.a = 10) from t order by id",
            &["1|a", "2|", "3|", "4|d"],
        ),
        ("select 1 where false", &[]),
        (
            "select 1 + 1, 'a' || 'b', 7 / 2, 7 % 4, 2 ^ 3, 1.0 / 3",
            &["2|ab|3|3|8|0.33333333333333333333"],
        ),
        (
            "select current_user, current_schema, pg_catalog.current_database()",
            &["admin|public|neorunbase"],
        ),
        (
            "select max(d) - min(d), max(d) + 1, extract(year from max(d)) from t",
            &["32|2020-02-02|2020"],
        ),
        (
            "select count(*) from t where d >= date '2020-01-01' and d < date '2020-01-01' + interval '1 month'",
            &["1"],
        ),
        ("select sum(a * 1.1) from t", &["44.0"]),
        (
            "select now() = current_timestamp, count(*) from t where now() > '2020-01-01'",
            &["t|4"],
        ),
    ];
    let mut failures = Vec::new();
    for (sql, expected) in cases {
        match database.query_with(sql, &[]) {
            Ok(rows) if rows == *expected => {}
            other => failures.push(format!("{sql}\n  expected {expected:?}\n  got      {other:?}")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

#[test]
fn errors_of_running_queries_keep_their_state() {
    let mut database = database();
    for (sql, expected) in [
        (
            "select 1 / (id - 1) from t order by id",
            "22012: division by zero",
        ),
        ("select 1 / 0", "22012: division by zero"),
        ("select sum(a) / 0 from t", "22012: division by zero"),
        (
            "select a * 1000000000 from t order by 1",
            "22003: integer out of range",
        ),
        (
            "select (select id from t)",
            "21000: more than one row returned by a subquery used as an expression",
        ),
        (
            "select cast(s as int) from t order by id",
            "22P02: invalid input syntax for type integer: \"one\"",
        ),
    ] {
        assert_eq!(database.error(sql), expected, "{sql}");
    }
    // A condition guards what comes after it.
    assert_eq!(
        database.query("select id from t where id <> 1 and 10 / (id - 1) > 4 order by id"),
        ["2", "3"]
    );
    assert_eq!(
        database.query("select id, case when id = 1 then 0 else 10 / (id - 1) end from t order by id"),
        ["1|0", "2|10", "3|5", "4|3"]
    );
}

#[test]
fn plans_are_bound_to_parameters_each_time() {
    let mut database = database();
    let sql = "select t.id, count(u.id) from t left join u on u.t_id = t.id and u.v <> $2 where t.a >= $1 group by t.id order by 1 limit $3";
    let run = |database: &mut Database, a, v: &str, limit| {
        database
            .query_with(sql, &[a, Datum::text(v), Datum::BigInt(limit)])
            .unwrap()
    };
    assert_eq!(
        run(&mut database, Datum::Integer(10), "a", 10),
        ["1|1", "2|1", "4|0"]
    );
    assert_eq!(run(&mut database, Datum::Integer(15), "c", 10), ["2|0"]);
    assert_eq!(run(&mut database, Datum::Integer(0), "", 1), ["1|2"]);
    assert_eq!(run(&mut database, Datum::Null, "", 1), Vec::<String>::new());
    let numeric = Datum::Numeric("1.500".parse().unwrap());
    assert_eq!(
        database
            .query_with("select count(*) from t where n = $1", &[numeric])
            .unwrap(),
        ["2"]
    );
}

#[test]
fn writes_by_query() {
    let mut database = database();
    assert_eq!(
        database.query("update t set a = u.id from u where u.t_id = t.id and u.v = 'b' "),
        ["UPDATE 1"]
    );
    assert_eq!(database.query("select id, a from t where id = 1"), ["1|2"]);
    assert_eq!(
        database.query("update t set id = id + 10 where id > 2 returning id"),
        ["13", "14"]
    );
    assert_eq!(
        database.query("update t set s = (select v from u where u.id = 5) where id = 2 returning s, id"),
        ["e|2"]
    );
    assert_eq!(
        database.query("delete from u where t_id not in (select id from t)"),
        ["DELETE 1"]
    );
    assert_eq!(
        database.query("delete from u using t where t.id = u.t_id"),
        ["DELETE 3"]
    );
    assert_eq!(database.query("select id from u"), ["4"]);
    assert_eq!(
        database.query("insert into u select id, id, s from t where id > 10 returning id, v"),
        ["13|", "14|four"]
    );
    assert_eq!(
        database.query("insert into u values (100, (select max(id) from t), 'x') returning t_id"),
        ["14"]
    );
    assert_eq!(
        database.query("insert into u (id, v) select g, '' from generate_series(200, 202) g"),
        ["INSERT 0 3"]
    );
    assert_eq!(
        database.query("insert into u values (100, 1, 'y') on conflict (id) do nothing"),
        ["INSERT 0 0"]
    );
    database
        .script("create table heap (x int, y text); insert into heap values (1, 'a'), (1, 'a'), (2, 'b')");
    assert_eq!(
        database.query("update heap set x = x + (select count(*) from heap)::int where x = 1"),
        ["UPDATE 2"]
    );
    assert_eq!(
        database.query("select x, y from heap order by x"),
        ["2|b", "4|a", "4|a"]
    );
    assert_eq!(
        database.query("delete from heap where y = 'a' returning x"),
        ["4", "4"]
    );
}
