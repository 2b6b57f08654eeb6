//! Compiles the shim that plugs our file cipher into RocksDB.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=shim/encrypted_env.cc");
    // Told by librocksdb-sys: the headers must be those that the library was built from.
    let sources =
        std::env::var_os("DEP_ROCKSDB_CARGO_MANIFEST_DIR").expect("librocksdb-sys names its sources");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(PathBuf::from(sources).join("rocksdb/include"))
        .define("NDEBUG", Some("1"))
        .flag("-include")
        .flag("cstdint")
        // Works against a library built with or without run-time type information.
        .flag("-fno-rtti")
        .flag_if_supported("-Wno-unused-parameter")
        .opt_level(2)
        .file("shim/encrypted_env.cc")
        .compile("neorunbase_encrypted_env");
}
