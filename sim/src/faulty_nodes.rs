//! Whom a fault is about.

use neorunbase_fault_injection::Fault;
use serde_json::Value;

/// The fields of faults that name nodes.
const FIELDS: [&str; 7] = ["node", "nodes", "from", "to", "one", "other", "side"];

/// The nodes that a fault names; none: it is about all servers. (From the plan's own format, so that new faults need
/// nothing here.)
pub fn nodes_of(fault: &Fault) -> Vec<String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(fault) else {
        return Vec::new();
    };
    let mut nodes = Vec::new();
    for name in FIELDS {
        match fields.get(name) {
            Some(Value::String(node)) => nodes.push(node.clone()),
            Some(Value::Array(several)) => {
                nodes.extend(several.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use neorunbase_fault_injection::{CutSilence, DiskCrash};

    use super::*;

    #[test]
    fn faults_name_their_nodes() {
        let cut = Fault::Cut {
            from: "data-1".to_owned(),
            to: "data-2".to_owned(),
            both_ways: true,
            for_ms: 1,
            silence: CutSilence::Hangs,
        };
        assert_eq!(nodes_of(&cut), ["data-1", "data-2"]);
        let power = Fault::PowerLoss {
            down_ms: 1,
            disk: DiskCrash::Torn,
        };
        assert!(nodes_of(&power).is_empty());
    }
}
