//! Histories that are fine, and twins of them that must be rejected by name.

use super::*;

fn append(key: i64, element: i64) -> Action {
    Action::Append { key, element }
}

fn read(key: i64, list: &[i64]) -> Action {
    Action::Read {
        key,
        list: Some(list.to_vec()),
    }
}

fn transaction(client: u32, invoked: u64, completed: u64, actions: Vec<Action>) -> Record<Transaction> {
    Record {
        client,
        invoked_micros: invoked,
        completed_micros: Some(completed),
        outcome: Outcome::Done,
        error: None,
        operation: Transaction { actions },
    }
}

/// All at the same time, by different clients.
fn concurrent(transactions: Vec<Vec<Action>>) -> Vec<Record<Transaction>> {
    transactions
        .into_iter()
        .enumerate()
        .map(|(client, actions)| transaction(u32::try_from(client).unwrap_or(0), 0, 100, actions))
        .collect()
}

fn anomalies(history: &[Record<Transaction>], level: Level) -> BTreeSet<String> {
    check("test", history, level)
        .violations
        .iter()
        .map(|violation| violation.split(": ").next().unwrap_or("").to_owned())
        .collect()
}

#[track_caller]
fn expect(history: &[Record<Transaction>], level: Level, names: &[&str]) {
    let expected: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let report = check("test", history, level);
    assert_eq!(anomalies(history, level), expected, "{:#?}", report.violations);
}

const ALL: [Level; 3] = [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable];

#[test]
fn accepts_a_serial_history() {
    let history = [
        transaction(0, 0, 1, vec![append(1, 1), append(2, 2)]),
        transaction(1, 2, 3, vec![read(1, &[1]), append(1, 3), read(1, &[1, 3])]),
        transaction(0, 4, 5, vec![read(1, &[1, 3]), read(2, &[2])]),
    ];
    for level in ALL {
        expect(&history, level, &[]);
    }
}

#[test]
fn rejects_write_skew_at_serializable_only() {
    let history = concurrent(vec![
        vec![read(1, &[]), append(2, 1)],
        vec![read(2, &[]), append(1, 2)],
        vec![read(1, &[2]), read(2, &[1])],
    ]);
    for level in [Level::ReadCommitted, Level::RepeatableRead] {
        expect(&history, level, &[]);
    }
    expect(&history, Level::Serializable, &["G2-item"]);
    let report = check("test", &history, Level::Serializable);
    // The cycle is told with the operations in it.
    assert!(
        report.violations[0].contains("read 1 []; append 2 1"),
        "{report:?}"
    );
    assert_eq!(report.violations[0].matches("—rw→").count(), 2, "{report:?}");
}

/// A reader that sees the second of two transactions but not the first, which only the two of them order (Fekete,
/// O'Neil and O'Neil's read-only anomaly).
#[test]
fn rejects_the_read_only_anomaly_at_serializable_only() {
    let history = concurrent(vec![
        vec![read(1, &[]), read(2, &[]), append(1, 1)],
        vec![read(2, &[]), append(2, 2)],
        vec![read(1, &[]), read(2, &[2])],
        vec![read(1, &[1]), read(2, &[2])],
    ]);
    expect(&history, Level::RepeatableRead, &[]);
    expect(&history, Level::Serializable, &["G2-item"]);
}

#[test]
fn rejects_write_skew_that_only_time_completes() {
    let history = [
        transaction(0, 0, 100, vec![read(2, &[]), append(1, 1)]),
        transaction(1, 20, 30, vec![append(2, 2)]),
        transaction(2, 40, 50, vec![read(1, &[])]),
        transaction(3, 110, 120, vec![read(1, &[1]), read(2, &[2])]),
    ];
    expect(&history, Level::RepeatableRead, &[]);
    expect(&history, Level::Serializable, &["G2-item-realtime"]);
    // Without an order in time there is one in which all of it makes sense.
    let mut earlier = history.to_vec();
    earlier[2].invoked_micros = 10;
    expect(&earlier, Level::Serializable, &[]);
}

#[test]
fn rejects_dirty_writes() {
    let history = concurrent(vec![
        vec![append(1, 1), append(2, 2)],
        vec![append(1, 3), append(2, 4)],
        vec![read(1, &[1, 3]), read(2, &[4, 2])],
    ]);
    expect(&history, Level::ReadCommitted, &["G0"]);
}

#[test]
fn rejects_aborted_reads() {
    let mut history = concurrent(vec![vec![append(1, 1)], vec![read(1, &[1])]]);
    for level in ALL {
        expect(&history, level, &[]);
    }
    history[0].outcome = Outcome::Failed;
    for level in ALL {
        expect(&history, level, &["G1a aborted read"]);
    }
    history[0].outcome = Outcome::Unknown;
    for level in ALL {
        expect(&history, level, &[]);
    }
}

#[test]
fn rejects_intermediate_reads() {
    let history = concurrent(vec![
        vec![append(1, 1), append(1, 2)],
        vec![read(1, &[1])],
        vec![read(1, &[1, 2])],
    ]);
    assert!(anomalies(&history, Level::ReadCommitted).contains("G1b intermediate read"));
}

#[test]
fn rejects_circular_information_flow() {
    let history = concurrent(vec![
        vec![append(1, 1), read(2, &[2])],
        vec![append(2, 2), read(1, &[1])],
    ]);
    for level in ALL {
        expect(&history, level, &["G1c"]);
    }
}

#[test]
fn rejects_read_skew_above_read_committed() {
    let history = concurrent(vec![
        vec![append(1, 1), append(2, 2)],
        vec![read(1, &[]), read(2, &[2])],
        vec![read(1, &[1]), read(2, &[2])],
    ]);
    expect(&history, Level::ReadCommitted, &[]);
    expect(&history, Level::RepeatableRead, &["G-single"]);
}

#[test]
fn rejects_long_forks() {
    let history = concurrent(vec![
        vec![append(1, 1)],
        vec![append(2, 2)],
        vec![read(1, &[1]), read(2, &[])],
        vec![read(1, &[]), read(2, &[2])],
        vec![read(1, &[1]), read(2, &[2])],
    ]);
    expect(&history, Level::ReadCommitted, &[]);
    expect(&history, Level::RepeatableRead, &["G-nonadjacent"]);
}

#[test]
fn rejects_lost_updates() {
    let history = concurrent(vec![
        vec![read(1, &[]), append(1, 1)],
        vec![read(1, &[]), append(1, 2)],
        vec![read(1, &[1, 2])],
    ]);
    expect(&history, Level::ReadCommitted, &[]);
    expect(&history, Level::RepeatableRead, &["G-single", "lost update"]);
}

#[test]
fn rejects_what_a_transaction_must_know_of_itself() {
    let blind = concurrent(vec![vec![append(1, 1), read(1, &[])]]);
    for level in ALL {
        assert!(anomalies(&blind, level).contains("internal"));
    }
    let moving = concurrent(vec![vec![append(1, 1)], vec![read(1, &[]), read(1, &[1])]]);
    assert!(!anomalies(&moving, Level::ReadCommitted).contains("internal"));
    assert!(anomalies(&moving, Level::RepeatableRead).contains("internal"));
}

#[test]
fn rejects_what_a_transaction_sees_of_its_own_future() {
    let mut future = concurrent(vec![vec![read(1, &[2]), append(1, 2)], vec![read(1, &[2])]]);
    expect(&future, Level::ReadCommitted, &["future read"]);
    future[0].outcome = Outcome::Failed;
    future.pop();
    for level in ALL {
        expect(&future, level, &["future read"]);
    }
}

#[test]
fn rejects_lists_that_fork_repeat_or_come_from_nowhere() {
    let fork = concurrent(vec![
        vec![append(1, 1)],
        vec![append(1, 2)],
        vec![read(1, &[1])],
        vec![read(1, &[2])],
    ]);
    assert!(anomalies(&fork, Level::ReadCommitted).contains("incompatible-order"));
    let twice = concurrent(vec![vec![append(1, 1)], vec![read(1, &[1, 1])]]);
    assert!(anomalies(&twice, Level::ReadCommitted).contains("duplicate"));
    let garbage = concurrent(vec![vec![read(1, &[9])]]);
    assert!(anomalies(&garbage, Level::ReadCommitted).contains("garbage read"));
}

#[test]
fn rejects_lost_appends_and_stale_reads() {
    let lost = [
        transaction(0, 0, 1, vec![append(1, 1)]),
        transaction(1, 2, 3, vec![read(1, &[])]),
    ];
    for level in ALL {
        expect(&lost, level, &["lost append"]);
    }
    let stale = [
        transaction(0, 0, 1, vec![append(1, 1)]),
        transaction(1, 2, 3, vec![read(1, &[])]),
        transaction(2, 4, 5, vec![read(1, &[1])]),
    ];
    assert!(anomalies(&stale, Level::ReadCommitted).contains("stale read"));
    assert!(anomalies(&stale, Level::RepeatableRead).contains("G-single-realtime"));
}

#[test]
fn rejects_reads_that_miss_more_than_the_next_append() {
    let mut history = [
        transaction(0, 0, 0, vec![append(1, 1)]),
        transaction(1, 5, 10, vec![append(1, 2)]),
        transaction(2, 20, 21, vec![read(1, &[])]),
        transaction(3, 30, 31, vec![read(1, &[1, 2])]),
    ];
    history[0].outcome = Outcome::Unknown;
    history[0].completed_micros = None;
    expect(&history, Level::ReadCommitted, &["stale read"]);
    // Begun before the answer, it may come before both.
    history[2].invoked_micros = 9;
    expect(&history, Level::ReadCommitted, &[]);
    // Neither got an answer, but somebody was told.
    history[1].outcome = Outcome::Unknown;
    history[1].completed_micros = None;
    history[2].invoked_micros = 20;
    expect(&history, Level::ReadCommitted, &[]);
    let mut told = history.to_vec();
    told.push(transaction(4, 8, 9, vec![read(1, &[1, 2])]));
    expect(&told, Level::ReadCommitted, &["stale read"]);
}

#[test]
fn rejects_writes_against_real_time() {
    let history = [
        transaction(0, 0, 1, vec![append(1, 1)]),
        transaction(1, 2, 3, vec![append(1, 2)]),
        transaction(2, 4, 5, vec![read(1, &[2, 1])]),
    ];
    for level in ALL {
        expect(&history, level, &["G0-realtime"]);
    }
    // The same client: its own order is the stronger accusation.
    let mut same_client = history.to_vec();
    same_client[1].client = 0;
    expect(&same_client, Level::ReadCommitted, &["G0-process"]);
}

#[test]
fn lets_what_got_no_answer_happen_late_but_not_early() {
    let without_answer = |mut record: Record<Transaction>| {
        record.completed_micros = None;
        record.outcome = Outcome::Unknown;
        record
    };
    let history = [
        without_answer(transaction(0, 0, 0, vec![append(1, 1)])),
        transaction(0, 10, 11, vec![read(1, &[])]),
        transaction(1, 12, 13, vec![read(1, &[])]),
        transaction(1, 14, 15, vec![read(1, &[1])]),
    ];
    for level in ALL {
        expect(&history, level, &[]);
    }
    // Once it was seen, it has happened.
    let mut forgotten = history.to_vec();
    forgotten[1] = transaction(2, 1, 2, vec![read(1, &[1])]);
    for level in ALL {
        assert!(anomalies(&forgotten, level).contains("stale read"));
    }
    // What was acknowledged before it was asked for comes before it.
    let early = [
        transaction(0, 0, 1, vec![read(1, &[2])]),
        without_answer(transaction(0, 2, 0, vec![append(1, 2)])),
    ];
    expect(&early, Level::ReadCommitted, &["G1c-process"]);
}

#[test]
fn what_others_saw_has_committed_with_all_that_it_read() {
    let mut history = concurrent(vec![
        vec![append(1, 1)],
        vec![read(1, &[1]), append(1, 2)],
        vec![read(1, &[1]), append(1, 3)],
        vec![read(1, &[1, 3, 2])],
    ]);
    history[1].outcome = Outcome::Unknown;
    history[1].completed_micros = None;
    expect(&history, Level::ReadCommitted, &[]);
    expect(&history, Level::RepeatableRead, &["G-single", "lost update"]);
    // Nobody saw that it committed: so it did not.
    let mut unproven = history.clone();
    unproven[3] = transaction(3, 0, 100, vec![read(1, &[1, 3])]);
    expect(&unproven, Level::RepeatableRead, &[]);
    // Who sees its own appends proves nothing.
    let mut own = unproven.clone();
    own[1].operation.actions.push(read(1, &[1, 2]));
    expect(&own, Level::RepeatableRead, &[]);
    own[1].outcome = Outcome::Failed;
    expect(&own, Level::RepeatableRead, &[]);
    // It must know of itself what everybody must.
    let mut blind = history.clone();
    blind[1].operation.actions = vec![append(1, 2), read(1, &[1])];
    expect(&blind, Level::ReadCommitted, &["internal"]);
    // Write skew of which one half got no answer.
    let mut skew = concurrent(vec![
        vec![read(1, &[]), append(2, 1)],
        vec![read(2, &[]), append(1, 2)],
        vec![read(1, &[2]), read(2, &[1])],
    ]);
    skew[1].outcome = Outcome::Unknown;
    skew[1].completed_micros = None;
    expect(&skew, Level::RepeatableRead, &[]);
    expect(&skew, Level::Serializable, &["G2-item"]);
}

#[test]
fn whoever_fails_later_reads_what_was_committed_too() {
    let failed = |actions| {
        let mut record = transaction(1, 0, 100, actions);
        record.outcome = Outcome::Failed;
        record
    };
    let dirty = [failed(vec![append(1, 1)]), failed(vec![read(1, &[1])])];
    let intermediate = [
        transaction(0, 0, 100, vec![append(1, 1), append(1, 2)]),
        failed(vec![read(1, &[1])]),
    ];
    // It is as good a witness of what others had done by then, and of nothing that it did itself.
    let fork = [
        transaction(0, 0, 100, vec![append(1, 1), read(1, &[1])]),
        transaction(0, 0, 100, vec![append(1, 2), read(1, &[1, 2])]),
        failed(vec![read(1, &[2])]),
    ];
    let fine = [
        transaction(0, 0, 1, vec![append(1, 1)]),
        failed(vec![read(1, &[1]), append(1, 2), read(1, &[1, 2])]),
        transaction(2, 0, 200, vec![append(1, 3), read(1, &[1, 3])]),
    ];
    for level in ALL {
        expect(&dirty, level, &["G1a aborted read"]);
        expect(&intermediate, level, &["G1b intermediate read"]);
        assert!(anomalies(&fork, level).contains("incompatible-order"));
        expect(&fine, level, &[]);
    }
}

#[test]
fn knows_what_was_taken_back() {
    use Action::{RollbackTo, Savepoint};
    let own = vec![
        append(1, 1),
        Savepoint,
        append(1, 2),
        read(1, &[1, 2]),
        RollbackTo,
        read(1, &[1]),
        append(1, 3),
        read(1, &[1, 3]),
    ];
    let history = |others: Vec<Action>| concurrent(vec![own.clone(), others]);
    for level in ALL {
        expect(&history(vec![read(1, &[1, 3])]), level, &[]);
        let kept = history(vec![read(1, &[1, 2, 3])]);
        assert!(anomalies(&kept, level).contains("G1a aborted read"));
        let too_early = history(vec![read(1, &[1, 2])]);
        assert!(anomalies(&too_early, level).contains("G1a aborted read"));
        let too_much = history(vec![read(1, &[3])]);
        assert!(anomalies(&too_much, level).contains("incompatible-order"));
        let blind = concurrent(vec![vec![Savepoint, append(1, 1), read(1, &[]), RollbackTo]]);
        assert!(anomalies(&blind, level).contains("internal"));
        let remembered = concurrent(vec![vec![Savepoint, append(1, 1), RollbackTo, read(1, &[1])]]);
        assert!(anomalies(&remembered, level).contains("internal"));
        let missing = concurrent(vec![vec![append(1, 1), Savepoint, RollbackTo, read(1, &[])]]);
        assert!(anomalies(&missing, level).contains("internal"));
    }
    // What was taken back overwrote nothing.
    let no_lost_update = concurrent(vec![
        vec![read(1, &[]), Savepoint, append(1, 1), RollbackTo],
        vec![read(1, &[]), append(1, 2)],
        vec![read(1, &[2])],
    ]);
    expect(&no_lost_update, Level::RepeatableRead, &[]);
}

#[test]
fn tells_the_operations_of_a_cycle_and_what_leads_from_one_to_the_next() {
    let history = concurrent(vec![
        vec![append(1, 1), append(2, 2)],
        vec![read(1, &[]), read(2, &[2])],
        vec![read(1, &[1]), read(2, &[2])],
    ]);
    let violations = check("test", &history, Level::RepeatableRead).violations;
    assert_eq!(violations.len(), 1, "{violations:#?}");
    for part in [
        "G-single: ",
        "T1 (client 1, 0-100 µs, Done: read 1 []; read 2 [2]) —rw→ (it did not see 1 in 1)",
        "T0 (client 0, 0-100 µs, Done: append 1 1; append 2 2) —wr→ (which read 2 in 2) T1",
    ] {
        assert!(violations[0].contains(part), "{} lacks {part}", violations[0]);
    }
}
