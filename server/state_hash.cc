#include "server/state_hash.h"

#include <limits>
#include <string_view>

#include "base/crc32c.h"
#include "server/etcd_errors.h"
#include "server/kv_codec.h"

namespace holdfast::server {
namespace {

// Often enough that a stop is not felt, seldom enough to cost nothing.
constexpr int kRecordsBetweenStops = 256;

class Hash {
 public:
  void Add(std::string_view bytes) {
    Add(static_cast<int64_t>(bytes.size()));
    crc_ = base::ExtendCrc32c(crc_, bytes);
  }
  void Add(int64_t number) {
    char bytes[sizeof(number)];
    for (size_t i = 0; i < sizeof(bytes); ++i) {
      bytes[i] = static_cast<char>(static_cast<uint64_t>(number) >> (8 * i));
    }
    crc_ = base::ExtendCrc32c(crc_, {bytes, sizeof(bytes)});
  }
  uint32_t value() const { return crc_; }

 private:
  uint32_t crc_ = 0;
};

class Stopper {
 public:
  explicit Stopper(StopScan stop) : stop_(stop) {}
  // False: the scan is to end.
  bool GoOn() {
    if (++records_ % kRecordsBetweenStops == 0 && stop_()) stopped_ = true;
    return !stopped_;
  }
  absl::Status Of(const absl::Status& status) const {
    if (stopped_) return absl::CancelledError("nobody waits for the hash any more");
    return ReadErrorForClient(status, std::numeric_limits<size_t>::max());
  }

 private:
  const StopScan stop_;
  int records_ = 0;
  bool stopped_ = false;
};

absl::Status AddRecords(const storage::MvccStore::View& view, int64_t revision, Stopper* stopper,
                        Hash* hash) {
  const absl::Status status =
      view.ScanRecordsAt(revision, "", [&](const storage::KeyValueView& kv) {
        hash->Add(kv.key);
        hash->Add(kv.value);
        for (const int64_t number : {kv.create_revision, kv.mod_revision, kv.version, kv.lease}) {
          hash->Add(number);
        }
        return stopper->GoOn();
      });
  return stopper->Of(status);
}

}  // namespace

absl::StatusOr<uint32_t> HashRecords(const storage::MvccStore::View& view, int64_t revision,
                                     StopScan stop) {
  Stopper stopper(stop);
  Hash hash;
  if (revision <= 0) revision = view.applied().revision;
  hash.Add(revision);
  hash.Add(view.applied().compact_revision);
  if (absl::Status status = AddRecords(view, revision, &stopper, &hash); !status.ok()) {
    return status;
  }
  return hash.value();
}

absl::StatusOr<uint32_t> HashState(const storage::MvccStore::View& view, StopScan stop) {
  Stopper stopper(stop);
  Hash hash;
  hash.Add(view.applied().revision);
  hash.Add(view.applied().compact_revision);
  const absl::Status metas = view.ScanMeta("", [&](std::string_view key, std::string_view value) {
    hash.Add(key);
    hash.Add(value);
    return stopper.GoOn();
  });
  if (absl::Status status = stopper.Of(metas); !status.ok()) return status;
  if (absl::Status status = AddRecords(view, view.applied().revision, &stopper, &hash);
      !status.ok()) {
    return status;
  }
  return hash.value();
}

}  // namespace holdfast::server
