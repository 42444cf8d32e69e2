// Last-known-good copies of one prefix on disk: written while all is well, read when nothing else
// is there. Format and rules: docs/cache.md; Freshness 7.
//
// A generation is one file with all records at one revision. Beside it a small side record holds
// the newest claim for it, and each process's *trial*: what it has begun to serve and has not yet
// proven good. If a process ends while something is on trial, the next start begins with the newest
// generation without it and refuses to serve the suspects again (see Loaded::suspects). A LastGood
// that is destroyed in an orderly way takes its trial back: that is no crash. exit() without it,
// kill -9 and a power cut are.
//
// Crash safety: a generation is written to a temporary file, fsynced, renamed, the directory
// fsynced; a torn or damaged file is never read as data (CRC32C by block, digest of the whole),
// only passed over. The trial is on disk, in the kernel's cache at least, before the data is
// served: a crash of the process keeps it, a power cut may lose it. Sharing: any number of
// processes read; one of those that mirror the same prefix, whoever gets the lock first, writes,
// and another takes over at its next Write or NoteClaim once that one has ended. The trial is each
// process's own; what a dead process had on trial is suspect to all.
//
// Threads: one at a time, and calls block on the disk: not for the thread that feeds the mirror.
// The exception is NoteTrial: a few microseconds, and from any thread, beside the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/record_digest.h"
#include "client/claim.h"
#include "client/disk_file.h"
#include "client/override_file.h"
#include "holdfast/entry.h"
#include "holdfast/snapshot.h"

namespace holdfast::internal {

// The wall clock, and whether the kernel calls it synchronized (adjtimex); the kernel's boot id and
// time namespace. All replaceable in tests.
struct WallReading {
  absl::Time now;
  bool synchronized = false;
  absl::Duration error = absl::InfiniteDuration();  // the kernel's estimate (maxerror)
};
struct Surroundings {
  std::shared_ptr<const base::Clock> clock;  // not null
  std::function<WallReading()> wall;
  std::string boot_id;         // of the running kernel
  std::string time_namespace;  // "" if the kernel has none

  static Surroundings OfThisMachine();
};

// What is known of a generation beside its records.
struct GenerationInfo {
  uint64_t cluster_id = 0;
  uint64_t incarnation = 0;
  uint64_t revision = 0;
  Claim claim = {};  // of the process that wrote it: in `clock`'s samples
};

// A change that was on trial when a process ended: not to be served again.
struct Suspect {
  std::string key;
  base::RecordDigest content;  // of key and value; all zero: the key was deleted
  friend bool operator==(const Suspect&, const Suspect&) = default;
};

// All records, in key order, given to `visit` until it returns false.
using RecordVisitor = absl::FunctionRef<bool(const EntryView&)>;
using RecordScan = absl::FunctionRef<void(RecordVisitor visit)>;

struct Loaded {
  // The claim as Freshness 7 has it now: proven, estimated or unknown, of Source::kDisk. Its
  // revision may be later than info.revision: up to there no record of the prefix changed.
  GenerationInfo info;
  uint64_t generation = 0;     // its number
  std::vector<Entry> entries;  // by key
  bool good = false;           // past its probation
  // Processes that ended while this, or something in it, was on trial. Above 0 only if there is no
  // generation without: it is this or nothing. `rejected` may prefer nothing.
  int crashes = 0;
  // Not to be served again. None of them is in `entries`.
  std::vector<Suspect> suspects;
  // Too many changes to name each: this content of the whole set (of the newest crash that had
  // one).
  std::optional<base::RecordDigest> suspect_set;
  // What is wrong with the files that were passed over, for people.
  std::vector<std::string> passed_over;
};

class LastGood {
 public:
  struct Options {
    std::string dir;  // made if missing, with all above it, mode 0700
    std::string prefix;
    int keep_generations = 3;
    double max_clock_slow = base::kDefaultMaxClockSlow;
    Surroundings surroundings = Surroundings::OfThisMachine();
    DiskStep before_step = {};  // for tests: client/disk_file.h
  };

  // Never fails for what lies in the directory. Not OK: it cannot be made or read at all; the
  // mirror then goes on without a disk.
  static absl::StatusOr<std::unique_ptr<LastGood>> Open(Options options);
  // An orderly end: what was on trial is not suspect for that. A generation written on trial stays
  // unproven.
  virtual ~LastGood() = default;

  // The newest usable generation. NOT_FOUND: none, and why. `rejected`, called with each candidate
  // from the newest on, may pass it over (for instance because a validator refuses it) by a status
  // that says why; null: none is. One that is unproven is on trial from then on.
  using Rejected = std::function<absl::Status(const Loaded&)>;
  virtual absl::StatusOr<Loaded> Load(const Rejected& rejected) = 0;

  // Writes a new generation with these records; afterwards at most keep_generations sound ones are
  // there. While this one is on trial up to three are, for the newest good one is always among
  // them, and one whose probation ends before this one's. A generation written while `on_trial`
  // counts as good only once MarkGood said so. OK and nothing written: another process has the
  // writer's part (see writes()). ResourceExhausted: the disk is full; others: it failed. Older
  // generations are then untouched.
  absl::Status Write(const MirrorSnapshot& records, const GenerationInfo& info, bool on_trial);
  virtual absl::Status WriteRecords(RecordScan records, const GenerationInfo& info,
                                    bool on_trial) = 0;
  // True: this process has the writer's part, as of its last Write or NoteClaim.
  virtual bool writes() const = 0;

  // The newest claim for the newest written or loaded generation; info.revision is that
  // generation's, or nothing happens. info.claim.revision may be later, if no record of the prefix
  // has changed since. At most once a second reaches the file; no fsync.
  virtual absl::Status NoteClaim(const GenerationInfo& info) = 0;

  // These changes are about to be served and not yet proven good; replaces the trial before it.
  // Empty, with no set: nothing is on trial, no generation either.
  // InvalidArgument: too many changes; name the set.
  virtual absl::Status NoteTrial(const std::vector<Suspect>& changes,
                                 const std::optional<base::RecordDigest>& set) = 0;
  // Generations that this process wrote or loaded, of this incarnation and up to this revision, are
  // good. Trials are NoteTrial's.
  virtual absl::Status MarkGood(uint64_t revision) = 0;
  // Suspects of earlier processes need no longer be remembered.
  virtual absl::Status ForgetSuspects() = 0;

  // The operator's override (R17), if it changed since the last call; nullopt: as before. Not OK:
  // it is there and cannot be used; what was in force stays. The same trouble is told once.
  // A stat, mostly. Format: client/override_file.h, docs/cache.md. Besides, the writer's part is
  // left to others after 10 s in which there was nothing to write.
  using Override = internal::Override;
  virtual absl::StatusOr<std::optional<Override>> PollOverride() = 0;
};

// For holdfastctl: what a directory holds, without locking or changing anything.
struct GenerationListing {
  std::string file;         // path
  std::string prefix = {};  // "" if it cannot be read
  uint64_t generation = 0;
  GenerationInfo info = {};  // claim as of now
  absl::Time written = absl::InfinitePast();
  size_t records = 0;
  size_t bytes = 0;          // of keys and values
  bool good = false;         // past its probation
  int crashes = 0;           // processes that ended while it was on trial
  absl::Status health = {};  // not OK: damaged, and how; Unimplemented: of a later version
};
// By prefix, newest first.
absl::StatusOr<std::vector<GenerationListing>> ListGenerations(const std::string& dir,
                                                               const Surroundings& surroundings);
// Reads one file whole.
absl::StatusOr<Loaded> ReadGeneration(const std::string& file, const Surroundings& surroundings);

}  // namespace holdfast::internal
