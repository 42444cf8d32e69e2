// What the clients ask for: operations, their source, and the outcome of one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "bench/keys.h"

namespace holdfast::bench {

enum class OpKind : uint8_t { kPut, kGet, kLoad, kScan, kModify, kTxn };
inline constexpr int kOpKinds = 6;
const char* OpKindName(OpKind kind);

// How gets and scans read.
enum class ReadLevel {
  kLinearizable,
  kSerializable,  // the member's own state, of any age
  kBounded,       // a member's state, proven to be at most kBoundedAge old
  kMirror         // this process's own copy: the native API alone has one
};
inline constexpr absl::Duration kBoundedAge = absl::Seconds(1);
// Tries of one kModify; then it has failed (ABORTED).
inline constexpr uint64_t kMaxModifyTries = 100;

// Where a put carries one, its value begins with it: who receives the value knows which put it was
// and when that was due.
struct Stamp {
  uint64_t sequence = 0;
  int64_t due_ns = 0;

  friend bool operator==(const Stamp&, const Stamp&) = default;
};
inline constexpr size_t kStampBytes = 24;
// Over the first kStampBytes of `value`. REQUIRES: it has them.
void WriteStamp(const Stamp& stamp, std::string* value);
// Nothing if `value` begins with none.
std::optional<Stamp> ReadStamp(std::string_view value);

struct Operation {
  OpKind kind = OpKind::kPut;
  uint64_t first_key = 0;
  // kLoad: a Txn of that many puts. kScan: at most so many are read. kTxn: the first is compared
  // (it must exist), all are put.
  uint64_t keys = 1;
  uint64_t salt = 0;  // chooses the bytes of the value, so that a put changes something
  std::optional<Stamp> stamp = std::nullopt;  // for kPut
};

// Threads: one at a time.
class OperationSource {
 public:
  virtual ~OperationSource() = default;
  virtual Operation Next() = 0;
  // The operation on that first key has ended, well or not.
  virtual void Ended(OpKind kind, uint64_t first_key) {
    (void)kind;
    (void)first_key;
  }
};

struct MixOptions {
  KeyOrder order = KeyOrder::kRandom;
  uint64_t key_space = 1;
  double read_ratio = 0;  // 0: puts alone, 1: gets alone
  uint64_t seed = 1;
};
// The stream of worker `worker` of `workers`; another one for each worker, the same for one seed.
std::unique_ptr<OperationSource> NewMixSource(const MixOptions& options, uint64_t worker,
                                              uint64_t workers);

// The batches `worker`, `worker + workers`... of the keys [0, keys), `batch_keys` keys each.
// REQUIRES: Next() is called no more often than this worker has batches of LoadBatches().
std::unique_ptr<OperationSource> NewLoadSource(uint64_t keys, uint64_t batch_keys, uint64_t worker,
                                               uint64_t workers);

// The same for the numbers [first, first + keys), of which number n goes to key n modulo
// `key_space`: past it, keys are written again. A batch never holds a key twice.
struct WriteRange {
  uint64_t first = 0;
  uint64_t keys = 0;
  uint64_t batch_keys = 1;  // at most key_space, and a divisor of it where keys are written again
  uint64_t key_space = 0;   // 0: never again
};
std::unique_ptr<OperationSource> NewWriteSource(const WriteRange& range, uint64_t worker,
                                                uint64_t workers);
uint64_t LoadBatches(uint64_t keys, uint64_t batch_keys);

struct Outcome {
  int code = 0;         // a gRPC status code, 0 = OK
  std::string message;  // of an error
  bool found = true;    // false: a get of a key that does not exist, a compare that failed
  uint64_t bytes = 0;   // key and value bytes carried, both directions
  // Tries beyond the first: a kModify that found its key changed, a call that the client library
  // sent again.
  uint64_t retries = 0;
};

}  // namespace holdfast::bench
