//! Which definitions this Coordinator, as leader, has tables held for: what followers hold for others can end.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Names of all of them.
#[derive(Default)]
pub struct LiveDefinitions {
    known: Mutex<BTreeSet<u64>>,
}

/// Keeps one of them live until dropped.
pub struct LiveDefinition {
    definitions: Arc<LiveDefinitions>,
    /// Its name.
    pub name: u64,
}

impl Drop for LiveDefinition {
    fn drop(&mut self) {
        self.definitions.known.lock().remove(&self.name);
    }
}

impl LiveDefinitions {
    /// Adds one. This has to come before anybody is asked to hold tables for it.
    pub fn begin(self: &Arc<Self>, name: u64) -> LiveDefinition {
        self.known.lock().insert(name);
        LiveDefinition {
            definitions: self.clone(),
            name,
        }
    }

    /// Those that have begun and not ended.
    pub fn names(&self) -> Vec<u64> {
        self.known.lock().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_live_until_it_is_dropped() {
        let definitions = Arc::new(LiveDefinitions::default());
        let first = definitions.begin(7);
        let second = definitions.begin(5);
        assert_eq!(definitions.names(), [5, 7]);
        drop(first);
        assert_eq!(definitions.names(), [second.name]);
        drop(second);
        assert!(definitions.names().is_empty());
    }
}
