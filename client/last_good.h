// Last-known-good copies of one prefix on disk: written while all is well, read when nothing else
// is there. Format and rules: docs/cache.md; Freshness 7.
//
// A generation is one file with all records at one revision. Beside it a small side record holds
// the newest claim for it, and the *trial*: what this process has begun to serve and has not yet
// proven good. If the process ends while it is on trial, the next start begins with the generation
// before it and refuses to serve the suspects again (see Loaded::suspects).
//
// Crash safety: a generation is written to a temporary file, fsynced, renamed, the directory
// fsynced; a torn or damaged file is never read as data (CRC32C by block, digest of the whole),
// only passed over. The trial is on disk, in the kernel's cache at least, before the data is
// served: a crash of the process keeps it, a power cut may lose it. Sharing: any number of
// processes read; one of those that mirror the same prefix, whoever gets the lock first, writes.
// The trial is each process's own.
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

struct Loaded {
  GenerationInfo info;         // the claim as Freshness 7 has it now: proven, estimated or unknown
  uint64_t generation = 0;     // its number
  std::vector<Entry> entries;  // by key
  bool good = true;            // past its probation
  bool fallback = false;       // an older good generation could be used in its place
  // Only if a fallback was used: with nothing older there is nothing better.
  std::vector<Suspect> suspects;
  std::optional<base::RecordDigest> suspect_set;  // too many changes to name each: this content
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
  };

  // Never fails for what lies in the directory. Not OK: it cannot be made or read at all; the
  // mirror then goes on without a disk.
  static absl::StatusOr<std::unique_ptr<LastGood>> Open(Options options);
  virtual ~LastGood() = default;

  // The newest usable generation. NOT_FOUND: none. `rejected`, called with each candidate from the
  // newest on, may pass it over (for instance because a validator refuses it) by a status that says
  // why; null: none is.
  virtual absl::StatusOr<Loaded> Load(absl::FunctionRef<absl::Status(const Loaded&)> rejected) = 0;

  // Writes a new generation with these records; afterwards at most keep_generations are there, and
  // among them the newest good one. A generation written while `on_trial` counts as good only once
  // MarkGood said so.
  // ResourceExhausted: the disk is full; others: it failed. Older generations are then untouched.
  virtual absl::Status Write(const MirrorSnapshot& records, const GenerationInfo& info,
                             bool on_trial) = 0;

  // The newest claim for the newest written generation (which must hold that data: claims of later
  // revisions do not count). At most once a second reaches the file; no fsync.
  virtual absl::Status NoteClaim(const GenerationInfo& info) = 0;

  // These changes are about to be served and not yet proven good; replaces the trial before it.
  // Empty, with no set: nothing is on trial.
  virtual absl::Status NoteTrial(const std::vector<Suspect>& changes,
                                 const std::optional<base::RecordDigest>& set) = 0;
  // Written generations of this incarnation, up to this revision, are good. Trials are NoteTrial's.
  virtual absl::Status MarkGood(uint64_t revision) = 0;
  // Suspects of earlier processes need no longer be remembered.
  virtual absl::Status ForgetSuspects() = 0;

  // The operator's override (R17), if it is there and changed since the last call; nullopt: as
  // before. Not OK: it is there and cannot be used; what was in force stays.
  struct Override {
    bool present = false;
    std::vector<Entry> put;  // by key; key and value alone
    std::vector<std::string> deleted;
    std::string note;  // the operator's own words
  };
  virtual absl::StatusOr<std::optional<Override>> PollOverride() = 0;
};

// For holdfastctl: what a directory holds, without locking or changing anything.
struct GenerationListing {
  std::string file;
  std::string prefix;
  uint64_t generation = 0;
  GenerationInfo info;  // claim as of now
  absl::Time written;
  size_t records = 0;
  size_t bytes = 0;
  bool good = false;    // past its probation
  absl::Status health;  // not OK: damaged, and how
};
absl::StatusOr<std::vector<GenerationListing>> ListGenerations(const std::string& dir,
                                                               const Surroundings& surroundings);
// Reads one file whole.
absl::StatusOr<Loaded> ReadGeneration(const std::string& file, const Surroundings& surroundings);

}  // namespace holdfast::internal
