// Runs the example service as a child process and reads what it prints, as its user would.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace holdfast::bench {

// What the service printed since the last call.
struct ServiceReport {
  int reads = 0;
  int errors = 0;
  double age_first_s = -1;  // of the first and last answer of known age; -1: none
  double age_last_s = -1;
  int proven = 0;
  int unknown = 0;
  absl::Duration longest_silence;  // between two answers
  std::string last_line;
  std::string last_error;
};

// Threads: one at a time (a thread of its own reads the pipe).
class ServiceWatch {
 public:
  // NotFound: no such binary.
  static absl::StatusOr<std::unique_ptr<ServiceWatch>> Start(const std::string& binary,
                                                             const std::vector<std::string>& args);
  ~ServiceWatch();
  ServiceReport Take();

 private:
  ServiceWatch(pid_t pid, int fd);
  void ReadLines();
  void NoteLine(const std::string& line);

  const pid_t pid_;
  const int fd_;
  absl::Mutex mutex_;
  ServiceReport report_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_answer_ ABSL_GUARDED_BY(mutex_) = absl::Now();
  std::thread reader_;
};

}  // namespace holdfast::bench
