#include "server/thread_policy.h"

#include <sched.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace holdfast::server {

bool BatchJudge::Look(const ApplyCounts& counts) {
  const uint64_t calls = counts.calls - last_.calls;
  const uint64_t entries = counts.entries - last_.entries;
  last_ = counts;
  const uint64_t least = batch_ ? kEntriesToEnd : kEntriesToBegin;
  batch_ = calls >= kCallsMin && entries >= calls * least;
  return batch_;
}

ThreadPolicy::ThreadPolicy(std::function<ApplyCounts()> counts)
    : counts_(std::move(counts)),
      usable_(sched_getscheduler(0) == SCHED_OTHER),
      ticker_(kInterval, [this] { Look(); }) {}

void ThreadPolicy::Look() {
  const bool batch = judge_.Look(counts_());
  // Once more after a change: a thread that was born while it was made may have been passed over.
  if (!usable_ || (batch == batch_ && !again_)) return;
  again_ = batch != batch_;
  batch_ = batch;
  if (SetAll(batch)) return;
  LOG_INFO("the system does not let this process choose its scheduling policy: it stays as it is");
  usable_ = false;
}

void ThreadPolicy::Stop() {
  ticker_.Stop();
  if (usable_ && std::exchange(batch_, false)) SetAll(false);
}

bool ThreadPolicy::SetAll(bool batch) {
  const int from = batch ? SCHED_OTHER : SCHED_BATCH;
  const int to = batch ? SCHED_BATCH : SCHED_OTHER;
  const sched_param no_priority{};
  std::error_code error;
  // A thread that is born or ends meanwhile may be missed, or listed in vain: see Look.
  for (std::filesystem::directory_iterator task("/proc/self/task", error), end;
       !error && task != end; task.increment(error)) {
    const std::string name = task->path().filename();
    pid_t tid = 0;
    std::from_chars(name.data(), name.data() + name.size(), tid);
    if (tid <= 0 || sched_getscheduler(tid) != from) continue;
    if (sched_setscheduler(tid, to, &no_priority) != 0 && errno != ESRCH) return false;
  }
  return !error;
}

}  // namespace holdfast::server
