#include "server/strand.h"

#include <utility>

namespace holdfast::server {

void Strand::Post(Step step) {
  {
    absl::MutexLock lock(&mutex_);
    steps_.push_back(std::move(step));
    if (running_) return;
    running_ = true;
  }
  while (true) {
    Step next;
    {
      absl::MutexLock lock(&mutex_);
      if (steps_.empty()) {
        running_ = false;
        return;
      }
      next = std::move(steps_.front());
      steps_.pop_front();
    }
    next();
  }
}

}  // namespace holdfast::server
