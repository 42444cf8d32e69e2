#include "server/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace holdfast::server {
namespace {

// Fields of /proc/self/stat, numbered as in proc(5).
constexpr int kFirstAfterName = 3;
constexpr int kUserTicks = 14;
constexpr int kSystemTicks = 15;
constexpr int kThreads = 20;
constexpr int kStartTicks = 22;
constexpr int kVirtualBytes = 23;
constexpr int kResidentPages = 24;

std::optional<double> StatField(int wanted) {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The name, field 2, may hold spaces and parentheses.
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream rest(line.substr(end + 1));
  std::string field;
  for (int i = kFirstAfterName; rest >> field; ++i) {
    if (i == wanted) return std::stod(field);
  }
  return std::nullopt;
}

std::optional<double> Scaled(std::optional<double> value, double factor) {
  return value.has_value() ? std::optional(*value * factor) : std::nullopt;
}

double SecondsPerTick() { return 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK)); }

std::optional<double> CpuSeconds() {
  const std::optional<double> user = StatField(kUserTicks);
  const std::optional<double> system = StatField(kSystemTicks);
  if (!user.has_value() || !system.has_value()) return std::nullopt;
  return (*user + *system) * SecondsPerTick();
}

std::optional<double> StartTime() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    double boot_time = 0;
    if (word == "btime" && file >> boot_time) {
      const std::optional<double> start = StatField(kStartTicks);
      if (!start.has_value()) return std::nullopt;
      return boot_time + *start * SecondsPerTick();
    }
  }
  return std::nullopt;
}

std::optional<double> OpenDescriptors() {
  DIR* dir = opendir("/proc/self/fd");
  if (dir == nullptr) return std::nullopt;
  double count = -3;  // ".", "..", and the one that reads
  while (readdir(dir) != nullptr) ++count;
  closedir(dir);
  return count;
}

std::optional<double> DescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::nullopt;
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

void AddProcessMetrics(MetricsRegistry* registry) {
  registry->AddCounterOf("process_cpu_seconds_total",
                         "Total user and system CPU time spent in seconds.", CpuSeconds);
  registry->AddGauge("process_resident_memory_bytes", "Resident memory size in bytes.", [] {
    return Scaled(StatField(kResidentPages), static_cast<double>(sysconf(_SC_PAGESIZE)));
  });
  registry->AddGauge("process_virtual_memory_bytes", "Virtual memory size in bytes.",
                     [] { return StatField(kVirtualBytes); });
  registry->AddGauge("process_open_fds", "Number of open file descriptors.", OpenDescriptors);
  registry->AddGauge("process_max_fds", "Maximum number of open file descriptors.",
                     DescriptorLimit);
  registry->AddGauge("process_threads", "Number of threads.", [] { return StatField(kThreads); });
  registry->AddGauge("process_start_time_seconds",
                     "Start time of the process since unix epoch in seconds.", StartTime);
  // etcd's own names for the same two.
  registry->AddGauge("os_fd_used", "The number of used file descriptors.", OpenDescriptors);
  registry->AddGauge("os_fd_limit", "The file descriptor limit.", DescriptorLimit);
}

}  // namespace holdfast::server
