// Shared by the tests of the MVCC store.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "storage/mvcc_store.h"

namespace holdfast::storage {

// For gtest's messages and comparisons.
bool operator==(const KeyValue& a, const KeyValue& b);
std::ostream& operator<<(std::ostream& out, const KeyValue& kv);
bool operator==(const AppliedState& a, const AppliedState& b);
std::ostream& operator<<(std::ostream& out, const AppliedState& state);

// A directory of its own, removed at the end. Not created: the store does that.
class ScratchDir {
 public:
  ScratchDir();
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;

  // The store's directory.
  std::string store() const { return path_ + "/store"; }
  std::string Sub(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

// A store's write buffer so small that a test of a second sees flushes and compactions.
inline constexpr size_t kTinyWriteBuffer = size_t{64} << 10;

MvccStore::Options StoreOptions(const std::string& dir, size_t write_buffer_bytes = 4 << 20);
std::unique_ptr<MvccStore> MustOpen(const std::string& dir, size_t write_buffer_bytes = 4 << 20);

// One revision with one put, or one delete, without a commit.
void MustPut(MvccStore::Writer& writer, std::string_view key, std::string_view value,
             int64_t lease = 0);
int64_t MustDelete(MvccStore::Writer& writer, std::string_view key,
                   std::string_view range_end = {});
void MustCommit(MvccStore::Writer& writer, uint64_t index, uint64_t term = 1);

// The whole store, or single keys as "key=value@mod" for short comparisons.
inline RangeOptions Everything() {
  RangeOptions options;
  options.key = std::string(1, '\0');
  options.range_end = std::string(1, '\0');
  return options;
}
std::vector<std::string> Brief(const RangeResult& result);
// REQUIRES: the range can be read.
RangeResult MustRange(const MvccStore::View& view, const RangeOptions& options);
RangeResult MustRange(const MvccStore::Writer& writer, const RangeOptions& options);

// HOLDFAST_TEST_SEED if set, else a fresh one; printed, so that a failure can be replayed.
uint64_t TestSeed();

}  // namespace holdfast::storage
