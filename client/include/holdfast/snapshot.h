// An immutable copy of all records of one prefix, at one revision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "holdfast/entry.h"

namespace holdfast {

namespace internal {
class VersionNode;
class VersionStore;
}  // namespace internal

// A counted reference to one version of a mirror's data; cheap to copy (one atomic increment).
// Threads: all methods from any thread. May outlive the Client.
// Memory: while it is kept, whatever was replaced since is kept too: take one per request, not one
// per process.
class MirrorSnapshot {
 public:
  MirrorSnapshot() = default;  // without records, at revision 0
  MirrorSnapshot(const MirrorSnapshot& other);
  MirrorSnapshot(MirrorSnapshot&& other) noexcept;
  MirrorSnapshot& operator=(MirrorSnapshot other) noexcept;
  ~MirrorSnapshot();

  // The record's bytes live as long as some snapshot of this version does.
  std::optional<EntryView> Find(std::string_view key) const;
  // Records whose key begins with `prefix`, in key order; `visit` returns false to stop.
  void Scan(std::string_view prefix, absl::FunctionRef<bool(const EntryView&)> visit) const;
  std::vector<Entry> Entries(std::string_view prefix = "") const;

  size_t size() const;        // records
  size_t bytes() const;       // of keys and values
  uint64_t revision() const;  // of the store, which the records show exactly

 private:
  friend class internal::VersionStore;
  explicit MirrorSnapshot(internal::VersionNode* node) : node_(node) {}  // takes the reference over

  internal::VersionNode* node_ = nullptr;
};

}  // namespace holdfast
