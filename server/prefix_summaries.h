// What a prefix holds, in one line: how many records, how many bytes, and the digest of them all,
// at one revision.
//
// One scan serves everybody who asks for the same prefix while it runs and for a while after it:
// an answer at a revision that is a little behind is as true as one at the newest, for the caller
// watches from there on. So ten thousand clients that come back cost one scan a prefix, also while
// others write.
//
// Limits: Options. A scan reads page by page, each on a view of its own, and holds one record.
// Threads: Get from any thread; scans run on the pool that the caller names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/record_digest.h"
#include "server/scan_pool.h"
#include "server/state_machine.h"

namespace holdfast::server {

struct PrefixSummary {
  int64_t revision = 0;
  uint64_t incarnation = 0;
  base::RecordDigest digest = {};
  uint64_t records = 0;
  uint64_t bytes = 0;  // of keys and values
};

class PrefixSummaries {
 public:
  struct Options {
    // How long a summary is handed out after its scan ended.
    absl::Duration keep = absl::Seconds(2);
    // Kept, the least recently used go first; those that are being scanned stay.
    size_t entries = 1024;
    size_t page_bytes = size_t{8} << 20;
    // Not OK: this member's data may not be shown any more. Asked at every page. Null: it may.
    std::function<absl::Status()> fence = nullptr;
    // The store could not be read. Null: the error is told.
    std::function<void(const absl::Status&)> on_damage = nullptr;
    const base::Clock* clock = base::RealClock::Get();
  };

  // `machine` outlives this; pools are stopped before it is destroyed.
  PrefixSummaries(KvStateMachine* machine, Options options);

  using Done = absl::AnyInvocable<void(const absl::StatusOr<PrefixSummary>&) &&>;
  // Calls `done` once: here, if one is at hand, else on a thread of `pool`. What it is given is at
  // `min_revision` or later, readable, and of the incarnation that this member has now.
  // Errors: the pool's; Aborted: compactions overtook the scan again and again; the store's.
  void Get(const std::string& prefix, int64_t min_revision, ScanPool* pool, Done done);

  uint64_t scans() const;  // begun, ever

 private:
  struct Waiter {
    int64_t min_revision = 0;
    ScanPool* pool = nullptr;
    Done done;
  };
  struct Entry {
    std::string prefix;
    PrefixSummary summary;  // revision 0: none
    base::ClockSample at = {};
    bool scanning = false;
    std::vector<Waiter> waiters;
  };
  using Entries = std::list<Entry>;  // the most recently used first

  Entry* Touch(const std::string& prefix);
  bool Usable(const Entry& entry, int64_t min_revision) const;
  void StartScan(const std::string& prefix, ScanPool* pool);
  void Scan(const std::string& prefix);
  void Conclude(const std::string& prefix, const absl::StatusOr<PrefixSummary>& summary);
  absl::StatusOr<PrefixSummary> Read(const std::string& prefix) const;
  // OutOfRange: the revision can not be read any more.
  absl::StatusOr<PrefixSummary> ReadOnce(const std::string& prefix) const;

  KvStateMachine* const machine_;
  const Options options_;
  mutable std::mutex mutex_;
  Entries entries_;                                            // under mutex_
  std::unordered_map<std::string, Entries::iterator> lookup_;  // under mutex_
  uint64_t scans_ = 0;                                         // under mutex_
};

// The incarnation that a view holds; 0: none yet.
absl::StatusOr<uint64_t> IncarnationOf(const storage::MvccStore::View& view);

}  // namespace holdfast::server
