//! Histories that must be rejected, and those that must not.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::definitions::{Change, Statement, Transaction};
use crate::level::Level;

fn event(action: Action, begins: u64, ends: u64) -> Event {
    Record {
        client: FINAL_READER,
        operation: Use {
            table: 0,
            action,
            was_missing: false,
        },
        invoked_micros: begins,
        completed_micros: Some(ends),
        outcome: Outcome::Done,
        error: None,
    }
}

fn read(ids: &[i64], by_index: &[i64], begins: u64) -> Event {
    let action = Action::Read {
        mark: 0,
        all: ids.iter().map(|id| (*id, id % 3)).collect(),
        by_index: by_index.to_vec(),
    };
    event(action, begins, begins + 5)
}

fn violations(records: &[Event]) -> Vec<String> {
    check(records, 1).violations
}

#[test]
fn accepts_what_an_emptied_table_shows() {
    let records = [
        event(Action::Insert { id: 3 }, 0, 10),
        read(&[3], &[3], 20),
        event(Action::Truncate, 30, 40),
        read(&[], &[], 50),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_rows_that_were_truncated() {
    let records = [
        event(Action::Insert { id: 3 }, 0, 10),
        event(Action::Truncate, 30, 40),
        read(&[3], &[3], 50),
    ];
    assert!(violations(&records)[0].starts_with("stale read"));
}

#[test]
fn rejects_rows_that_vanish_without_anybody_emptying_the_table() {
    let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[], &[], 50)];
    assert!(violations(&records)[0].starts_with("lost row"));
}

#[test]
fn rejects_an_index_without_a_row() {
    let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[3], &[], 50)];
    assert!(violations(&records)[0].starts_with("index and table differ"));
}

#[test]
fn rejects_a_dropped_table_that_is_used() {
    let records = [event(Action::Drop, 0, 10), read(&[], &[], 50)];
    assert!(violations(&records)[0].starts_with("stale definition"));
}

#[test]
fn rejects_a_table_that_nobody_dropped_and_is_missing() {
    let mut missing = read(&[], &[], 50);
    missing.operation.was_missing = true;
    missing.outcome = Outcome::Failed;
    assert!(violations(&[missing])[0].starts_with("lost definition"));
}

fn unknown(action: Action, begins: u64) -> Event {
    Record {
        completed_micros: None,
        outcome: Outcome::Unknown,
        ..event(action, begins, 0)
    }
}

fn missing(begins: u64) -> Event {
    let mut missing = read(&[], &[], begins);
    missing.operation.was_missing = true;
    missing.outcome = Outcome::Failed;
    missing
}

#[test]
fn rejects_an_older_row_that_outlives_a_later_one_whoever_may_have_emptied_the_table() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        event(Action::Insert { id: 6 }, 30, 40),
        read(&[3], &[3], 50),
    ];
    assert!(violations(&records)[0].starts_with("emptied in part"));
}

#[test]
fn accepts_that_an_unanswered_emptying_happens_late_and_removes_all() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        event(Action::Insert { id: 6 }, 30, 60),
        // The later one was still on its way when the table was emptied.
        event(Action::Insert { id: 9 }, 55, 70),
        read(&[9], &[9], 80),
        event(Action::Insert { id: 12 }, 90, 95),
        read(&[9, 12], &[9, 12], 100),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn accepts_rows_that_survive_as_they_may_have_been_written_after_the_emptying() {
    let records = [
        event(Action::Truncate, 15, 40),
        event(Action::Insert { id: 3 }, 10, 20),
        event(Action::Insert { id: 6 }, 12, 30),
        unknown(Action::Insert { id: 9 }, 5),
        read(&[6, 9], &[6, 9], 50),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_rows_that_come_back() {
    let records = [
        event(Action::Insert { id: 3 }, 10, 20),
        unknown(Action::Truncate, 25),
        read(&[], &[], 30),
        read(&[3], &[3], 40),
    ];
    assert!(violations(&records)[0].starts_with("row is back"));
}

#[test]
fn rejects_rows_that_are_found_twice() {
    let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[3, 3], &[3], 50)];
    assert!(violations(&records)[0].starts_with("row twice"));
    let records = [event(Action::Insert { id: 3 }, 0, 10), read(&[3], &[3, 3], 50)];
    assert!(violations(&records)[0].starts_with("row twice"));
}

#[test]
fn rejects_an_index_that_differs_from_rows_which_an_emptying_would_have_removed() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        event(Action::Insert { id: 6 }, 10, 20),
        read(&[3, 6], &[3], 50),
    ];
    assert!(violations(&records)[0].starts_with("index and table differ"));
}

#[test]
fn accepts_a_snapshot_whose_second_statement_meets_the_emptied_table() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        read(&[], &[3], 50),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_a_table_that_served_somebody_since_it_was_dropped_and_is_missing() {
    let records = [
        event(Action::Drop, 0, 14),
        event(Action::Create, 12, 15),
        event(Action::Insert { id: 3 }, 20, 30),
        missing(40),
    ];
    assert!(violations(&records)[0].starts_with("lost definition"));
    // One Coordinator shows what another has not heard of yet.
    let mut records = records.to_vec();
    records[1] = unknown(Action::Create, 12);
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_a_table_that_is_missing_before_anybody_drops_it() {
    let records = [missing(40), event(Action::Drop, 100, 110)];
    assert!(violations(&records)[0].starts_with("lost definition"));
}

#[test]
fn accepts_that_a_table_which_was_not_there_at_first_is_missing() {
    let mut records = [read(&[], &[], 10), missing(40), missing(50)];
    for record in &mut records[1..] {
        record.operation.table = 1;
    }
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
    assert!(check(&records, 1).is_complete);
    records[1].client = 0;
    records[2].client = 0;
    assert!(!check(&records, 1).is_complete);
}

/// Writes in `statements`, the first answered at `written`, and is committed from `committing` to `ends`.
fn transact(changes: &[Change], written: u64, committing: u64, ends: u64) -> Event {
    let statements = changes.iter().zip(written..).map(|(change, answered)| Statement {
        change: change.clone(),
        answered_micros: Some(answered),
        rows: 1,
    });
    let transaction = Transaction {
        level: Level::ReadCommitted,
        statements: statements.collect(),
        commit_micros: Some(committing),
    };
    event(Action::Transact { transaction }, written - 1, ends)
}

fn insert(ids: &[i64]) -> Change {
    Change::Insert { ids: ids.to_vec() }
}

#[test]
fn accepts_transactions_before_and_after_an_emptying() {
    let records = [
        transact(&[insert(&[3]), insert(&[6])], 10, 20, 30),
        read(&[3, 6], &[3, 6], 35),
        // It may have waited for the first one, and the last for it.
        event(Action::Truncate, 15, 50),
        transact(&[insert(&[9]), insert(&[12])], 60, 70, 80),
        read(&[9, 12], &[9, 12], 90),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_commits_of_what_was_written_before_an_acknowledged_definition() {
    let column = Action::Column { wanted: true };
    let index = Action::Index { wanted: true };
    for action in [Action::Truncate, Action::Drop, index, column] {
        let records = [
            transact(&[insert(&[3])], 10, 50, 60),
            event(action, 20, 40),
            read(&[], &[], 45),
        ];
        let violations = violations(&records);
        assert!(
            violations
                .iter()
                .any(|violation| violation.starts_with("commit across")),
            "{violations:?}"
        );
    }
}

#[test]
fn rejects_unanswered_commits_across_a_definition_once_their_rows_are_seen() {
    let mut commit = transact(&[insert(&[3])], 10, 50, 60);
    commit.outcome = Outcome::Unknown;
    commit.completed_micros = None;
    let index = event(Action::Index { wanted: true }, 20, 40);
    let records = [commit.clone(), index.clone(), read(&[], &[], 70)];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
    let records = [commit, index, read(&[3], &[3], 70)];
    assert!(violations(&records)[0].starts_with("commit across"));
}

#[test]
fn accepts_what_overlaps_a_definition() {
    let records = [
        transact(&[insert(&[3])], 10, 30, 60),
        event(Action::Truncate, 20, 40),
        // Before its first write, and refused.
        transact(&[insert(&[6])], 30, 50, 60),
        event(Action::Index { wanted: true }, 25, 45),
        read(&[6], &[6], 70),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_rows_that_are_lost_though_they_were_committed_after_the_emptying() {
    let records = [
        event(Action::Truncate, 20, 40),
        transact(&[insert(&[3])], 30, 50, 60),
        read(&[], &[], 70),
    ];
    assert!(violations(&records)[0].starts_with("lost row"));
}

#[test]
fn rejects_rows_of_an_unanswered_commit_that_outlive_an_emptying() {
    let mut commit = transact(&[insert(&[3])], 10, 30, 60);
    commit.outcome = Outcome::Unknown;
    commit.completed_micros = None;
    let records = [commit, event(Action::Truncate, 20, 40), read(&[3], &[3], 70)];
    assert!(violations(&records)[0].starts_with("stale read"));
}

#[test]
fn rejects_half_a_transaction() {
    let records = [
        unknown(Action::Truncate, 0),
        transact(&[insert(&[3]), insert(&[6])], 10, 20, 90),
        read(&[6], &[6], 50),
    ];
    assert!(violations(&records)[0].starts_with("torn transaction"));
    let records = [
        event(Action::Insert { id: 3 }, 0, 5),
        transact(&[insert(&[6]), Change::Delete { id: 3 }], 10, 20, 90),
        read(&[3, 6], &[3, 6], 50),
    ];
    assert!(violations(&records)[0].starts_with("torn transaction"));
}

#[test]
fn accepts_that_deleted_rows_are_missing_and_rejects_that_they_are_back() {
    let deletion = transact(&[insert(&[6]), Change::Delete { id: 3 }], 10, 20, 30);
    let insertion = event(Action::Insert { id: 3 }, 0, 5);
    let records = [insertion.clone(), deletion.clone(), read(&[6], &[6], 50)];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
    let records = [insertion.clone(), deletion.clone(), read(&[3], &[3], 50)];
    assert!(
        violations(&records)
            .iter()
            .any(|violation| violation.starts_with("row is back"))
    );
    // Nobody knows whether it was deleted.
    let mut unanswered = deletion;
    unanswered.outcome = Outcome::Unknown;
    unanswered.completed_micros = None;
    for seen in [&[3][..], &[6]] {
        let records = [insertion.clone(), unanswered.clone(), read(seen, seen, 50)];
        assert!(violations(&records).is_empty(), "{:?}", violations(&records));
    }
}

#[test]
fn accepts_an_index_of_a_changed_mark() {
    let remark = Change::Remark { id: 3, mark: 1 };
    let action = Action::Read {
        mark: 1,
        all: vec![(3, 1), (6, 0)],
        by_index: vec![3],
    };
    let records = [
        event(Action::Insert { id: 3 }, 0, 5),
        transact(&[insert(&[6]), remark], 10, 20, 30),
        event(action, 50, 55),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_definitions_that_were_acknowledged_twice() {
    let index = |wanted| Action::Index { wanted };
    let column = |wanted| Action::Column { wanted };
    for records in [
        vec![event(column(true), 0, 10), event(column(true), 20, 30)],
        vec![event(column(false), 0, 10)],
        vec![
            event(index(true), 0, 10),
            event(index(false), 20, 30),
            // No concern of the index.
            event(column(true), 32, 34),
            event(index(false), 40, 50),
        ],
        vec![
            event(index(true), 0, 10),
            event(Action::Drop, 20, 30),
            event(Action::Create, 40, 50),
            event(index(false), 60, 70),
        ],
    ] {
        assert!(violations(&records)[0].starts_with("definition without effect"));
    }
}

#[test]
fn accepts_definitions_in_turn() {
    let index = |wanted| Action::Index { wanted };
    let column = |wanted| Action::Column { wanted };
    let records = [
        event(index(true), 0, 10),
        // These overlap: the second one waited.
        event(index(false), 20, 40),
        event(index(true), 15, 50),
        event(column(true), 60, 70),
        event(Action::Drop, 80, 90),
        event(Action::Create, 100, 110),
        event(column(true), 120, 130),
        unknown(column(false), 140),
        event(column(true), 150, 160),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_two_emptyings_by_one_definition() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        read(&[], &[], 30),
        event(Action::Insert { id: 6 }, 40, 50),
        read(&[], &[], 60),
    ];
    assert!(violations(&records[..4]).is_empty());
    assert!(violations(&records)[0].starts_with("lost row"));
}

#[test]
fn accepts_two_emptyings_by_two_definitions() {
    let records = [
        unknown(Action::Truncate, 0),
        event(Action::Insert { id: 3 }, 10, 20),
        read(&[], &[], 30),
        event(Action::Insert { id: 6 }, 40, 50),
        // It may be what happened first, or second, as the other one may.
        event(Action::Truncate, 25, 55),
        read(&[], &[], 60),
        read(&[], &[], 70),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn rejects_a_table_that_one_definition_has_dropped_twice() {
    let records = [
        unknown(Action::Drop, 0),
        missing(10),
        event(Action::Create, 20, 30),
        missing(40),
    ];
    assert!(violations(&records[..3]).is_empty());
    assert!(violations(&records)[0].starts_with("lost definition"));
    let mut explained = records.to_vec();
    explained.push(unknown(Action::Drop, 35));
    assert!(violations(&explained).is_empty(), "{:?}", violations(&explained));
}

#[test]
fn accepts_a_drop_by_somebody_who_has_not_heard_of_the_table_yet() {
    let records = [
        event(Action::Drop, 0, 10),
        event(Action::Create, 15, 100),
        // The Coordinator that created it shows it first.
        event(Action::Insert { id: 3 }, 20, 30),
        missing(35),
        event(Action::Column { wanted: true }, 35, 38),
        event(Action::Drop, 40, 50),
        transact(&[insert(&[6])], 38, 70, 80),
        read(&[3, 6], &[3, 6], 110),
        event(Action::Column { wanted: false }, 120, 130),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

#[test]
fn accepts_a_commit_across_the_second_of_two_drops_of_an_index() {
    let records = [
        event(Action::Index { wanted: true }, 0, 5),
        event(Action::Index { wanted: false }, 10, 90),
        transact(&[insert(&[3])], 30, 60, 70),
        // It found nothing to do.
        event(Action::Index { wanted: false }, 40, 50),
        read(&[3], &[3], 100),
    ];
    assert!(violations(&records).is_empty(), "{:?}", violations(&records));
}

/// A transaction of the model that has written and not yet committed.
struct Open {
    ids: [i64; 2],
    written: u64,
    commits_at: u64,
    is_refused: bool,
}

/// What a database that keeps its promises may answer, with answers that are late or lost; without fences it does not
/// keep commits off a table that was redefined.
fn model_history(seed: u64, has_fences: bool) -> Vec<Event> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut records = Vec::new();
    let (mut exists, mut index, mut column) = (true, false, false);
    let mut rows: BTreeSet<i64> = BTreeSet::new();
    let mut open: Vec<Open> = Vec::new();
    let mut next_id = 1;
    for clock in (1_000..2_500).step_by(10) {
        let (due, later): (Vec<Open>, Vec<Open>) = open.into_iter().partition(|one| one.commits_at <= clock);
        open = later;
        for one in due {
            let effect = clock - 5;
            let changes = one.ids.map(|id| insert(&[id]));
            let committing = random.random_range(one.written + 1..=effect);
            let mut commit = transact(
                &changes,
                one.written,
                committing,
                effect + random.random_range(0..60),
            );
            if one.is_refused && has_fences {
                commit.outcome = Outcome::Failed;
            } else {
                rows.extend(one.ids);
            }
            if random.random_bool(0.2) {
                commit.outcome = Outcome::Unknown;
                commit.completed_micros = None;
            }
            records.push(commit);
        }
        let action = match random.random_range(0..20) {
            0 | 1 => Action::Create,
            2 => Action::Drop,
            3 => Action::Truncate,
            4 | 5 => Action::Index {
                wanted: random.random_bool(0.5),
            },
            6 | 7 => Action::Column {
                wanted: random.random_bool(0.5),
            },
            8..=10 => Action::Insert { id: next_id },
            11..=13 => {
                if exists {
                    open.push(Open {
                        ids: [next_id, next_id + 1],
                        written: clock + random.random_range(0..3),
                        commits_at: clock + random.random_range(10..80),
                        is_refused: false,
                    });
                    next_id += 2;
                }
                continue;
            }
            _ => Action::Read {
                mark: 0,
                all: rows.iter().map(|id| (*id, id % 3)).collect(),
                by_index: rows.iter().copied().filter(|id| id % 3 == 0).collect(),
            },
        };
        next_id += 1;
        let latest = if random.random_bool(0.1) { 400 } else { 40 };
        let asked = clock - random.random_range(0..latest);
        let mut event = event(action.clone(), asked, clock + random.random_range(0..60));
        let needs_table = !matches!(
            action,
            Action::Create | Action::Drop | Action::Index { wanted: false }
        );
        let has_nothing_to_do = matches!(action, Action::Index { wanted } if wanted == index)
            || matches!(action, Action::Column { wanted } if wanted == column);
        if needs_table && !exists {
            event.operation.was_missing = true;
            event.outcome = Outcome::Failed;
        } else if has_nothing_to_do {
            event.outcome = Outcome::Failed;
        } else {
            let redefines = !matches!(
                action,
                Action::Create | Action::Insert { .. } | Action::Read { .. }
            );
            open.iter_mut().for_each(|one| one.is_refused |= redefines);
            match action {
                Action::Create => exists = true,
                Action::Drop => (exists, index, column) = (false, false, false),
                Action::Index { wanted } => index = wanted,
                Action::Column { wanted } => column = wanted,
                Action::Insert { id } => {
                    rows.insert(id);
                }
                _ => {}
            }
            if matches!(action, Action::Drop | Action::Truncate) {
                rows.clear();
            }
        }
        if random.random_bool(0.2) {
            event.outcome = Outcome::Unknown;
            event.completed_micros = None;
            event.operation.was_missing = false;
        }
        records.push(event);
    }
    records
}

#[test]
fn accepts_whatever_an_honest_database_answers() {
    for seed in 0..500 {
        let records = model_history(seed, true);
        assert!(
            violations(&records).is_empty(),
            "seed {seed}: {:?}",
            violations(&records)
        );
    }
}

#[test]
fn rejects_more_than_half_of_what_a_database_without_fences_answers() {
    // The rest overlap, or ended unanswered: nobody could tell.
    let rejected = (0..100).filter(|seed| !violations(&model_history(*seed, false)).is_empty());
    let rejected = rejected.count();
    assert!(rejected > 50, "{rejected} of 100");
}
