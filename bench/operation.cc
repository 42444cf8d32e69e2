#include "bench/operation.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace holdfast::bench {
namespace {

class MixSource : public OperationSource {
 public:
  MixSource(const MixOptions& options, uint64_t worker, uint64_t workers)
      : read_ratio_(options.read_ratio),
        rng_(options.seed * 2 * workers + 2 * worker),
        chooser_(options.order, options.key_space, worker, workers,
                 options.seed * 2 * workers + 2 * worker + 1) {}

  Operation Next() override {
    const uint64_t draw = rng_.Next();
    const bool read = double(draw >> 11) * 0x1p-53 < read_ratio_;
    return {.kind = read ? OpKind::kGet : OpKind::kPut,
            .first_key = chooser_.Next(),
            .keys = 1,
            .salt = draw};
  }

 private:
  const double read_ratio_;
  base::Rng rng_;
  KeyChooser chooser_;
};

class LoadSource : public OperationSource {
 public:
  LoadSource(uint64_t keys, uint64_t batch_keys, uint64_t worker, uint64_t workers)
      : keys_(keys), batch_keys_(batch_keys), stride_(workers), next_batch_(worker) {}

  Operation Next() override {
    const uint64_t first = std::exchange(next_batch_, next_batch_ + stride_) * batch_keys_;
    CHECK(first < keys_);
    return {.kind = OpKind::kLoad,
            .first_key = first,
            .keys = std::min(batch_keys_, keys_ - first),
            .salt = 0};
  }

 private:
  const uint64_t keys_;
  const uint64_t batch_keys_;
  const uint64_t stride_;
  uint64_t next_batch_;
};

}  // namespace

const char* OpKindName(OpKind kind) {
  switch (kind) {
    case OpKind::kPut:
      return "put";
    case OpKind::kGet:
      return "get";
    case OpKind::kLoad:
      return "load";
  }
  return "unknown";
}

std::unique_ptr<OperationSource> NewMixSource(const MixOptions& options, uint64_t worker,
                                              uint64_t workers) {
  return std::make_unique<MixSource>(options, worker, workers);
}

std::unique_ptr<OperationSource> NewLoadSource(uint64_t keys, uint64_t batch_keys, uint64_t worker,
                                               uint64_t workers) {
  return std::make_unique<LoadSource>(keys, batch_keys, worker, workers);
}

uint64_t LoadBatches(uint64_t keys, uint64_t batch_keys) {
  return (keys + batch_keys - 1) / batch_keys;
}

}  // namespace holdfast::bench
