#include "server/responders.h"

#include <sys/prctl.h>

#include <iterator>
#include <utility>

#include "base/check.h"

namespace holdfast::server {

Responders::Responders(int threads) {
  CHECK(threads > 0);
  for (int i = 0; i < threads; ++i) {
    auto lane = std::make_unique<Lane>();
    lane->thread = std::thread(Loop, lane.get());
    lanes_.push_back(std::move(lane));
  }
}

void Responders::Post(uint64_t lane_number, Job job) {
  Lane& lane = *lanes_[lane_number % lanes_.size()];
  {
    absl::MutexLock lock(&lane.mutex);
    if (!lane.stopped) {
      lane.jobs.push_back(std::move(job));
      if (lane.jobs.size() == 1) lane.ready.Signal();
      return;
    }
  }
  std::move(job)();
}

void Responders::PostAll(std::vector<std::vector<Job>> jobs) {
  CHECK(jobs.size() == lanes_.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].empty()) continue;
    Lane& lane = *lanes_[i];
    {
      absl::MutexLock lock(&lane.mutex);
      if (!lane.stopped) {
        lane.jobs.insert(lane.jobs.end(), std::make_move_iterator(jobs[i].begin()),
                         std::make_move_iterator(jobs[i].end()));
        lane.ready.Signal();
        continue;
      }
    }
    for (Job& job : jobs[i]) std::move(job)();
  }
}

void Responders::Loop(Lane* lane) {
  prctl(PR_SET_NAME, "hf-answer");
  for (;;) {
    std::vector<Job> jobs;
    {
      absl::MutexLock lock(&lane->mutex);
      while (lane->jobs.empty() && !lane->stopped) lane->ready.Wait(&lane->mutex);
      if (lane->jobs.empty()) return;
      jobs.swap(lane->jobs);
    }
    for (Job& job : jobs) std::move(job)();
  }
}

void Responders::Stop() {
  absl::MutexLock lock(&stop_mutex_);
  for (const auto& lane : lanes_) {
    absl::MutexLock lane_lock(&lane->mutex);
    lane->stopped = true;
    lane->ready.Signal();
  }
  for (const auto& lane : lanes_) {
    if (lane->thread.joinable()) lane->thread.join();
  }
}

}  // namespace holdfast::server
