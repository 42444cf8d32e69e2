#include "holdfast/snapshot.h"

#include <utility>

#include "client/version_node.h"

namespace holdfast {

MirrorSnapshot::MirrorSnapshot(const MirrorSnapshot& other) : node_(other.node_) {
  if (node_ != nullptr) node_->Reference();
}
MirrorSnapshot::MirrorSnapshot(MirrorSnapshot&& other) noexcept
    : node_(std::exchange(other.node_, nullptr)) {}
MirrorSnapshot& MirrorSnapshot::operator=(MirrorSnapshot other) noexcept {
  std::swap(node_, other.node_);
  return *this;
}
MirrorSnapshot::~MirrorSnapshot() {
  if (node_ != nullptr) node_->Unreference();
}

std::optional<EntryView> MirrorSnapshot::Find(std::string_view key) const {
  const internal::Record* record = node_ == nullptr ? nullptr : node_->table.Find(key);
  if (record == nullptr) return std::nullopt;
  return internal::ViewOf(*record);
}

void MirrorSnapshot::Scan(std::string_view prefix,
                          absl::FunctionRef<bool(const EntryView&)> visit) const {
  if (node_ == nullptr) return;
  node_->tree.Scan(
      prefix, [&](const internal::Record* record) { return visit(internal::ViewOf(*record)); });
}

std::vector<Entry> MirrorSnapshot::Entries(std::string_view prefix) const {
  std::vector<Entry> entries;
  if (prefix.empty()) entries.reserve(size());
  Scan(prefix, [&](const EntryView& entry) {
    entries.push_back(entry.ToEntry());
    return true;
  });
  return entries;
}

size_t MirrorSnapshot::size() const { return node_ == nullptr ? 0 : node_->table.size(); }
size_t MirrorSnapshot::bytes() const { return node_ == nullptr ? 0 : node_->bytes; }
uint64_t MirrorSnapshot::revision() const { return node_ == nullptr ? 0 : node_->revision; }

}  // namespace holdfast
