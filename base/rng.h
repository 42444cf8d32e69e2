// The only source of randomness below main(): injected and seeded, so that a seed replays a run.
#pragma once

#include <cstdint>
#include <random>

#include "base/check.h"

namespace holdfast::base {

// mt19937_64's sequence is fixed by the standard; the standard's distributions are not, so Below
// is our own. Threads: one.
class Rng {
 public:
  explicit Rng(uint64_t seed) : engine_(seed) {}
  uint64_t Next() { return engine_(); }
  // Uniform in [0, n) up to a bias below 2^-32 for n < 2^32. REQUIRES: n > 0.
  uint64_t Below(uint64_t n) {
    CHECK(n > 0);
    return engine_() % n;
  }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  std::mt19937_64 engine_;
};

// A seed from the operating system, for main() and for boot nonces.
uint64_t RandomSeed();

}  // namespace holdfast::base
