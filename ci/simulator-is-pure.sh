#!/usr/bin/env bash
# The simulator must not compile the large client libraries, nor what escapes its seed.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$(cargo tree --locked --config "build.rustflags=['--cfg','madsim']" -p neorunbase-sim --edges normal,build --prefix none --format '{p}')
found=$(printf '%s\n' "$tree" | sort -u |
    grep -E '^(rocksdb|librocksdb-sys|rdkafka|rdkafka-sys|zookeeper-client|neorunbase-(rocksdb-engine|zookeeper|operating-system)) ' || true)
if [ -n "$found" ]; then
    printf 'the simulator depends on:\n%s\n' "$found" >&2
    exit 1
fi
echo "none of them"
