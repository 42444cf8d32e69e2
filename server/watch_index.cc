#include "server/watch_index.h"

#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

// No end is behind every end.
bool EndsBefore(const WatchRange& a, const WatchRange& b) {
  if (a.kind == WatchRange::Kind::kUnbounded) return false;
  return b.kind == WatchRange::Kind::kUnbounded || a.end < b.end;
}

bool Before(const WatchRange& a, const WatchRange& b) {
  if (const int order = a.begin.compare(b.begin); order != 0) return order < 0;
  return EndsBefore(a, b);
}

bool EndsBehind(const WatchRange& range, std::string_view key) {
  return range.kind == WatchRange::Kind::kUnbounded || key < range.end;
}

void Add(WatchIndex::Group* group, WatchIndex::Entry* entry) {
  entry->group = group;
  entry->slot = group->entries.size();
  group->entries.push_back(entry);
}

void TakeOut(WatchIndex::Entry* entry) {
  std::vector<WatchIndex::Entry*>& entries = entry->group->entries;
  CHECK(entries[entry->slot] == entry);
  entries[entry->slot] = entries.back();
  entries[entry->slot]->slot = entry->slot;
  entries.pop_back();
  entry->group = nullptr;
}

}  // namespace

WatchRange WatchRange::Of(std::string key, std::string range_end) {
  static constexpr std::string_view kZero("\0", 1);
  WatchRange range;
  range.begin = key.empty() ? std::string(kZero) : std::move(key);
  if (range_end.empty()) return range;
  if (range_end == kZero) {
    range.kind = Kind::kUnbounded;
  } else {
    range.kind = Kind::kBounded;
    range.end = std::move(range_end);
  }
  return range;
}

bool WatchRange::Contains(std::string_view key) const {
  if (kind == Kind::kSingle) return key == begin;
  return key >= begin && EndsBehind(*this, key);
}

// A heap by priority, a search tree by range.
struct WatchIndex::Node : Group {
  explicit Node(WatchRange r, uint64_t p) : range(std::move(r)), priority(p), last(&range) {}
  const WatchRange range;
  const uint64_t priority;
  // Invariant: of all ranges from here down, one that ends last.
  const WatchRange* last;
  NodePtr left, right;
};

// The order of priorities needs no secret; a fixed seed keeps runs alike.
WatchIndex::WatchIndex() : rng_(1) {}
WatchIndex::~WatchIndex() = default;

void WatchIndex::Insert(Entry* entry) {
  CHECK(entry->group == nullptr);
  CHECK(!entry->range.empty());
  ++size_;
  if (entry->range.kind == WatchRange::Kind::kSingle) {
    std::unique_ptr<Group>& group = singles_[entry->range.begin];
    if (group == nullptr) group = std::make_unique<Group>();
    return Add(group.get(), entry);
  }
  if (Node* node = FindNode(entry->range)) return Add(node, entry);
  auto node = std::make_unique<Node>(entry->range, rng_.Next());
  Add(node.get(), entry);
  NodePtr below, rest;
  Split(std::move(ranges_), entry->range, &below, &rest);
  ranges_ = Merge(Merge(std::move(below), std::move(node)), std::move(rest));
}

void WatchIndex::Remove(Entry* entry) {
  Group* group = entry->group;
  CHECK(group != nullptr);
  TakeOut(entry);
  --size_;
  if (!group->entries.empty()) return;
  if (entry->range.kind == WatchRange::Kind::kSingle) {
    singles_.erase(entry->range.begin);
  } else {
    RemoveNode(&ranges_, entry->range);
  }
}

void WatchIndex::Find(std::string_view key, std::vector<Entry*>* found) const {
  if (const auto it = singles_.find(base::ToAbsl(key)); it != singles_.end()) {
    found->insert(found->end(), it->second->entries.begin(), it->second->entries.end());
  }
  FindBelow(ranges_.get(), key, found);
}

void WatchIndex::FindBelow(const Node* tree, std::string_view key, std::vector<Entry*>* found) {
  // A subtree in which nothing ends behind the key has nothing to say.
  while (tree != nullptr && EndsBehind(*tree->last, key)) {
    FindBelow(tree->left.get(), key, found);
    if (tree->range.begin > key) return;  // so does everything to the right
    if (EndsBehind(tree->range, key)) {
      found->insert(found->end(), tree->entries.begin(), tree->entries.end());
    }
    tree = tree->right.get();
  }
}

WatchIndex::Node* WatchIndex::FindNode(const WatchRange& range) const {
  Node* node = ranges_.get();
  while (node != nullptr) {
    if (Before(range, node->range)) {
      node = node->left.get();
    } else if (Before(node->range, range)) {
      node = node->right.get();
    } else {
      return node;
    }
  }
  return nullptr;
}

void WatchIndex::Update(Node& node) {
  node.last = &node.range;
  for (const NodePtr* child : {&node.left, &node.right}) {
    if (*child != nullptr && EndsBefore(*node.last, *(*child)->last)) node.last = (*child)->last;
  }
}

void WatchIndex::Split(NodePtr tree, const WatchRange& at, NodePtr* below, NodePtr* rest) {
  if (tree == nullptr) return;
  if (Before(tree->range, at)) {
    NodePtr right = std::move(tree->right);
    Split(std::move(right), at, &tree->right, rest);
    Update(*tree);
    *below = std::move(tree);
  } else {
    NodePtr left = std::move(tree->left);
    Split(std::move(left), at, below, &tree->left);
    Update(*tree);
    *rest = std::move(tree);
  }
}

WatchIndex::NodePtr WatchIndex::Merge(NodePtr below, NodePtr above) {
  if (below == nullptr) return above;
  if (above == nullptr) return below;
  if (below->priority > above->priority) {
    below->right = Merge(std::move(below->right), std::move(above));
    Update(*below);
    return below;
  }
  above->left = Merge(std::move(below), std::move(above->left));
  Update(*above);
  return above;
}

void WatchIndex::RemoveNode(NodePtr* tree, const WatchRange& range) {
  Node& node = **tree;
  if (Before(range, node.range)) {
    RemoveNode(&node.left, range);
  } else if (Before(node.range, range)) {
    RemoveNode(&node.right, range);
  } else {
    *tree = Merge(std::move(node.left), std::move(node.right));
    return;
  }
  Update(node);
}

}  // namespace holdfast::server
