#include "bench/operation.h"

#include <algorithm>
#include <cstring>
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

class WriteSource : public OperationSource {
 public:
  WriteSource(const WriteRange& range, uint64_t worker, uint64_t workers)
      : range_(range), stride_(workers), next_batch_(worker) {}

  Operation Next() override {
    const uint64_t offset = std::exchange(next_batch_, next_batch_ + stride_) * range_.batch_keys;
    CHECK(offset < range_.keys);
    const uint64_t number = range_.first + offset;
    return {.kind = OpKind::kLoad,
            .first_key = range_.key_space == 0 ? number : number % range_.key_space,
            .keys = std::min(range_.batch_keys, range_.keys - offset),
            .salt = range_.key_space == 0 ? 0 : number / range_.key_space};
  }

 private:
  const WriteRange range_;
  const uint64_t stride_;
  uint64_t next_batch_;
};

constexpr uint64_t kStampMagic = 0x686f6c6466617374;

}  // namespace

const char* OpKindName(OpKind kind) {
  switch (kind) {
    case OpKind::kPut:
      return "put";
    case OpKind::kGet:
      return "get";
    case OpKind::kLoad:
      return "load";
    case OpKind::kScan:
      return "scan";
    case OpKind::kModify:
      return "modify";
    case OpKind::kTxn:
      return "txn";
  }
  return "unknown";
}

std::unique_ptr<OperationSource> NewMixSource(const MixOptions& options, uint64_t worker,
                                              uint64_t workers) {
  return std::make_unique<MixSource>(options, worker, workers);
}

std::unique_ptr<OperationSource> NewLoadSource(uint64_t keys, uint64_t batch_keys, uint64_t worker,
                                               uint64_t workers) {
  return NewWriteSource({.first = 0, .keys = keys, .batch_keys = batch_keys, .key_space = 0},
                        worker, workers);
}

std::unique_ptr<OperationSource> NewWriteSource(const WriteRange& range, uint64_t worker,
                                                uint64_t workers) {
  return std::make_unique<WriteSource>(range, worker, workers);
}

void WriteStamp(const Stamp& stamp, std::string* value) {
  CHECK(value->size() >= kStampBytes);
  std::memcpy(value->data(), &kStampMagic, sizeof(kStampMagic));
  std::memcpy(value->data() + 8, &stamp.sequence, sizeof(stamp.sequence));
  std::memcpy(value->data() + 16, &stamp.due_ns, sizeof(stamp.due_ns));
}

std::optional<Stamp> ReadStamp(std::string_view value) {
  uint64_t magic = 0;
  if (value.size() < kStampBytes) return std::nullopt;
  std::memcpy(&magic, value.data(), sizeof(magic));
  if (magic != kStampMagic) return std::nullopt;
  Stamp stamp;
  std::memcpy(&stamp.sequence, value.data() + 8, sizeof(stamp.sequence));
  std::memcpy(&stamp.due_ns, value.data() + 16, sizeof(stamp.due_ns));
  return stamp;
}

uint64_t LoadBatches(uint64_t keys, uint64_t batch_keys) {
  return (keys + batch_keys - 1) / batch_keys;
}

}  // namespace holdfast::bench
