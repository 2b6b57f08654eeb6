//! How a simulation ended.

use serde::Serialize;

/// The kinds of ends, each with an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to complain of.
    Passed,
    /// A role panicked.
    Crash,
    /// Somebody made no progress although nothing was broken any more.
    Liveness,
    /// A checker rejected the history.
    Correctness,
}

impl Verdict {
    /// The process's exit code. 2 is for wrong usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Crash => 3,
            Self::Liveness => 4,
            Self::Correctness => 5,
        }
    }

    /// The verdict behind a process's exit code.
    pub fn from_exit_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Passed,
            Some(4) => Self::Liveness,
            Some(5) => Self::Correctness,
            // A signal, an abort, or anything else that nobody meant.
            _ => Self::Crash,
        }
    }

    /// As printed.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Crash => "FAILED (crash)",
            Self::Liveness => "FAILED (liveness)",
            Self::Correctness => "FAILED (correctness)",
        }
    }
}

/// What kind of thing a complaint is about: the anomaly's name, without what differs from run to run.
pub fn anomaly(complaint: &str) -> String {
    let complaint = complaint
        .strip_prefix("at ")
        .and_then(|rest| rest.split_once(" ms: "))
        .map_or(complaint, |(_, what)| what);
    if complaint.contains(" differs from ") {
        return "copies differ".to_owned();
    }
    let what = match complaint.split_once(": ") {
        // The name of a workload.
        Some((name, rest)) if !name.contains(' ') => rest,
        _ => complaint,
    };
    let end = what.find([':', '[', '(', '{', '"']).unwrap_or(what.len());
    // Numbers differ from run to run, but for those in names: G0, G1a, G2-item, a file.
    fn without_number(word: &str) -> &str {
        let has_digits = word.contains(|letter: char| letter.is_ascii_digit());
        if has_digits && !word.starts_with('G') && !word.contains('/') {
            "N"
        } else {
            without_registry(word)
        }
    }
    // Of a dependency's file: its crate and the path in there, without where this machine keeps its crates.
    fn without_registry(word: &str) -> &str {
        let within = word.split_once("/registry/src/").map(|(_, rest)| rest);
        within
            .and_then(|rest| rest.split_once('/'))
            .map_or(word, |(_, file)| file)
    }
    fn is_transaction(word: &str) -> bool {
        let number = word.strip_prefix('T');
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    }
    let words: Vec<&str> = what[..end]
        .split_whitespace()
        .filter(|word| !is_transaction(word))
        .map(without_number)
        .take(10)
        .collect();
    words.join(" ")
}

/// Who complained, and of what: for a report in one line.
pub fn found_by(verdict: Verdict, complaint: &str) -> String {
    let what = anomaly(complaint);
    match (verdict, complaint.split_once(": ")) {
        (Verdict::Correctness, Some((workload, _))) if !workload.contains(' ') => {
            format!("{workload}: {what}")
        }
        (Verdict::Liveness, _) => format!("liveness: {what}"),
        (Verdict::Crash, _) => format!("crash: {what}"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_have_names() {
        for (complaint, expected) in [
            (
                "lists_serializable: G2-item: T12 (client 3, 5-9 µs) -rw-> T13",
                "G2-item",
            ),
            ("teams: G1a aborted read: T3 saw member 4", "G1a aborted read"),
            (
                "bank_accounts: T12 read 7 accounts with 1300 instead of 1200",
                "read N accounts with N instead of N",
            ),
            (
                "shard 0x100000001: data-2 differs from data-1: storage 7",
                "copies differ",
            ),
            (
                "at 5123 ms: panicked at src/storage/src/wal.rs:10:5: it happens",
                "panicked at src/storage/src/wal.rs",
            ),
            (
                "at 1 ms: panicked at /home/me/.cargo/registry/src/host-1a2b/madsim-0.2.34/src/sim/runtime/mod.rs:129:19: time limit",
                "panicked at madsim-0.2.34/src/sim/runtime/mod.rs",
            ),
            (
                "not served within 60 s after everything healed: bank_accounts/1 (served 3 before)",
                "not served within N s after everything healed",
            ),
        ] {
            assert_eq!(anomaly(complaint), expected);
        }
        assert_eq!(
            found_by(Verdict::Correctness, "lists: G1c: T1 -> T2"),
            "lists: G1c"
        );
        assert_eq!(
            found_by(Verdict::Crash, "at 1 ms: panicked at src/a.rs:1:2: x"),
            "crash: panicked at src/a.rs"
        );
    }
}
