//! Is each planted bug found, by which seed, and by whom?

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;

use crate::bug_table::{self, Finding, Search};
use crate::many::{Children, Outcome, Task, lock};
use crate::planted::{self, PlantedBug};
use crate::verdict::{Verdict, found_by};

/// Looks for each of `wanted` in `range`, and writes what came of it to `table`, bug by bug. Returns the names of those
/// that survived.
///
/// # Errors
/// A simulation cannot be started, or the table cannot be written.
pub fn hunt(
    children: &Children,
    range: &Range<u64>,
    wanted: &[PlantedBug],
    table: Option<&Path>,
) -> anyhow::Result<Vec<&'static str>> {
    let unplanted = Unplanted::default();
    let mut searches = BTreeMap::new();
    for bug in wanted {
        let started = Instant::now();
        let search = search(children, range, bug.name, &unplanted)?;
        eprintln!(
            "{} ({:.0} s)",
            line(bug.name, &search, range),
            started.elapsed().as_secs_f64()
        );
        searches.insert(bug.name, search);
        if let Some(table) = table {
            write_table(table, &searches, range, children.seconds)?;
        }
    }
    println!("planted bugs:");
    for (bug, search) in &searches {
        println!("  {}", line(bug, search, range));
    }
    let survivors = searches.iter().filter(|(_, search)| search.finding.is_none());
    Ok(survivors.map(|(bug, _)| *bug).collect())
}

fn line(bug: &str, search: &Search, range: &Range<u64>) -> String {
    match &search.finding {
        Some(Finding { by, seed }) => format!("{bug:<32} found by seed {seed:<5} {by}"),
        None => format!("{bug:<32} SURVIVED seeds {}..{}", range.start, range.end),
    }
}

fn write_table(
    path: &Path,
    searches: &BTreeMap<&str, Search>,
    range: &Range<u64>,
    seconds: u64,
) -> anyhow::Result<()> {
    let before = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        before => before.with_context(|| format!("table {}", path.display()))?,
    };
    let table = bug_table::update(&before, planted::all(), searches, range, seconds);
    std::fs::write(path, table).with_context(|| format!("table {}", path.display()))
}

/// Whether seeds pass without any bug, as far as that is known.
#[derive(Default)]
struct Unplanted(Mutex<BTreeMap<u64, bool>>);

impl Unplanted {
    fn passes(&self, children: &Children, seed: u64) -> bool {
        if let Some(passes) = lock(&self.0).get(&seed) {
            return *passes;
        }
        let passes = children
            .run(Task::Seed(seed, None), None)
            .is_ok_and(|without| without.verdict == Verdict::Passed);
        lock(&self.0).insert(seed, passes);
        passes
    }
}

fn search(
    children: &Children,
    range: &Range<u64>,
    bug: &str,
    unplanted: &Unplanted,
) -> anyhow::Result<Search> {
    let finders = Mutex::new(BTreeSet::new());
    // A seed that fails without the bug as well has not found it.
    let is_found =
        |seed: u64, outcome: &Outcome| outcome.verdict != Verdict::Passed && unplanted.passes(children, seed);
    let seeds: Vec<u64> = range.clone().collect();
    let outcomes = children.run_all(&seeds, Some(bug), |seed, outcome| {
        let is_found = is_found(seed, outcome);
        if is_found {
            lock(&finders).insert(seed);
        }
        !is_found
    })?;
    let first = lock(&finders).first().copied();
    let finding = first.and_then(|seed| {
        let outcome = outcomes.get(&seed)?;
        Some(Finding {
            by: found_by(outcome.verdict, outcome.first_complaint()),
            seed,
        })
    });
    // All below the first one have been tried.
    let last = first.unwrap_or(range.end - 1);
    Ok(Search {
        finding,
        seeds: last - range.start + 1,
    })
}
