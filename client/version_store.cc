#include "client/version_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <limits>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "client/pins.h"
#include "client/version_memory.h"
#include "client/version_node.h"

namespace holdfast::internal {
namespace {

bool SameRecord(const Record& record, const EntryView& entry) {
  return record.mod_revision == entry.mod_revision &&
         record.create_revision == entry.create_revision && record.version == entry.version &&
         record.lease == entry.lease && record.value() == entry.value && record.key() == entry.key;
}

void AddDigests(VersionNode& version, const Record& record, bool add) {
  const base::RecordDigest content = base::DigestOfContent(record.key(), record.value());
  const base::RecordDigest whole = base::DigestOfRecord(
      content, record.create_revision, record.mod_revision, record.version, record.lease);
  if (add) {
    version.content.Add(content);
    version.records.Add(whole);
  } else {
    version.content.Remove(content);
    version.records.Remove(whole);
  }
}

}  // namespace

// The versions, oldest first, and their memory. Outlives the store while there are snapshots.
// Threads: one at a time; the writer, or, after the store's end, whoever holds Orphans::mutex.
class VersionChain {
 public:
  VersionMemory memory;
  VersionNode* oldest = nullptr;
  VersionNode* head = nullptr;

  // Makes `version` the newest one. What it replaced goes with the one before it.
  void Append(VersionNode* version, VersionMemory::Replaced replaced) {
    if (head == nullptr) {
      oldest = version;
    } else {
      head->replaced = std::move(replaced);
      head->next = version;
    }
    head = version;
  }
  // Frees from the oldest on, up to the first version that somebody can see.
  void Reclaim() {
    while (oldest != nullptr && oldest->references.load() == 0) Free(oldest);
  }

 private:
  void Free(VersionNode* version) {
    oldest = version->next;
    if (oldest == nullptr) head = nullptr;
    memory.Free(version->replaced);
    if (version->shares_nothing_newer) {
      version->tree.Free(memory, 0);
      version->table.Free(memory, 0);
    }
    delete version;
  }
};

namespace {

// Chains whose store is gone, while snapshots keep some of their versions.
struct Orphans {
  std::atomic<size_t> count = 0;
  std::mutex mutex;
  std::vector<VersionChain*> chains;

  void Adopt(VersionChain* chain) {
    const std::lock_guard lock(mutex);
    chains.push_back(chain);
    count.fetch_add(1);
    ReclaimLocked();
  }
  void Reclaim() {
    const std::lock_guard lock(mutex);
    ReclaimLocked();
  }

 private:
  void ReclaimLocked() {
    std::erase_if(chains, [&](VersionChain* chain) {
      chain->Reclaim();
      if (chain->oldest != nullptr) return false;
      delete chain;
      count.fetch_sub(1);
      return true;
    });
  }
};

// Never destroyed: snapshots may be released after main() has ended.
Orphans& TheOrphans() {
  static Orphans& orphans = *new Orphans;
  return orphans;
}

}  // namespace

void VersionNode::Unreference() {
  // Nothing of the version may be touched after this. The last one to let go and a store that ends
  // at the same time: both orders are sequentially consistent, so either the store sees no
  // reference, or this sees an orphan.
  if (references.fetch_sub(1) != 1) return;
  Orphans& orphans = TheOrphans();
  if (orphans.count.load() > 0) orphans.Reclaim();
}

class VersionStore::Impl {
 public:
  Impl() {
    Build(0);
    Publish(chain_->head, VersionInfo());
  }

  // REQUIRES: no reader is in Current() or Visit(), nor will be.
  ~Impl() {
    AbandonBuilding();
    Unpublish(published_.load());
    for (const Retired& old : retired_) Unpublish(old.publication);
    chain_->head->shares_nothing_newer = true;
    chain_->head->references.fetch_sub(1);
    TheOrphans().Adopt(chain_);
  }

  VersionNode* Current(VersionInfo* info) const {
    const Reading reading(*this);
    reading.published.version->Reference();
    if (info != nullptr) *info = reading.published.info;
    return reading.published.version;
  }

  void Visit(std::string_view key,
             absl::FunctionRef<void(const EntryView*, const VersionInfo&)> visit) const {
    const Reading reading(*this);
    const Record* record = reading.published.version->table.Find(key);
    if (record == nullptr) return visit(nullptr, reading.published.info);
    const EntryView view = ViewOf(*record);
    visit(&view, reading.published.info);
  }

  void Put(const EntryView& entry) {
    CHECK(entry.key.size() <= std::numeric_limits<uint32_t>::max());
    CHECK(entry.value.size() <= std::numeric_limits<uint32_t>::max());
    VersionNode& version = Building();
    const Record* present = version.table.Find(entry.key);
    if (present != nullptr && SameRecord(*present, entry)) return;  // stays shared
    const Record* record = NewRecord(entry);
    const Record* before = version.table.Set(chain_->memory, record);
    version.tree.Set(chain_->memory, record);
    version.bytes += record->key_size + record->value_size;
    AddDigests(version, *record, true);
    if (before != nullptr) TakeOut(version, *before);
  }

  void Delete(std::string_view key) {
    VersionNode& version = Building();
    const Record* erased = version.table.Erase(chain_->memory, key);
    if (erased == nullptr) return;
    version.tree.Erase(chain_->memory, erased->key());
    TakeOut(version, *erased);
  }

  void Clear() {
    AbandonBuilding();
    building_ = NewVersion();
    starts_empty_ = true;
  }

  void Build(uint64_t revision) {
    VersionNode* built = &Building();
    built->revision = revision;
    built->references.fetch_add(1);  // as head
    VersionNode* before = chain_->head;
    if (starts_empty_ && before != nullptr) before->shares_nothing_newer = true;
    chain_->Append(built, chain_->memory.NextStamp());
    building_ = nullptr;
    starts_empty_ = false;
    if (before != nullptr) before->references.fetch_sub(1);
    Reclaim();
  }

  void Publish(VersionNode* version, const VersionInfo& info) {
    const Publication* before = published_.load();
    if (before != nullptr) CHECK(before->version->id <= version->id);
    version->Reference();
    published_.store(new Publication{info, version});
    if (before != nullptr) retired_.push_back({Retire(), before});
    Reclaim();
  }

  VersionNode* head() const { return chain_->head; }
  const VersionInfo& info() const { return published_.load()->info; }
  const VersionChain* chain() const { return chain_; }

  Memory memory() {
    Reclaim();
    const VersionMemory& memory = chain_->memory;
    return {memory.total(), memory.total() - memory.live()};
  }

 private:
  struct Publication {
    VersionInfo info;
    VersionNode* version;  // counted
  };
  // What is published, and stays in memory as long as this lives.
  struct Reading {
    explicit Reading(const Impl& store) : published(*store.published_.load()) {}
    const Pin pin;  // before the load
    const Publication& published;
  };
  struct Retired {
    uint64_t epoch;
    const Publication* publication;
  };

  VersionNode* NewVersion() const {
    VersionNode* version = new VersionNode;
    version->id = chain_->memory.stamp();
    version->chain = chain_;
    return version;
  }

  VersionNode& Building() {
    if (building_ != nullptr) return *building_;
    building_ = NewVersion();
    if (const VersionNode* head = chain_->head; head != nullptr) {
      building_->table = head->table;
      building_->tree = head->tree;
      building_->bytes = head->bytes;
      building_->content = head->content;
      building_->records = head->records;
    }
    return *building_;
  }

  // Frees what the version under construction made; what it replaced is in head still.
  void AbandonBuilding() {
    VersionMemory& memory = chain_->memory;
    if (building_ != nullptr) {
      building_->tree.Free(memory, memory.stamp());
      building_->table.Free(memory, memory.stamp());
      delete std::exchange(building_, nullptr);
    }
    memory.ForgetReplaced();
  }

  const Record* NewRecord(const EntryView& entry) {
    void* block = chain_->memory.Allocate(sizeof(Record) + entry.key.size() + entry.value.size());
    Record* record = static_cast<Record*>(block);
    record->create_revision = entry.create_revision;
    record->mod_revision = entry.mod_revision;
    record->version = entry.version;
    record->lease = entry.lease;
    record->key_size = static_cast<uint32_t>(entry.key.size());
    record->value_size = static_cast<uint32_t>(entry.value.size());
    char* bytes = reinterpret_cast<char*>(record + 1);
    std::copy(entry.key.begin(), entry.key.end(), bytes);
    std::copy(entry.value.begin(), entry.value.end(), bytes + entry.key.size());
    return record;
  }

  void TakeOut(VersionNode& version, const Record& record) {
    version.bytes -= record.key_size + record.value_size;
    AddDigests(version, record, false);
    chain_->memory.Drop(&record, record.block_bytes());
  }

  void Unpublish(const Publication* publication) {
    publication->version->references.fetch_sub(1);
    delete publication;
  }

  void Reclaim() {
    if (!retired_.empty()) {
      const uint64_t oldest_pin = OldestPin();
      while (!retired_.empty() && retired_.front().epoch <= oldest_pin) {
        Unpublish(retired_.front().publication);
        retired_.pop_front();
      }
    }
    chain_->Reclaim();
  }

  VersionChain* const chain_ = new VersionChain;  // goes to the orphans
  std::atomic<const Publication*> published_ = nullptr;

  // The writer's.
  std::deque<Retired> retired_;  // out of sight, but maybe in some reader's hands; oldest first
  VersionNode* building_ = nullptr;
  bool starts_empty_ = false;  // the version under construction shares nothing with head
};

VersionStore::VersionStore() : impl_(std::make_unique<Impl>()) {}
VersionStore::~VersionStore() = default;

MirrorSnapshot VersionStore::Counted(VersionNode* node) {
  node->Reference();
  return MirrorSnapshot(node);
}

MirrorSnapshot VersionStore::Current(VersionInfo* info) const {
  return MirrorSnapshot(impl_->Current(info));
}
void VersionStore::Visit(
    std::string_view key,
    absl::FunctionRef<void(const EntryView*, const VersionInfo&)> visit) const {
  impl_->Visit(key, visit);
}

void VersionStore::Put(const EntryView& entry) { impl_->Put(entry); }
void VersionStore::Delete(std::string_view key) { impl_->Delete(key); }
void VersionStore::Clear() { impl_->Clear(); }
MirrorSnapshot VersionStore::Build(uint64_t revision) {
  impl_->Build(revision);
  return head();
}
MirrorSnapshot VersionStore::head() const { return Counted(impl_->head()); }
void VersionStore::Publish(const MirrorSnapshot& version, const VersionInfo& info) {
  CHECK(version.node_ != nullptr);
  CHECK(version.node_->chain == impl_->chain());
  impl_->Publish(version.node_, info);
}
VersionInfo VersionStore::info() const { return impl_->info(); }
VersionStore::Memory VersionStore::memory() const { return impl_->memory(); }

base::RecordDigest VersionStore::ContentDigest(const MirrorSnapshot& version) {
  return version.node_ == nullptr ? base::RecordDigest() : version.node_->content;
}
base::RecordDigest VersionStore::RecordsDigest(const MirrorSnapshot& version) {
  return version.node_ == nullptr ? base::RecordDigest() : version.node_->records;
}

bool VersionStore::Diff(
    const MirrorSnapshot& before, const MirrorSnapshot& after, size_t max,
    absl::FunctionRef<void(std::string_view, const EntryView*, const EntryView*)> visit) {
  const ShardTable none;
  const ShardTable& old_table = before.node_ == nullptr ? none : before.node_->table;
  const ShardTable& new_table = after.node_ == nullptr ? none : after.node_->table;
  size_t found = 0;
  // What is gone or changed, then what is new.
  const bool all = ShardTable::VisitUnshared(old_table, new_table, [&](const Record* record) {
    const EntryView was = ViewOf(*record);
    const Record* now = new_table.Find(record->key());
    if (now != nullptr && SameRecord(*now, was)) return true;  // loaded again
    if (found++ == max) return false;
    const EntryView is = now == nullptr ? EntryView() : ViewOf(*now);
    visit(was.key, &was, now == nullptr ? nullptr : &is);
    return true;
  });
  return all && ShardTable::VisitUnshared(new_table, old_table, [&](const Record* record) {
           if (old_table.Find(record->key()) != nullptr) return true;
           if (found++ == max) return false;
           const EntryView is = ViewOf(*record);
           visit(is.key, nullptr, &is);
           return true;
         });
}

}  // namespace holdfast::internal
