//! Whether the calls on one object can be put in one order that agrees with real time (the algorithm of Wing and Gong
//! with Lowe's memory of configurations, as in Porcupine and Knossos).

use std::collections::BTreeSet;

/// One call.
#[derive(Clone, Debug)]
pub struct Call<O> {
    /// When it was asked.
    pub invoked: u64,
    /// When it was answered; without an answer it may happen at any time since, or never.
    pub returned: Option<u64>,
    /// What was asked and answered.
    pub operation: O,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding<S> {
    /// An order exists.
    Linearizable,
    /// None does.
    Impossible {
        /// The longest order that was found, as indices of calls.
        longest: Vec<usize>,
        /// The state after it.
        state: S,
        /// The call that was answered before any continuation explains it.
        stuck: usize,
    },
    /// The search was given up.
    Undecided,
}

/// The end of the list, and its head.
const NONE: usize = usize::MAX;

/// Begins and ends of calls in order of time, as a list that calls can be lifted out of and put back into.
struct Events {
    /// Call and whether it is its end.
    of: Vec<(usize, bool)>,
    /// The place of each call's end.
    ends: Vec<usize>,
    next: Vec<usize>,
    previous: Vec<usize>,
    first: usize,
}

impl Events {
    fn new<O>(calls: &[Call<O>]) -> Self {
        let mut events = Vec::with_capacity(calls.len() * 2);
        for (index, call) in calls.iter().enumerate() {
            // At the same time a begin comes before an end: then there is no order between the two.
            events.push((call.invoked, false, index));
            if let Some(returned) = call.returned {
                events.push((returned, true, index));
            }
        }
        events.sort_unstable();
        let mut ends = vec![NONE; calls.len()];
        for (place, (_, is_end, index)) in events.iter().enumerate() {
            if *is_end {
                ends[*index] = place;
            }
        }
        let length = events.len();
        Self {
            of: events
                .into_iter()
                .map(|(_, is_end, index)| (index, is_end))
                .collect(),
            ends,
            next: (0..length)
                .map(|place| if place + 1 < length { place + 1 } else { NONE })
                .collect(),
            previous: (0..length)
                .map(|place| place.checked_sub(1).unwrap_or(NONE))
                .collect(),
            first: if length > 0 { 0 } else { NONE },
        }
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        match previous {
            NONE => self.first = next,
            _ => self.next[previous] = next,
        }
        if next != NONE {
            self.previous[next] = previous;
        }
    }

    /// Undoes the last [`unlink`](Self::unlink) that was not undone yet.
    fn relink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        match previous {
            NONE => self.first = place,
            _ => self.next[previous] = place,
        }
        if next != NONE {
            self.previous[next] = place;
        }
    }

    fn lift(&mut self, place: usize) {
        self.unlink(place);
        let end = self.ends[self.of[place].0];
        if end != NONE {
            self.unlink(end);
        }
    }

    fn put_back(&mut self, place: usize) {
        let end = self.ends[self.of[place].0];
        if end != NONE {
            self.relink(end);
        }
        self.relink(place);
    }
}

/// Looks for an order of `calls`. `apply` tells the state after an operation, or that its answer is impossible in the
/// state before. At most `limit` configurations are visited.
pub fn search<S: Clone + Ord, O>(
    initial: S,
    calls: &[Call<O>],
    apply: impl Fn(&S, &O) -> Option<S>,
    limit: usize,
) -> Finding<S> {
    let mut events = Events::new(calls);
    let mut unanswered_for = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut done = vec![0_u64; calls.len().div_ceil(64)];
    let mut visited: BTreeSet<(Vec<u64>, S)> = BTreeSet::new();
    let mut state = initial.clone();
    // Begins in the order chosen so far, each with the state before it.
    let mut chosen: Vec<(usize, S)> = Vec::new();
    let mut longest: Option<(Vec<usize>, S, usize)> = None;
    let mut place = events.first;
    while unanswered_for > 0 {
        // As long as a call was answered its end is in the list, so the list does not end before that.
        let (call, is_end) = events.of[place];
        if !is_end {
            if let Some(after) = apply(&state, &calls[call].operation) {
                done[call / 64] |= 1 << (call % 64);
                if visited.insert((done.clone(), after.clone())) {
                    if visited.len() > limit {
                        return Finding::Undecided;
                    }
                    chosen.push((place, std::mem::replace(&mut state, after)));
                    events.lift(place);
                    unanswered_for -= usize::from(calls[call].returned.is_some());
                    place = events.first;
                    continue;
                }
                done[call / 64] &= !(1 << (call % 64));
            }
            place = events.next[place];
            continue;
        }
        if longest
            .as_ref()
            .is_none_or(|(order, _, _)| chosen.len() > order.len())
        {
            let order = chosen.iter().map(|(place, _)| events.of[*place].0).collect();
            longest = Some((order, state.clone(), call));
        }
        let Some((last, before)) = chosen.pop() else {
            let (longest, state, stuck) = longest.unwrap_or((Vec::new(), initial, call));
            return Finding::Impossible {
                longest,
                state,
                stuck,
            };
        };
        state = before;
        let call = events.of[last].0;
        done[call / 64] &= !(1 << (call % 64));
        events.put_back(last);
        unanswered_for += usize::from(calls[call].returned.is_some());
        place = events.next[last];
    }
    Finding::Linearizable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register: write a value, or read it.
    type Operation = (bool, i64);

    fn apply(state: &i64, operation: &Operation) -> Option<i64> {
        match *operation {
            (true, value) => Some(value),
            (false, value) => (value == *state).then_some(value),
        }
    }

    fn calls(of: &[(u64, Option<u64>, Operation)]) -> Vec<Call<Operation>> {
        of.iter()
            .map(|(invoked, returned, operation)| Call {
                invoked: *invoked,
                returned: *returned,
                operation: *operation,
            })
            .collect()
    }

    fn find(of: &[(u64, Option<u64>, Operation)]) -> Finding<i64> {
        search(0, &calls(of), apply, 10_000)
    }

    const fn write(value: i64) -> Operation {
        (true, value)
    }

    const fn read(value: i64) -> Operation {
        (false, value)
    }

    #[test]
    fn accepts_what_has_an_order() {
        for history in [
            &[][..],
            &[(0, Some(1), write(1)), (2, Some(3), read(1))],
            // At the same time: both orders of the reads.
            &[
                (0, Some(9), write(1)),
                (1, Some(2), read(0)),
                (3, Some(4), read(1)),
            ],
            // Without an answer: early, late, or never.
            &[(0, None, write(1)), (1, Some(2), read(1))],
            &[(0, None, write(1)), (1, Some(2), read(0)), (3, Some(4), read(1))],
            &[(0, None, write(1)), (1, Some(2), read(0))],
            // An end and a begin at one instant overlap.
            &[(0, Some(1), write(1)), (1, Some(2), read(0))],
        ] {
            assert_eq!(find(history), Finding::Linearizable, "{history:?}");
        }
    }

    #[test]
    fn rejects_what_has_none() {
        for history in [
            // Stale.
            &[(0, Some(1), write(1)), (2, Some(3), read(0))][..],
            // From the future.
            &[(0, Some(1), read(1)), (2, Some(3), write(1))],
            &[(0, Some(1), read(1)), (2, None, write(1))],
            // New, then old again.
            &[
                (0, Some(9), write(1)),
                (1, Some(2), read(1)),
                (3, Some(4), read(0)),
            ],
            &[(0, None, write(1)), (1, Some(2), read(1)), (3, Some(4), read(0))],
            // Two readers who disagree about the order of two writes.
            &[
                (0, Some(3), write(1)),
                (0, Some(3), write(2)),
                (4, Some(5), read(1)),
                (6, Some(7), read(2)),
            ],
            // From nowhere.
            &[(0, Some(1), read(7))],
        ] {
            assert!(matches!(find(history), Finding::Impossible { .. }), "{history:?}");
        }
    }

    #[test]
    fn tells_how_far_it_came_and_when_it_gave_up() {
        let history = [
            (0, Some(1), write(1)),
            (2, Some(3), read(1)),
            (4, Some(5), read(0)),
        ];
        let expected = Finding::Impossible {
            longest: vec![0, 1],
            state: 1,
            stuck: 2,
        };
        assert_eq!(find(&history), expected);
        assert_eq!(search(0, &calls(&history), apply, 1), Finding::Undecided);
    }

    #[test]
    fn long_histories_take_few_steps() {
        let mut history = Vec::new();
        for turn in 0..2_000_u64 {
            let value = i64::try_from(turn).unwrap_or(0);
            history.push((turn * 10, Some(turn * 10 + 15), write(value)));
            history.push((turn * 10 + 1, Some(turn * 10 + 16), read(value)));
        }
        let found = search(0, &calls(&history), apply, 20_000);
        assert_eq!(found, Finding::Linearizable);
    }
}
