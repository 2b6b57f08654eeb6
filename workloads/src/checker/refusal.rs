//! Which refusals conflicts and the faults of a cluster bring about. Others are the database's own fault.

use crate::deadlocks::DEADLOCK_DETECTED;

/// A damaged copy of a shard: `data_corrupted`.
const DAMAGED: &str = "XX001";

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
