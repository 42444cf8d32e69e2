// Runs seeds, one after another or in several processes, and tells what came of them.
// Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "figures.h"

namespace holdfast::sim {

struct Batch {
  uint64_t first_seed = 1;
  uint64_t stride = 1;  // from one seed to the next
  uint64_t count = UINT64_MAX;
  double seconds = 0;                 // stop after so long; 0: never
  uint64_t recovery_ms = UINT64_MAX;  // a slower recovery is a failure, to look at
  bool trace = false;
  bool until_failure = true;  // else the rest is run too
  bool quiet = false;         // else a line of progress every so often
};

struct BatchResult {
  Figures figures;
  double seconds = 0;
  double processor_seconds = 0;  // the machine may have had other work
  uint64_t seeds = 0;
  std::vector<uint64_t> failed;
  // Of the first: what was broken, every option, how to see it again.
  std::string report;
};

// A failed CHECK ends the process, after it has named the seed.
BatchResult RunBatch(const Batch& batch);

// As RunBatch, in `jobs` processes; a process that dies is a failure with its seed named on stderr.
BatchResult RunBatches(const Batch& batch, unsigned jobs);

// Names of figures that must not be zero after so many seeds, and are.
std::vector<std::string> MissingFigures(const BatchResult& result);

}  // namespace holdfast::sim
