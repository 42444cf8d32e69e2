// The records of one version in key order: a persistent B+-tree over the same records as the
// ShardTable's.
//
// A node has up to 64 entries; a change copies one node of each level, at 1 M records four. An
// inner entry names the first record of its subtree, which is how it knows where keys lie without
// keeping copies of them: a change rewrites the path anyway, so keeping them right costs nothing.
//
// A value: copying it is O(1), and the copy belongs to another version.
// Threads: const methods from any thread; the others as VersionMemory.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "client/version_memory.h"

namespace holdfast::internal {

struct KeyTreeOps;

class KeyTree {
 public:
  // Records whose key begins with `prefix`, in key order; `visit` returns false to stop.
  void Scan(std::string_view prefix, absl::FunctionRef<bool(const Record*)> visit) const;

  // Puts `record` in, in the place of one with its key.
  void Set(VersionMemory& memory, const Record* record);
  // REQUIRES: there is a record with this key.
  void Erase(VersionMemory& memory, std::string_view key);
  // Frees the nodes that bear `stamp`; 0: all of them. No records. Leaves it empty.
  void Free(VersionMemory& memory, uint64_t stamp);

 private:
  struct Node;
  struct Leaf;
  struct Inner;
  friend struct KeyTreeOps;

  Node* root_ = nullptr;
};

}  // namespace holdfast::internal
