//! neorunbase-zookeeper
