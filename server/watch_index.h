// Who watches a key: found in O(log ranges + hits), however many watch.
//
// Single keys lie in a hash map. Ranges lie in a treap ordered by (begin, end), each node of which
// knows the largest end below it: a key's ranges are found without looking at the others. Equal
// keys and equal ranges share a node, and adding or removing one of its watches takes no search
// among the others.
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/rng.h"

namespace holdfast::server {

// etcd's key and range_end, as a watch takes them.
struct WatchRange {
  enum class Kind { kSingle, kBounded, kUnbounded };
  Kind kind = Kind::kSingle;
  std::string begin;
  std::string end;  // kBounded; excluded

  // An empty key is "\0"; a range_end of "\0" is no end.
  static WatchRange Of(std::string key, std::string range_end);
  bool empty() const { return kind == Kind::kBounded && begin >= end; }
  bool Contains(std::string_view key) const;
};

class WatchIndex {
 public:
  struct Group;
  // What lies in the index; derive from it. Must outlive the index, or be removed.
  struct Entry {
    explicit Entry(WatchRange r) : range(std::move(r)) {}
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    const WatchRange range;
    // The index's own: where it lies.
    Group* group = nullptr;
    size_t slot = 0;
  };
  struct Group {
    std::vector<Entry*> entries;
  };

  WatchIndex();
  ~WatchIndex();
  WatchIndex(const WatchIndex&) = delete;
  WatchIndex& operator=(const WatchIndex&) = delete;

  // REQUIRES: not in this or another index; its range is not empty.
  void Insert(Entry* entry);
  // REQUIRES: in this index.
  void Remove(Entry* entry);
  // Adds those whose range has `key`.
  void Find(std::string_view key, std::vector<Entry*>* found) const;
  size_t size() const { return size_; }

 private:
  struct Node;
  using NodePtr = std::unique_ptr<Node>;

  static void Update(Node& node);
  static void Split(NodePtr tree, const WatchRange& at, NodePtr* below, NodePtr* rest);
  static NodePtr Merge(NodePtr below, NodePtr above);
  static void RemoveNode(NodePtr* tree, const WatchRange& range);
  static void FindBelow(const Node* tree, std::string_view key, std::vector<Entry*>* found);
  Node* FindNode(const WatchRange& range) const;

  size_t size_ = 0;
  // Group pointers must not move.
  absl::flat_hash_map<std::string, std::unique_ptr<Group>> singles_;
  NodePtr ranges_;
  base::Rng rng_;
};

}  // namespace holdfast::server
