// The memory of one chain of versions: who may change a node, and who frees it.
//
// Every node and record bears the stamp of the version that made it. What the version under
// construction made is not seen by anybody yet: it is changed in place, and freed at once when it
// is dropped. Everything else is copied before a change, and what the copy replaced is listed: it
// is freed when no older version is left. That takes no reference count in any node.
//
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"

namespace holdfast::internal {

class VersionMemory {
 public:
  // What the allocator takes for a block: glibc's 8 bytes of header, in steps of 16.
  static constexpr size_t Charge(size_t bytes) { return (bytes + 8 + 15) & ~size_t{15}; }

  // A node of the version under construction. Its first member is its stamp, which is set.
  void* Allocate(size_t bytes) {
    void* block = std::malloc(bytes);
    CHECK_MSG(block != nullptr, "out of memory: mirror less, or give the process more");
    *static_cast<uint64_t*>(block) = stamp_;
    total_ += Charge(bytes);
    live_ += Charge(bytes);
    return block;
  }
  bool Owns(const void* node) const { return StampOf(node) == stamp_; }
  // The node is no longer part of the version under construction.
  void Drop(const void* node, size_t bytes) {
    live_ -= Charge(bytes);
    if (Owns(node)) {
      Free(node, bytes);
    } else {
      replaced_.push_back(const_cast<void*>(node));
      replaced_bytes_ += Charge(bytes);
    }
  }
  // At once: nobody else knows of it.
  void Free(const void* node, size_t bytes) {
    total_ -= Charge(bytes);
    std::free(const_cast<void*>(node));
  }

  static uint64_t StampOf(const void* node) { return *static_cast<const uint64_t*>(node); }
  uint64_t stamp() const { return stamp_; }
  size_t total() const { return total_; }  // bytes, of all versions
  size_t live() const { return live_; }    // bytes, of the version under construction

  // What a version replaced of those before it.
  struct Replaced {
    std::vector<void*> nodes;
    size_t bytes = 0;
  };
  // Begins the next version; tells what the one before it replaced.
  Replaced NextStamp() {
    ++stamp_;
    return {std::exchange(replaced_, {}), std::exchange(replaced_bytes_, 0)};
  }
  void Free(const Replaced& replaced) {
    for (void* node : replaced.nodes) std::free(node);
    total_ -= replaced.bytes;
  }
  // The version under construction has nothing in common with any other any more: what it replaced
  // is then still part of the one before it, and goes with that.
  void ForgetReplaced() {
    replaced_.clear();
    replaced_bytes_ = 0;
    live_ = 0;
  }

 private:
  uint64_t stamp_ = 1;  // 0 is no version's
  std::vector<void*> replaced_;
  size_t replaced_bytes_ = 0;
  size_t total_ = 0;
  size_t live_ = 0;
};

// Key, value and the rest in one block; shared by all versions that have it.
struct Record {
  uint64_t stamp;
  uint64_t create_revision;
  uint64_t mod_revision;
  uint64_t version;
  int64_t lease;
  uint32_t key_size;
  uint32_t value_size;
  // key_size + value_size bytes follow.

  const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
  std::string_view key() const { return {bytes(), key_size}; }
  std::string_view value() const { return {bytes() + key_size, value_size}; }
  size_t block_bytes() const { return sizeof(Record) + key_size + value_size; }
};

}  // namespace holdfast::internal
