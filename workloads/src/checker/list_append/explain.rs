//! Accusations in words: the transactions of a cycle with their operations, and what leads from each to the next.

use super::super::graph::{Cycle, Edge};
use super::{Action, Judge};

impl Judge<'_> {
    /// A transaction with its operations.
    pub(super) fn describe(&self, index: usize) -> String {
        let record = &self.records[index];
        let actions: Vec<String> = record
            .operation
            .actions
            .iter()
            .map(|action| match action {
                Action::Append { key, element } => format!("append {key} {element}"),
                Action::Read {
                    key,
                    list: Some(list),
                } if list.len() > 8 => {
                    format!("read {key} [… {:?}]", &list[list.len() - 8..])
                }
                Action::Read {
                    key,
                    list: Some(list),
                } => format!("read {key} {list:?}"),
                Action::Read { key, list: None } => format!("read {key} ?"),
                Action::Savepoint => "savepoint".to_owned(),
                Action::RollbackTo => "rollback to it".to_owned(),
            })
            .collect();
        let completed = record
            .completed_micros
            .map_or_else(|| "…".to_owned(), |micros| micros.to_string());
        if actions.len() > 8 {
            return format!(
                "T{index} (the reading of all {} lists at {} µs)",
                actions.len(),
                record.invoked_micros
            );
        }
        let error = record
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(", {error}"));
        format!(
            "T{index} (client {}, {}-{completed} µs, {:?}{error}: {})",
            record.client,
            record.invoked_micros,
            record.outcome,
            actions.join("; ")
        )
    }

    /// A cycle with all operations in it.
    pub(super) fn tell(&self, cycle: &Cycle) -> String {
        let mut text = String::new();
        let following = cycle.iter().skip(1).chain(cycle.first());
        for ((index, edge), (next, _)) in cycle.iter().zip(following) {
            text.push_str(&format!("\n    {} —{}→", self.describe(*index), edge.label()));
            if let Some(why) = self.why(*index, *next, *edge) {
                text.push_str(&format!(" ({why})"));
            }
        }
        if let Some((first, _)) = cycle.first() {
            text.push_str(&format!(" T{first}"));
        }
        text
    }

    /// What makes `from` come before `to`; times and clients speak for themselves.
    fn why(&self, from: usize, to: usize, edge: Edge) -> Option<String> {
        let writer = |element: &i64| self.writers.get(element).map(|(writer, _)| *writer);
        match edge {
            Edge::WriteWrite => self.versions.iter().find_map(|(key, list)| {
                let pair = list
                    .windows(2)
                    .find(|pair| writer(&pair[0]) == Some(from) && writer(&pair[1]) == Some(to))?;
                Some(format!("{} stands before {} in {key}", pair[0], pair[1]))
            }),
            Edge::WriteRead => self.external_reads().iter().find_map(|read| {
                let last = read.list.last().filter(|last| writer(last) == Some(from))?;
                (read.transaction == to).then(|| format!("which read {last} in {}", read.key))
            }),
            Edge::ReadWrite => self.external_reads().iter().find_map(|read| {
                let list = self.versions.get(&read.key)?;
                let missed = list
                    .get(read.list.len())
                    .filter(|missed| writer(missed) == Some(to))?;
                (read.transaction == from).then(|| format!("it did not see {missed} in {}", read.key))
            }),
            Edge::Process | Edge::RealTime => None,
        }
    }
}
