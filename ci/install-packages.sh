#!/usr/bin/env bash
# Installs what is missing, and only that: ci/install-packages.sh build|test
#   build  a C++ compiler and libclang for RocksDB's bindings, psql to connect with, the Rust toolchain
#   test   also ZooKeeper with Java, the PostgreSQL 15 server to compare with, Python 3, and what cuts networks and makes disks
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
purpose=${1:-build}

# package:how to see that what it is for is there, so that other sources of it count too
wanted=(
    "build-essential:command -v g++ make"
    "libclang-dev:ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -v libclang-cpp"
    "pkg-config:command -v pkg-config"
    "curl:command -v curl"
    "ca-certificates:test -d /etc/ssl/certs"
    "git:command -v git"
    "postgresql-client:command -v psql"
)
if [ "$purpose" = test ]; then
    wanted+=(
        "postgresql:ls /usr/lib/postgresql/*/bin/initdb"
        "default-jre-headless:command -v java"
        "zookeeper:test -e /usr/share/java/zookeeper.jar"
        "python3:command -v python3"
        "procps:command -v ps"
        "iproute2:PATH=$PATH:/usr/sbin:/sbin command -v ip"
        "nftables:PATH=$PATH:/usr/sbin:/sbin command -v nft"
        "e2fsprogs:PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4"
    )
fi
missing=()
for entry in "${wanted[@]}"; do
    if ! bash -c "${entry#*:}" >/dev/null 2>&1; then missing+=("${entry%%:*}"); fi
done

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "as root is needed, and there is no sudo: $*" >&2
        exit 1
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "these Debian packages, or what your system calls them, are needed: ${missing[*]}" >&2
        exit 1
    fi
    echo "installing: ${missing[*]}"
    if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        # The tests start a PostgreSQL of their own; Debian's package must not start one on port 5432.
        as_root mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

version=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$here/../rust-toolchain.toml")
if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    echo "installing Rust $version with rustup into ~/.cargo"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --no-modify-path --profile minimal --component clippy --component rustfmt --default-toolchain "$version"
fi
export PATH="$PATH:$HOME/.cargo/bin"
# With rustup, rust-toolchain.toml picks (and fetches) the version; another cargo has to be new enough.
have=$(cd "$here/.." && cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$version" "$have" | sort -V | head -n 1)" != "$version" ]; then
    echo "Rust $version is needed, this is $have: install rustup (https://rustup.rs) or a newer Rust" >&2
    exit 1
fi
