//! `pg_catalog` and `information_schema`.

pub(crate) fn exists(_schema: Option<&str>, _name: &str) -> bool {
    false
}

pub(crate) fn oid(_schema: Option<&str>, _name: &str) -> Option<u32> {
    None
}
