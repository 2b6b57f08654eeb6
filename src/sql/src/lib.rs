//! neorunbase-sql
