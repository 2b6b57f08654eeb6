//! The `Env` that RocksDB reads and writes its files through: `shim/encrypted_env.cc`, served by [`FileCipher`].

use std::ffi::{c_char, c_void};

use librocksdb_sys::rocksdb_env_t;
use neorunbase_world::shard_engine::EngineKey;
use rocksdb::Env;

use crate::file_cipher::{self, FileCipher, HEADER_BYTES};

/// Mirrors the struct of the same name in the shim.
#[repr(C)]
struct CipherFunctions {
    header_bytes: usize,
    create_header: unsafe extern "C" fn(*const c_void, *mut c_char) -> bool,
    open_file:
        unsafe extern "C" fn(*const c_void, *const c_char, usize, bool, *mut c_char, usize) -> *mut c_void,
    encrypt: unsafe extern "C" fn(*const c_void, u64, *mut c_char, usize) -> bool,
    decrypt: unsafe extern "C" fn(*const c_void, u64, *mut c_char, usize),
    close_file: unsafe extern "C" fn(*mut c_void),
    release_key: unsafe extern "C" fn(*mut c_void),
}

static CIPHER_FUNCTIONS: CipherFunctions = CipherFunctions {
    header_bytes: HEADER_BYTES,
    create_header,
    open_file,
    encrypt,
    decrypt,
    close_file,
    release_key,
};

unsafe extern "C" {
    fn neorunbase_encrypted_env_create(
        functions: *const CipherFunctions,
        key: *mut c_void,
    ) -> *mut rocksdb_env_t;
}

/// An `Env` over the operating system's files that encrypts with `key`. Background threads are shared with
/// every other such `Env` of the process.
pub(crate) fn encrypted_env(key: &EngineKey) -> Env {
    let key = Box::into_raw(Box::new(key.clone()));
    // SAFETY: the function table is static; the key's box is passed on and given back once, to `release_key`.
    // The shim returns a new env that nobody else owns, laid out as the C interface's.
    unsafe {
        Env::from_raw(neorunbase_encrypted_env_create(
            &raw const CIPHER_FUNCTIONS,
            key.cast(),
        ))
    }
}

// A panic in one of these functions aborts the process (they are `extern "C"`), it never unwinds into C++.

/// SAFETY (caller): `key` is the pointer given to the shim; `header` has room for `HEADER_BYTES`.
unsafe extern "C" fn create_header(key: *const c_void, header: *mut c_char) -> bool {
    // SAFETY: see above; the key lives until `release_key`.
    let key = unsafe { &*key.cast::<EngineKey>() };
    match file_cipher::create_header(key) {
        Ok(bytes) => {
            // SAFETY: both are valid for `HEADER_BYTES`; one of them is ours alone.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), header.cast(), HEADER_BYTES) };
            true
        }
        Err(_) => false,
    }
}

/// SAFETY (caller): `key` as above; `header` is valid for `header_length` bytes, `reason` for `reason_capacity`.
unsafe extern "C" fn open_file(
    key: *const c_void,
    header: *const c_char,
    header_length: usize,
    may_be_torn: bool,
    reason: *mut c_char,
    reason_capacity: usize,
) -> *mut c_void {
    // SAFETY: see above.
    let key = unsafe { &*key.cast::<EngineKey>() };
    let header: &[u8] = if header_length == 0 {
        &[]
    } else {
        // SAFETY: valid for that many bytes, which nobody writes during the call.
        unsafe { std::slice::from_raw_parts(header.cast(), header_length) }
    };
    match FileCipher::open(key, header, may_be_torn) {
        Ok(cipher) => Box::into_raw(Box::new(cipher)).cast(),
        Err(error) => {
            let text = error.to_string();
            // The shim's buffer is zeroed: leaving out the last byte keeps the text terminated.
            let length = text.len().min(reason_capacity.saturating_sub(1));
            // SAFETY: `length` is within both buffers.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), reason.cast(), length) };
            std::ptr::null_mut()
        }
    }
}

/// SAFETY (caller): `file` came from `open_file` and is not closed; `data` is valid and unshared for `length` bytes.
unsafe extern "C" fn encrypt(file: *const c_void, offset: u64, data: *mut c_char, length: usize) -> bool {
    if length == 0 {
        return true;
    }
    // SAFETY: see above.
    let (cipher, data) = unsafe {
        (
            &*file.cast::<FileCipher>(),
            std::slice::from_raw_parts_mut(data.cast::<u8>(), length),
        )
    };
    cipher.encrypt(offset, data)
}

/// SAFETY (caller): as `encrypt`.
unsafe extern "C" fn decrypt(file: *const c_void, offset: u64, data: *mut c_char, length: usize) {
    if length == 0 {
        return;
    }
    // SAFETY: see above.
    let (cipher, data) = unsafe {
        (
            &*file.cast::<FileCipher>(),
            std::slice::from_raw_parts_mut(data.cast::<u8>(), length),
        )
    };
    cipher.decrypt(offset, data);
}

/// SAFETY (caller): `file` came from `open_file` and is used no more.
unsafe extern "C" fn close_file(file: *mut c_void) {
    // SAFETY: see above.
    drop(unsafe { Box::from_raw(file.cast::<FileCipher>()) });
}

/// SAFETY (caller): `key` is the pointer given to the shim and is used no more.
unsafe extern "C" fn release_key(key: *mut c_void) {
    // SAFETY: see above.
    drop(unsafe { Box::from_raw(key.cast::<EngineKey>()) });
}
