// The one clock of the bench: intended starts, completions and windows are all read from it.
#pragma once

#include <time.h>

#include <cstdint>

namespace holdfast::bench {

inline int64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Returns at once if that moment has passed; may return early when a signal arrives.
inline void SleepUntilNs(int64_t moment_ns) {
  const timespec until = {.tv_sec = time_t(moment_ns / 1'000'000'000),
                          .tv_nsec = long(moment_ns % 1'000'000'000)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

}  // namespace holdfast::bench
