# Sourced by every script that builds: where the long-lived build products are kept.
# Nothing here is required for a plain `cargo build`; it only makes builds fast.
neorunbase_cache="${XDG_CACHE_HOME:-$HOME/.cache}/neorunbase"
rocksdb_version="0.19.0+11.8.1" # of the librocksdb-sys crate, as pinned by Cargo.lock
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$neorunbase_cache/target}"
if [ -f "$neorunbase_cache/rocksdb-$rocksdb_version/librocksdb.a" ]; then
    export ROCKSDB_LIB_DIR="$neorunbase_cache/rocksdb-$rocksdb_version"
    export ROCKSDB_STATIC=1
fi
