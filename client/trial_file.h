// What a process serves and has not yet proven good, on disk before it is served: if the process
// ends without taking it back, its successor knows what it may have died of.
//
// Each process has a file of its own, locked (flock) for as long as it lives. One that nobody holds
// is a dead process's, whoever has its pid by now. An orderly end removes the file: it is no crash.
// A dead process's file stays, as the record of what is suspect, until it is forgotten.
//
// A child made by fork() holds the lock too: a parent's death shows once its children have ended.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/record_digest.h"
#include "client/disk_file.h"
#include "client/last_good.h"
#include "client/termination.h"

namespace holdfast::internal {

// Of one record; a larger trial is to be named by the digest of the set.
inline constexpr size_t kTrialBytesMax = size_t{1} << 20;
// Records of dead processes that are kept; the oldest go first.
inline constexpr size_t kDeadTrialsMax = 16;

struct TrialGeneration {
  uint64_t number = 0;
  base::RecordDigest digest;  // of its records
  friend bool operator==(const TrialGeneration&, const TrialGeneration&) = default;
};

struct Trial {
  std::vector<Suspect> changes = {};
  std::optional<base::RecordDigest> set = {};
  std::optional<TrialGeneration> generation = {};  // that is served whole
  bool empty() const { return changes.empty() && !set && !generation; }
  friend bool operator==(const Trial&, const Trial&) = default;
};

class TrialFile {
 public:
  static absl::StatusOr<std::unique_ptr<TrialFile>> Create(const std::string& dir,
                                                           std::string_view stem);
  ~TrialFile();  // removes it, unless in a child that fork() made
  TrialFile(const TrialFile&) = delete;
  TrialFile& operator=(const TrialFile&) = delete;

  // A few microseconds: a write to the kernel's cache. InvalidArgument: larger than kTrialBytesMax.
  absl::Status Note(const Trial& trial);
  // False in a child that fork() made: it needs one of its own.
  bool OfThisProcess() const { return getpid() == owner_; }

 private:
  TrialFile(std::string path, Fd fd)
      : path_(std::move(path)), removed_(path_), fd_(std::move(fd)) {}
  const std::string path_;
  const RemovedAtTermination removed_;
  const pid_t owner_ = getpid();
  Fd fd_;
  uint64_t sequence_ = 0;
};

struct DeadTrial {
  std::string path;
  int64_t modified_ns = 0;
  Trial trial = {};  // not empty
};

// Of processes that ended, newest first, at most kDeadTrialsMax. `tidy`: files that say nothing (or
// are too many) are removed.
std::vector<DeadTrial> ReadDeadTrials(const std::string& dir, std::string_view stem, bool tidy);

}  // namespace holdfast::internal
