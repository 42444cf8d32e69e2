#include "client/shard_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define XXH_INLINE_ALL  // as base/record_digest.cc
#include <xxhash.h>

namespace holdfast::internal {
namespace {

// Sixteen tags fit into one cache line beside the header, and are few enough to be copied for one
// change. Memory for each record falls with it, the cost of a change rises.
constexpr size_t kRecordsPerShard = 16;
constexpr size_t kPageBits = 7;
constexpr size_t kPageSize = size_t{1} << kPageBits;
constexpr size_t kTagsAtOnce = 8;

uint64_t Hash(std::string_view key) { return XXH3_64bits(key.data(), key.size()); }
// The low bits choose the shard.
uint16_t TagOf(uint64_t hash) { return static_cast<uint16_t>(hash >> 48); }

constexpr size_t RoundUp(size_t n, size_t step) { return (n + step - 1) / step * step; }

}  // namespace

// Records in any order, no two with the same key.
struct ShardTable::Shard {
  uint64_t stamp;
  uint32_t count;
  uint32_t capacity;  // a multiple of kTagsAtOnce
  // uint16_t tags[capacity], then const Record* records[capacity]

  uint16_t* tags() { return reinterpret_cast<uint16_t*>(this + 1); }
  const uint16_t* tags() const { return reinterpret_cast<const uint16_t*>(this + 1); }
  const Record** records() { return reinterpret_cast<const Record**>(tags() + capacity); }
  const Record* const* records() const {
    return reinterpret_cast<const Record* const*>(tags() + capacity);
  }

  static size_t Bytes(size_t capacity) {
    return sizeof(Shard) + capacity * (sizeof(uint16_t) + sizeof(const Record*));
  }
  size_t block_bytes() const { return Bytes(capacity); }

  static Shard* New(VersionMemory& memory, size_t records) {
    const size_t capacity = RoundUp(std::max<size_t>(records, 1), kTagsAtOnce);
    Shard* shard = static_cast<Shard*>(memory.Allocate(Bytes(capacity)));
    shard->count = 0;
    shard->capacity = static_cast<uint32_t>(capacity);
    std::memset(shard->tags(), 0, capacity * sizeof(uint16_t));  // all of them are compared
    return shard;
  }
  void Append(uint16_t tag, const Record* record) {
    tags()[count] = tag;
    records()[count] = record;
    ++count;
  }
  void RemoveAt(size_t position) {
    --count;
    tags()[position] = tags()[count];
    records()[position] = records()[count];
  }

  // The lines of the pointers too, together with the tags': one wait for memory instead of two.
  void Prefetch() const {
    const char* line = reinterpret_cast<const char*>(this);
    for (size_t n = 1; n <= 3; ++n) __builtin_prefetch(line + n * 64);
  }
  static constexpr size_t kNone = ~size_t{0};
  size_t PositionOf(uint16_t tag, std::string_view key) const {
    for (size_t base = 0; base < count; base += kTagsAtOnce) {
      for (uint32_t hits = Hits(base, tag); hits != 0; hits &= hits - 1) {
        const size_t position = base + std::countr_zero(hits);
        if (position < count && records()[position]->key() == key) return position;
      }
    }
    return kNone;
  }

 private:
  // Bit i: tag base + i is `tag`.
  uint32_t Hits(size_t base, uint16_t tag) const {
#if defined(__SSE2__)
    const __m128i tags8 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tags() + base));
    const __m128i equal = _mm_cmpeq_epi16(tags8, _mm_set1_epi16(static_cast<int16_t>(tag)));
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())));
#else
    uint32_t hits = 0;
    for (size_t i = 0; i < kTagsAtOnce; ++i) hits |= uint32_t{tags()[base + i] == tag} << i;
    return hits;
#endif
  }
};

struct ShardTable::Page {
  uint64_t stamp;
  Shard* shards[kPageSize];  // null: no records
};

struct ShardTable::Root {
  uint64_t stamp;
  size_t capacity;  // pages; a slot beyond the last page is null
  // Page* pages[capacity]

  Page** pages() { return reinterpret_cast<Page**>(this + 1); }
  Page* const* pages() const { return reinterpret_cast<Page* const*>(this + 1); }
  static size_t Bytes(size_t capacity) { return sizeof(Root) + capacity * sizeof(Page*); }
};

size_t ShardTable::IndexOf(uint64_t hash) const {
  const size_t index = hash & mask_;
  return index < shards_ ? index : index & (mask_ >> 1);  // not split yet
}

const ShardTable::Shard* ShardTable::shard(size_t index) const {
  return root_->pages()[index >> kPageBits]->shards[index & (kPageSize - 1)];
}

const Record* ShardTable::Find(std::string_view key) const {
  if (shards_ == 0) return nullptr;
  const uint64_t hash = Hash(key);
  const Shard* found = shard(IndexOf(hash));
  if (found == nullptr) return nullptr;
  found->Prefetch();
  const size_t position = found->PositionOf(TagOf(hash), key);
  return position == Shard::kNone ? nullptr : found->records()[position];
}

// The place of one shard, in a page and a root that may be changed. Makes both if need be.
ShardTable::Shard** ShardTable::MutableSlot(VersionMemory& memory, size_t index) {
  const size_t at = index >> kPageBits;
  const size_t capacity = root_ == nullptr ? 0 : root_->capacity;
  if (at >= capacity || !memory.Owns(root_)) {
    const size_t needed = at < capacity ? capacity : std::max<size_t>(at + 1, capacity * 2);
    Root* root = static_cast<Root*>(memory.Allocate(Root::Bytes(needed)));
    root->capacity = needed;
    std::fill_n(root->pages(), needed, nullptr);
    if (root_ != nullptr) {
      std::copy_n(root_->pages(), capacity, root->pages());
      memory.Drop(root_, Root::Bytes(capacity));
    }
    root_ = root;
  }
  Page*& page = root_->pages()[at];
  if (page == nullptr) {
    page = static_cast<Page*>(memory.Allocate(sizeof(Page)));
    std::fill_n(page->shards, kPageSize, nullptr);
  } else if (!memory.Owns(page)) {
    Page* copy = static_cast<Page*>(memory.Allocate(sizeof(Page)));
    std::copy_n(page->shards, kPageSize, copy->shards);
    memory.Drop(page, sizeof(Page));
    page = copy;
  }
  return &page->shards[index & (kPageSize - 1)];
}

const Record* ShardTable::Set(VersionMemory& memory, const Record* record) {
  if (shards_ == 0) shards_ = 1;
  const uint64_t hash = Hash(record->key());
  Shard** slot = MutableSlot(memory, IndexOf(hash));
  const Shard* before = *slot;
  const size_t position =
      before == nullptr ? Shard::kNone : before->PositionOf(TagOf(hash), record->key());
  const size_t needed = (before == nullptr ? 0 : before->count) + (position == Shard::kNone);
  if (before == nullptr || !memory.Owns(before) || needed > before->capacity) {
    Shard* copy = Shard::New(memory, needed);
    if (before != nullptr) {
      std::copy_n(before->tags(), before->count, copy->tags());
      std::copy_n(before->records(), before->count, copy->records());
      copy->count = before->count;
      memory.Drop(before, before->block_bytes());
    }
    *slot = copy;
  }
  if (position != Shard::kNone) return std::exchange((*slot)->records()[position], record);
  (*slot)->Append(TagOf(hash), record);
  ++size_;
  if (size_ > shards_ * kRecordsPerShard) Split(memory);
  return nullptr;
}

const Record* ShardTable::Erase(VersionMemory& memory, std::string_view key) {
  if (shards_ == 0) return nullptr;
  const uint64_t hash = Hash(key);
  const size_t index = IndexOf(hash);
  const Shard* before = shard(index);
  if (before == nullptr) return nullptr;
  const size_t position = before->PositionOf(TagOf(hash), key);
  if (position == Shard::kNone) return nullptr;
  const Record* erased = before->records()[position];

  Shard** slot = MutableSlot(memory, index);
  if (before->count == 1) {
    memory.Drop(before, before->block_bytes());
    *slot = nullptr;
  } else if (memory.Owns(before)) {
    (*slot)->RemoveAt(position);
  } else {
    Shard* copy = Shard::New(memory, before->count - 1);
    for (size_t i = 0; i < before->count; ++i) {
      if (i != position) copy->Append(before->tags()[i], before->records()[i]);
    }
    memory.Drop(before, before->block_bytes());
    *slot = copy;
  }
  --size_;
  // Far below the bound at which it grows: a size that goes up and down does not split and merge.
  if (shards_ > 1 && size_ < shards_ * kRecordsPerShard / 4) Merge(memory);
  return erased;
}

// One more shard: takes over its half of the records of the one that answered for it until now.
void ShardTable::Split(VersionMemory& memory) {
  const size_t added = shards_;
  const size_t bit = std::bit_floor(added);  // in which the two halves differ
  ++shards_;
  mask_ = std::bit_ceil(shards_) - 1;
  Shard** high = MutableSlot(memory, added);
  Shard** low = MutableSlot(memory, added - bit);
  const Shard* before = *low;
  if (before == nullptr) return;
  for (size_t i = 0; i < before->count; ++i) __builtin_prefetch(before->records()[i]->bytes());
  size_t moving = 0;
  for (size_t i = 0; i < before->count; ++i) {
    moving += (Hash(before->records()[i]->key()) & bit) != 0;
  }
  if (moving == 0) return;
  *high = Shard::New(memory, moving);
  *low = moving == before->count ? nullptr : Shard::New(memory, before->count - moving);
  for (size_t i = 0; i < before->count; ++i) {
    const Record* record = before->records()[i];
    ((Hash(record->key()) & bit) != 0 ? *high : *low)->Append(before->tags()[i], record);
  }
  memory.Drop(before, before->block_bytes());
}

// One shard less: its records go to the one that answers for it from now on.
void ShardTable::Merge(VersionMemory& memory) {
  const size_t removed = shards_ - 1;
  const size_t into = removed - std::bit_floor(removed);
  --shards_;
  mask_ = std::bit_ceil(shards_) - 1;
  Shard** high = MutableSlot(memory, removed);
  Shard** low = MutableSlot(memory, into);
  const Shard* from = std::exchange(*high, nullptr);
  if ((removed & (kPageSize - 1)) == 0) {  // the only one in its page
    memory.Drop(std::exchange(root_->pages()[removed >> kPageBits], nullptr), sizeof(Page));
  }
  if (from == nullptr) return;
  const Shard* before = *low;
  Shard* merged = Shard::New(memory, from->count + (before == nullptr ? 0 : before->count));
  for (const Shard* source : {before, from}) {
    if (source == nullptr) continue;
    for (size_t i = 0; i < source->count; ++i) {
      merged->Append(source->tags()[i], source->records()[i]);
    }
    memory.Drop(source, source->block_bytes());
  }
  *low = merged;
}

void ShardTable::Free(VersionMemory& memory, uint64_t stamp) {
  // What a version made hangs from what it made: what bears another stamp has nothing below it
  // that bears this one.
  const auto frees = [stamp](const void* node) {
    return node != nullptr && (stamp == 0 || VersionMemory::StampOf(node) == stamp);
  };
  if (frees(root_)) {
    for (size_t p = 0; p < root_->capacity; ++p) {
      Page* page = root_->pages()[p];
      if (!frees(page)) continue;
      for (Shard* shard : page->shards) {
        if (!frees(shard)) continue;
        for (size_t i = 0; i < shard->count; ++i) {
          const Record* record = shard->records()[i];
          if (frees(record)) memory.Free(record, record->block_bytes());
        }
        memory.Free(shard, shard->block_bytes());
      }
      memory.Free(page, sizeof(Page));
    }
    memory.Free(root_, Root::Bytes(root_->capacity));
  }
  *this = ShardTable();
}

bool ShardTable::VisitUnshared(const ShardTable& in, const ShardTable& not_in,
                               absl::FunctionRef<bool(const Record*)> visit) {
  if (in.root_ == not_in.root_) return true;
  for (size_t first = 0; first < in.shards_; first += kPageSize) {
    const size_t p = first >> kPageBits;
    const Page* page = in.root_->pages()[p];
    const Page* other_page = first < not_in.shards_ ? not_in.root_->pages()[p] : nullptr;
    if (page == other_page) continue;
    for (size_t i = 0; i < kPageSize; ++i) {
      const Shard* shard = page->shards[i];
      const Shard* other = other_page == nullptr ? nullptr : other_page->shards[i];
      if (shard == nullptr || shard == other) continue;
      for (size_t r = 0; r < shard->count; ++r) {
        const Record* record = shard->records()[r];
        // Most of a shard is in its counterpart too, if neither was split since.
        if (other != nullptr) {
          const Record* const* end = other->records() + other->count;
          if (std::find(other->records(), end, record) != end) continue;
        }
        if (not_in.Find(record->key()) == record) continue;
        if (!visit(record)) return false;
      }
    }
  }
  return true;
}

}  // namespace holdfast::internal
