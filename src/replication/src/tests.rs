//! The state machines on a model cluster: its steps are drawn from a seed, and after each one the model checks what it
//! knows. Each promise that the driver must keep is broken once on purpose, and must then be missed.

mod cluster;

use std::panic::catch_unwind;

use cluster::{Cluster, Flaw, TIMING};
use neorunbase_world::MonotonicTime;

use crate::*;

const STEPS: u32 = 5_000;

fn run(seed: u64, nodes: usize, flaw: Option<Flaw>) -> Result<(), String> {
    let mut cluster = Cluster::new(seed, nodes, flaw);
    for _ in 0..STEPS {
        cluster.step()?;
    }
    cluster.heal_and_converge()
}

#[test]
fn nothing_committed_is_lost_and_nothing_stale_is_read() {
    for seed in 0..200 {
        for nodes in [2, 3] {
            if let Err(violation) = run(seed, nodes, None) {
                panic!("seed {seed}, {nodes} nodes: {violation}");
            }
        }
    }
}

/// How many seeds it takes to see that the driver does not keep a promise.
#[track_caller]
fn is_found(flaw: Flaw) {
    let found = (0..500).find(|seed| {
        // The state machines' own assertions count, too.
        let result = catch_unwind(|| run(*seed, 3, Some(flaw)));
        !matches!(result, Ok(Ok(())))
    });
    assert!(found.is_some(), "{flaw:?} was not noticed");
}

#[test]
fn an_answer_before_the_entries_are_durable_is_found() {
    is_found(Flaw::AnswersBeforeDurable);
}

#[test]
fn an_acknowledgement_without_the_followers_is_found() {
    is_found(Flaw::AcknowledgesAlone);
}

#[test]
fn a_handover_by_a_primary_that_reads_on_is_found() {
    is_found(Flaw::HandsOverWhileReading);
}

#[test]
fn a_primary_from_outside_the_set_is_found() {
    is_found(Flaw::PromotesAnybody);
}

#[test]
fn a_term_that_begins_twice_is_found() {
    is_found(Flaw::ForgetsBegunTerms);
}

#[test]
fn a_set_that_shrinks_without_being_asked_is_found() {
    is_found(Flaw::ShrinksUnasked);
}

#[test]
fn clocks_that_drift_too_far_are_found() {
    is_found(Flaw::ClocksDriftTooFar);
}

#[test]
fn a_copy_that_lacks_its_tail_is_found() {
    is_found(Flaw::CopyMissesTail);
}

/// A primary of `nodes` whose first entry everybody has, in term 1.
fn primary_in_sync(nodes: &[&str], now: MonotonicTime) -> Primary<u32> {
    let mut configuration = Configuration::new(nodes.iter().map(|name| (*name).to_owned()).collect());
    configuration.in_sync.clone_from(&configuration.replicas);
    let log = ShardLog::starting_at(LogPosition::default());
    let follower = Follower::new(nodes[0], TIMING, log, 0);
    let mut primary = follower.begin_term(configuration, now).expect("a term begins");
    let began = primary.log().end();
    primary.written(began);
    let asked = Asked { term: 1, at: now };
    for follower in &nodes[1..] {
        let matched = Reply::Matched { up_to: 1 };
        primary
            .replied(follower, asked, matched)
            .expect("the term goes on");
    }
    primary
}

#[test]
fn a_restarted_follower_honours_leases_that_it_has_forgotten() {
    let now = MonotonicTime(5_000_000_000);
    let configuration = Configuration::new(vec!["a".to_owned()]);
    let mut follower =
        Follower::<u32>::restarted("a", TIMING, ShardLog::starting_at(LogPosition::default()), 0, now);
    let Err(NotYet::Leased { until }) = follower.may_begin(&configuration, now) else {
        panic!("a term began although a lease may be out");
    };
    assert!(until >= now.after(TIMING.lease));
    assert_eq!(follower.may_begin(&configuration, until), Ok(()));
}

#[test]
fn answers_to_messages_of_an_earlier_term_count_for_nothing() {
    let now = MonotonicTime(5_000_000_000);
    let mut primary = primary_in_sync(&["a", "b"], now);
    assert!(primary.may_read(now));
    let position = primary.append(7);
    primary.written(position);
    let late = Asked {
        term: 0,
        at: now.after(TIMING.lease * 10),
    };
    assert_eq!(primary.replied("b", late, Reply::Matched { up_to: 2 }), Ok(false));
    assert_eq!(primary.committed(), 1);
    assert!(!primary.may_read(now.after(TIMING.lease * 2)));
    let timely = Asked { term: 1, at: now };
    assert_eq!(
        primary.replied("b", timely, Reply::Matched { up_to: 2 }),
        Ok(true)
    );
    assert_eq!(primary.committed(), 2);
}

#[test]
fn a_read_needs_leases_of_members_that_are_only_proposed() {
    let now = MonotonicTime(5_000_000_000);
    let mut primary = primary_in_sync(&["a", "b", "c"], now);
    // The set shrinks to one, as far as is known, and a member that comes back is proposed.
    let later = now.after(TIMING.silence * 2);
    let asked = Asked { term: 1, at: later };
    for follower in ["b", "c"] {
        let without = primary.propose(later, true).expect("the follower is silent");
        assert!(!without.is_in_sync(follower));
        assert_eq!(primary.configured(without, later), Ok(false));
    }
    assert!(primary.may_read(now.after(TIMING.lease * 10)));
    let matched = Reply::Matched { up_to: 1 };
    primary.replied("c", asked, matched).expect("the term goes on");
    let with = primary.propose(later, true).expect("a follower has caught up");
    assert!(with.is_in_sync("c"));
    assert!(!primary.may_read(now.after(TIMING.lease * 10)));
    let position = primary.append(9);
    assert!(
        !primary.written(position),
        "it is not yet known whether c may become primary"
    );
    assert_eq!(
        primary.propose(later, true),
        Some(with),
        "until its outcome is known, the same again"
    );
}

#[test]
fn a_damaged_member_leaves_the_set_before_it_gets_a_copy() {
    let now = MonotonicTime(5_000_000_000);
    let mut primary = primary_in_sync(&["a", "b"], now);
    let asked = Asked { term: 1, at: now };
    assert_eq!(primary.replied("b", asked, Reply::Damaged), Ok(false));
    assert_eq!(primary.next("b", 1, 1), None, "it is counted on");
    let without = primary.propose(now, true).expect("it has to leave at once");
    assert!(!without.is_in_sync("b"));
    assert_eq!(primary.configured(without, now), Ok(false));
    // The log has all of its entries still, but it needs more than those.
    assert_eq!(primary.next("b", 1, 1), Some(Next::Copy));
    primary.copied("b", primary.log().end());
    assert!(matches!(primary.next("b", 1, 1), Some(Next::Append(_))));
    assert_eq!(primary.propose(now, true), None, "it has not said that it has it");
    let matched = Reply::Matched { up_to: 1 };
    assert_eq!(primary.replied("b", asked, matched), Ok(false));
    let with = primary.propose(now, true).expect("it has caught up");
    assert!(with.is_in_sync("b"));
}

#[test]
fn a_copy_that_may_be_a_new_one_is_asked_what_it_has() {
    let now = MonotonicTime(5_000_000_000);
    let mut primary = primary_in_sync(&["a", "b"], now);
    // Dropped, and added again: the primary does not see what was in between.
    let dropped = primary.configuration().dropping("b").expect("not the primary");
    let again = dropped.with_replica("b").expect("a new copy");
    let later = now.after(TIMING.lease / 10);
    assert_eq!(primary.configured(again, later), Ok(false));
    assert_eq!(primary.propose(later, true), None, "what it had may be gone");
    let before = Asked { term: 1, at: now };
    let matched = Reply::Matched { up_to: 1 };
    assert_eq!(primary.replied("b", before, matched), Ok(false));
    assert_eq!(primary.propose(later, true), None, "it spoke of the copy before");
    let since = Asked { term: 1, at: later };
    assert_eq!(primary.replied("b", since, matched), Ok(false));
    assert!(primary.propose(later, true).is_some());
}
