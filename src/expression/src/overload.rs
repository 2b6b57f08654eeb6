//! PostgreSQL's choice among overloads (manual, sections 10.2 and 10.3).

use neorunbase_types::{CastContext, SqlType, TypeCategory, can_cast};

/// What became of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The position of the one that fits.
    One(usize),
    /// Nothing fits.
    None,
    /// Several fit and none is better.
    Ambiguous,
}

fn fits(argument: &SqlType, wanted: &SqlType) -> bool {
    *argument == SqlType::Unknown || can_cast(argument, wanted, CastContext::Implicit)
}

/// Chooses among `candidates`, each given by its argument types, for a call with `arguments`.
pub(crate) fn choose(candidates: &[&[SqlType]], arguments: &[SqlType], binary_operator: bool) -> Choice {
    let exact = |wanted: &[SqlType]| {
        candidates.iter().position(|candidate| {
            candidate.len() == wanted.len()
                && candidate
                    .iter()
                    .zip(wanted)
                    .all(|(left, right)| left.same_base(right))
        })
    };
    if let Some(found) = exact(arguments) {
        return Choice::One(found);
    }
    if binary_operator && let [left, right] = arguments {
        // A literal beside a typed operand is first taken to be of its type.
        let assumed = match (left, right) {
            (SqlType::Unknown, SqlType::Unknown) => None,
            (SqlType::Unknown, known) | (known, SqlType::Unknown) => Some(known.clone()),
            _ => None,
        };
        if let Some(found) = assumed.and_then(|known| exact(&[known.clone(), known])) {
            return Choice::One(found);
        }
    }
    let viable: Vec<usize> = (0..candidates.len())
        .filter(|&index| {
            candidates[index].len() == arguments.len()
                && candidates[index]
                    .iter()
                    .zip(arguments)
                    .all(|(wanted, argument)| fits(argument, wanted))
        })
        .collect();
    match viable.as_slice() {
        [] => Choice::None,
        [only] => Choice::One(*only),
        _ => narrow(candidates, viable, arguments),
    }
}

/// Keeps those with the highest count.
fn keep_best(viable: Vec<usize>, count: impl Fn(usize) -> usize) -> Vec<usize> {
    let best = viable.iter().map(|&index| count(index)).max().unwrap_or(0);
    viable.into_iter().filter(|&index| count(index) == best).collect()
}

fn narrow(candidates: &[&[SqlType]], viable: Vec<usize>, arguments: &[SqlType]) -> Choice {
    let known = |index: usize| arguments[index] != SqlType::Unknown;
    let slots = || 0..arguments.len();
    let exact_matches = |candidate: usize| {
        slots()
            .filter(|&slot| known(slot) && candidates[candidate][slot].same_base(&arguments[slot]))
            .count()
    };
    let mut viable = keep_best(viable, exact_matches);
    if let [only] = viable.as_slice() {
        return Choice::One(*only);
    }
    let preferred_matches = |candidate: usize| {
        slots()
            .filter(|&slot| {
                let wanted = &candidates[candidate][slot];
                known(slot)
                    && (wanted.same_base(&arguments[slot])
                        || (wanted.is_preferred() && wanted.category() == arguments[slot].category()))
            })
            .count()
    };
    viable = keep_best(viable, preferred_matches);
    if let [only] = viable.as_slice() {
        return Choice::One(*only);
    }
    if slots().all(known) {
        return Choice::Ambiguous;
    }
    let by_category = by_unknown_categories(candidates, &viable, arguments);
    if let [only] = by_category.as_slice() {
        return Choice::One(*only);
    }
    if !by_category.is_empty() {
        viable = by_category;
    }
    // Last: if all known arguments have one type, the unknown ones are taken to have it too.
    let mut known_types = arguments.iter().filter(|argument| **argument != SqlType::Unknown);
    if let Some(first) = known_types.next()
        && known_types.all(|other| other.same_base(first))
    {
        let mut fitting = viable
            .iter()
            .filter(|&&candidate| candidates[candidate].iter().all(|wanted| fits(first, wanted)));
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            return Choice::One(*only);
        }
    }
    Choice::Ambiguous
}

/// Discards candidates by what they take where the call has literals of unknown type: a string if any does, else
/// the one category that all take; then those without the preferred type where another has it.
fn by_unknown_categories(candidates: &[&[SqlType]], viable: &[usize], arguments: &[SqlType]) -> Vec<usize> {
    let mut rules: Vec<Option<(TypeCategory, bool)>> = Vec::with_capacity(arguments.len());
    for (slot, argument) in arguments.iter().enumerate() {
        if *argument != SqlType::Unknown {
            rules.push(None);
            continue;
        }
        let wanted = || viable.iter().map(|&candidate| &candidates[candidate][slot]);
        let category = if wanted().any(|wanted| wanted.category() == TypeCategory::String) {
            TypeCategory::String
        } else {
            let Some(first) = wanted().next().map(SqlType::category) else {
                return Vec::new();
            };
            if !wanted().all(|wanted| wanted.category() == first) {
                return Vec::new();
            }
            first
        };
        let preferred = wanted().any(|wanted| wanted.category() == category && wanted.is_preferred());
        rules.push(Some((category, preferred)));
    }
    viable
        .iter()
        .copied()
        .filter(|&candidate| {
            rules
                .iter()
                .zip(candidates[candidate])
                .all(|(rule, wanted)| match rule {
                    Some((category, preferred)) => {
                        wanted.category() == *category && (!preferred || wanted.is_preferred())
                    }
                    None => true,
                })
        })
        .collect()
}
