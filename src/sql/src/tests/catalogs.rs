//! What clients ask of the system catalogs, and EXPLAIN.

use super::database::Database;

fn database() -> Database {
    let mut database = Database::new();
    database.script(
        "create table pgbench_accounts(aid int not null primary key, bid int, abalance int default 0, filler char(84)) with (fillfactor=100);
         create table other (a text, b numeric(10,2), c timestamp default now(), primary key (a, b)) shard key (a) shards 4;
         create index other_b_idx on other (b desc);
         create table pgbench_history(tid int, mtime timestamp)",
    );
    database
}

#[test]
fn pgbench_finds_its_table() {
    let mut database = database();
    let sql = |table: &str| {
        format!(
            "select o.n, p.partstrat, pg_catalog.count(i.inhparent) from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on (n.oid = c.relnamespace) cross join lateral (select pg_catalog.array_position(pg_catalog.current_schemas(true), n.nspname)) as o(n) left join pg_catalog.pg_partitioned_table as p on (p.partrelid = c.oid) left join pg_catalog.pg_inherits as i on (c.oid = i.inhparent) where c.relname = '{table}' and o.n is not null group by 1, 2 order by 1 asc limit 1"
        )
    };
    assert_eq!(database.query(&sql("pgbench_accounts")), ["2||0"]);
    assert_eq!(database.query(&sql("nothing")), Vec::<String>::new());
}

#[test]
fn psql_describes_tables() {
    let mut database = database();
    let oid = database.query("select 'pgbench_accounts'::regclass").remove(0);
    assert_eq!(
        database.query(
            "SELECT n.nspname as \"Schema\", c.relname as \"Name\",
               CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'i' THEN 'index' END as \"Type\",
               pg_catalog.pg_get_userbyid(c.relowner) as \"Owner\"
             FROM pg_catalog.pg_class c
               LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
             WHERE c.relkind IN ('r','p','v','m','S','f','')
               AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema'
               AND pg_catalog.pg_table_is_visible(c.oid)
             ORDER BY 1,2"
        ),
        ["public|other|table|", "public|pgbench_accounts|table|", "public|pgbench_history|table|"]
    );
    assert_eq!(
        database.query(
            "SELECT c.relname FROM pg_catalog.pg_class c
               LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relname OPERATOR(pg_catalog.~) '^(pgbench_accounts)$' COLLATE pg_catalog.default
               AND pg_catalog.pg_table_is_visible(c.oid)"
        ),
        ["pgbench_accounts"]
    );
    assert_eq!(
        database.query(&format!(
            "SELECT c.relchecks, c.relkind, c.relhasindex, c.relhasrules, c.relhastriggers, c.relrowsecurity, c.relforcerowsecurity, false AS relhasoids, c.relispartition, '', c.reltablespace, CASE WHEN c.reloftype = 0 THEN '' ELSE c.reloftype::pg_catalog.regtype::pg_catalog.text END, c.relpersistence, c.relreplident, am.amname
             FROM pg_catalog.pg_class c
              LEFT JOIN pg_catalog.pg_class tc ON (c.reltoastrelid = tc.oid)
             LEFT JOIN pg_catalog.pg_am am ON (c.relam = am.oid)
             WHERE c.oid = '{oid}'"
        )),
        ["0|r|t|f|f|f|f|f|f||0||p|d|heap"]
    );
    assert_eq!(
        database.query(&format!(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
               (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true)
                FROM pg_catalog.pg_attrdef d
                WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef),
               a.attnotnull,
               (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t
                WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation) AS attcollation,
               a.attidentity, a.attgenerated
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = '{oid}' AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY a.attnum"
        )),
        ["aid|integer||t|||", "bid|integer||f|||", "abalance|integer|0|f|||", "filler|character(84)||f|||"]
    );
    let other = database.query("select 'public.other'::regclass").remove(0);
    assert_eq!(
        database.query(&format!(
            "SELECT c2.relname, i.indisprimary, i.indisunique, i.indisclustered, i.indisvalid, pg_catalog.pg_get_indexdef(i.indexrelid, 0, true),
               pg_catalog.pg_get_constraintdef(con.oid, true), contype, condeferrable, condeferred, i.indisreplident, c2.reltablespace
             FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i
               LEFT JOIN pg_catalog.pg_constraint con ON (conrelid = i.indrelid AND conindid = i.indexrelid AND contype IN ('p','u','x'))
             WHERE c.oid = '{other}' AND c.oid = i.indrelid AND i.indexrelid = c2.oid
             ORDER BY i.indisprimary DESC, c2.relname"
        )),
        [
            "other_pkey|t|t|f|t|CREATE UNIQUE INDEX other_pkey ON public.other USING btree (a, b)|PRIMARY KEY (a, b)|p|f|f|f|0",
            "other_b_idx|f|f|f|t|CREATE INDEX other_b_idx ON public.other USING btree (b DESC)|||||f|0",
        ]
    );
    // About what does not exist here, psql asks with types and functions that do not exist here either.
    assert_eq!(
        database.query(&format!(
            "SELECT pol.polname, CASE WHEN pol.polroles = '{{0}}' THEN NULL ELSE pg_catalog.array_to_string(array(select rolname from pg_catalog.pg_roles where oid = any (pol.polroles) order by 1),',') END
             FROM pg_catalog.pg_policy pol WHERE pol.polrelid = '{oid}' ORDER BY 1"
        )),
        Vec::<String>::new()
    );
    assert_eq!(
        database.query(&format!(
            "SELECT pubname, NULL, NULL FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_namespace pn ON p.oid = pn.pnpubid JOIN pg_catalog.pg_class pc ON pc.relnamespace = pn.pnnspid
             WHERE pc.oid ='{oid}' and pg_catalog.pg_relation_is_publishable('{oid}')
             UNION SELECT pubname, pg_get_expr(pr.prqual, c.oid), (CASE WHEN pr.prattrs IS NOT NULL THEN (SELECT string_agg(attname, ', ') FROM pg_catalog.generate_series(0, pg_catalog.array_upper(pr.prattrs::pg_catalog.int2[], 1)) s, pg_catalog.pg_attribute WHERE attrelid = pr.prrelid AND attnum = prattrs[s]) ELSE NULL END)
             FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel pr ON p.oid = pr.prpubid JOIN pg_catalog.pg_class c ON c.oid = pr.prrelid WHERE pr.prrelid = '{oid}'
             UNION SELECT pubname, NULL, NULL FROM pg_catalog.pg_publication p WHERE p.puballtables AND pg_catalog.pg_relation_is_publishable('{oid}') ORDER BY 1"
        )),
        Vec::<String>::new()
    );
    assert_eq!(
        database.query(&format!("SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c, pg_catalog.pg_inherits i WHERE c.oid = i.inhparent AND i.inhrelid = '{oid}' AND c.relkind != 'p' ORDER BY inhseqno")),
        Vec::<String>::new()
    );
}

#[test]
fn information_schema_lists_columns() {
    let mut database = database();
    assert_eq!(
        database.query("select column_name, data_type, is_nullable, numeric_precision, column_default from information_schema.columns where table_name = 'other' order by ordinal_position"),
        ["a|text|NO||", "b|numeric|NO|10|", "c|timestamp without time zone|YES||now()"]
    );
    assert_eq!(
        database.query("select count(*) from information_schema.tables where table_schema = 'public'"),
        ["3"]
    );
    assert_eq!(
        database.error("delete from pg_class"),
        "42501: permission denied: \"pg_class\" is a system catalog"
    );
    assert_eq!(
        database.error("select * from pg_nothing"),
        "42P01: relation \"pg_nothing\" does not exist"
    );
}

#[test]
fn explain_shows_shards_and_pushdown() {
    let mut database = database();
    assert_eq!(
        database.query("explain select abalance from pgbench_accounts where aid = 7 and bid > 2"),
        [
            "Scan on pgbench_accounts",
            "  Shards: 1 of 4 (by primary key)",
            "  Primary Key: (aid) = (7)",
            "  Filter: ((aid = 7) AND (bid > 2))",
        ]
    );
    assert_eq!(
        database.query("explain update other set c = now() where a = 'x'"),
        [
            "Update on other",
            "  Shards: 1 of 4 (by shard key)",
            "  Shard Key: (a) = ('x'::text)",
            "  Primary Key Prefix: (a) = ('x'::text)",
            "  Filter: (a = 'x'::text)",
        ]
    );
    let plan = database.query("explain select p.bid, count(*) from pgbench_accounts p join pgbench_history h on h.tid = p.aid where p.aid in (1, 2) group by p.bid order by 2 desc limit 3");
    let text = plan.join("\n");
    for part in [
        "Sort Key: ",
        "Group Key: pgbench_accounts.bid",
        "Hash Inner Join",
        "at most 2 of 4",
        "Scan on pgbench_history",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}
