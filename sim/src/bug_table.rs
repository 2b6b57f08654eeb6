//! `docs/planted-bugs.md`: which checker has found which planted bug. Rows of bugs that were not looked for stay.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::planted::PlantedBug;

/// What became of the search for a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Who has found it: the checker and the anomaly; none: it survived.
    pub finding: Option<Finding>,
    /// How many seeds it took.
    pub seeds: u64,
}

/// Who has found a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The checker, and what it called it.
    pub by: String,
    /// The seed.
    pub seed: u64,
}

const HEAD: &str = "| bug | what it breaks | seen in | found by | seed | seeds it took |\n\
                    | --- | --- | --- | --- | --- | --- |\n";

/// The table with the results of `searches`, and for other bugs with what `before` says of them.
pub fn update(
    before: &str,
    bugs: impl IntoIterator<Item = PlantedBug>,
    searches: &BTreeMap<&str, Search>,
    seeds: &Range<u64>,
    seconds: u64,
) -> String {
    let known = parse(before);
    let mut text = format!(
        "# Planted bugs\n\n\
         Each is a mistake that the code can be told to make (`neorunbase_world::fault::planted`), most of them made by real\n\
         systems before, or by this one. A seed counts if it fails with the bug and passes without it. `survived`: none of the\n\
         seeds that it took did. `not looked for yet`: it was seen to fail where it was made, and has not been searched for from\n\
         the first seed on. Those of the suite are searched for on every run of it. Written by\n\
         `cargo sim --bugs {}..{} --table docs/planted-bugs.md` ({seconds} simulated seconds a seed;\n\
         with `--bug NAME` one row anew; `--elusive` looks for those, too, that the suite does not ask for).\n\n{HEAD}",
        seeds.start, seeds.end
    );
    for bug in bugs {
        let found = match searches.get(bug.name) {
            Some(search) => cells(search),
            None => known.get(bug.name).cloned().unwrap_or_else(|| {
                // Nobody has looked for it yet.
                ["not looked for yet".to_owned(), dash(), dash()]
            }),
        };
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            bug.name,
            bug.what,
            bug.seen_in,
            found.join(" | ")
        ));
    }
    text
}

fn dash() -> String {
    "—".to_owned()
}

fn cells(search: &Search) -> [String; 3] {
    let (by, seed) = match &search.finding {
        Some(finding) => (finding.by.replace('|', "/"), finding.seed.to_string()),
        None => ("**survived**".to_owned(), dash()),
    };
    [by, seed, search.seeds.to_string()]
}

/// The last three cells of each row, by bug.
fn parse(table: &str) -> BTreeMap<String, [String; 3]> {
    let rows = table.lines().filter_map(|line| {
        let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, _, _, by, seed, seeds] = cells.as_slice() else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), [by, seed, seeds].map(|cell| (*cell).to_owned())))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUGS: [PlantedBug; 3] = [
        PlantedBug {
            name: "one",
            what: "breaks this",
            seen_in: "—",
        },
        PlantedBug {
            name: "two",
            what: "breaks that",
            seen_in: "a system",
        },
        PlantedBug {
            name: "three",
            what: "is new",
            seen_in: "—",
        },
    ];

    fn found(by: &str, seed: u64, seeds: u64) -> Search {
        let finding = Some(Finding {
            by: by.to_owned(),
            seed,
        });
        Search { finding, seeds }
    }

    #[test]
    fn other_rows_stay() {
        let first = BTreeMap::from([
            ("one", found("lists: G1c", 4, 5)),
            (
                "two",
                Search {
                    finding: None,
                    seeds: 300,
                },
            ),
        ]);
        let table = update("", BUGS, &first, &(0..300), 60);
        assert!(table.contains("| `one` | breaks this | — | lists: G1c | 4 | 5 |"));
        assert!(table.contains("| `two` | breaks that | a system | **survived** | — | 300 |"));
        assert!(table.contains("| `three` | is new | — | not looked for yet | — | — |"));
        let second = BTreeMap::from([("two", found("copies differ", 17, 18))]);
        let table = update(&table, BUGS, &second, &(0..300), 60);
        assert!(table.contains("| `one` | breaks this | — | lists: G1c | 4 | 5 |"));
        assert!(table.contains("| `two` | breaks that | a system | copies differ | 17 | 18 |"));
        assert_eq!(update(&table, BUGS, &BTreeMap::new(), &(0..300), 60), table);
    }
}
