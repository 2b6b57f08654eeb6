//! neorunbase-fault-injection
