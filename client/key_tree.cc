#include "client/key_tree.h"

#include <algorithm>

namespace holdfast::internal {
namespace {

constexpr size_t kEntries = 64;  // of a node, at most

}  // namespace

struct KeyTree::Node {
  uint64_t stamp;
  uint32_t count;  // entries; never 0
  uint32_t level;  // 0: a leaf
};

struct KeyTree::Leaf : Node {
  using Entry = const Record*;
  Entry entries[kEntries];

  static std::string_view KeyOf(Entry entry) { return entry->key(); }
};

struct KeyTree::Inner : Node {
  struct Entry {
    const Record* first;  // of the child's subtree
    Node* child;
  };
  Entry entries[kEntries];

  static std::string_view KeyOf(const Entry& entry) { return entry.first->key(); }
};

// What is done to nodes, for both kinds alike.
struct KeyTreeOps {
  using Node = KeyTree::Node;
  using Leaf = KeyTree::Leaf;
  using Inner = KeyTree::Inner;

  VersionMemory& memory;

  // The first entry whose key is not below `key`.
  template <class N>
  static size_t LowerBound(const N* node, std::string_view key) {
    const auto* end = node->entries + node->count;
    return std::partition_point(node->entries, end,
                                [&](const auto& entry) { return N::KeyOf(entry) < key; }) -
           node->entries;
  }
  // The child in whose range the key lies; the first one for keys before all.
  static size_t ChildFor(const Inner* node, std::string_view key) {
    const Inner::Entry* end = node->entries + node->count;
    const size_t above =
        std::partition_point(node->entries + 1, end,
                             [&](const auto& entry) { return Inner::KeyOf(entry) <= key; }) -
        node->entries;
    return above - 1;
  }
  static const Record* FirstOf(const Node* node) {
    return node->level == 0 ? static_cast<const Leaf*>(node)->entries[0]
                            : static_cast<const Inner*>(node)->entries[0].first;
  }

  template <class N>
  N* New(uint32_t level) {
    N* node = static_cast<N*>(memory.Allocate(sizeof(N)));
    node->count = 0;
    node->level = level;
    return node;
  }
  template <class N>
  N* Mutable(N* node) {
    if (memory.Owns(node)) return node;
    N* copy = New<N>(node->level);
    std::copy_n(node->entries, node->count, copy->entries);
    copy->count = node->count;
    memory.Drop(node, sizeof(N));
    return copy;
  }
  // Puts `entry` at `position`; returns what was split off to the right (null: it had room).
  // An entry behind all others leaves the full node as it is, so that keys which arrive in order
  // fill every node.
  template <class N>
  N* Insert(N* node, size_t position, const typename N::Entry& entry) {
    if (node->count < kEntries) {
      InsertAt(node, position, entry);
      return nullptr;
    }
    N* right = New<N>(node->level);
    const size_t keep = position == kEntries ? kEntries : kEntries / 2;
    std::copy(node->entries + keep, node->entries + kEntries, right->entries);
    right->count = static_cast<uint32_t>(kEntries - keep);
    node->count = static_cast<uint32_t>(keep);
    if (position <= keep && keep < kEntries) {
      InsertAt(node, position, entry);
    } else {
      InsertAt(right, position - keep, entry);
    }
    return right;
  }
  template <class N>
  static void InsertAt(N* node, size_t position, const typename N::Entry& entry) {
    std::copy_backward(node->entries + position, node->entries + node->count,
                       node->entries + node->count + 1);
    node->entries[position] = entry;
    ++node->count;
  }
  template <class N>
  static void RemoveAt(N* node, size_t position) {
    std::copy(node->entries + position + 1, node->entries + node->count, node->entries + position);
    --node->count;
  }

  // The node that takes the place of `node`; `split` is what stands to its right now, or null.
  Node* Set(Node* node, const Record* record, Node** split) {
    if (node->level == 0) return SetInLeaf(static_cast<Leaf*>(node), record, split);
    Inner* inner = Mutable(static_cast<Inner*>(node));
    const size_t position = ChildFor(inner, record->key());
    Node* right = nullptr;
    Node* child = Set(inner->entries[position].child, record, &right);
    inner->entries[position] = {FirstOf(child), child};
    *split = right == nullptr ? nullptr : Insert(inner, position + 1, {FirstOf(right), right});
    return inner;
  }
  Node* SetInLeaf(Leaf* node, const Record* record, Node** split) {
    Leaf* leaf = Mutable(node);
    const size_t position = LowerBound(leaf, record->key());
    if (position < leaf->count && leaf->entries[position]->key() == record->key()) {
      leaf->entries[position] = record;
      *split = nullptr;
    } else {
      *split = Insert(leaf, position, record);
    }
    return leaf;
  }

  // The node that takes the place of `node`; null: nothing is left of it.
  Node* Erase(Node* node, std::string_view key) {
    if (node->level == 0) {
      Leaf* leaf = Mutable(static_cast<Leaf*>(node));
      RemoveAt(leaf, LowerBound(leaf, key));
      return NullIfEmpty(leaf);
    }
    Inner* inner = Mutable(static_cast<Inner*>(node));
    const size_t position = ChildFor(inner, key);
    Node* child = Erase(inner->entries[position].child, key);
    if (child == nullptr) {
      RemoveAt(inner, position);
      return NullIfEmpty(inner);
    }
    inner->entries[position] = {FirstOf(child), child};
    if (position > 0) MaybeMerge(inner, position - 1);
    if (position + 1 < inner->count) MaybeMerge(inner, position);
    return inner;
  }
  template <class N>
  Node* NullIfEmpty(N* node) {
    if (node->count > 0) return node;
    memory.Drop(node, sizeof(N));
    return nullptr;
  }
  // Neighbours that fill half a node together become one: memory follows the number of records,
  // and a node that was just split is not merged by the next delete.
  void MaybeMerge(Inner* parent, size_t left) {
    Node* const a = parent->entries[left].child;
    Node* const b = parent->entries[left + 1].child;
    if (a->count + b->count > kEntries / 2) return;
    parent->entries[left].child = a->level == 0
                                      ? Merge(static_cast<Leaf*>(a), static_cast<Leaf*>(b))
                                      : Merge(static_cast<Inner*>(a), static_cast<Inner*>(b));
    RemoveAt(parent, left + 1);
  }
  template <class N>
  Node* Merge(N* a, N* b) {
    N* merged = Mutable(a);
    std::copy_n(b->entries, b->count, merged->entries + merged->count);
    merged->count += b->count;
    memory.Drop(b, sizeof(N));
    return merged;
  }

  void Free(Node* node, uint64_t stamp) {
    if (stamp != 0 && VersionMemory::StampOf(node) != stamp) return;
    if (node->level == 0) {
      memory.Free(node, sizeof(Leaf));
      return;
    }
    const Inner* inner = static_cast<const Inner*>(node);
    for (size_t i = 0; i < inner->count; ++i) Free(inner->entries[i].child, stamp);
    memory.Free(node, sizeof(Inner));
  }

  // False: `visit` stopped it, or what follows does not begin with the prefix.
  static bool Scan(const Node* node, std::string_view prefix,
                   absl::FunctionRef<bool(const Record*)> visit) {
    if (node->level == 0) {
      const Leaf* leaf = static_cast<const Leaf*>(node);
      for (size_t i = LowerBound(leaf, prefix); i < leaf->count; ++i) {
        if (!leaf->entries[i]->key().starts_with(prefix) || !visit(leaf->entries[i])) return false;
      }
      return true;
    }
    const Inner* inner = static_cast<const Inner*>(node);
    const size_t begin = ChildFor(inner, prefix);
    for (size_t i = begin; i < inner->count; ++i) {
      if (i > begin && !Inner::KeyOf(inner->entries[i]).starts_with(prefix)) return false;
      if (!Scan(inner->entries[i].child, prefix, visit)) return false;
    }
    return true;
  }
};

void KeyTree::Scan(std::string_view prefix, absl::FunctionRef<bool(const Record*)> visit) const {
  if (root_ != nullptr) KeyTreeOps::Scan(root_, prefix, visit);
}

void KeyTree::Set(VersionMemory& memory, const Record* record) {
  KeyTreeOps ops{memory};
  if (root_ == nullptr) root_ = ops.New<Leaf>(0);
  Node* right = nullptr;
  root_ = ops.Set(root_, record, &right);
  if (right == nullptr) return;
  Inner* root = ops.New<Inner>(root_->level + 1);
  root->entries[0] = {KeyTreeOps::FirstOf(root_), root_};
  root->entries[1] = {KeyTreeOps::FirstOf(right), right};
  root->count = 2;
  root_ = root;
}

void KeyTree::Erase(VersionMemory& memory, std::string_view key) {
  root_ = KeyTreeOps{memory}.Erase(root_, key);
  while (root_ != nullptr && root_->level > 0 && root_->count == 1) {
    Node* only = static_cast<Inner*>(root_)->entries[0].child;
    memory.Drop(root_, sizeof(Inner));
    root_ = only;
  }
}

void KeyTree::Free(VersionMemory& memory, uint64_t stamp) {
  if (root_ != nullptr) KeyTreeOps{memory}.Free(root_, stamp);
  root_ = nullptr;
}

}  // namespace holdfast::internal
