//! neorunbase-txn
