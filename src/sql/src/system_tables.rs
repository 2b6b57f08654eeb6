//! `pg_catalog` and `information_schema`.

use neorunbase_types::Result;

use crate::bind::AnalysisContext;
use crate::query::relation::Relation;

pub(crate) fn exists(_schema: Option<&str>, _name: &str) -> bool {
    false
}

pub(crate) fn oid(_schema: Option<&str>, _name: &str) -> Option<u32> {
    None
}

pub(crate) fn relation(
    _context: &AnalysisContext,
    _schema: Option<&str>,
    _name: &str,
) -> Result<Option<Relation>> {
    Ok(None)
}
