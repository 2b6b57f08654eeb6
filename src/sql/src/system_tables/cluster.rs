//! Rows of the system tables that show the cluster.

use neorunbase_types::Datum;
use neorunbase_types::calendar::UNIX_EPOCH_TO_POSTGRES_MICROS;

use super::pg_catalog::text;
use crate::bind::AnalysisContext;
use crate::cluster_view::{JobSummary, NodeSummary, ShardPlacement};

fn number(value: u64) -> Datum {
    Datum::BigInt(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The rows of a system table that shows the cluster; `None`: `name` is another one.
pub(super) fn rows(context: &AnalysisContext, name: &str) -> Option<Vec<Vec<Datum>>> {
    match name {
        "neorunbase_shards" => Some(shards(context)),
        "neorunbase_nodes" => Some(context.cluster.nodes().iter().map(node).collect()),
        "neorunbase_jobs" => Some(context.cluster.jobs().iter().map(job).collect()),
        _ => None,
    }
}

fn number_or_null(value: Option<impl Into<u64>>) -> Datum {
    value.map_or(Datum::Null, |value| number(value.into()))
}

/// `neorunbase_nodes`: the data nodes and what they hold.
fn node(node: &NodeSummary) -> Vec<Datum> {
    vec![
        text(&node.name),
        text(&node.address),
        text(&node.labels),
        text(&node.state),
        number(node.copies),
        number(node.primaries),
        number(node.bytes),
        number(node.operations_per_second),
    ]
}

/// `neorunbase_jobs`: what the cluster does to itself.
fn job(job: &JobSummary) -> Vec<Datum> {
    let started = |micros: i64| Datum::TimestampTz(micros.saturating_sub(UNIX_EPOCH_TO_POSTGRES_MICROS));
    vec![
        text(&job.kind),
        number_or_null(job.group),
        number_or_null(job.shard),
        text(&job.from),
        job.to.as_ref().map_or(Datum::Null, |to| text(to)),
        number_or_null(job.bytes_done),
        number_or_null(job.bytes_total),
        job.started_unix_micros.map_or(Datum::Null, started),
        text(&job.state),
        text(&job.reason),
    ]
}

/// `neorunbase_shards`: where each shard's copies are.
fn shards(context: &AnalysisContext) -> Vec<Vec<Datum>> {
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
        number_or_null(placement.bytes),
        number_or_null(placement.operations_per_second),
    ]
}
