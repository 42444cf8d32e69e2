#include "client/process.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>
#include <string_view>

namespace holdfast::internal {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A page that the kernel empties in every child, so that what a parent kept there is never taken
// for the child's. Null where the kernel has no such pages.
std::atomic<pid_t>* MakeKeptId() {
  const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (madvise(page, size, MADV_WIPEONFORK) == 0) return new (page) std::atomic<pid_t>(0);
  munmap(page, size);
  return nullptr;
}

}  // namespace

std::string ProgramName() {
  std::ifstream file("/proc/self/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

pid_t ProcessId() {
  static std::atomic<pid_t>* const kept = MakeKeptId();
  if (kept == nullptr) return getpid();
  pid_t id = kept->load(std::memory_order_relaxed);
  if (id == 0) {
    id = getpid();
    kept->store(id, std::memory_order_relaxed);
  }
  return id;
}

std::string DefaultCacheDir() {
  if (std::string own = Variable("HOLDFAST_CACHE_DIR"); !own.empty()) return own;
  // systemd gives several, separated by colons; the first is the service's own.
  if (std::string state = Variable("STATE_DIRECTORY"); !state.empty()) {
    return state.substr(0, state.find(':')) + "/holdfast";
  }
  if (std::string state = Variable("XDG_STATE_HOME"); !state.empty()) return state + "/holdfast";
  if (std::string home = Variable("HOME"); !home.empty()) return home + "/.local/state/holdfast";
  return "";
}

}  // namespace holdfast::internal
