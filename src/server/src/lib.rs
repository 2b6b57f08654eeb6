//! neorunbase-server
