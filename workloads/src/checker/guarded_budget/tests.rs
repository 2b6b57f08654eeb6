use super::*;

/// A ledger of entries with these ids and amounts.
type Ledger<'a> = &'a [Entry];

fn reading(at: u64, entries: Ledger<'_>) -> Reading {
    Reading {
        asked_micros: at,
        answered_micros: at + 1,
        entries: entries.to_vec(),
    }
}

/// Invoked at `at`, looks at 2 and 4 after that, done at 9 after that. Which client it is does not matter.
fn visit(at: u64, lock: Lock, looks: &[Ledger<'_>]) -> Record<Visit> {
    let looks = looks.iter().zip([at + 2, at + 4]);
    let visit = Visit {
        account: 1,
        lock,
        allowance: (lock != Lock::None).then_some(ALLOWANCE),
        readings: looks.map(|(entries, at)| reading(at, entries)).collect(),
        ..Visit::default()
    };
    Record::done(0, at, at + 9, visit)
}

fn spend(at: u64, seen: Ledger<'_>, entry: Entry) -> Record<Visit> {
    let mut record = visit(at, Lock::Update, &[seen]);
    record.operation.entered = Some(entry);
    record
}

fn take_back(at: u64, seen: Ledger<'_>, removed: &[i64], receipt: i64) -> Record<Visit> {
    let mut record = visit(at, Lock::NoKeyUpdate, &[seen]);
    record.operation.entered = Some((receipt, 0));
    record.operation.removed = removed.to_vec();
    record.operation.removed_rows = removed.len() as u64;
    record
}

fn look(at: u64, seen: Ledger<'_>) -> Record<Visit> {
    visit(at, Lock::None, &[seen])
}

fn share(at: u64, first: Ledger<'_>, second: Ledger<'_>) -> Record<Visit> {
    visit(at, Lock::Share, &[first, second])
}

fn unknown(record: Record<Visit>) -> Record<Visit> {
    Record {
        outcome: Outcome::Unknown,
        completed_micros: None,
        error: Some("no answer".to_owned()),
        ..record
    }
}

fn failed(record: Record<Visit>) -> Record<Visit> {
    Record {
        outcome: Outcome::Failed,
        error: Some("40001".to_owned()),
        ..record
    }
}

/// Its client was never heard of again, nor what it saw.
fn open(record: Record<Visit>) -> Record<Visit> {
    Record {
        error: None,
        operation: Visit {
            account: 1,
            lock: record.operation.lock,
            ..Visit::default()
        },
        ..unknown(record)
    }
}

fn assert_good(records: &[Record<Visit>]) {
    assert_eq!(check(records).violations, Vec::<String>::new());
}

/// That the anomaly is told, and no other.
fn assert_bad(records: &[Record<Visit>], anomaly: &str) -> String {
    let violations = check(records).violations;
    let [violation] = violations.as_slice() else {
        panic!("{anomaly} is not all that was found: {violations:?}");
    };
    assert!(violation.starts_with(&format!("{anomaly}: ")), "{violation}");
    violation.clone()
}

#[test]
fn accepts_one_after_the_other() {
    assert_good(&[
        look(0, &[]),
        spend(10, &[], (1, 12)),
        spend(20, &[(1, 12)], (2, 8)),
        share(30, &[(1, 12), (2, 8)], &[(1, 12), (2, 8)]),
        take_back(40, &[(1, 12), (2, 8)], &[1, 2], 3),
        spend(50, &[(3, 0)], (4, 20)),
        take_back(60, &[(3, 0), (4, 20)], &[3], 5),
        look(70, &[(4, 20), (5, 0)]),
    ]);
}

#[test]
fn accepts_what_overlaps() {
    // The second one looked when the first one had committed but not been answered; readers before, between and after.
    assert_good(&[
        spend(10, &[], (2, 5)),
        spend(12, &[(2, 5)], (1, 5)),
        look(11, &[]),
        look(12, &[(2, 5)]),
        look(12, &[(1, 5), (2, 5)]),
        share(13, &[(1, 5), (2, 5)], &[(1, 5), (2, 5)]),
    ]);
}

#[test]
fn accepts_what_nobody_knows() {
    let lost = unknown(spend(0, &[], (1, 5)));
    assert_good(&[lost.clone(), spend(10, &[], (2, 6)), look(20, &[(2, 6)])]);
    assert_good(&[
        lost.clone(),
        spend(10, &[(1, 5)], (2, 6)),
        look(20, &[(1, 5), (2, 6)]),
    ]);
    // It may still happen.
    assert_good(&[lost.clone(), look(10, &[]), look(20, &[(1, 5)])]);
    // What it entered was taken back.
    assert_good(&[
        lost,
        unknown(take_back(10, &[(1, 5)], &[1], 2)),
        look(20, &[(2, 0)]),
    ]);
}

#[test]
fn accepts_what_failed_without_its_lock() {
    assert_good(&[
        failed(share(0, &[], &[(1, 5)])),
        failed(spend(0, &[], (2, 5))),
        unknown(share(0, &[], &[(1, 5)])),
        spend(0, &[], (1, 5)),
        look(20, &[(1, 5)]),
    ]);
    let mut short = failed(take_back(10, &[(1, 5)], &[1], 3));
    short.operation.removed_rows = 0;
    assert_good(&[spend(0, &[], (1, 5)), short]);
}

#[test]
fn accounts_have_nothing_to_do_with_each_other() {
    let mut other = spend(0, &[], (2, 20));
    other.operation.account = 0;
    assert_good(&[spend(0, &[], (1, 20)), other, look(20, &[(1, 20)])]);
}

#[test]
fn rejects_two_holders() {
    let told = assert_bad(
        &[spend(10, &[], (1, 5)), spend(11, &[], (2, 5))],
        "two holders of one lock",
    );
    assert!(
        told.contains("T0 (client 0, invoked at 10 µs, FOR UPDATE)"),
        "{told}"
    );
    assert!(
        told.contains("T1 (client 0, invoked at 11 µs, FOR UPDATE)"),
        "{told}"
    );
    assert_bad(
        &[
            spend(0, &[], (1, 5)),
            spend(11, &[(1, 5)], (2, 5)),
            take_back(11, &[(1, 5)], &[1], 3),
        ],
        "two holders of one lock",
    );
    // One of them was not answered, but somebody saw what it did.
    assert_bad(
        &[
            unknown(spend(10, &[], (1, 5))),
            spend(11, &[], (2, 5)),
            look(20, &[(1, 5), (2, 5)]),
        ],
        "two holders of one lock",
    );
}

#[test]
fn rejects_what_two_holders_have_spent() {
    let report = check(&[
        spend(10, &[], (1, 15)),
        spend(11, &[], (2, 15)),
        look(30, &[(1, 15), (2, 15)]),
    ]);
    let [holders, exceeded] = report.violations.as_slice() else {
        panic!("{:?}", report.violations);
    };
    assert!(exceeded.starts_with("allowance exceeded: "), "{exceeded}");
    assert!(
        exceeded.contains("15 by T0 (") && exceeded.contains("15 by T1 ("),
        "{exceeded}"
    );
    assert!(holders.starts_with("two holders of one lock: "), "{holders}");
}

#[test]
fn rejects_what_exceeds_the_allowance_even_to_those_who_fail() {
    assert_bad(
        &[
            spend(0, &[], (1, 15)),
            spend(10, &[(1, 15)], (2, 6)),
            failed(look(20, &[(1, 15), (2, 6)])),
        ],
        "allowance exceeded",
    );
    let mut changed = spend(0, &[], (1, 15));
    changed.operation.allowance = Some(ALLOWANCE + 1);
    assert_bad(&[changed], "allowance was changed");
}

#[test]
fn rejects_a_ledger_that_changes_under_a_lock() {
    let told = assert_bad(
        &[share(10, &[], &[(1, 5)]), spend(8, &[], (1, 5))],
        "ledger changed under a lock",
    );
    assert!(told.contains("T0 (") && told.contains("by T1 ("), "{told}");
    assert_bad(
        &[
            spend(0, &[], (1, 5)),
            share(11, &[(1, 5)], &[(2, 0)]),
            take_back(10, &[(1, 5)], &[1], 2),
        ],
        "ledger changed under a lock",
    );
    let mut short = take_back(10, &[(1, 5)], &[1], 2);
    short.operation.removed_rows = 0;
    assert_bad(&[spend(0, &[], (1, 5)), short], "entries vanished under a lock");
}

#[test]
fn rejects_what_is_missing() {
    let missing = "acknowledged entry is missing";
    let told = assert_bad(&[spend(0, &[], (1, 5)), look(10, &[])], missing);
    assert!(told.contains("T0 (") && told.contains("T1 ("), "{told}");
    // The next one to spend does not see it either.
    assert_bad(&[spend(0, &[], (1, 5)), spend(10, &[], (2, 5))], missing);
    // Nor what was put in its place.
    assert_bad(
        &[
            spend(0, &[], (1, 5)),
            take_back(10, &[(1, 5)], &[1], 2),
            failed(look(20, &[(1, 5)])),
        ],
        missing,
    );
    // Nobody was told that it has committed, but somebody has seen it before.
    assert_bad(
        &[unknown(spend(0, &[], (1, 5))), look(10, &[(1, 5)]), look(20, &[])],
        missing,
    );
}

#[test]
fn rejects_what_never_was() {
    let never = "ledger that never was";
    // The second without the first.
    let two = [spend(0, &[], (1, 5)), spend(5, &[(1, 5)], (2, 5))];
    assert_bad(&[&two[..], &[look(5, &[(2, 5)])]].concat(), never);
    // A row that comes twice.
    assert_bad(&[&two[..1], &[look(5, &[(1, 5), (1, 5)])]].concat(), never);
    // Half of what was taken back.
    let back = take_back(20, &[(1, 5), (2, 5)], &[1, 2], 3);
    assert_bad(&[&two[..], &[back, look(21, &[(2, 5), (3, 0)])]].concat(), never);
}

#[test]
fn rejects_entries_that_nobody_entered() {
    // Such a ledger never was, either.
    let report = check(&[look(0, &[(1, 5)])]);
    assert!(
        report.violations[0].starts_with("entry out of nowhere: "),
        "{report:?}"
    );
    let report = check(&[failed(spend(0, &[], (1, 5))), look(20, &[(1, 5)])]);
    assert!(
        report.violations[0].starts_with("entry of a transaction that failed: "),
        "{report:?}"
    );
    let report = check(&[spend(0, &[], (1, 5)), look(20, &[(1, 6)])]);
    assert!(
        report.violations[0].starts_with("entry was changed: "),
        "{report:?}"
    );
}

#[test]
fn who_has_not_come_back_may_have_entered_what_others_see() {
    assert_good(&[
        open(spend(0, &[], (1, 5))),
        look(10, &[(1, 5)]),
        spend(20, &[(1, 5)], (2, 5)),
    ]);
    assert_bad(
        &[
            open(spend(0, &[], (1, 5))),
            spend(10, &[], (2, 5)),
            spend(11, &[], (3, 5)),
        ],
        "two holders of one lock",
    );
}

#[test]
fn without_the_final_state_and_a_spender_nobody_is_acquitted() {
    let last = |account: i64| {
        let mut record = look(20, &[]);
        record.client = FINAL_READER;
        record.operation.account = account;
        record
    };
    let mut history: Vec<_> = (0..ACCOUNTS).map(last).collect();
    assert!(!check(&history).is_acquittal());
    history.push(spend(20, &[], (1, 5)));
    assert!(check(&history).is_acquittal(), "{:?}", check(&history));
    history.remove(0);
    assert!(!check(&history).is_acquittal());
}
