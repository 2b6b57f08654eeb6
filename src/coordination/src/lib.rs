//! neorunbase-coordination
