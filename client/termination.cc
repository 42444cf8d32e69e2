#include "client/termination.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace holdfast::internal {
namespace {

struct Slot {
  std::atomic<pid_t> owner{0};  // 0: free, or not filled yet
  std::atomic<bool> taken{false};
  char path[RemovedAtTermination::kPathMax];
};
static_assert(std::atomic<pid_t>::is_always_lock_free);

// Never destroyed: a signal may come while static objects go.
Slot* Slots() {
  static Slot slots[RemovedAtTermination::kSlots];
  return slots;
}

// Only what is safe in a signal handler: atomics, getpid, unlink, sigaction, raise.
void OnTermination(int signal) {
  const int saved = errno;
  const pid_t self = getpid();
  Slot* const slots = Slots();
  for (int i = 0; i < RemovedAtTermination::kSlots; ++i) {
    if (slots[i].owner.load(std::memory_order_acquire) == self) unlink(slots[i].path);
  }
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  errno = saved;
  // Blocked while this handler runs: it takes effect when it returns.
  raise(signal);
}

}  // namespace

RemovedAtTermination::RemovedAtTermination(const std::string& path) {
  if (path.size() >= kPathMax) return;
  Slot* const slots = Slots();
  for (int i = 0; i < kSlots; ++i) {
    if (slots[i].taken.exchange(true)) continue;
    std::memcpy(slots[i].path, path.c_str(), path.size() + 1);
    slots[i].owner.store(getpid(), std::memory_order_release);
    slot_ = i;
    return;
  }
}

RemovedAtTermination::~RemovedAtTermination() {
  if (slot_ < 0) return;
  Slots()[slot_].owner.store(0, std::memory_order_release);
  Slots()[slot_].taken.store(false);
}

void HandleTermination() {
  Slots();  // made here, and not in the handler
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    struct sigaction present = {};
    if (sigaction(signal, nullptr, &present) != 0) continue;
    if ((present.sa_flags & SA_SIGINFO) != 0 || present.sa_handler != SIG_DFL) continue;
    struct sigaction action = {};
    action.sa_handler = OnTermination;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace holdfast::internal
