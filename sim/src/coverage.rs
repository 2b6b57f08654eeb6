//! Which points and faults a suite of simulations came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the simulations of a suite have reached together.
#[derive(Debug, Default)]
pub struct Coverage {
    simulations: usize,
    /// In how many simulations each point was reached.
    points: BTreeMap<String, usize>,
    /// How often each kind of fault was carried out, and in how many simulations.
    faults: BTreeMap<String, (u64, usize)>,
}

impl Coverage {
    /// A suite in which none of `points` was reached yet.
    pub fn of<'a>(points: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            points: points.into_iter().map(|name| (name.to_owned(), 0)).collect(),
            ..Self::default()
        }
    }

    /// Counts in what a simulation has printed.
    pub fn add(&mut self, output: &str) {
        self.simulations += 1;
        for line in output.lines() {
            if let Some(reached) = line.strip_prefix("reached: ") {
                for point in reached.split_whitespace() {
                    *self.points.entry(point.to_owned()).or_default() += 1;
                }
            } else if let Some(faults) = line.trim_start().strip_prefix("faults: ") {
                self.add_faults(faults);
            }
        }
    }

    fn add_faults(&mut self, faults: &str) {
        for part in faults.split(", ") {
            let (count, kind) = match part.split_once(" × ") {
                Some((count, kind)) => (count.parse().unwrap_or(0), kind),
                None if part == "none" => continue,
                None => (1, part),
            };
            let (total, simulations) = self.faults.entry(kind.to_owned()).or_default();
            *total += count;
            *simulations += 1;
        }
    }

    /// Points that no simulation has reached.
    pub fn never_reached(&self) -> Vec<&str> {
        let never = self.points.iter().filter(|(_, count)| **count == 0);
        never.map(|(name, _)| name.as_str()).collect()
    }

    /// For people: rare things first.
    pub fn table(&self) -> String {
        let mut text = format!("faults carried out in {} simulations:\n", self.simulations);
        let width = self.faults.keys().map(|kind| kind.chars().count()).max();
        for (kind, (total, simulations)) in &self.faults {
            let width = width.unwrap_or_default();
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {kind:<width$} {total:>6} in {simulations} simulations");
        }
        let mut points: Vec<_> = self.points.iter().map(|(name, count)| (count, name)).collect();
        points.sort();
        let never = self.never_reached().len();
        let _ = writeln!(
            text,
            "points reached: {} of {}",
            points.len() - never,
            points.len()
        );
        for (count, name) in points {
            let remark = if *count == 0 { "  NEVER" } else { "" };
            let _ = writeln!(text, "  {count:>5} {name}{remark}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_simulations_that_reach_a_point() {
        let mut coverage = Coverage::of(["promoted", "torn", "full"]);
        coverage.add("seed 1: PASSED\n  faults: 3 × process kill, 1 × pause\nreached: promoted torn\n");
        coverage.add("  faults: 2 × pause, power loss at the end (Torn)\nreached: torn\n");
        coverage.add("  faults: none\nreached: \n");
        assert_eq!(coverage.never_reached(), ["full"]);
        assert_eq!(coverage.points["torn"], 2);
        assert_eq!(coverage.faults["pause"], (3, 2));
        assert_eq!(coverage.faults["power loss at the end (Torn)"], (1, 1));
        assert!(!coverage.faults.contains_key("none"));
        let table = coverage.table();
        assert!(table.contains("points reached: 2 of 3"), "{table}");
        assert!(table.contains("    0 full  NEVER"), "{table}");
    }

    #[test]
    fn the_points_of_this_program_are_known_before_they_are_reached() {
        let points = neorunbase_world::fault::points();
        assert!(points.len() > 30, "{points:?}");
    }
}
