#include "server/kv_validate.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using Ops = google::protobuf::RepeatedPtrField<RequestOp>;

absl::Status CheckCompare(const Compare& compare) {
  if (compare.key().empty()) return ErrEmptyKey();
  if (!Compare::CompareTarget_IsValid(compare.target())) {
    return absl::InvalidArgumentError(
        fmt::format("holdfast: unknown compare target {}: use VERSION, CREATE, MOD, VALUE or LEASE",
                    static_cast<int>(compare.target())));
  }
  if (!Compare::CompareResult_IsValid(compare.result())) {
    return absl::InvalidArgumentError(
        fmt::format("holdfast: unknown compare result {}: use EQUAL, GREATER, LESS or NOT_EQUAL",
                    static_cast<int>(compare.result())));
  }
  return absl::OkStatus();
}

absl::Status CheckTxnLevel(const TxnRequest& txn, size_t max_ops, int depth);

absl::Status CheckOp(const RequestOp& op, size_t max_ops, int depth) {
  switch (op.request_case()) {
    case RequestOp::kRequestRange:
      return CheckRange(op.request_range());
    case RequestOp::kRequestPut:
      return CheckPut(op.request_put());
    case RequestOp::kRequestDeleteRange:
      return CheckDeleteRange(op.request_delete_range());
    case RequestOp::kRequestTxn:
      return CheckTxnLevel(op.request_txn(), max_ops, depth + 1);
    case RequestOp::REQUEST_NOT_SET:
      break;
  }
  return ErrKeyNotFound();  // etcd's answer to an empty operation
}

absl::Status CheckTxnLevel(const TxnRequest& txn, size_t max_ops, int depth) {
  if (depth > kMaxTxnDepth) {
    return absl::InvalidArgumentError(fmt::format(
        "holdfast: transactions nest deeper than {}: flatten the request", kMaxTxnDepth));
  }
  const size_t ops =
      static_cast<size_t>(std::max({txn.compare_size(), txn.success_size(), txn.failure_size()}));
  if (ops > max_ops) return ErrTooManyOps();
  for (const Compare& compare : txn.compare()) {
    if (absl::Status status = CheckCompare(compare); !status.ok()) return status;
  }
  for (const Ops* branch : {&txn.success(), &txn.failure()}) {
    for (const RequestOp& op : *branch) {
      if (absl::Status status = CheckOp(op, max_ops - ops, depth); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// The keys that a list of operations writes, both branches of nested transactions together.
class WriteSet {
 public:
  // False if a key would be modified twice. etcd's rules: what a level deletes counts for the whole
  // level and everything nested in it; the two branches of one nested transaction exclude each
  // other; deletes may overlap deletes.
  bool Collect(const Ops& ops) {
    for (const RequestOp& op : ops) {
      if (op.has_request_delete_range()) AddDelete(op.request_delete_range());
    }
    for (const RequestOp& op : ops) {
      if (op.has_request_txn() && !AddNested(op.request_txn())) return false;
    }
    for (const RequestOp& op : ops) {
      if (!op.has_request_put()) continue;
      const std::string_view key = op.request_put().key();
      if (puts_.contains(key) || Deletes(key)) return false;
      puts_.insert(key);
    }
    return true;
  }

 private:
  struct Span {
    std::string_view begin;
    std::string_view end;  // empty: `begin` alone
  };

  void AddDelete(const DeleteRangeRequest& request) {
    deletes_.push_back({request.key(), request.range_end()});
  }

  // As in etcd, an end of "\0" (no end) is taken as written here: such a span is empty, and a
  // transaction may delete everything and put again. The store orders both by sub-revision.
  bool Deletes(std::string_view key) const {
    return std::any_of(deletes_.begin(), deletes_.end(), [key](const Span& span) {
      return span.end.empty() ? key == span.begin : key >= span.begin && key < span.end;
    });
  }

  bool AddNested(const TxnRequest& txn) {
    WriteSet success, failure;
    if (!success.Collect(txn.success()) || !failure.Collect(txn.failure())) return false;
    for (const WriteSet* branch : {&success, &failure}) {
      for (const std::string_view key : branch->puts_) {
        if (puts_.contains(key) || Deletes(key)) return false;
      }
    }
    for (const WriteSet* branch : {&success, &failure}) {
      puts_.insert(branch->puts_.begin(), branch->puts_.end());
      deletes_.insert(deletes_.end(), branch->deletes_.begin(), branch->deletes_.end());
    }
    return true;
  }

  std::set<std::string_view> puts_;
  std::vector<Span> deletes_;
};

}  // namespace

absl::Status CheckRange(const RangeRequest& request) {
  if (request.key().empty()) return ErrEmptyKey();
  if (!RangeRequest::SortOrder_IsValid(request.sort_order()) ||
      !RangeRequest::SortTarget_IsValid(request.sort_target())) {
    return ErrInvalidSortOption();
  }
  return absl::OkStatus();
}

absl::Status CheckPut(const etcdserverpb::PutRequest& request) {
  if (request.key().empty()) return ErrEmptyKey();
  if (request.ignore_value() && !request.value().empty()) return ErrValueProvided();
  if (request.ignore_lease() && request.lease() != 0) return ErrLeaseProvided();
  return absl::OkStatus();
}

absl::Status CheckDeleteRange(const DeleteRangeRequest& request) {
  return request.key().empty() ? ErrEmptyKey() : absl::OkStatus();
}

absl::Status CheckTxn(const TxnRequest& request, const TxnLimits& limits) {
  if (absl::Status status = CheckTxnLevel(request, limits.max_ops, /*depth=*/1); !status.ok()) {
    return status;
  }
  for (const Ops* branch : {&request.success(), &request.failure()}) {
    if (!WriteSet().Collect(*branch)) return ErrDuplicateKey();
  }
  return absl::OkStatus();
}

bool Puts(const TxnRequest& request) {
  const auto puts = [](const RequestOp& op) {
    return op.has_request_put() || (op.has_request_txn() && Puts(op.request_txn()));
  };
  return std::any_of(request.success().begin(), request.success().end(), puts) ||
         std::any_of(request.failure().begin(), request.failure().end(), puts);
}

bool IsReadOnly(const TxnRequest& request) {
  const auto reads = [](const RequestOp& op) {
    return op.has_request_range() || (op.has_request_txn() && IsReadOnly(op.request_txn()));
  };
  return std::all_of(request.success().begin(), request.success().end(), reads) &&
         std::all_of(request.failure().begin(), request.failure().end(), reads);
}

namespace {

struct RangeCounts {
  int ranges = 0;
  int serializable = 0;
};

void CountRanges(const TxnRequest& request, RangeCounts* counts) {
  for (const Ops* branch : {&request.success(), &request.failure()}) {
    for (const RequestOp& op : *branch) {
      if (op.has_request_range()) {
        ++counts->ranges;
        counts->serializable += op.request_range().serializable() ? 1 : 0;
      } else if (op.has_request_txn()) {
        CountRanges(op.request_txn(), counts);
      }
    }
  }
}

}  // namespace

bool IsSerializable(const TxnRequest& request) {
  RangeCounts counts;
  CountRanges(request, &counts);
  return counts.ranges > 0 && counts.ranges == counts.serializable;
}

}  // namespace holdfast::server
