// What the kernel says of processes and of this machine. Linux only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace holdfast::bench {

struct ProcessUsage {
  double cpu_seconds = 0;       // user and system, all threads, since its start
  uint64_t rss_bytes = 0;       // all resident pages, those of mapped files too
  uint64_t rss_anon_bytes = 0;  // resident pages that no file backs: heap and stacks
};

// NotFound if there is no such process.
absl::StatusOr<ProcessUsage> ReadProcessUsage(pid_t pid);
ProcessUsage ReadOwnUsage();

// CPU time of everything on this machine since its start, other guests' share (steal) included.
double ReadMachineCpuSeconds();

struct Hardware {
  std::string cpu_model;
  int cores = 0;  // online
  uint64_t memory_bytes = 0;
  std::string kernel;
};
Hardware ReadHardware();

}  // namespace holdfast::bench
