//! Delta debugging (Zeller, Hildebrandt 2002): a small part of a list that still shows the failure.

/// A part of `items` that fails and from which nothing can be left out alone. `first_failing` is given alternatives, the
/// preferred one first, and names the first of them that fails; `None`: none does, or there is no time to find out.
pub fn ddmin<T: Clone>(items: &[T], mut first_failing: impl FnMut(&[Vec<T>]) -> Option<usize>) -> Vec<T> {
    let mut current = items.to_vec();
    if current.is_empty() || first_failing(&[Vec::new()]).is_some() {
        return Vec::new();
    }
    let mut parts = 2;
    while current.len() >= 2 {
        parts = parts.min(current.len());
        let subsets = split(&current, parts);
        if let Some(mut found) = first_failing(&subsets).and_then(|index| subsets.get(index).cloned()) {
            std::mem::swap(&mut current, &mut found);
            parts = 2;
            continue;
        }
        // Of two halves, each is the complement of the other.
        let complements: Vec<Vec<T>> = if parts > 2 {
            (0..parts).map(|left_out| all_but(&subsets, left_out)).collect()
        } else {
            Vec::new()
        };
        if let Some(mut found) = first_failing(&complements).and_then(|index| complements.get(index).cloned())
        {
            std::mem::swap(&mut current, &mut found);
            parts -= 1;
            continue;
        }
        if parts == current.len() {
            break;
        }
        parts *= 2;
    }
    current
}

/// `count` parts of about the same length, none of them empty.
fn split<T: Clone>(items: &[T], count: usize) -> Vec<Vec<T>> {
    let bound = |index: usize| index * items.len() / count;
    (0..count)
        .map(|index| items[bound(index)..bound(index + 1)].to_vec())
        .collect()
}

fn all_but<T: Clone>(parts: &[Vec<T>], left_out: usize) -> Vec<T> {
    let kept = parts.iter().enumerate().filter(|(index, _)| *index != left_out);
    kept.flat_map(|(_, part)| part.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shrinks 0..`length` with a failure that needs all of `needed`; returns the rest and how many alternatives were tried.
    fn shrink(length: u32, needed: &[u32]) -> (Vec<u32>, usize) {
        let items: Vec<u32> = (0..length).collect();
        let mut tried = 0;
        let rest = ddmin(&items, |alternatives| {
            let fails = |part: &Vec<u32>| needed.iter().all(|item| part.contains(item));
            let found = alternatives.iter().position(fails);
            tried += found.map_or(alternatives.len(), |index| index + 1);
            found
        });
        (rest, tried)
    }

    #[test]
    fn only_what_is_needed_is_left() {
        for needed in [
            &[][..],
            &[0],
            &[63],
            &[3, 4],
            &[0, 63],
            &[5, 20, 41],
            &[1, 2, 3, 60, 61, 62],
        ] {
            let (rest, tried) = shrink(64, needed);
            assert_eq!(rest, needed);
            assert!(tried < 200, "{tried} for {needed:?}");
        }
        assert!(shrink(0, &[]).0.is_empty());
        assert_eq!(shrink(1, &[0]).0, [0]);
    }

    #[test]
    fn order_is_kept_and_nothing_can_be_left_out_alone() {
        // Fails with any three items, one of them even.
        let items: Vec<u32> = (0..40).collect();
        let fails = |part: &Vec<u32>| part.len() >= 3 && part.iter().any(|item| item % 2 == 0);
        let rest = ddmin(&items, |alternatives| alternatives.iter().position(fails));
        assert!(fails(&rest) && rest.len() == 3 && rest.is_sorted(), "{rest:?}");
    }

    #[test]
    fn without_time_nothing_changes() {
        let items = [1, 2, 3];
        assert_eq!(ddmin(&items, |_| None), items);
    }
}
