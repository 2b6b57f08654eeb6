//! From an access path to shards, keys and ranges.

use std::collections::BTreeMap;

use bytes::Bytes;
use neorunbase_expression::{EvaluationContext, Expression};
use neorunbase_protocol::message::{ShardId, StorageId};
use neorunbase_sql::access::AccessPath;
use neorunbase_storage::key::{encode_index_key, encode_key, prefix_end};
use neorunbase_txn::ReadSet;
use neorunbase_types::{Datum, Result};
use neorunbase_world::fault::planted;

use crate::coordinator::location::TableLocation;

/// What to visit on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These rows.
    Keys(Vec<Bytes>),
    /// These rows of the primary key (`index` 0) or an index.
    Range {
        /// The index's storage, or 0.
        index: StorageId,
        /// Inclusive.
        lower: Bytes,
        /// Exclusive; empty: to the end.
        upper: Bytes,
    },
}

/// Whether a statement looks at one row only. What is committed there is a view of the data by itself; the newest versions
/// of several rows are not, while transactions are being committed in another order than that of their timestamps.
pub fn is_one_row(targets: &[(ShardId, Target)]) -> bool {
    matches!(targets, [(_, Target::Keys(keys))] if keys.len() == 1 || planted("newest-rows-not-of-one-instant"))
}

impl Target {
    /// Remembers that `shard` was asked for this, whatever it has there.
    pub fn record(&self, reads: &mut ReadSet, shard: ShardId, storage: StorageId) {
        match self {
            Self::Keys(keys) => reads.read_keys(shard, storage, keys),
            Self::Range { index, lower, upper } => reads.read_range(shard, storage, *index, lower, upper),
        }
    }
}

/// Evaluates constants of a path. `None` if one of them is NULL: nothing equals NULL, so no row qualifies.
fn constants(
    expressions: &[Expression],
    parameters: &[Datum],
    time_unix_micros: i64,
) -> Result<Option<Vec<Datum>>> {
    let context = EvaluationContext {
        row: &[],
        parameters,
        statement_time_unix_micros: time_unix_micros,
    };
    let mut values = Vec::with_capacity(expressions.len());
    for expression in expressions {
        let value = expression.evaluate(&context)?;
        if value.is_null() {
            return Ok(None);
        }
        values.push(value);
    }
    Ok(Some(values))
}

/// The shards to visit and what to visit there.
///
/// # Errors
/// Those of evaluating the path's constants.
pub fn targets(
    location: &TableLocation,
    path: &AccessPath,
    parameters: &[Datum],
    time_unix_micros: i64,
) -> Result<Vec<(ShardId, Target)>> {
    match path {
        AccessPath::Keys(keys) => {
            if let [key] = keys.as_slice() {
                let Some(values) = constants(key, parameters, time_unix_micros)? else {
                    return Ok(Vec::new());
                };
                let (shard, key) = location.locate(&values);
                return Ok(vec![(shard, Target::Keys(vec![key]))]);
            }
            let mut by_shard: BTreeMap<ShardId, Vec<Bytes>> = BTreeMap::new();
            for key in keys {
                if let Some(values) = constants(key, parameters, time_unix_micros)? {
                    let (shard, key) = location.locate(&values);
                    by_shard.entry(shard).or_default().push(key);
                }
            }
            Ok(by_shard
                .into_iter()
                .map(|(shard, mut keys)| {
                    // Ascending keys lock in one order everywhere; a key named twice is one row.
                    keys.sort_unstable();
                    keys.dedup();
                    (shard, Target::Keys(keys))
                })
                .collect())
        }
        AccessPath::ShardKey {
            shard_key,
            key_prefix,
        } => {
            let (Some(shard_key), Some(prefix)) = (
                constants(shard_key, parameters, time_unix_micros)?,
                constants(key_prefix, parameters, time_unix_micros)?,
            ) else {
                return Ok(Vec::new());
            };
            let lower = encode_key(&prefix);
            let upper = prefix_end(&lower);
            Ok(vec![(
                location.shard_of(&shard_key),
                Target::Range {
                    index: 0,
                    lower,
                    upper,
                },
            )])
        }
        AccessPath::Index { index, prefix } => {
            let Some(values) = constants(prefix, parameters, time_unix_micros)? else {
                return Ok(Vec::new());
            };
            let index = &location.table.indexes[*index];
            let lower = encode_index_key(
                values
                    .iter()
                    .zip(index.columns.iter().map(|(_, descending)| *descending)),
            );
            let upper = prefix_end(&lower);
            Ok(ranges(location, index.storage, &lower, &upper))
        }
        AccessPath::Full => Ok(ranges(location, 0, &Bytes::new(), &Bytes::new())),
    }
}

fn ranges(
    location: &TableLocation,
    index: StorageId,
    lower: &Bytes,
    upper: &Bytes,
) -> Vec<(ShardId, Target)> {
    let range = Target::Range {
        index,
        lower: lower.clone(),
        upper: upper.clone(),
    };
    location
        .all_shards()
        .into_iter()
        .map(|shard| (shard, range.clone()))
        .collect()
}
