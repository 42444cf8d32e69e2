// One machine's three kernel clocks in virtual time: an offset of their own, a drift each, and
// suspends that BOOTTIME alone counts (freshness section 2).
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>

#include "base/check.h"
#include "base/clock.h"

namespace holdfast::raft::test {

class VirtualClock {
 public:
  // Drifts in parts per million of true time; at most one of the two may be below -2000 (A1).
  VirtualClock(int64_t offset_ns, int64_t slewed_ppm, int64_t raw_ppm, int64_t started_ns)
      : offset_ns_(offset_ns), slewed_ppm_(slewed_ppm), raw_ppm_(raw_ppm), started_ns_(started_ns) {
    CHECK(std::max(slewed_ppm, raw_ppm) >= -2000);
  }

  base::ClockSample Sample(int64_t true_ns) {
    const int64_t active = true_ns - started_ns_ - suspended_ns_;
    base::ClockSample sample;
    sample.mono_ns = offset_ns_ + active + active / 1'000'000 * slewed_ppm_ +
                     active % 1'000'000 * slewed_ppm_ / 1'000'000;
    sample.boot_ns = sample.mono_ns + suspended_ns_;
    sample.raw_ns = offset_ns_ + active + active / 1'000'000 * raw_ppm_ +
                    active % 1'000'000 * raw_ppm_ / 1'000'000;
    true_of_[sample.boot_ns] = true_ns;
    return sample;
  }
  // The true instant of a sample that this clock gave.
  int64_t TrueTime(const base::ClockSample& sample) const {
    const auto it = true_of_.find(sample.boot_ns);
    return it == true_of_.end() ? INT64_MAX : it->second;
  }
  void Suspended(int64_t ns) { suspended_ns_ += ns; }

 private:
  int64_t offset_ns_;
  int64_t slewed_ppm_;
  int64_t raw_ppm_;
  int64_t started_ns_;
  int64_t suspended_ns_ = 0;
  std::unordered_map<int64_t, int64_t> true_of_;
};

}  // namespace holdfast::raft::test
