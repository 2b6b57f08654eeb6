//! A definition takes effect once: an unanswered one explains one thing that happened, not two.

use super::{Numbered, end_of};
use crate::history::Outcome;

/// A time in which a definition must have taken effect, and the event that showed it.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Its beginning.
    pub(super) from: u64,
    /// Its end.
    pub(super) until: u64,
    /// The event.
    pub(super) witness: usize,
}

/// As many windows as follow each other without overlapping, those first that end first.
fn in_turn(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_by_key(|window| window.until);
    let mut chosen: Vec<Window> = Vec::new();
    for window in windows {
        if chosen.last().is_none_or(|last| last.until < window.from) {
            chosen.push(window);
        }
    }
    chosen
}

/// Windows that one of the definitions would explain, had it not taken effect before.
pub(super) fn explained_twice(windows: Vec<Window>, definitions: &[Numbered<'_>]) -> Vec<Window> {
    let mut unused: Vec<Numbered<'_>> = definitions
        .iter()
        .copied()
        .filter(|(_, definition)| definition.outcome != Outcome::Failed)
        .collect();
    let mut twice = Vec::new();
    for window in in_turn(windows) {
        let fits = |(_, definition): &Numbered<'_>| {
            definition.invoked_micros <= window.until && end_of(definition) >= window.from
        };
        // Of those that fit, the one that can explain the least later.
        let best = unused
            .iter()
            .enumerate()
            .filter(|(_, candidate)| fits(candidate))
            .min_by_key(|(_, (_, definition))| end_of(definition))
            .map(|(place, _)| place);
        match best {
            Some(place) => {
                unused.swap_remove(place);
            }
            None if definitions
                .iter()
                .any(|candidate| candidate.1.outcome != Outcome::Failed && fits(candidate)) =>
            {
                twice.push(window);
            }
            // Somebody else complains of those.
            None => {}
        }
    }
    twice
}
