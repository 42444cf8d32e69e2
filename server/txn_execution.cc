#include "server/txn_execution.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"
#include "server/apply_command.h"
#include "server/etcd_errors.h"
#include "server/kv_codec.h"

namespace holdfast::server {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::PutRequest;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using storage::KeyValue;
using storage::RangeOptions;
using storage::RangeResult;

const google::protobuf::RepeatedPtrField<RequestOp>& Branch(const TxnRequest& txn, bool success) {
  return success ? txn.success() : txn.failure();
}

template <class T>
int Order(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
}

// -1, 0 or 1: how the record stands to what the compare names.
int OrderOf(const Compare& compare, const KeyValue& kv) {
  switch (compare.target()) {
    case Compare::VERSION:
      return Order(kv.version, compare.version());
    case Compare::CREATE:
      return Order(kv.create_revision, compare.create_revision());
    case Compare::MOD:
      return Order(kv.mod_revision, compare.mod_revision());
    case Compare::VALUE:
      return Order(kv.value, compare.value());
    case Compare::LEASE:
      return Order(kv.lease, compare.lease());
    default:
      return 0;
  }
}

// Unknown targets and results are refused before they are proposed (kv_validate); should an entry
// hold one all the same, it holds on every member alike.
bool HoldsFor(const Compare& compare, const KeyValue& kv) {
  const int order = OrderOf(compare, kv);
  switch (compare.result()) {
    case Compare::EQUAL:
      return order == 0;
    case Compare::NOT_EQUAL:
      return order != 0;
    case Compare::GREATER:
      return order > 0;
    case Compare::LESS:
      return order < 0;
    default:
      return false;
  }
}

bool Covers(const DeleteRangeRequest& request, std::string_view key) {
  if (request.range_end().empty()) return key == request.key();
  if (key < request.key()) return false;
  return request.range_end() == std::string_view("\0", 1) || key < request.range_end();
}

}  // namespace

absl::Status TxnExecution::Prepare(const TxnRequest& txn) {
  if (absl::Status status = ChoosePath(txn); !status.ok()) return status;
  next_ = 0;
  if (absl::Status status = CheckBranch(txn); !status.ok()) return status;
  next_ = 0;
  // Twice for a run that writes: what its own puts add to a range that was checked must not cut it.
  bytes_left_ = writer_ == nullptr ? max_bytes_ : 2 * max_bytes_;
  return absl::OkStatus();
}

absl::Status TxnExecution::ChoosePath(const TxnRequest& txn) {
  bool success = true;
  for (const Compare& compare : txn.compare()) {
    const absl::StatusOr<bool> holds = Holds(compare);
    if (!holds.ok()) return holds.status();
    success = *holds;
    if (!success) break;
  }
  path_.push_back(success);
  for (const RequestOp& op : Branch(txn, success)) {
    if (!op.has_request_txn()) continue;
    if (absl::Status status = ChoosePath(op.request_txn()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> TxnExecution::Holds(const Compare& compare) {
  std::vector<KeyValue> kvs;
  if (compare.range_end().empty()) {
    auto found = reader_.Get(compare.key());
    if (!found.ok()) return FromRead(found.status(), kMaxCompareBytes);
    if (found->has_value()) kvs.push_back(*std::move(*found));
  } else {
    RangeOptions options;
    options.key = compare.key();
    options.range_end = compare.range_end();
    options.keys_only = compare.target() != Compare::VALUE;
    options.max_bytes = kMaxCompareBytes;
    RangeResult result;
    const absl::Status status = reader_.Range(options, &result);
    if (absl::IsResourceExhausted(status)) {
      return absl::ResourceExhaustedError(
          fmt::format("holdfast: a compare looks at more than {} bytes: compare smaller ranges",
                      kMaxCompareBytes));
    }
    if (!status.ok()) return FromRead(status, kMaxCompareBytes);
    kvs = std::move(result.kvs);
  }
  if (kvs.empty()) {
    // etcd: a missing key has version, revisions and lease 0, but no value that compares to any.
    return compare.target() != Compare::VALUE && HoldsFor(compare, KeyValue());
  }
  return std::all_of(kvs.begin(), kvs.end(),
                     [&compare](const KeyValue& kv) { return HoldsFor(compare, kv); });
}

absl::Status TxnExecution::CheckBranch(const TxnRequest& txn) {
  for (const RequestOp& op : Branch(txn, path_[next_++])) {
    absl::Status status;
    switch (op.request_case()) {
      case RequestOp::kRequestRange:
        status = CheckRange(op.request_range());
        break;
      case RequestOp::kRequestPut:
        status = CheckPut(op.request_put());
        break;
      case RequestOp::kRequestDeleteRange:
        status = CheckDelete(op.request_delete_range());
        break;
      case RequestOp::kRequestTxn:
        status = CheckBranch(op.request_txn());
        break;
      case RequestOp::REQUEST_NOT_SET:
        status = ErrKeyNotFound();
        break;
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TxnExecution::CheckRange(const RangeRequest& request) {
  if (request.revision() > reader_.revision()) return ErrFutureRev();
  if (request.revision() > 0 && request.revision() < reader_.compact_revision()) {
    return ErrCompacted();
  }
  // A view has nothing to lose: its own run finds an answer too large.
  if (writer_ == nullptr || request.range_end().empty() || request.count_only()) {
    return absl::OkStatus();
  }
  RangeResult result;
  if (absl::Status status = reader_.Range(ToRangeOptions(request, bytes_left_), &result);
      !status.ok()) {
    return FromRead(status, max_bytes_);
  }
  for (const KeyValue& kv : result.kvs) bytes_left_ -= AnswerBytes(kv);
  return absl::OkStatus();
}

absl::Status TxnExecution::CheckPut(const PutRequest& put) {
  if (put.lease() != 0) {
    const absl::StatusOr<bool> exists = reader_.LeaseExists(put.lease());
    if (!exists.ok()) return FromRead(exists.status(), max_bytes_);
    if (!*exists) return ErrLeaseNotFound();
  }
  if (!put.ignore_value() && !put.ignore_lease()) return absl::OkStatus();
  const auto found = reader_.Get(put.key());
  if (!found.ok()) return FromRead(found.status(), max_bytes_);
  if (!found->has_value() || DeletedOnPath(put.key())) return ErrKeyNotFound();
  return absl::OkStatus();
}

absl::Status TxnExecution::CheckDelete(const DeleteRangeRequest& request) {
  deletes_on_path_.push_back(&request);
  if (request.range_end().empty()) return absl::OkStatus();
  RangeOptions options;
  options.key = request.key();
  options.range_end = request.range_end();
  RangeResult result;
  options.count_only = true;
  if (absl::Status status = reader_.Range(options, &result); !status.ok()) {
    return FromRead(status, max_bytes_);
  }
  const size_t bytes =
      static_cast<size_t>(result.bytes) + static_cast<size_t>(result.count) * kDeleteOverheadBytes;
  if (bytes > delete_bytes_left_) {
    return absl::ResourceExhaustedError(fmt::format(
        "holdfast: {} keys would be deleted at once, more than fits into one write of {} "
        "bytes; nothing was deleted: delete in smaller ranges",
        result.count, kMaxDeleteBytes));
  }
  delete_bytes_left_ -= bytes;
  if (!request.prev_kv()) return absl::OkStatus();
  options.count_only = false;
  options.max_bytes = bytes_left_;
  const absl::Status status = reader_.Range(options, &result);
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(
        fmt::format("holdfast: the deleted records are larger than {} bytes: delete in smaller "
                    "ranges, or without prev_kv",
                    max_bytes_));
  }
  if (!status.ok()) return FromRead(status, max_bytes_);
  for (const KeyValue& kv : result.kvs) bytes_left_ -= AnswerBytes(kv);
  return absl::OkStatus();
}

bool TxnExecution::DeletedOnPath(std::string_view key) const {
  return std::any_of(deletes_on_path_.begin(), deletes_on_path_.end(),
                     [key](const DeleteRangeRequest* request) { return Covers(*request, key); });
}

absl::Status TxnExecution::Run(const TxnRequest& txn, etcdserverpb::TxnResponse* response) {
  const bool success = path_[next_++];
  if (response != nullptr) response->set_succeeded(success);
  for (const RequestOp& op : Branch(txn, success)) {
    etcdserverpb::ResponseOp* out = response == nullptr ? nullptr : response->add_responses();
    absl::Status status;
    switch (op.request_case()) {
      case RequestOp::kRequestRange:
        // What is read changes nothing: without somebody who waits there is nothing to do.
        if (out != nullptr) status = RunRange(op.request_range(), out->mutable_response_range());
        break;
      case RequestOp::kRequestPut:
        status = RunPut(op.request_put(), out == nullptr ? nullptr : out->mutable_response_put());
        break;
      case RequestOp::kRequestDeleteRange:
        status = RunDelete(op.request_delete_range(),
                           out == nullptr ? nullptr : out->mutable_response_delete_range());
        break;
      case RequestOp::kRequestTxn:
        // As in etcd, the header of a nested answer is there and empty.
        if (out != nullptr) out->mutable_response_txn()->mutable_header();
        status = Run(op.request_txn(), out == nullptr ? nullptr : out->mutable_response_txn());
        break;
      case RequestOp::REQUEST_NOT_SET:
        CHECK(false);  // refused by CheckBranch
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TxnExecution::RunRange(const RangeRequest& request,
                                    etcdserverpb::RangeResponse* response) {
  const bool single = request.range_end().empty();
  const size_t max_bytes = single && writer_ != nullptr ? SIZE_MAX : bytes_left_;
  RangeResult result;
  absl::Status status = reader_.Range(ToRangeOptions(request, max_bytes), &result);
  if (absl::IsResourceExhausted(status) && writer_ != nullptr) {
    // Only if writes before it in this transaction moved larger records into a limited range: the
    // check on the state before had it fit. The writes stand, so the answer is cut, and says so.
    RangeOptions count = ToRangeOptions(request, max_bytes);
    count.count_only = true;
    result = RangeResult();
    status = reader_.Range(count, &result);
    result.more = true;
  }
  if (!status.ok()) return FromRead(status, max_bytes_);
  if (!single || writer_ == nullptr) {
    for (const KeyValue& kv : result.kvs) bytes_left_ -= AnswerBytes(kv);
  }
  response->mutable_header()->set_revision(HeaderRevision());
  FillRangeResponse(std::move(result), response);
  return absl::OkStatus();
}

absl::Status TxnExecution::RunPut(const PutRequest& put, etcdserverpb::PutResponse* response) {
  CHECK(writer_ != nullptr);
  std::string kept_value;
  int64_t lease = put.lease();
  if (put.ignore_value() || put.ignore_lease()) {
    auto found = reader_.Get(put.key());
    if (!found.ok()) return FromRead(found.status(), max_bytes_);
    CHECK(found->has_value());  // CheckPut saw it, and nothing on the path deletes it
    if (put.ignore_value()) kept_value = std::move((*found)->value);
    if (put.ignore_lease()) lease = (*found)->lease;
  }
  const bool want_prev = response != nullptr && put.prev_kv();
  std::optional<KeyValue> prev;
  if (absl::Status status =
          FromWrite(writer_->Put(put.key(), put.ignore_value() ? kept_value : put.value(), lease,
                                 want_prev ? &prev : nullptr));
      !status.ok()) {
    return status;
  }
  wrote_ = true;
  if (response == nullptr) return absl::OkStatus();
  response->mutable_header()->set_revision(HeaderRevision());
  if (prev.has_value()) FillKeyValue(*std::move(prev), response->mutable_prev_kv());
  return absl::OkStatus();
}

absl::Status TxnExecution::RunDelete(const DeleteRangeRequest& request,
                                     etcdserverpb::DeleteRangeResponse* response) {
  CHECK(writer_ != nullptr);
  const bool want_prev = response != nullptr && request.prev_kv();
  std::vector<KeyValue> prev;
  const absl::StatusOr<int64_t> deleted =
      writer_->DeleteRange(request.key(), request.range_end(), want_prev ? &prev : nullptr);
  if (!deleted.ok()) return FromWrite(deleted.status());
  if (*deleted > 0) wrote_ = true;
  if (response == nullptr) return absl::OkStatus();
  response->mutable_header()->set_revision(HeaderRevision());
  response->set_deleted(*deleted);
  for (KeyValue& kv : prev) FillKeyValue(std::move(kv), response->add_prev_kvs());
  return absl::OkStatus();
}

absl::Status TxnExecution::FromRead(const absl::Status& status, size_t max_bytes) {
  if (!status.ok() && !IsAnswer(status)) fatal_ = status;
  return ReadErrorForClient(status, max_bytes);
}

absl::Status TxnExecution::FromWrite(const absl::Status& status) {
  // The path was checked before: a write that fails now is the disk's, whatever its code.
  if (!status.ok()) fatal_ = status;
  return status;
}

}  // namespace holdfast::server
