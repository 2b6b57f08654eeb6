//! neorunbase-storage
