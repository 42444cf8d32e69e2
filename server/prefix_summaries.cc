#include "server/prefix_summaries.h"

#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "server/apply_command.h"

namespace holdfast::server {
namespace {

constexpr int kScanTries = 3;

base::RecordDigest DigestOf(const storage::KeyValueView& kv) {
  return base::DigestOfRecord(
      base::DigestOfContent(kv.key, kv.value), static_cast<uint64_t>(kv.create_revision),
      static_cast<uint64_t>(kv.mod_revision), static_cast<uint64_t>(kv.version), kv.lease);
}

}  // namespace

absl::StatusOr<uint64_t> IncarnationOf(const storage::MvccStore::View& view) {
  const auto bytes = view.GetMeta(kMetaIncarnation);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value() || (*bytes)->size() != sizeof(uint64_t)) return 0;
  return base::ReadBigEndian64(**bytes);
}

PrefixSummaries::PrefixSummaries(KvStateMachine* machine, Options options)
    : machine_(machine), options_(std::move(options)) {}

uint64_t PrefixSummaries::scans() const {
  std::lock_guard lock(mutex_);
  return scans_;
}

PrefixSummaries::Entry* PrefixSummaries::Touch(const std::string& prefix) {
  if (const auto found = lookup_.find(prefix); found != lookup_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return &entries_.front();
  }
  entries_.emplace_front().prefix = prefix;
  lookup_[prefix] = entries_.begin();
  for (auto it = entries_.end(); entries_.size() > options_.entries && it != entries_.begin();) {
    --it;
    if (it->scanning || it == entries_.begin()) continue;
    lookup_.erase(it->prefix);
    it = entries_.erase(it);
  }
  return &entries_.front();
}

bool PrefixSummaries::Usable(const Entry& entry, int64_t min_revision) const {
  const PrefixSummary& summary = entry.summary;
  return summary.revision > 0 && summary.revision >= min_revision &&
         summary.revision >= machine_->applied_state().compact_revision &&
         summary.incarnation == machine_->incarnation() &&
         base::Elapsed(entry.at, options_.clock->Sample()) <= options_.keep;
}

void PrefixSummaries::Get(const std::string& prefix, int64_t min_revision, ScanPool* pool,
                          Done done) {
  {
    std::unique_lock lock(mutex_);
    Entry* const entry = Touch(prefix);
    if (Usable(*entry, min_revision)) {
      const PrefixSummary summary = entry->summary;
      lock.unlock();
      return std::move(done)(summary);
    }
    entry->waiters.push_back({min_revision, pool, std::move(done)});
    if (entry->scanning) return;
    entry->scanning = true;
  }
  StartScan(prefix, pool);
}

void PrefixSummaries::StartScan(const std::string& prefix, ScanPool* pool) {
  {
    std::lock_guard lock(mutex_);
    ++scans_;
  }
  const absl::Status posted = pool->Post([this, prefix] { Scan(prefix); });
  if (!posted.ok()) Conclude(prefix, posted);
}

void PrefixSummaries::Scan(const std::string& prefix) { Conclude(prefix, Read(prefix)); }

void PrefixSummaries::Conclude(const std::string& prefix,
                               const absl::StatusOr<PrefixSummary>& summary) {
  std::vector<Waiter> served;
  ScanPool* again = nullptr;
  {
    std::lock_guard lock(mutex_);
    const auto found = lookup_.find(prefix);
    CHECK(found != lookup_.end());  // an entry that is being scanned stays
    Entry& entry = *found->second;
    if (summary.ok()) {
      entry.summary = *summary;
      entry.at = options_.clock->Sample();
    }
    // Who came during the scan with a newer copy needs a newer answer.
    std::vector<Waiter> left;
    for (Waiter& waiter : entry.waiters) {
      const bool too_old = summary.ok() && summary->revision < waiter.min_revision;
      (too_old ? left : served).push_back(std::move(waiter));
    }
    entry.waiters = std::move(left);
    entry.scanning = !entry.waiters.empty();
    if (entry.scanning) again = entry.waiters.front().pool;
  }
  if (again != nullptr) StartScan(prefix, again);
  for (Waiter& waiter : served) std::move(waiter.done)(summary);
}

absl::StatusOr<PrefixSummary> PrefixSummaries::Read(const std::string& prefix) const {
  for (int i = 0; i < kScanTries; ++i) {
    absl::StatusOr<PrefixSummary> summary = ReadOnce(prefix);
    if (summary.ok()) return summary;
    if (!absl::IsOutOfRange(summary.status())) {
      if (options_.on_damage) options_.on_damage(summary.status());
      return summary;
    }
  }
  return absl::AbortedError(
      "holdfast: compactions overtake the reading of this prefix again and again: try again, and "
      "keep more history (--auto-compaction-retention)");
}

absl::StatusOr<PrefixSummary> PrefixSummaries::ReadOnce(const std::string& prefix) const {
  PrefixSummary summary;
  std::string from = prefix;
  for (bool more = true; more;) {
    if (options_.fence) {
      if (absl::Status status = options_.fence(); !status.ok()) return status;
    }
    more = false;
    const std::shared_ptr<storage::MvccStore> store = machine_->store();
    const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
    const absl::StatusOr<uint64_t> incarnation = IncarnationOf(*view);
    if (!incarnation.ok()) return incarnation.status();
    if (summary.revision == 0) {
      summary.revision = view->applied().revision;
      summary.incarnation = *incarnation;
    }
    if (*incarnation != summary.incarnation) return absl::OutOfRangeError("another incarnation");
    size_t page = 0;
    std::string next;
    const absl::Status scanned =
        view->ScanRecordsAt(summary.revision, from, [&](const storage::KeyValueView& kv) {
          if (!kv.key.starts_with(prefix)) return false;
          const size_t bytes = kv.key.size() + kv.value.size();
          summary.digest.Add(DigestOf(kv));
          ++summary.records;
          summary.bytes += bytes;
          page += bytes;
          if (page < options_.page_bytes) return true;
          next.assign(kv.key);
          next += '\0';
          more = true;
          return false;
        });
    if (!scanned.ok()) return scanned;
    from = std::move(next);
  }
  return summary;
}

}  // namespace holdfast::server
