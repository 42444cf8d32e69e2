// The judge of every drill: did any answer claim to be younger than it was?
//
// The processes of one host share CLOCK_BOOTTIME. A writer notes (revision, instant at which the
// acknowledgement came); a reader notes (instant, claimed age, revision that it was shown). The
// claim is "this shows every write acknowledged before instant - age" (docs/freshness.md, 1): a
// write acknowledged before that with a higher revision than the one shown is a violation, and
// there must be none. Besides, a reader must never be taken back to an earlier revision.
//
// Millions of reads cost nothing that grows with their number: among consecutive reads that were
// shown the same revision, the one with the latest claimed instant contradicts a write if any does,
// so it is the only one that is kept.
//
// A judge that cannot find anything proves nothing. So it also counts what it would have found had
// every age been half of what was claimed (`caught_if_half`): a drill in which that is zero did not
// put the ages to the test.
#pragma once

#include <time.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "holdfast/freshness.h"

namespace holdfast::bench {

// Shared by all processes of this host, and running on while the machine sleeps.
inline int64_t BootNs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Consecutive reads of one reader that were shown the same revision.
struct ClaimGroup {
  uint64_t revision = 0;        // shown
  int64_t claimed_ns = 0;       // the latest of (instant - age)
  int64_t claimed_half_ns = 0;  // the latest of (instant - age / 2)
  uint64_t reads = 0;
};

class DrillOracle {
 public:
  // The writes of one key (or of keys that are only written together).
  // Threads: all.
  class History {
   public:
    void Acked(uint64_t revision, int64_t at_ns);
    size_t acks() const;

   private:
    friend class DrillOracle;
    struct Ack {
      uint64_t revision;
      int64_t at_ns;
    };
    mutable std::mutex mutex_;
    std::vector<Ack> acks_;
  };

  // Threads: one at a time.
  class Reader {
   public:
    // `at_ns` is to be taken before the age was asked for: ages grow, so the claim checked is then
    // never stronger than the one made.
    void Read(uint64_t revision, int64_t at_ns, absl::Duration age, Proof proof);
    // The same from another process, which grouped its reads itself.
    void Add(const ClaimGroup& group);
    void AddUnproven(uint64_t reads) { unproven_ += reads; }
    // What came back is another incarnation of the data, whose revisions mean something else.
    void NewIncarnation();

    // Takes out what was noted so far; for a process that reports to another one.
    std::vector<ClaimGroup> Take();
    uint64_t unproven() const { return unproven_; }

   private:
    friend class DrillOracle;
    Reader(const History* history, std::string name) : history_(history), name_(std::move(name)) {}

    const History* history_;
    std::string name_;
    std::vector<ClaimGroup> groups_;
    uint64_t newest_ = 0;     // revision shown
    uint64_t backwards_ = 0;  // reads that were shown an earlier one
    uint64_t unproven_ = 0;   // reads whose age was not proven: nothing to check
  };

  // Both live as long as the oracle. Without a history a reader only groups. Threads: all.
  History* AddHistory();
  Reader* AddReader(const History* history, std::string name);

  struct Verdict {
    uint64_t claims = 0;    // reads with a proven age
    uint64_t unproven = 0;  // reads without
    uint64_t acks = 0;
    uint64_t violations = 0;      // groups that a write contradicts
    uint64_t caught_if_half = 0;  // the same, had the ages been half as large
    uint64_t backwards = 0;
    std::vector<std::string> examples;  // the first few, in words

    bool ok() const { return violations == 0 && backwards == 0; }
  };
  // REQUIRES: readers and writers have ended.
  Verdict Check() const;

 private:
  static uint64_t Contradicted(const Reader& reader, bool half, Verdict* verdict);

  mutable std::mutex mutex_;
  std::deque<std::unique_ptr<History>> histories_;
  std::deque<std::unique_ptr<Reader>> readers_;
};

}  // namespace holdfast::bench
