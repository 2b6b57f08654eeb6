use super::*;
use crate::unique_index::Change;

const CHANGED: Answer = Answer::Changed;
const NOTHING: Answer = Answer::Nothing;
const WAS_TAKEN: Answer = Answer::WasTaken;

fn claim(id: i64, name: i64) -> Action {
    Action::Claim {
        place: 0,
        id,
        name,
        skips: false,
    }
}

fn moved(id: i64, name: i64) -> Action {
    Action::Move { place: 0, id, name }
}

fn give_up(id: i64) -> Action {
    Action::GiveUp { place: 0, id }
}

fn statement(at: u64, action: Action, answer: Answer) -> Statement {
    let reply = Reply {
        asked_micros: at,
        answered_micros: at + 1,
        answer,
    };
    Statement {
        action,
        reply: action.key().map(|_| reply),
    }
}

/// A statement that commits by itself, answered at 1 after `at`.
fn alone(at: u64, action: Action, answer: Answer) -> Record<NameOperation> {
    let change = Change {
        in_transaction: false,
        statements: vec![statement(at, action, answer)],
        commit_asked_micros: None,
    };
    Record::done(0, at, at + 1, NameOperation::Change(change))
}

fn changes(at: u64, action: Action) -> Record<NameOperation> {
    alone(at, action, CHANGED)
}

/// Statements at 2, 4 and so on after `at`, COMMIT at 20 after it, done at 22 after it.
fn transaction(at: u64, statements: &[(Action, Answer)]) -> Record<NameOperation> {
    let times = (1..).map(|number| at + 2 * number);
    let change = Change {
        in_transaction: true,
        statements: statements
            .iter()
            .zip(times)
            .map(|((action, answer), at)| statement(at, *action, *answer))
            .collect(),
        commit_asked_micros: Some(at + 20),
    };
    Record::done(0, at, at + 22, NameOperation::Change(change))
}

fn failed(record: Record<NameOperation>) -> Record<NameOperation> {
    Record {
        outcome: Outcome::Failed,
        error: Some("40001: too bad".to_owned()),
        ..record
    }
}

/// Without an answer to a statement that commits by itself, or to COMMIT.
fn unknown(mut record: Record<NameOperation>) -> Record<NameOperation> {
    if let NameOperation::Change(change) = &mut record.operation
        && !change.in_transaction
    {
        change.statements[0].reply = None;
    }
    Record {
        outcome: Outcome::Unknown,
        completed_micros: None,
        error: Some("no answer".to_owned()),
        ..record
    }
}

/// Ids and names, all in one place.
fn view(way: Way, rows: &[(i64, i64)]) -> View {
    View {
        way,
        rows: rows.iter().map(|(id, name)| (0, *id, *name)).collect(),
    }
}

fn looks(at: u64, views: Vec<View>) -> Record<NameOperation> {
    Record::done(1, at, at + 1, NameOperation::Look { views })
}

fn look(at: u64, way: Way, rows: &[(i64, i64)]) -> Record<NameOperation> {
    looks(at, vec![view(way, rows)])
}

/// All rows of the place.
fn place(at: u64, rows: &[(i64, i64)]) -> Record<NameOperation> {
    look(at, Way::Place(0), rows)
}

fn finally(at: u64, rows: &[(i64, i64)]) -> Record<NameOperation> {
    let named = |name| -> Vec<(i64, i64)> { rows.iter().copied().filter(|(_, of)| *of == name).collect() };
    let mut views = vec![view(Way::All, rows)];
    views.extend((0..4).map(|name| view(Way::Name(name), &named(name))));
    Record {
        client: FINAL_READER,
        ..looks(at, views)
    }
}

fn expect(history: &[Record<NameOperation>], expected: &[&str]) {
    let violations = check(history).violations;
    assert_eq!(violations.len(), expected.len(), "{violations:#?}");
    for (violation, part) in violations.iter().zip(expected) {
        assert!(violation.starts_with(part), "{violation}");
    }
}

const TWO_HOLDERS: &str = "two rows have one name";
const FOR_NOTHING: &str = "refused without a row that has the name";
const NOT_FOUND: &str = "row that is there was not found";
const FOUND: &str = "row that is not there was found";
const OLD: &str = "row is seen as it was before";
const NOWHERE: &str = "row out of nowhere";
const MISSING: &str = "acknowledged row is missing";

#[test]
fn accepts_names_that_pass_from_row_to_row() {
    let skips = Action::Claim {
        place: 0,
        id: 3,
        name: 1,
        skips: true,
    };
    let taken_back = [
        (Action::Savepoint, NOTHING),
        (claim(6, 1), WAS_TAKEN),
        (Action::RollbackTo, NOTHING),
        (claim(7, 2), CHANGED),
    ];
    let history = [
        changes(0, claim(1, 1)),
        alone(2, claim(2, 1), WAS_TAKEN),
        alone(4, skips, NOTHING),
        changes(6, claim(4, 2)),
        alone(8, moved(4, 1), WAS_TAKEN),
        changes(10, moved(4, 3)),
        look(12, Way::Name(1), &[(1, 1)]),
        transaction(20, &[(give_up(1), CHANGED), (claim(5, 1), CHANGED)]),
        look(44, Way::Key(0, 1), &[]),
        place(46, &[(4, 3), (5, 1)]),
        alone(48, give_up(1), NOTHING),
        alone(50, moved(1, 0), NOTHING),
        transaction(60, &taken_back),
        finally(90, &[(4, 3), (5, 1), (7, 2)]),
    ];
    let report = check(&history);
    assert!(report.is_acquittal(), "{:#?}", report.violations);
    let without_end = check(&history[..history.len() - 1]);
    assert!(!without_end.is_complete, "nobody looked at the end");
    // Elsewhere the same name is another one.
    let elsewhere = Action::Claim {
        place: 1,
        id: 9,
        name: 1,
        skips: false,
    };
    expect(&[changes(0, claim(1, 1)), changes(2, elsewhere)], &[]);
}

#[test]
fn rejects_two_holders_of_a_name() {
    let one = changes(0, claim(1, 1));
    expect(&[one.clone(), changes(2, claim(2, 1))], &[TWO_HOLDERS]);
    // Also if it is given up at once.
    let briefly = [one.clone(), changes(2, claim(2, 1)), changes(4, give_up(2))];
    expect(&briefly, &[TWO_HOLDERS]);
    let by_move = [one.clone(), changes(2, claim(2, 2)), changes(4, moved(2, 1))];
    expect(&by_move, &[TWO_HOLDERS]);
    // At the same time, too.
    let together = Record {
        invoked_micros: 0,
        ..changes(2, claim(2, 1))
    };
    expect(&[one.clone(), together], &[TWO_HOLDERS]);
    let taken_back = [
        (Action::Savepoint, NOTHING),
        (give_up(1), CHANGED),
        (Action::RollbackTo, NOTHING),
        (claim(2, 1), CHANGED),
    ];
    expect(&[one.clone(), transaction(10, &taken_back)], &[TWO_HOLDERS]);
    // While the first may have gone, nobody knows.
    let second = Record {
        completed_micros: Some(8),
        ..changes(2, claim(2, 1))
    };
    expect(&[one.clone(), second, changes(5, give_up(1))], &[]);
    let perhaps = [
        one.clone(),
        unknown(changes(2, give_up(1))),
        changes(4, claim(2, 1)),
    ];
    expect(&perhaps, &[]);
    let perhaps_moved = [one, unknown(changes(2, moved(1, 2))), changes(4, claim(2, 1))];
    expect(&perhaps_moved, &[]);
    // Who acts at the same time decides the order.
    let either = [
        changes(0, claim(1, 1)),
        Record {
            completed_micros: Some(9),
            ..changes(2, moved(1, 2))
        },
        Record {
            completed_micros: Some(9),
            ..changes(3, moved(1, 3))
        },
        changes(10, claim(2, 2)),
        place(12, &[(1, 3), (2, 2)]),
    ];
    expect(&either, &[]);
}

#[test]
fn rejects_refusals_for_nothing() {
    let one = changes(0, claim(1, 1));
    let refused = |at| alone(at, claim(9, 1), WAS_TAKEN);
    expect(&[one.clone(), refused(2)], &[]);
    expect(&[one.clone(), changes(2, give_up(1)), refused(4)], &[FOR_NOTHING]);
    expect(
        &[one.clone(), changes(2, moved(1, 2)), refused(4)],
        &[FOR_NOTHING],
    );
    let skips = Action::Claim {
        place: 0,
        id: 9,
        name: 1,
        skips: true,
    };
    expect(&[alone(0, skips, NOTHING)], &[FOR_NOTHING]);
    // Its own name is in nobody's way.
    expect(&[one.clone(), alone(2, moved(1, 1), WAS_TAKEN)], &[FOR_NOTHING]);
    // A transaction that fails, or has not committed yet, makes others wait.
    expect(&[failed(one.clone()), refused(2)], &[FOR_NOTHING]);
    let slow = transaction(0, &[(claim(1, 1), CHANGED)]);
    expect(&[slow.clone(), refused(10)], &[FOR_NOTHING]);
    expect(&[slow.clone(), refused(20)], &[]);
    // What got no answer may be there for ever, until somebody has found it and taken it away.
    expect(&[unknown(one.clone()), refused(2), refused(100)], &[]);
    expect(&[unknown(slow), refused(30)], &[]);
    let ended = [unknown(one.clone()), changes(2, give_up(1)), refused(4)];
    expect(&ended, &[FOR_NOTHING]);
    let perhaps = [one.clone(), unknown(changes(2, moved(1, 2))), refused(4)];
    expect(&perhaps, &[]);
    let perhaps_later = [
        one.clone(),
        unknown(changes(2, moved(1, 2))),
        changes(4, moved(1, 3)),
        alone(6, claim(9, 2), WAS_TAKEN),
    ];
    expect(&perhaps_later, &[]);
}

#[test]
fn a_transaction_knows_its_own_rows() {
    let one = changes(0, claim(1, 1));
    // It must not be refused by what it has deleted or moved away itself,
    for away in [give_up(1), moved(1, 2)] {
        let handed_over = transaction(10, &[(away, CHANGED), (claim(2, 1), WAS_TAKEN)]);
        expect(&[one.clone(), failed(handed_over)], &[FOR_NOTHING]);
    }
    // nor by what it has taken back,
    let taken_back = |action, answer| {
        let statements = [
            (Action::Savepoint, NOTHING),
            (action, answer),
            (Action::RollbackTo, NOTHING),
            (claim(2, 1), WAS_TAKEN),
        ];
        failed(transaction(10, &statements))
    };
    expect(&[taken_back(claim(1, 1), CHANGED)], &[FOR_NOTHING]);
    // but by what it has claimed, and by what it has not deleted after all.
    let twice = transaction(10, &[(claim(1, 1), CHANGED), (claim(2, 1), WAS_TAKEN)]);
    expect(&[failed(twice)], &[]);
    expect(&[one.clone(), taken_back(give_up(1), CHANGED)], &[]);
    // What it has deleted it does not find, and what it has claimed it does.
    let finds = |action, answer, then| transaction(10, &[(action, CHANGED), (then, answer)]);
    expect(&[one.clone(), finds(give_up(1), NOTHING, moved(1, 2))], &[]);
    let found = [one, finds(give_up(1), CHANGED, moved(1, 2))];
    expect(&found, &[FOUND]);
    expect(&[finds(claim(2, 2), CHANGED, moved(2, 3))], &[]);
    expect(&[finds(claim(2, 2), NOTHING, moved(2, 3))], &[NOT_FOUND]);
}

#[test]
fn rejects_wrong_answers() {
    let one = changes(0, claim(1, 1));
    expect(
        &[alone(0, claim(1, 1), Answer::WasThere)],
        &["row was there before"],
    );
    expect(&[one.clone(), alone(2, moved(1, 2), NOTHING)], &[NOT_FOUND]);
    expect(&[one.clone(), alone(2, give_up(1), NOTHING)], &[NOT_FOUND]);
    let perhaps = [
        one.clone(),
        unknown(changes(2, give_up(1))),
        alone(4, moved(1, 2), NOTHING),
    ];
    expect(&perhaps, &[]);
    expect(
        &[one.clone(), changes(2, give_up(1)), changes(4, moved(1, 2))],
        &[FOUND],
    );
    expect(&[changes(0, moved(1, 2))], &[FOUND]);
    let twice = [one, changes(2, give_up(1)), changes(4, give_up(1))];
    expect(&twice, &["row is deleted twice", FOUND]);
}

#[test]
fn rejects_rows_that_are_not_there() {
    let two = |more: Vec<Record<NameOperation>>| {
        [vec![changes(0, claim(1, 1)), changes(2, claim(2, 2))], more].concat()
    };
    expect(&two(vec![place(4, &[(1, 1), (2, 2)])]), &[]);
    let twice = two(vec![place(4, &[(1, 1), (1, 1), (2, 2)])]);
    expect(&twice, &["row is seen twice"]);
    let same_name = two(vec![look(4, Way::Name(1), &[(1, 1), (2, 1)])]);
    expect(&same_name, &["two rows are seen with one name", NOWHERE]);
    let elsewhere = two(vec![look(4, Way::Name(2), &[(1, 1), (2, 2)])]);
    expect(&elsewhere, &["row is seen where it is not"]);
    let three = place(6, &[(1, 1), (2, 2), (3, 3)]);
    expect(&two(vec![three.clone()]), &[NOWHERE]);
    expect(
        &two(vec![failed(changes(4, claim(3, 3))), three.clone()]),
        &[NOWHERE],
    );
    expect(&two(vec![unknown(changes(4, claim(3, 3))), three.clone()]), &[]);
    // Not committed yet.
    let slow = transaction(4, &[(claim(3, 3), CHANGED)]);
    expect(&two(vec![slow, three]), &[NOWHERE]);
    // What a transaction leaves behind counts, not what was between.
    let between = transaction(4, &[(claim(3, 3), CHANGED), (moved(3, 0), CHANGED)]);
    let seen = place(25, &[(1, 1), (2, 2), (3, 3)]);
    expect(&two(vec![between, seen]), &[NOWHERE]);
    let gone = two(vec![changes(4, give_up(2)), place(6, &[(1, 1), (2, 2)])]);
    expect(&gone, &[OLD]);
    let had = two(vec![changes(4, moved(2, 3)), place(6, &[(1, 1), (2, 2)])]);
    expect(&had, &[OLD, MISSING]);
    // It may have been a moment later.
    let at_once = two(vec![changes(4, moved(2, 3)), place(5, &[(1, 1), (2, 2)])]);
    expect(&at_once, &[]);
}

#[test]
fn rejects_rows_that_are_missing() {
    let one = changes(0, claim(1, 1));
    for way in [Way::All, Way::Place(0), Way::Name(1), Way::Key(0, 1)] {
        expect(&[one.clone(), look(2, way, &[])], &[MISSING]);
        expect(&[one.clone(), look(1, way, &[])], &[]);
        expect(&[unknown(one.clone()), look(2, way, &[])], &[]);
        let perhaps = [one.clone(), unknown(changes(2, give_up(1))), look(4, way, &[])];
        expect(&perhaps, &[]);
    }
    for way in [Way::Place(1), Way::Name(2), Way::Key(0, 2)] {
        expect(&[one.clone(), look(2, way, &[])], &[]);
    }
    // Its name is not known, but that it is there.
    let perhaps_moved = [one.clone(), unknown(changes(2, moved(1, 2)))];
    let seen = |more| [perhaps_moved.to_vec(), vec![more]].concat();
    expect(&seen(place(4, &[])), &[MISSING]);
    expect(&seen(place(4, &[(1, 1)])), &[]);
    expect(&seen(place(4, &[(1, 2)])), &[]);
    expect(&seen(look(4, Way::Name(1), &[])), &[]);
    // At last: lost, come back, or gone as it should be.
    expect(&[one.clone(), finally(4, &[])], &[MISSING, MISSING]);
    let back = [one.clone(), changes(2, give_up(1)), finally(4, &[(1, 1)])];
    expect(&back, &[OLD, OLD]);
    expect(&[one, changes(2, give_up(1)), finally(4, &[])], &[]);
}

#[test]
fn rejects_ways_that_do_not_agree() {
    // It may be there or not, but not both.
    let perhaps = unknown(changes(0, claim(1, 1)));
    let seen = |all: &[(i64, i64)], named: &[(i64, i64)]| {
        let views = vec![view(Way::All, all), view(Way::Name(1), named)];
        [perhaps.clone(), looks(2, views)]
    };
    expect(&seen(&[], &[]), &[]);
    expect(&seen(&[(1, 1)], &[(1, 1)]), &[]);
    expect(&seen(&[(1, 1)], &[]), &["two ways do not agree"]);
    expect(&seen(&[], &[(1, 1)]), &["two ways do not agree"]);
    // Ways that have nothing in common have nothing to agree about.
    let views = vec![view(Way::Place(0), &[(1, 1)]), view(Way::Place(1), &[])];
    expect(&[perhaps.clone(), looks(2, views)], &[]);
}

#[test]
fn what_was_under_way_at_the_end_may_have_happened() {
    let mut open = transaction(0, &[(claim(1, 1), CHANGED), (moved(1, 2), CHANGED)]);
    if let NameOperation::Change(change) = &mut open.operation {
        change.commit_asked_micros = None;
        change
            .statements
            .iter_mut()
            .for_each(|statement| statement.reply = None);
    }
    let open = unknown(open);
    for name in [1, 2] {
        expect(&[open.clone(), place(2, &[(1, name)])], &[]);
        expect(&[open.clone(), alone(2, claim(2, name), WAS_TAKEN)], &[]);
    }
    expect(&[open.clone(), place(2, &[])], &[]);
    expect(&[open, place(2, &[(1, 3)])], &[NOWHERE]);
}

#[test]
fn complaints_name_records_and_there_are_not_too_many() {
    let one = Record {
        client: 7,
        ..changes(0, claim(1, 1))
    };
    let history: Vec<_> = std::iter::once(one)
        .chain((1..20).map(|at| place(2 * at, &[])))
        .collect();
    let violations = check(&history).violations;
    assert_eq!(violations.len(), EXAMPLES);
    assert!(
        violations[0].contains("T1 (client 1, invoked at 2 µs)"),
        "{violations:?}"
    );
}
