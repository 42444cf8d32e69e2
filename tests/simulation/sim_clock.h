// One machine's three kernel clocks in virtual time: an offset of their own, a drift each, and
// suspends that BOOTTIME alone counts (freshness section 2).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/clock.h"

namespace holdfast::sim {

// Parts per million of true time. BOOTTIME and MONOTONIC are slewed together.
struct Drift {
  int64_t slewed_ppm = 0;
  int64_t raw_ppm = 0;
};

// Threads: one.
class SimClock final : public base::Clock {
 public:
  // Freshness A1: the clock that this machine may trust never runs slower than this.
  static constexpr int64_t kSlowestTrustedPpm = -1900;
  // How far TrueTimeOf may be off.
  static constexpr int64_t kInverseErrorNs = 4;

  // `now_ns`: the world's true time. A sample moves it on by a nanosecond: no two share an instant.
  SimClock(int64_t* now_ns, int64_t offset_ns, Drift drift) : now_ns_(now_ns) {
    stretches_.push_back({*now_ns, {offset_ns, offset_ns, offset_ns}, drift, false});
  }

  base::ClockSample Sample() const override { return At(++*now_ns_); }
  // REQUIRES: whichever clock was to be trusted from the start still is.
  void SetDrift(Drift drift) { Begin(drift, stretches_.back().suspended); }
  const Drift& drift() const { return stretches_.back().drift; }
  // Between the two nobody may take a sample: the machine sleeps.
  // Nobody slews a sleeping machine's clock: BOOTTIME goes on as its hardware does.
  void Suspend() {
    awake_ = drift();
    Begin({std::max(awake_.slewed_ppm, kSlowestTrustedPpm), awake_.raw_ppm}, true);
  }
  void Wake() { Begin(awake_, false); }

  // The true instant at which BOOTTIME shows `boot_ns`, to the past and to the future.
  int64_t TrueTimeOf(int64_t boot_ns) const {
    size_t i = stretches_.size() - 1;
    while (i > 0 && stretches_[i].at.boot_ns > boot_ns) --i;
    const Stretch& s = stretches_[i];
    const int64_t shown = boot_ns - s.at.boot_ns;
    const int64_t million = 1'000'000;
    const int64_t rate = million + s.drift.slewed_ppm;
    return s.true_ns + shown / rate * million + shown % rate * million / rate;
  }

 private:
  struct Stretch {
    int64_t true_ns;
    base::ClockSample at;
    Drift drift;
    bool suspended;
  };

  static int64_t Shown(int64_t true_ns, int64_t ppm) {
    constexpr int64_t kMillion = 1'000'000;
    return true_ns + true_ns / kMillion * ppm + true_ns % kMillion * ppm / kMillion;
  }

  base::ClockSample At(int64_t true_ns) const {
    const Stretch& s = stretches_.back();
    const int64_t passed = true_ns - s.true_ns;
    base::ClockSample sample = s.at;
    sample.boot_ns += Shown(passed, s.drift.slewed_ppm);
    if (s.suspended) return sample;
    sample.mono_ns += Shown(passed, s.drift.slewed_ppm);
    sample.raw_ns += Shown(passed, s.drift.raw_ppm);
    return sample;
  }

  void Begin(Drift drift, bool suspended) {
    stretches_.push_back({*now_ns_, At(*now_ns_), drift, suspended});
  }

  int64_t* const now_ns_;
  std::vector<Stretch> stretches_;
  Drift awake_;
};

}  // namespace holdfast::sim
