//! EXPLAIN.

use crate::plan::Plan;

/// The plan as text lines.
pub(crate) fn explain(_plan: &Plan) -> Vec<String> {
    Vec::new()
}
