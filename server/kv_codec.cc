#include "server/kv_codec.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/strings.h"
#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

storage::SortOrder ToSortOrder(etcdserverpb::RangeRequest::SortOrder order) {
  switch (order) {
    case etcdserverpb::RangeRequest::ASCEND:
      return storage::SortOrder::kAscend;
    case etcdserverpb::RangeRequest::DESCEND:
      return storage::SortOrder::kDescend;
    default:
      return storage::SortOrder::kNone;
  }
}

storage::SortTarget ToSortTarget(etcdserverpb::RangeRequest::SortTarget target) {
  switch (target) {
    case etcdserverpb::RangeRequest::VERSION:
      return storage::SortTarget::kVersion;
    case etcdserverpb::RangeRequest::CREATE:
      return storage::SortTarget::kCreate;
    case etcdserverpb::RangeRequest::MOD:
      return storage::SortTarget::kMod;
    case etcdserverpb::RangeRequest::VALUE:
      return storage::SortTarget::kValue;
    default:
      return storage::SortTarget::kKey;
  }
}

}  // namespace

storage::RangeOptions ToRangeOptions(const etcdserverpb::RangeRequest& request, size_t max_bytes) {
  storage::RangeOptions options;
  options.key = request.key();
  options.range_end = request.range_end();
  options.limit = std::max<int64_t>(0, request.limit());  // etcd: a negative limit is none
  options.revision = request.revision();
  options.sort_order = ToSortOrder(request.sort_order());
  options.sort_target = ToSortTarget(request.sort_target());
  options.keys_only = request.keys_only();
  options.count_only = request.count_only();
  options.min_mod_revision = request.min_mod_revision();
  options.max_mod_revision = request.max_mod_revision();
  options.min_create_revision = request.min_create_revision();
  options.max_create_revision = request.max_create_revision();
  options.max_bytes = max_bytes;
  return options;
}

void FillKeyValue(storage::KeyValue&& kv, mvccpb::KeyValue* out) {
  out->set_key(std::move(kv.key));
  out->set_value(std::move(kv.value));
  out->set_create_revision(kv.create_revision);
  out->set_mod_revision(kv.mod_revision);
  out->set_version(kv.version);
  out->set_lease(kv.lease);
}

void FillRangeResponse(storage::RangeResult&& result, etcdserverpb::RangeResponse* out) {
  out->mutable_kvs()->Reserve(static_cast<int>(result.kvs.size()));
  for (storage::KeyValue& kv : result.kvs) FillKeyValue(std::move(kv), out->add_kvs());
  out->set_more(result.more);
  out->set_count(result.count);
}

absl::Status ReadErrorForClient(const absl::Status& status, size_t max_bytes) {
  if (absl::IsOutOfRange(status)) {
    return base::Message(status) == storage::kCompactedText ? ErrCompacted() : ErrFutureRev();
  }
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(
        fmt::format("holdfast: the answer is larger than {} bytes: page through the range with "
                    "limit, or ask for keys_only or count_only",
                    max_bytes));
  }
  return status;
}

bool IsAnswer(const absl::Status& read_error) {
  return absl::IsOutOfRange(read_error) || absl::IsResourceExhausted(read_error);
}

size_t AnswerBytes(const storage::KeyValue& kv) { return kv.key.size() + kv.value.size(); }

}  // namespace holdfast::server
