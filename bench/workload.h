// The workloads as data: which operations, on which keys, how read. YCSB's six core workloads are
// here with the shares and distributions of their definition (docs/bench.md says what differs).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/operation.h"

namespace holdfast::bench {

// Which key is next. kGiven: as --keys says.
enum class KeyDraw { kGiven, kScrambledZipf, kLatest };

// Shares of the operations; they add up to 1.
struct Workload {
  std::string name = {};
  std::string about = {};
  double get = 0;
  double put = 0;     // of keys that exist
  double insert = 0;  // puts of new keys
  double scan = 0;    // of 1 to kMaxScanKeys keys, uniformly
  double modify = 0;  // read, then a put that fails if the key has changed; tried until it holds
  double txn = 0;     // one compare, kTxnPuts puts
  ReadLevel read = ReadLevel::kLinearizable;
  KeyDraw keys = KeyDraw::kGiven;
  size_t value_size = 0;   // 0: --value-size
  uint64_t key_space = 0;  // at most; 0: no limit of its own

  bool Reads() const { return get + scan + modify > 0; }
};

inline constexpr uint64_t kMaxScanKeys = 100;
inline constexpr uint64_t kTxnPuts = 4;
// Of key numbers: an upper end of what one run inserts.
inline constexpr uint64_t kMaxInserts = 1'000'000'000;

// In the order in which they are told.
const std::vector<Workload>& KnownWorkloads();
// InvalidArgument names all that there are. "large" is both sizes.
absl::StatusOr<std::vector<Workload>> FindWorkloads(std::string_view comma_separated);
// "  name   about" for each, for --help.
std::string WorkloadsHelp();

Workload PutWorkload();
Workload GetWorkload();
// REQUIRES: 0 <= read_ratio <= 1.
Workload MixedWorkload(double read_ratio);

std::vector<OpKind> KindsOf(const Workload& workload);

struct WorkloadData {
  KeyOrder order = KeyOrder::kRandom;  // where the workload itself does not say
  uint64_t key_space = 1;              // keys that are loaded, or may be
  uint64_t seed = 1;
};
// What all workers of one run share: the keys inserted so far. Call it once for a run, and the
// result once for each worker.
using SourceFactory = std::function<std::unique_ptr<OperationSource>(uint64_t worker, uint64_t of)>;
SourceFactory NewWorkloadSource(const Workload& workload, const WorkloadData& data);

}  // namespace holdfast::bench
