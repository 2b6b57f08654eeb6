//! Which refusals conflicts and the faults of a cluster bring about. Others are the database's own fault.

use std::fmt;

use crate::deadlocks::DEADLOCK_DETECTED;
use crate::history::Record;

/// A damaged copy of a shard: `data_corrupted`.
const DAMAGED: &str = "XX001";
/// How [`CallError::Nonsense`](crate::client::CallError::Nonsense) is written down.
const NONSENSE: &str = "nonsense from the server";

/// Whether a refusal says that the transaction may succeed if it is tried again: conflicts, locks, an outcome of another
/// transaction that nobody can tell in time (55P03), lost connections and outcomes, shutdowns, no resources, no answer of
/// a disk; and damage, if somebody damages disks.
pub(super) fn may_be_tried_again(code: &str, is_damage_expected: bool) -> bool {
    matches!(code, DEADLOCK_DETECTED | "40001" | "55P03")
        || code == DAMAGED && is_damage_expected
        || ["08", "40", "53", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class))
}

/// An error that only a bug of the database explains.
pub(crate) struct OwnFault {
    /// As the client was told.
    pub(crate) error: String,
    client: u32,
    invoked_micros: u64,
}

impl fmt::Display for OwnFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            error,
            client,
            invoked_micros,
        } = self;
        write!(
            formatter,
            "the server's own fault: {error} (client {client}, {invoked_micros} µs)"
        )
    }
}

/// Class XX, and answers without sense, whatever the workload. Damage is left to checkers that know whether somebody
/// damages disks.
pub(crate) fn own_faults<T>(records: &[Record<T>]) -> Vec<OwnFault> {
    let is_own_fault = |error: &str| {
        let is_internal = error.starts_with("XX") && !error.starts_with(DAMAGED);
        is_internal || error.starts_with(NONSENSE)
    };
    records
        .iter()
        .filter_map(|record| {
            let error = record.error.as_deref().filter(|error| is_own_fault(error))?;
            Some(OwnFault {
                error: error.to_owned(),
                client: record.client,
                invoked_micros: record.invoked_micros,
            })
        })
        .collect()
}
