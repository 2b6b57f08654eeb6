//! Whoever reads AS OF a timestamp sees what everybody sees at it, and timestamps agree with real time.

use std::collections::BTreeMap;

use crate::history::{FINAL_READER, Outcome, Record};
use crate::history_reads::{HistoryOperation, Look, SNAPSHOT_TOO_OLD};
use crate::workload::Report;

use super::refusal::may_be_tried_again;

/// Servers keep history for at least so long (five seconds by a clock that may be fast): what is older, or takes longer to read,
/// may be refused as gone.
const SHORTEST_RETENTION_MICROS: u64 = 4_750_000;

/// Bits of a timestamp below its milliseconds (docs/decisions/as-of-system-time.md).
const COUNTER_BITS: u32 = 20;
/// Timestamps may run ahead of the leaders' clocks by so much: each new leader begins a few seconds ahead.
const AHEAD_AT_MOST_MS: u64 = 60_000;

/// What is known of the servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations {
    /// Somebody damages disks: who meets a damaged copy of a shard is refused.
    pub is_damage_expected: bool,
    /// By how much the wall clocks of leaders may differ.
    pub clocks_apart_ms: u64,
}

/// Judges the history of `rows` rows with keys from 0 on.
pub fn check(records: &[Record<HistoryOperation>], rows: i64, expectations: Expectations) -> Report {
    let mut violations = Vec::new();
    let mut seen: BTreeMap<u64, (usize, &[(i64, i64)])> = BTreeMap::new();
    let mut fresh = Vec::new();
    // Since when each snapshot can be there.
    let mut noted: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut again, mut too_old, mut finals) = (0, 0, 0);
    for (index, record) in records.iter().enumerate() {
        let HistoryOperation::Look {
            look,
            timestamp,
            values,
            refusal,
        } = &record.operation
        else {
            continue;
        };
        if let Some(code) = refusal {
            let since_micros = match look {
                Look::Fresh => Some(record.invoked_micros),
                Look::Statement | Look::Block => noted.get(timestamp).copied(),
            };
            let may_be_too_old =
                record
                    .completed_micros
                    .zip(since_micros)
                    .is_none_or(|(completed, since)| {
                        completed.saturating_sub(since) >= SHORTEST_RETENTION_MICROS
                    });
            if code == SNAPSHOT_TOO_OLD && may_be_too_old {
                too_old += 1;
            } else if !may_be_tried_again(code, expectations.is_damage_expected) {
                let error = record.error.as_deref().unwrap_or_default();
                violations.push(format!("refused: {error}: {}", describe(record)));
            }
        }
        if record.outcome != Outcome::Done {
            continue;
        }
        if let Some(what) = half(values, rows) {
            violations.push(format!("{what}: {}", describe(record)));
        }
        match seen.get(timestamp) {
            None => {
                seen.insert(*timestamp, (index, values));
            }
            Some((_, first)) if *first == values.as_slice() => again += 1,
            Some((first, _)) => violations.push(format!(
                "the past has changed: {}, and then {}",
                describe(&records[*first]),
                describe(record)
            )),
        }
        if *look == Look::Fresh {
            noted.entry(*timestamp).or_insert(record.invoked_micros);
            finals += usize::from(record.client == FINAL_READER);
            fresh.push((record, *timestamp));
        }
    }
    violations.extend(backwards(&fresh));
    violations.extend(runs_ahead(&fresh, expectations.clocks_apart_ms));
    Report {
        workload: "history-reads".to_owned(),
        is_complete: finals > 0,
        violations,
        summary: format!(
            "{} snapshots, {again} readings of them later, {too_old} refused as too old",
            seen.len()
        ),
    }
}

fn half(values: &[(i64, i64)], rows: i64) -> Option<&'static str> {
    if !values.iter().map(|(row, _)| *row).eq(0..rows) {
        return Some("rows are missing or there twice");
    }
    let sum: i64 = values.iter().map(|(_, value)| value).sum();
    (sum != 0).then_some("part of a transaction is seen")
}

/// A snapshot that began after another one was read has no earlier timestamp.
fn backwards(fresh: &[(&Record<HistoryOperation>, u64)]) -> Option<String> {
    let mut by_end = fresh.to_vec();
    by_end.sort_by_key(|(record, _)| record.completed_micros);
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<(&Record<HistoryOperation>, u64)> = None;
    // Records are in order of invocation.
    for (record, timestamp) in fresh {
        while let Some(before) = ended.next_if(|(before, _)| before.ended_before(record)) {
            if latest.is_none_or(|(_, latest)| latest < before.1) {
                latest = Some(before);
            }
        }
        if let Some((before, latest)) = latest
            && latest > *timestamp
        {
            return Some(format!(
                "timestamps go back: {}, later {}",
                describe(before),
                describe(record)
            ));
        }
    }
    None
}

/// Ages can be read off timestamps: they advance as the clock does.
fn runs_ahead(fresh: &[(&Record<HistoryOperation>, u64)], clocks_apart_ms: u64) -> Option<String> {
    let (first, first_timestamp) = fresh.first()?;
    let (record, timestamp) = fresh.iter().find(|(record, timestamp)| {
        let advanced_ms = (timestamp >> COUNTER_BITS).saturating_sub(first_timestamp >> COUNTER_BITS);
        let completed = record.completed_micros.unwrap_or(u64::MAX);
        let passed_ms = completed.saturating_sub(first.invoked_micros) / 1_000;
        advanced_ms > passed_ms.saturating_add(AHEAD_AT_MOST_MS + clocks_apart_ms)
    })?;
    Some(format!(
        "timestamps run ahead of the clock: {first_timestamp} for {}, {timestamp} for {}",
        describe(first),
        describe(record)
    ))
}

fn describe(record: &Record<HistoryOperation>) -> String {
    format!(
        "client {}, {}-{} µs, {:?}",
        record.client,
        record.invoked_micros,
        record.completed_micros.unwrap_or_default(),
        record.operation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(invoked: u64, look: Look, timestamp: u64, values: &[(i64, i64)]) -> Record<HistoryOperation> {
        Record::done(
            0,
            invoked,
            invoked + 1,
            HistoryOperation::Look {
                look,
                timestamp,
                values: values.to_vec(),
                refusal: None,
            },
        )
    }

    fn judge(records: &[Record<HistoryOperation>]) -> Report {
        check(records, 2, Expectations::default())
    }

    fn refused(of: Look, code: &str) -> Record<HistoryOperation> {
        let mut record = look(0, of, 5, &[]);
        record.outcome = Outcome::Failed;
        if let HistoryOperation::Look { refusal, .. } = &mut record.operation {
            *refusal = Some(code.to_owned());
        }
        record
    }

    #[test]
    fn accepts_a_past_that_stays() {
        let mut last = look(9, Look::Fresh, 7, &[(0, 4), (1, -4)]);
        last.client = FINAL_READER;
        let history = [
            look(0, Look::Fresh, 5, &[(0, 1), (1, -1)]),
            look(0, Look::Fresh, 4, &[(0, 0), (1, 0)]),
            look(2, Look::Statement, 5, &[(0, 1), (1, -1)]),
            look(4, Look::Block, 4, &[(0, 0), (1, 0)]),
            refused(Look::Block, "08006"),
            refused(Look::Fresh, "55P03"),
            last,
        ];
        let report = judge(&history);
        assert!(report.is_acquittal(), "{:#?}", report.violations);
        assert!(!judge(&history[..6]).is_complete, "nobody looked at the end");
    }

    #[test]
    fn rejects_timestamps_that_leave_the_clock() {
        let at = |second: u64, advanced_ms: u64| {
            let timestamp = (1_000_000 + advanced_ms) << COUNTER_BITS;
            look(second * 1_000_000, Look::Fresh, timestamp, &[(0, 1), (1, -1)])
        };
        let near = [at(0, 0), at(10, 9_000), at(20, 79_000)];
        assert!(judge(&near).violations.is_empty());
        let far = [at(0, 0), at(10, 9_000), at(20, 81_000)];
        assert_eq!(judge(&far).violations.len(), 1);
        let expectations = Expectations {
            clocks_apart_ms: 2_000,
            ..Expectations::default()
        };
        assert!(check(&far, 2, expectations).violations.is_empty());
    }

    #[test]
    fn rejects_refusals_of_young_snapshots_as_too_old() {
        let first = look(10_000_000, Look::Fresh, 5, &[(0, 1), (1, -1)]);
        let refused_at = |invoked: u64, timestamp: u64| {
            let mut record = refused(Look::Statement, "72000");
            record.invoked_micros = invoked;
            record.completed_micros = Some(invoked + 1);
            if let HistoryOperation::Look { timestamp: of, .. } = &mut record.operation {
                *of = timestamp;
            }
            record
        };
        let violations = |refusal| judge(&[first.clone(), refusal]).violations.len();
        assert_eq!(violations(refused_at(10_000_002, 5)), 1);
        assert_eq!(violations(refused_at(14_700_000, 5)), 1);
        assert_eq!(violations(refused_at(15_000_000, 5)), 0);
        // Nobody knows when that was.
        assert_eq!(violations(refused_at(10_000_002, 4)), 0);
    }

    #[test]
    fn rejects_a_past_that_changes_or_is_refused_without_need() {
        let first = look(0, Look::Fresh, 5, &[(0, 1), (1, -1)]);
        for bad in [
            look(2, Look::Statement, 5, &[(0, 2), (1, -2)]),
            look(2, Look::Block, 5, &[(0, 0), (1, 0)]),
            look(2, Look::Block, 6, &[(0, 1), (1, 0)]),
            look(2, Look::Statement, 6, &[(0, 0)]),
            look(2, Look::Statement, 6, &[(0, 0), (1, 0), (1, 0)]),
            look(2, Look::Fresh, 4, &[(0, 1), (1, -1)]),
            refused(Look::Fresh, "72000"),
            refused(Look::Statement, "XX000"),
            refused(Look::Block, "42601"),
        ] {
            let history = [first.clone(), bad];
            assert_eq!(judge(&history).violations.len(), 1, "{history:#?}");
        }
    }
}
