//! neorunbase-expression
