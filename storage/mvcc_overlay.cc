#include "storage/mvcc_overlay.h"

#include <new>
#include <type_traits>

namespace holdfast::storage::mvcc {

char* Arena::Allocate(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (bytes <= free_bytes_) {
    char* result = free_;
    free_ += bytes;
    free_bytes_ -= bytes;
    return result;
  }
  if (bytes > kBlockBytes / 4) {
    // A block of its own; the rest of the current one stays in use.
    blocks_.emplace_back(new char[bytes]);
    return blocks_.back().get();
  }
  if (spare_ != nullptr) {
    blocks_.push_back(std::move(spare_));
  } else {
    blocks_.emplace_back(new char[kBlockBytes]);
  }
  free_ = blocks_.back().get() + bytes;
  free_bytes_ = kBlockBytes - bytes;
  return blocks_.back().get();
}

std::string_view Arena::Copy(std::string_view bytes) {
  if (bytes.empty()) return {};
  char* copy = Allocate(bytes.size());
  std::memcpy(copy, bytes.data(), bytes.size());
  return {copy, bytes.size()};
}

void Arena::Clear() {
  blocks_.clear();
  if (spare_ == nullptr) spare_.reset(new char[kBlockBytes]);
  free_ = nullptr;
  free_bytes_ = 0;
}

std::string_view RecordOverlay::Push(std::string_view key, std::string_view header,
                                     std::string_view value) {
  static_assert(std::is_trivially_destructible_v<PendingRecord>, "the arena runs no destructors");
  char* bytes = arena_.Allocate(header.size() + value.size());
  std::memcpy(bytes, header.data(), header.size());
  if (!value.empty()) std::memcpy(bytes + header.size(), value.data(), value.size());
  auto* pending = new (arena_.Allocate(sizeof(PendingRecord))) PendingRecord;
  pending->bytes = {bytes, header.size() + value.size()};

  const auto it = records_.lower_bound(key);
  if (it != records_.end() && it->first == key) {
    pending->older = it->second;
    it->second = pending;
  } else {
    records_.emplace_hint(it, arena_.Copy(key), pending);
  }
  return pending->bytes;
}

void RecordOverlay::Clear() {
  records_.clear();
  arena_.Clear();
}

void MetaOverlay::Put(std::string_view key, std::string_view value, bool fresh) {
  const auto it = entries_.lower_bound(key);
  if (it == entries_.end() || it->first != key) {
    entries_.emplace_hint(it, arena_.Copy(key), Entry{arena_.Copy(value), fresh});
    return;
  }
  // A record that each command of a batch writes anew takes its place once.
  std::optional<std::string_view>& old = it->second.value;
  if (old.has_value() && !value.empty() && old->size() == value.size()) {
    std::memmove(const_cast<char*>(old->data()), value.data(), value.size());
  } else {
    old = arena_.Copy(value);
  }
}

void MetaOverlay::Delete(std::string_view key) {
  const auto it = entries_.lower_bound(key);
  if (it == entries_.end() || it->first != key) {
    entries_.emplace_hint(it, arena_.Copy(key), Entry{std::nullopt, /*fresh=*/false});
  } else if (it->second.fresh) {
    entries_.erase(it);
  } else {
    it->second.value.reset();
  }
}

void MetaOverlay::Clear() {
  entries_.clear();
  arena_.Clear();
}

}  // namespace holdfast::storage::mvcc
