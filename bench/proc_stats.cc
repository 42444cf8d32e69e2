#include "bench/proc_stats.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "base/check.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

// The text behind "name:" in a file of such lines, "" if there is none.
std::string FieldOf(const std::string& path, std::string_view name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const absl::string_view field(line.data(), colon);
    if (base::ToStd(absl::StripAsciiWhitespace(field)) != name) continue;
    return std::string(absl::StripAsciiWhitespace(absl::string_view(line).substr(colon + 1)));
  }
  return "";
}

// Fields like "VmRSS: 123 kB".
uint64_t KilobytesOf(const std::string& path, std::string_view name) {
  const std::string text = FieldOf(path, name);
  uint64_t kilobytes = 0;
  const absl::string_view number = absl::string_view(text).substr(0, text.find(' '));
  return absl::SimpleAtoi(number, &kilobytes) ? kilobytes * 1024 : 0;
}

}  // namespace

absl::StatusOr<ProcessUsage> ReadProcessUsage(pid_t pid) {
  // The process's CPU clock counts nanoseconds; /proc/PID/stat only hundredths of a second.
  clockid_t cpu_clock;
  timespec used;
  if (clock_getcpuclockid(pid, &cpu_clock) != 0 || clock_gettime(cpu_clock, &used) != 0) {
    return absl::NotFoundError(fmt::format("no process {}", pid));
  }
  const std::string status_path = fmt::format("/proc/{}/status", pid);
  return ProcessUsage{.cpu_seconds = double(used.tv_sec) + double(used.tv_nsec) * 1e-9,
                      .rss_bytes = KilobytesOf(status_path, "VmRSS"),
                      .rss_anon_bytes = KilobytesOf(status_path, "RssAnon")};
}

ProcessUsage ReadOwnUsage() {
  absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(getpid());
  CHECK_OK(usage.status());
  return *usage;
}

double ReadMachineCpuSeconds() {
  std::ifstream in("/proc/stat");
  std::string cpu;
  // user, nice, system, idle, iowait, irq, softirq, steal: the fields of the first line.
  double ticks[8] = {};
  in >> cpu;
  for (double& field : ticks) in >> field;
  const double idle = ticks[3] + ticks[4];
  double all = 0;
  for (const double field : ticks) all += field;
  return (all - idle) / double(sysconf(_SC_CLK_TCK));
}

Hardware ReadHardware() {
  utsname names = {};
  uname(&names);
  return {.cpu_model = FieldOf("/proc/cpuinfo", "model name"),
          .cores = int(sysconf(_SC_NPROCESSORS_ONLN)),
          .memory_bytes = KilobytesOf("/proc/meminfo", "MemTotal"),
          .kernel = fmt::format("{} {} {}", names.sysname, names.release, names.machine)};
}

}  // namespace holdfast::bench
