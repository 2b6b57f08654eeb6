//! Seeds that have found something, as a file of the repository: `seed  what it found` a line; `#` begins a remark.

use anyhow::Context;

/// The seeds in `text`, in their order.
///
/// # Errors
/// A line that does not begin with a number.
pub fn parse(text: &str) -> anyhow::Result<Vec<u64>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let seed = line.split_whitespace().next().unwrap_or_default();
            seed.parse()
                .with_context(|| format!("\"{line}\" does not begin with a seed"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_seeds() {
        let text = "# remarks\n\n16  something\n  1423\tand more\n7\n";
        assert_eq!(parse(text).unwrap(), [16, 1423, 7]);
        assert!(parse("16 a\nx 17\n").is_err());
    }

    #[test]
    fn the_file_of_the_repository_can_be_read() {
        let seeds = parse(include_str!("../regressions.txt")).unwrap();
        assert!(!seeds.is_empty());
        let mut sorted = seeds.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(seeds, sorted, "in order, each once");
    }
}
