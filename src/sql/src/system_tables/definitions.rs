//! Names, oids and columns of the system tables.

use neorunbase_types::SqlType;

/// A system table.
pub(super) struct Definition {
    pub(super) schema: &'static str,
    pub(super) name: &'static str,
    pub(super) oid: u32,
    /// `name type, …`
    columns: &'static str,
    pub(super) always_empty: bool,
}

impl Definition {
    pub(super) fn columns(&self) -> Vec<(String, SqlType)> {
        self.columns
            .split(',')
            .filter_map(|column| column.trim().split_once(' '))
            .map(|(name, type_name)| (name.to_owned(), type_of(type_name)))
            .collect()
    }
}

fn type_of(name: &str) -> SqlType {
    match name {
        "oid" => SqlType::Oid,
        "name" => SqlType::Name,
        "bool" => SqlType::Boolean,
        "int2" => SqlType::SmallInt,
        "int4" => SqlType::Integer,
        "int8" => SqlType::BigInt,
        "float4" => SqlType::Real,
        "timestamptz" => SqlType::TimestampTz,
        _ => SqlType::Text,
    }
}

/// The definition of a system table.
pub(super) fn definition(schema: &str, name: &str) -> Option<&'static Definition> {
    ALL.iter()
        .find(|definition| definition.name == name && definition.schema == schema)
}

const fn filled(name: &'static str, oid: u32, columns: &'static str) -> Definition {
    Definition {
        schema: "pg_catalog",
        name,
        oid,
        columns,
        always_empty: false,
    }
}

const fn empty(name: &'static str, oid: u32, columns: &'static str) -> Definition {
    Definition {
        schema: "pg_catalog",
        name,
        oid,
        columns,
        always_empty: true,
    }
}

const fn standard(name: &'static str, oid: u32, columns: &'static str) -> Definition {
    Definition {
        schema: "information_schema",
        name,
        oid,
        columns,
        always_empty: false,
    }
}

/// All of them. Arrays, `"char"`, `regproc` and the like are shown as text.
pub(super) const ALL: &[Definition] = &[
    filled(
        "neorunbase_shards",
        15_900,
        "shard_group int8, shard int8, tables text, replicas_wanted int8, primary_node text, in_sync text, \
         replicas text, term int8, epoch int8, bytes int8, operations_per_second int8",
    ),
    filled(
        "neorunbase_nodes",
        15_901,
        "name text, address text, labels text, state text, copies int8, primaries int8, bytes int8, \
         operations_per_second int8",
    ),
    filled(
        "neorunbase_jobs",
        15_902,
        "kind text, shard_group int8, shard int8, from_node text, to_node text, bytes_done int8, bytes_total int8, \
         started timestamptz, state text, reason text",
    ),
    filled(
        "pg_class",
        1259,
        "oid oid, relname name, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam oid, \
         relfilenode oid, reltablespace oid, relpages int4, reltuples float4, relallvisible int4, \
         reltoastrelid oid, relhasindex bool, relisshared bool, relpersistence text, relkind text, relnatts int2, \
         relchecks int2, relhasrules bool, relhastriggers bool, relhassubclass bool, relrowsecurity bool, \
         relforcerowsecurity bool, relispopulated bool, relreplident text, relispartition bool, relrewrite oid, \
         relacl text, reloptions text, relpartbound text",
    ),
    filled(
        "pg_namespace",
        2615,
        "oid oid, nspname name, nspowner oid, nspacl text",
    ),
    filled(
        "pg_attribute",
        1249,
        "attrelid oid, attname name, atttypid oid, attstattarget int4, attlen int2, attnum int2, attndims int4, \
         attcacheoff int4, atttypmod int4, attbyval bool, attalign text, attstorage text, attcompression text, \
         attnotnull bool, atthasdef bool, atthasmissing bool, attidentity text, attgenerated text, \
         attisdropped bool, attislocal bool, attinhcount int4, attcollation oid, attacl text, attoptions text, \
         attfdwoptions text, attmissingval text",
    ),
    filled(
        "pg_type",
        1247,
        "oid oid, typname name, typnamespace oid, typowner oid, typlen int2, typbyval bool, typtype text, \
         typcategory text, typispreferred bool, typisdefined bool, typdelim text, typrelid oid, typsubscript text, \
         typelem oid, typarray oid, typinput text, typoutput text, typreceive text, typsend text, typmodin text, \
         typmodout text, typanalyze text, typalign text, typstorage text, typnotnull bool, typbasetype oid, \
         typtypmod int4, typndims int4, typcollation oid, typdefaultbin text, typdefault text, typacl text",
    ),
    filled(
        "pg_index",
        2610,
        "indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique bool, \
         indnullsnotdistinct bool, indisprimary bool, indisexclusion bool, indimmediate bool, indisclustered bool, \
         indisvalid bool, indcheckxmin bool, indisready bool, indislive bool, indisreplident bool, indkey text, \
         indcollation text, indclass text, indoption text, indexprs text, indpred text",
    ),
    filled(
        "pg_constraint",
        2606,
        "oid oid, conname name, connamespace oid, contype text, condeferrable bool, condeferred bool, \
         convalidated bool, conrelid oid, contypid oid, conindid oid, conparentid oid, confrelid oid, \
         confupdtype text, confdeltype text, confmatchtype text, conislocal bool, coninhcount int4, \
         connoinherit bool, conkey text, confkey text, conbin text",
    ),
    filled("pg_attrdef", 2604, "oid oid, adrelid oid, adnum int2, adbin text"),
    filled("pg_am", 2601, "oid oid, amname name, amhandler text, amtype text"),
    filled(
        "pg_database",
        1262,
        "oid oid, datname name, datdba oid, encoding int4, datlocprovider text, datistemplate bool, \
         datallowconn bool, datconnlimit int4, datfrozenxid int8, datminmxid int8, dattablespace oid, \
         datcollate text, datctype text, daticulocale text, datcollversion text, datacl text",
    ),
    filled(
        "pg_roles",
        12_100,
        "rolname name, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb bool, rolcanlogin bool, \
         rolreplication bool, rolconnlimit int4, rolpassword text, rolvaliduntil timestamptz, rolbypassrls bool, \
         rolconfig text, oid oid",
    ),
    filled(
        "pg_user",
        12_110,
        "usename name, usesysid oid, usecreatedb bool, usesuper bool, userepl bool, usebypassrls bool, \
         passwd text, valuntil timestamptz, useconfig text",
    ),
    filled(
        "pg_tables",
        12_120,
        "schemaname name, tablename name, tableowner name, tablespace name, hasindexes bool, hasrules bool, \
         hastriggers bool, rowsecurity bool",
    ),
    filled(
        "pg_indexes",
        12_130,
        "schemaname name, tablename name, indexname name, tablespace name, indexdef text",
    ),
    filled(
        "pg_settings",
        12_140,
        "name text, setting text, unit text, category text, short_desc text, source text",
    ),
    empty(
        "pg_partitioned_table",
        3350,
        "partrelid oid, partstrat text, partnatts int2, partdefid oid, partattrs text",
    ),
    empty(
        "pg_inherits",
        2611,
        "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
    ),
    empty(
        "pg_collation",
        3456,
        "oid oid, collname name, collnamespace oid, collowner oid, collprovider text, collisdeterministic bool, \
         collencoding int4, collcollate text, collctype text",
    ),
    empty(
        "pg_description",
        2609,
        "objoid oid, classoid oid, objsubid int4, description text",
    ),
    empty(
        "pg_shdescription",
        2396,
        "objoid oid, classoid oid, description text",
    ),
    empty(
        "pg_policy",
        3256,
        "oid oid, polname name, polrelid oid, polcmd text, polpermissive bool, polroles text, polqual text, \
         polwithcheck text",
    ),
    empty(
        "pg_statistic_ext",
        3381,
        "oid oid, stxrelid oid, stxname name, stxnamespace oid, stxowner oid, stxstattarget int4, stxkeys text, \
         stxkind text",
    ),
    empty(
        "pg_publication",
        6104,
        "oid oid, pubname name, pubowner oid, puballtables bool",
    ),
    empty(
        "pg_publication_rel",
        6106,
        "oid oid, prpubid oid, prrelid oid, prqual text, prattrs text",
    ),
    empty(
        "pg_publication_namespace",
        6237,
        "oid oid, pnpubid oid, pnnspid oid",
    ),
    empty(
        "pg_subscription",
        6100,
        "oid oid, subdbid oid, subname name, subowner oid",
    ),
    empty(
        "pg_auth_members",
        1261,
        "roleid oid, member oid, grantor oid, admin_option bool",
    ),
    empty(
        "pg_sequence",
        2224,
        "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8",
    ),
    empty(
        "pg_sequences",
        12_150,
        "schemaname name, sequencename name, sequenceowner name",
    ),
    empty(
        "pg_trigger",
        2620,
        "oid oid, tgrelid oid, tgparentid oid, tgname name, tgfoid oid, tgtype int2, tgenabled text, tgisinternal bool",
    ),
    empty(
        "pg_rewrite",
        2618,
        "oid oid, rulename name, ev_class oid, ev_type text, ev_enabled text, is_instead bool",
    ),
    empty(
        "pg_depend",
        2608,
        "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, deptype text",
    ),
    empty(
        "pg_enum",
        3501,
        "oid oid, enumtypid oid, enumsortorder float4, enumlabel name",
    ),
    empty(
        "pg_range",
        3541,
        "rngtypid oid, rngsubtype oid, rngmultitypid oid, rngcollation oid",
    ),
    empty(
        "pg_proc",
        1255,
        "oid oid, proname name, pronamespace oid, proowner oid, prolang oid, prokind text, prorettype oid, proargtypes text",
    ),
    empty(
        "pg_views",
        12_160,
        "schemaname name, viewname name, viewowner name, definition text",
    ),
    empty(
        "pg_matviews",
        12_170,
        "schemaname name, matviewname name, matviewowner name, definition text",
    ),
    empty(
        "pg_extension",
        3079,
        "oid oid, extname name, extowner oid, extnamespace oid, extrelocatable bool, extversion text",
    ),
    empty(
        "pg_foreign_table",
        3118,
        "ftrelid oid, ftserver oid, ftoptions text",
    ),
    empty(
        "pg_foreign_server",
        1417,
        "oid oid, srvname name, srvowner oid, srvfdw oid, srvtype text, srvversion text, srvoptions text",
    ),
    empty(
        "pg_foreign_data_wrapper",
        2328,
        "oid oid, fdwname name, fdwowner oid",
    ),
    empty(
        "pg_event_trigger",
        3466,
        "oid oid, evtname name, evtevent name, evtowner oid, evtenabled text",
    ),
    empty(
        "pg_tablespace",
        1213,
        "oid oid, spcname name, spcowner oid, spcacl text, spcoptions text",
    ),
    empty(
        "pg_language",
        2612,
        "oid oid, lanname name, lanowner oid, lanispl bool",
    ),
    empty(
        "pg_db_role_setting",
        2964,
        "setdatabase oid, setrole oid, setconfig text",
    ),
    empty(
        "pg_default_acl",
        826,
        "oid oid, defaclrole oid, defaclnamespace oid, defaclobjtype text, defaclacl text",
    ),
    empty(
        "pg_prepared_xacts",
        12_180,
        "transaction text, gid text, prepared timestamptz, owner name, database name",
    ),
    standard(
        "tables",
        13_100,
        "table_catalog name, table_schema name, table_name name, table_type text, \
         self_referencing_column_name name, reference_generation text, user_defined_type_catalog name, \
         user_defined_type_schema name, user_defined_type_name name, is_insertable_into text, is_typed text, \
         commit_action text",
    ),
    standard(
        "columns",
        13_110,
        "table_catalog name, table_schema name, table_name name, column_name name, ordinal_position int4, \
         column_default text, is_nullable text, data_type text, character_maximum_length int4, \
         character_octet_length int4, numeric_precision int4, numeric_precision_radix int4, numeric_scale int4, \
         datetime_precision int4, udt_catalog name, udt_schema name, udt_name name, is_identity text, \
         is_generated text, is_updatable text",
    ),
    standard(
        "schemata",
        13_120,
        "catalog_name name, schema_name name, schema_owner name",
    ),
    standard(
        "table_constraints",
        13_130,
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, \
         table_schema name, table_name name, constraint_type text, is_deferrable text, initially_deferred text, \
         enforced text",
    ),
    standard(
        "key_column_usage",
        13_140,
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, \
         table_schema name, table_name name, column_name name, ordinal_position int4, \
         position_in_unique_constraint int4",
    ),
];
