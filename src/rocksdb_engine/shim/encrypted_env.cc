// Plugs the file cipher (src/file_cipher.rs) into RocksDB's encrypted file system.
//
// RocksDB puts a header of ours before each file's content and passes every byte through a cipher stream.
// This file only forwards; what is in a header and how bytes are enciphered is decided in Rust, through the
// function table that `neorunbase_encrypted_env_create` receives. None of the functions may unwind.

#include <memory>
#include <string>

#include "rocksdb/env.h"
#include "rocksdb/env_encryption.h"

using ROCKSDB_NAMESPACE::BlockAccessCipherStream;
using ROCKSDB_NAMESPACE::EncryptionProvider;
using ROCKSDB_NAMESPACE::Env;
using ROCKSDB_NAMESPACE::EnvOptions;
using ROCKSDB_NAMESPACE::Slice;
using ROCKSDB_NAMESPACE::Status;

// Laid out as in RocksDB's db/c.cc: what the C interface means by an Env.
struct rocksdb_env_t {
  Env* rep;
  bool is_default;
};

namespace {

constexpr size_t kCipherBlockBytes = 16;
constexpr size_t kReasonBytes = 256;

// Mirrors `CipherFunctions` in src/encrypted_env.rs.
struct CipherFunctions {
  size_t header_bytes;
  // Fills a new file's header; false if there is no randomness.
  bool (*create_header)(const void* key, char* header);
  // The cipher of a file with this header, or null and a reason. `may_be_torn`: the file holds nothing of worth.
  void* (*open_file)(const void* key, const char* header, size_t header_length, bool may_be_torn, char* reason,
                     size_t reason_capacity);
  bool (*encrypt)(const void* file, uint64_t offset, char* data, size_t length);
  void (*decrypt)(const void* file, uint64_t offset, char* data, size_t length);
  void (*close_file)(void* file);
  void (*release_key)(void* key);
};

class FileStream final : public BlockAccessCipherStream {
 public:
  FileStream(const CipherFunctions* functions, void* file) : functions_(functions), file_(file) {}
  ~FileStream() override { functions_->close_file(file_); }
  FileStream(const FileStream&) = delete;
  FileStream& operator=(const FileStream&) = delete;

  size_t BlockSize() override { return kCipherBlockBytes; }

  Status Encrypt(uint64_t offset, char* data, size_t length) override {
    if (!functions_->encrypt(file_, offset, data, length)) {
      return Status::IOError("append to a file whose header was never written");
    }
    return Status::OK();
  }

  Status Decrypt(uint64_t offset, char* data, size_t length) override {
    functions_->decrypt(file_, offset, data, length);
    return Status::OK();
  }

 protected:
  // Whole ranges are handled above; RocksDB's block by block path is never taken.
  void AllocateScratch(std::string&) override {}
  Status EncryptBlock(uint64_t, char*, char*) override { return Status::NotSupported("block cipher"); }
  Status DecryptBlock(uint64_t, char*, char*) override { return Status::NotSupported("block cipher"); }

 private:
  const CipherFunctions* const functions_;
  void* const file_;
};

class FileCipherProvider final : public EncryptionProvider {
 public:
  FileCipherProvider(const CipherFunctions* functions, void* key) : functions_(functions), key_(key) {}
  ~FileCipherProvider() override { functions_->release_key(key_); }
  FileCipherProvider(const FileCipherProvider&) = delete;
  FileCipherProvider& operator=(const FileCipherProvider&) = delete;

  const char* Name() const override { return "NeorunBaseFileCipher"; }
  size_t GetPrefixLength() const override { return functions_->header_bytes; }

  Status CreateNewPrefix(const std::string& name, char* header, size_t length) const override {
    if (length != functions_->header_bytes || !functions_->create_header(key_, header)) {
      return Status::IOError("no random nonce for " + name);
    }
    return Status::OK();
  }

  Status AddCipher(const std::string&, const char*, size_t, bool) override {
    return Status::NotSupported("keys are set when the engine is opened");
  }

  Status CreateCipherStream(const std::string& name, const EnvOptions&, Slice& header,
                            std::unique_ptr<BlockAccessCipherStream>* result) override {
    // RocksDB's own log is off: its file is created and never synced, so a power loss may leave any part of it.
    const bool may_be_torn = name.ends_with(".log");
    char reason[kReasonBytes] = {0};
    void* file = functions_->open_file(key_, header.data(), header.size(), may_be_torn, reason, kReasonBytes);
    if (file == nullptr) {
      return Status::InvalidArgument(name, reason);
    }
    *result = std::make_unique<FileStream>(functions_, file);
    return Status::OK();
  }

 private:
  const CipherFunctions* const functions_;
  void* const key_;
};

}  // namespace

// Takes ownership of `key`; `functions` must live as long as the process.
extern "C" rocksdb_env_t* neorunbase_encrypted_env_create(const CipherFunctions* functions, void* key) {
  auto provider = std::make_shared<FileCipherProvider>(functions, key);
  return new rocksdb_env_t{ROCKSDB_NAMESPACE::NewEncryptedEnv(Env::Default(), provider), false};
}
