//! neorunbase-catalog
