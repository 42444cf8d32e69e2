// An end on purpose is no crash.
//
// Most services leave SIGTERM to the kernel: they end at once, no destructor runs, and their trial
// records (client/trial_file.h) would stay behind as those of a crash do: a rollout within a
// minute of a change of configuration would hold that change back for an hour. So where, and only
// where, SIGTERM, SIGINT or SIGHUP has its default action, a handler removes this process's trial
// records, and then lets the kernel do what it would have done.
//
// SIGKILL cannot be told from a crash.
#pragma once

#include <string>

namespace holdfast::internal {

// Files that go when the process is told to end. Threads: any.
class RemovedAtTermination {
 public:
  static constexpr int kSlots = 256;
  static constexpr size_t kPathMax = 512;

  // Of this process, not of children that it forks. Beyond kSlots or kPathMax: nothing.
  explicit RemovedAtTermination(const std::string& path);
  ~RemovedAtTermination();
  RemovedAtTermination(const RemovedAtTermination&) = delete;
  RemovedAtTermination& operator=(const RemovedAtTermination&) = delete;

 private:
  int slot_ = -1;
};

// Idempotent. Handlers of the service's own, and ignored signals, stay as they are.
void HandleTermination();

}  // namespace holdfast::internal
