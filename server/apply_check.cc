#include "server/apply_check.h"

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <xxhash.h>

#include "base/check.h"

namespace holdfast::server {
namespace {

// One hash over a sequence of fields, each with its length, so that no two sequences look alike.
class Digest {
 public:
  Digest() : state_(XXH3_createState(), XXH3_freeState) {
    CHECK(state_ != nullptr);
    CHECK(XXH3_128bits_reset(state_.get()) == XXH_OK);
  }
  void Add(std::string_view bytes) {
    Add(static_cast<int64_t>(bytes.size()));
    XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
  }
  void Add(int64_t number) {
    char bytes[sizeof(number)];
    for (size_t i = 0; i < sizeof(bytes); ++i) {
      bytes[i] = static_cast<char>(static_cast<uint64_t>(number) >> (8 * i));
    }
    XXH3_128bits_update(state_.get(), bytes, sizeof(bytes));
  }
  XXH128_hash_t Value() const { return XXH3_128bits_digest(state_.get()); }

 private:
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

}  // namespace

absl::StatusOr<ApplyResult> ApplyCheck(const command::v1::Check& request,
                                       const ApplyContext& context,
                                       const storage::MvccStore::Writer& writer) {
  CheckResult result{.index = context.index, .term = context.term};
  Digest digest;
  uint64_t bytes = 0;
  // False, and `next` set: this one is for the next check.
  const auto fits = [&](std::string_view key, size_t size) {
    if (result.records > 0 &&
        (result.records >= request.max_records() || bytes + size > request.max_bytes())) {
      result.next = key;
      return false;
    }
    ++result.records;
    bytes += size;
    return true;
  };
  absl::Status status;
  if (request.part() == command::v1::Check::META) {
    status = writer.ScanMeta("", request.from(), [&](std::string_view key, std::string_view value) {
      if (!fits(key, key.size() + value.size())) return false;
      digest.Add(key);
      digest.Add(value);
      return true;
    });
  } else {
    digest.Add(writer.revision());
    digest.Add(writer.compact_revision());
    status = writer.ScanRecords(request.from(), [&](const storage::KeyValueView& kv) {
      if (!fits(kv.key, kv.key.size() + kv.value.size())) return false;
      digest.Add(kv.key);
      digest.Add(kv.value);
      for (const int64_t number : {kv.create_revision, kv.mod_revision, kv.version, kv.lease}) {
        digest.Add(number);
      }
      return true;
    });
  }
  if (!status.ok()) return status;
  // What another member has between the last record here and the first one there must count.
  digest.Add(result.next);
  const XXH128_hash_t value = digest.Value();
  result.low = value.low64;
  result.high = value.high64;
  context.effects->checks.push_back(std::move(result));
  return ApplyResult{};
}

}  // namespace holdfast::server
