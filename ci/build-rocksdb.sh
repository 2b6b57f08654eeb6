#!/usr/bin/env bash
# Builds the static RocksDB once, outside any target folder, so that no profile, feature or flag
# change ever compiles its 300 C++ files again. A second call returns at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
destination="$neorunbase_cache/rocksdb-$rocksdb_version"
if [ -f "$destination/librocksdb.a" ]; then exit 0; fi
unset ROCKSDB_LIB_DIR ROCKSDB_STATIC
scratch="$neorunbase_cache/rocksdb-build"
mkdir -p "$scratch/src"
cat > "$scratch/Cargo.toml" <<EOF
[package]
name = "rocksdb-build"
version = "0.0.0"
edition = "2024"
[dependencies]
librocksdb-sys = { version = "=${rocksdb_version%%+*}", default-features = false, features = ["bindgen-runtime", "lz4"] }
[workspace]
EOF
echo 'fn main() {}' > "$scratch/src/main.rs"
echo "building RocksDB $rocksdb_version (once; about ten minutes on two cores)"
CARGO_TARGET_DIR="$scratch/target" cargo build --release --manifest-path "$scratch/Cargo.toml" &
build=$!
while kill -0 "$build" 2>/dev/null; do
    sleep 15
    objects=$(find "$scratch/target" -name '*.o' 2>/dev/null | wc -l)
    echo "  RocksDB: $objects object files compiled"
done
wait "$build"
library=$(find "$scratch/target/release/build" -path '*/out/librocksdb.a' | head -n 1)
mkdir -p "$destination"
cp "$library" "$destination/librocksdb.a.partial"
mv "$destination/librocksdb.a.partial" "$destination/librocksdb.a"
rm -rf "$scratch"
