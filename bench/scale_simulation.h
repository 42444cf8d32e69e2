// The pipeline of scale_model.h played out: events in virtual time, each host's cores shared in
// slices, chance by a seed. It knows queues, coincidence and percentiles, which the
// formulas do not; the core's byte windows and the links' bandwidth it does not know.
//
// Pure and deterministic: one seed, one result. Threads: functions without state.
#pragma once

#include <cstdint>

#include "bench/scale_model.h"

namespace holdfast::bench {

struct SimulationResult {
  uint64_t arrivals = 0;
  uint64_t completions = 0;  // all arrivals: the end drains
  double rate = 0;           // of those that are measured, as all below
  double mean_us = 0;
  double p50_us = 0, p99_us = 0, p999_us = 0;
  double log_batch = 0;  // entries in one fsync of the leader
  double cpu_us = 0;     // all members, for one operation
};
// Runs `operations`, of which the first fifth is not measured.
// REQUIRES: as Predict; operations >= 100.
SimulationResult Simulate(const PathCosts& costs, const ClusterModel& cluster,
                          const LoadModel& load, uint64_t operations, uint64_t seed);

}  // namespace holdfast::bench
