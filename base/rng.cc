#include "base/rng.h"

#include <sys/random.h>

namespace holdfast::base {

uint64_t RandomSeed() {
  uint64_t seed = 0;
  CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
  return seed;
}

}  // namespace holdfast::base
