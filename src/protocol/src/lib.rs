//! neorunbase-protocol
