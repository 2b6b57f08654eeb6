//! neorunbase-rocksdb-engine
