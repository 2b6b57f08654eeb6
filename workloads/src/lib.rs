//! neorunbase-workloads
