//! Rows of the system tables that show the cluster.

use neorunbase_types::Datum;

use super::pg_catalog::text;
use crate::bind::AnalysisContext;
use crate::cluster_view::ShardPlacement;

fn number(value: u64) -> Datum {
    Datum::BigInt(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `neorunbase_shards`: where each shard's copies are.
pub(super) fn shards(context: &AnalysisContext) -> Vec<Vec<Datum>> {
    let placements = context.cluster.shards();
    placements
        .iter()
        .map(|placement| row(context, placement))
        .collect()
}

fn row(context: &AnalysisContext, placement: &ShardPlacement) -> Vec<Datum> {
    let tables = context.catalog.tables.values();
    let tables = tables.filter(|table| table.group == placement.group);
    let tables: Vec<_> = tables
        .map(|table| format!("{}.{}", table.schema, table.name))
        .collect();
    let group = context.catalog.groups.get(&placement.group);
    vec![
        number(placement.group.into()),
        number(placement.shard.into()),
        text(&tables.join(", ")),
        group.map_or(Datum::Null, |group| number(group.replicas.into())),
        text(&placement.primary),
        text(&placement.in_sync.join(", ")),
        text(&placement.replicas.join(", ")),
        number(placement.term),
        number(placement.epoch),
    ]
}
