#include "client/testing/fake_data.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"

namespace holdfast::testing::internal {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutRequest;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using mvccpb::KeyValue;

constexpr int kTxnOpsMax = 128;
constexpr int64_t kNewest = std::numeric_limits<int64_t>::max();
constexpr std::string_view kNoEnd("\0", 1);

// etcd's texts, which clients go by.
grpc::Status Invalid(const char* text) { return {grpc::StatusCode::INVALID_ARGUMENT, text}; }
grpc::Status NoKey() { return Invalid("etcdserver: key is not provided"); }
grpc::Status Compacted() {
  return {grpc::StatusCode::OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"};
}
grpc::Status Future() {
  return {grpc::StatusCode::OUT_OF_RANGE,
          "etcdserver: mvcc: required revision is a future revision"};
}

bool PassesFilters(const RangeRequest& request, const KeyValue& kv) {
  const auto within = [](int64_t min, int64_t max, int64_t value) {
    return (min == 0 || value >= min) && (max == 0 || value <= max);
  };
  return within(request.min_mod_revision(), request.max_mod_revision(), kv.mod_revision()) &&
         within(request.min_create_revision(), request.max_create_revision(), kv.create_revision());
}

void Sort(const RangeRequest& request, std::vector<const KeyValue*>& found) {
  const auto less = [&](const KeyValue* a, const KeyValue* b) {
    switch (request.sort_target()) {
      case RangeRequest::VERSION:
        return a->version() < b->version();
      case RangeRequest::CREATE:
        return a->create_revision() < b->create_revision();
      case RangeRequest::MOD:
        return a->mod_revision() < b->mod_revision();
      case RangeRequest::VALUE:
        return a->value() < b->value();
      default:
        return a->key() < b->key();
    }
  };
  if (request.sort_order() == RangeRequest::DESCEND) {
    std::stable_sort(found.begin(), found.end(),
                     [&](const KeyValue* a, const KeyValue* b) { return less(b, a); });
  } else if (request.sort_order() == RangeRequest::ASCEND || request.sort_target() != 0) {
    std::stable_sort(found.begin(), found.end(), less);
  }
}

template <class Number>
bool Relates(Compare::CompareResult relation, const Number& have, const Number& asked) {
  switch (relation) {
    case Compare::GREATER:
      return have > asked;
    case Compare::LESS:
      return have < asked;
    case Compare::NOT_EQUAL:
      return have != asked;
    default:
      return have == asked;
  }
}

// No key is put twice by one transaction, and no level has too many operations.
grpc::Status CheckOps(const google::protobuf::RepeatedPtrField<RequestOp>& ops) {
  if (ops.size() > kTxnOpsMax) return Invalid("etcdserver: too many operations in txn request");
  std::set<std::string_view> put;
  for (const RequestOp& op : ops) {
    if (!op.has_request_put()) continue;
    if (op.request_put().key().empty()) return NoKey();
    if (!put.insert(op.request_put().key()).second) {
      return Invalid("etcdserver: duplicate key given in txn request");
    }
  }
  return grpc::Status::OK;
}

}  // namespace

bool Covers(std::string_view key, std::string_view range_end, std::string_view candidate) {
  if (range_end.empty()) return candidate == key;
  return candidate >= key && (range_end == kNoEnd || candidate < range_end);
}

size_t FakeData::FirstEvent(int64_t revision) const {
  const auto it = std::lower_bound(
      events_.begin(), events_.end(), revision,
      [](const mvccpb::Event& event, int64_t r) { return event.kv().mod_revision() < r; });
  return static_cast<size_t>(it - events_.begin());
}

const KeyValue* FakeData::Find(const Versions& versions, int64_t revision) {
  const auto behind = std::upper_bound(
      versions.begin(), versions.end(), revision,
      [](int64_t r, const Version& version) { return r < version.kv.mod_revision(); });
  if (behind == versions.begin() || (behind - 1)->deleted) return nullptr;
  return &(behind - 1)->kv;
}

const KeyValue* FakeData::Find(const std::string& key) const {
  const auto it = records_.find(key);
  return it == records_.end() ? nullptr : Find(it->second, kNewest);
}

grpc::Status FakeData::Range(const RangeRequest& request, const View& view,
                             RangeResponse* response) const {
  if (request.key().empty()) return NoKey();
  if (request.revision() > view.revision) return Future();
  if (request.revision() > 0 && request.revision() < view.compacted) return Compacted();
  const int64_t at = request.revision() > 0 ? request.revision() : view.revision;
  std::vector<const KeyValue*> found;
  for (auto it = records_.lower_bound(request.key()); it != records_.end(); ++it) {
    if (!Covers(request.key(), request.range_end(), it->first)) break;
    const KeyValue* kv = Find(it->second, at);
    if (kv != nullptr) found.push_back(kv);
  }
  response->set_count(static_cast<int64_t>(found.size()));
  if (request.count_only()) return grpc::Status::OK;
  std::erase_if(found, [&](const KeyValue* kv) { return !PassesFilters(request, *kv); });
  Sort(request, found);
  if (request.limit() > 0 && found.size() > static_cast<size_t>(request.limit())) {
    found.resize(static_cast<size_t>(request.limit()));
    response->set_more(true);
  }
  for (const KeyValue* kv : found) {
    KeyValue* out = response->add_kvs();
    *out = *kv;
    if (request.keys_only()) out->clear_value();
  }
  return grpc::Status::OK;
}

grpc::Status FakeData::Put(const PutRequest& request, PutResponse* response) {
  if (request.key().empty()) return NoKey();
  if ((request.ignore_value() || request.ignore_lease()) && Find(request.key()) == nullptr) {
    return Invalid("etcdserver: key not found");
  }
  DoPut(request, response);
  EndWrite();
  return grpc::Status::OK;
}

grpc::Status FakeData::DeleteRange(const DeleteRangeRequest& request,
                                   DeleteRangeResponse* response) {
  if (request.key().empty()) return NoKey();
  DoDelete(request, response);
  EndWrite();
  return grpc::Status::OK;
}

grpc::Status FakeData::Txn(const TxnRequest& request, TxnResponse* response) {
  for (const auto* ops : {&request.success(), &request.failure()}) {
    if (grpc::Status status = CheckOps(*ops); !status.ok()) return status;
  }
  grpc::Status status = DoTxn(request, response);
  EndWrite();
  return status;
}

void FakeData::PutAll(const std::vector<std::pair<std::string, std::string>>& records) {
  for (const auto& [key, value] : records) {
    CHECK(!key.empty());
    PutRequest request;
    request.set_key(key);
    request.set_value(value);
    PutResponse response;
    DoPut(request, &response);
  }
  EndWrite();
}

grpc::Status FakeData::Compact(int64_t revision) {
  if (revision <= compacted_) return Compacted();
  if (revision > revision_) return Future();
  compacted_ = revision;
  return grpc::Status::OK;
}

void FakeData::RestoreTo(int64_t revision) {
  CHECK(revision >= 1 && revision <= revision_);
  for (auto it = records_.begin(); it != records_.end();) {
    std::erase_if(it->second, [revision](const Version& version) {
      return version.kv.mod_revision() > revision;
    });
    it = it->second.empty() ? records_.erase(it) : std::next(it);
  }
  events_.resize(FirstEvent(revision + 1));
  revision_ = revision;
  compacted_ = std::min(compacted_, revision);
}

std::vector<KeyValue> FakeData::Records(std::string_view prefix, int64_t revision) const {
  std::vector<KeyValue> records;
  for (auto it = records_.lower_bound(prefix); it != records_.end(); ++it) {
    if (!std::string_view(it->first).starts_with(prefix)) break;
    if (const KeyValue* kv = Find(it->second, revision); kv != nullptr) records.push_back(*kv);
  }
  return records;
}

void FakeData::DoPut(const PutRequest& request, PutResponse* response) {
  const KeyValue* const found = Find(request.key());
  const bool there = found != nullptr;
  const KeyValue before = there ? *found : KeyValue();
  Version version;
  version.kv.set_key(request.key());
  version.kv.set_value(request.ignore_value() ? before.value() : request.value());
  version.kv.set_lease(request.ignore_lease() ? before.lease() : request.lease());
  version.kv.set_mod_revision(revision_ + 1);
  version.kv.set_create_revision(there ? before.create_revision() : revision_ + 1);
  version.kv.set_version(before.version() + 1);
  if (request.prev_kv() && there) *response->mutable_prev_kv() = before;
  Append(std::move(version), there ? &before : nullptr);
}

void FakeData::DoDelete(const DeleteRangeRequest& request, DeleteRangeResponse* response) {
  std::vector<KeyValue> gone;
  for (auto it = records_.lower_bound(request.key()); it != records_.end(); ++it) {
    if (!Covers(request.key(), request.range_end(), it->first)) break;
    if (const KeyValue* kv = Find(it->second, kNewest); kv != nullptr) gone.push_back(*kv);
  }
  response->set_deleted(static_cast<int64_t>(gone.size()));
  for (const KeyValue& kv : gone) {
    if (request.prev_kv()) *response->add_prev_kvs() = kv;
    Version version;
    version.deleted = true;
    version.kv.set_key(kv.key());
    version.kv.set_mod_revision(revision_ + 1);
    Append(std::move(version), &kv);
  }
}

grpc::Status FakeData::DoTxn(const TxnRequest& request, TxnResponse* response) {
  const bool holds =
      std::all_of(request.compare().begin(), request.compare().end(),
                  [this](const etcdserverpb::Compare& compare) { return Holds(compare); });
  response->set_succeeded(holds);
  for (const RequestOp& op : holds ? request.success() : request.failure()) {
    etcdserverpb::ResponseOp* const out = response->add_responses();
    if (op.has_request_put()) DoPut(op.request_put(), out->mutable_response_put());
    if (op.has_request_delete_range()) {
      DoDelete(op.request_delete_range(), out->mutable_response_delete_range());
    }
    if (op.has_request_txn()) {
      grpc::Status status = DoTxn(op.request_txn(), out->mutable_response_txn());
      if (!status.ok()) return status;
    }
    if (!op.has_request_range()) continue;
    // Reads see what the transaction has written before them.
    const View view = {revision_ + (changed_ ? 1 : 0), compacted_};
    grpc::Status status = Range(op.request_range(), view, out->mutable_response_range());
    if (!status.ok()) return status;
  }
  return grpc::Status::OK;
}

bool FakeData::Holds(const etcdserverpb::Compare& compare) const {
  if (compare.range_end().empty()) {
    const KeyValue* const kv = Find(compare.key());
    // What is not there has no value to compare, and 0 in every number.
    if (kv == nullptr) return compare.target() != Compare::VALUE && Holds(compare, KeyValue());
    return Holds(compare, *kv);
  }
  for (auto it = records_.lower_bound(compare.key()); it != records_.end(); ++it) {
    if (!Covers(compare.key(), compare.range_end(), it->first)) break;
    const KeyValue* const kv = Find(it->second, kNewest);
    if (kv != nullptr && !Holds(compare, *kv)) return false;
  }
  return true;
}

bool FakeData::Holds(const etcdserverpb::Compare& compare, const KeyValue& kv) {
  switch (compare.target()) {
    case Compare::VERSION:
      return Relates(compare.result(), kv.version(), compare.version());
    case Compare::CREATE:
      return Relates(compare.result(), kv.create_revision(), compare.create_revision());
    case Compare::MOD:
      return Relates(compare.result(), kv.mod_revision(), compare.mod_revision());
    case Compare::LEASE:
      return Relates(compare.result(), kv.lease(), compare.lease());
    default:
      return Relates(compare.result(), kv.value(), compare.value());
  }
}

void FakeData::Append(Version version, const KeyValue* previous) {
  mvccpb::Event event;
  event.set_type(version.deleted ? mvccpb::Event::DELETE : mvccpb::Event::PUT);
  *event.mutable_kv() = version.kv;
  if (previous != nullptr) *event.mutable_prev_kv() = *previous;
  events_.push_back(std::move(event));
  records_[version.kv.key()].push_back(std::move(version));
  changed_ = true;
}

void FakeData::EndWrite() {
  if (std::exchange(changed_, false)) ++revision_;
}

}  // namespace holdfast::testing::internal
