#include "server/kv_reads.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "server/apply_command.h"
#include "server/kv_codec.h"
#include "server/read_terms.h"
#include "storage/damage.h"

namespace holdfast::server {

using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

bool IsScan(const RangeRequest& request) { return !request.range_end().empty(); }

bool IsScan(const TxnRequest& request) {
  const auto scans = [](const auto& ops) {
    return std::any_of(ops.begin(), ops.end(), [](const etcdserverpb::RequestOp& op) {
      return op.has_request_txn() ? IsScan(op.request_txn()) : IsScan(op.request_range());
    });
  };
  const auto ranged = [](const etcdserverpb::Compare& c) { return !c.range_end().empty(); };
  return scans(request.success()) || scans(request.failure()) ||
         std::any_of(request.compare().begin(), request.compare().end(), ranged);
}

bool IsPlainGet(const RangeRequest& request) {
  return request.range_end().empty() && request.limit() <= 0 && request.revision() == 0 &&
         request.sort_order() == RangeRequest::NONE && request.sort_target() == RangeRequest::KEY &&
         !request.keys_only() && !request.count_only() && request.min_mod_revision() == 0 &&
         request.max_mod_revision() == 0 && request.min_create_revision() == 0 &&
         request.max_create_revision() == 0;
}

KvReads::KvReads(const Options& options, const raft::RaftNode* node, const KvStateMachine* machine,
                 const Admission* admission)
    : options_(options),
      node_(node),
      machine_(machine),
      admission_(admission),
      answers_(options.max_answers_bytes),
      scans_(options.scan_threads, options.max_waiting_scans) {}

absl::Status KvReads::Evaluate(const RangeRequest& request, int64_t min_revision,
                               AnswerBudget::Reservation* reservation, RangeResponse* response) {
  return EvaluateOne(request, min_revision, reservation, response);
}

absl::Status KvReads::Evaluate(const TxnRequest& request, int64_t min_revision,
                               AnswerBudget::Reservation* reservation, TxnResponse* response) {
  return EvaluateOne(request, min_revision, reservation, response);
}

template <class Request, class Response>
absl::Status KvReads::EvaluateOne(const Request& request, int64_t min_revision,
                                  AnswerBudget::Reservation* reservation, Response* response) {
  const std::shared_ptr<storage::MvccStore> store = machine_->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  const int64_t revision = view->applied().revision;
  if (revision < min_revision) return Behind(revision, min_revision);
  if (absl::Status status = admission_->CheckTrust(); !status.ok()) return status;
  std::function<bool(size_t)> take;
  if (reservation != nullptr) {
    take = [reservation](size_t bytes) { return reservation->Grow(bytes); };
  }
  const absl::Status status = ReadOn(*view, request, take, response);
  StopIfDamaged(status);
  if (!status.ok() && reservation != nullptr && reservation->refused()) {
    return absl::ResourceExhaustedError(
        fmt::format("holdfast: large answers under way take the {} bytes that there are for them: "
                    "try again, or page through the range with limit",
                    options_.max_answers_bytes));
  }
  if (!status.ok()) return status;
  response->mutable_header()->set_revision(revision);
  FillHeader(response->mutable_header());
  return absl::OkStatus();
}

void KvReads::GetMany(absl::Span<const Get> gets, Answer answer) {
  const std::shared_ptr<storage::MvccStore> store = machine_->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  const int64_t revision = view->applied().revision;
  const absl::Status trusted = admission_->CheckTrust();
  std::vector<std::string_view> keys;
  std::vector<size_t> index;  // in `gets`, of each key
  keys.reserve(gets.size());
  index.reserve(gets.size());
  for (size_t i = 0; i < gets.size(); ++i) {
    absl::Status refused = trusted;
    if (revision < gets[i].min_revision) refused = Behind(revision, gets[i].min_revision);
    if (refused.ok()) {
      keys.push_back(gets[i].key);
      index.push_back(i);
    } else if (!answer(i, refused, nullptr, revision)) {
      return;
    }
  }
  std::vector<bool> answered(keys.size());
  const absl::Status status = view->GetMany(keys, [&](size_t i, const storage::KeyValueView* kv) {
    answered[i] = true;
    return answer(index[i], absl::OkStatus(), kv, revision);
  });
  if (status.ok()) return;
  StopIfDamaged(status);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!answered[i] && !answer(index[i], status, nullptr, revision)) return;
  }
}

absl::Status KvReads::ReadOn(const storage::MvccStore::View& view, const RangeRequest& request,
                             const std::function<bool(size_t)>& take,
                             RangeResponse* response) const {
  storage::RangeOptions range = ToRangeOptions(request, options_.max_answer_bytes);
  range.take = take;
  storage::RangeResult result;
  if (absl::Status status = view.Range(range, &result); !status.ok()) {
    return ReadErrorForClient(status, options_.max_answer_bytes);
  }
  FillRangeResponse(std::move(result), response);
  return absl::OkStatus();
}

absl::Status KvReads::ReadOn(const storage::MvccStore::View& view, const TxnRequest& request,
                             const std::function<bool(size_t)>& take, TxnResponse* response) const {
  return EvaluateReadOnly(request, view, options_.max_answer_bytes, take, response);
}

void KvReads::FillHeader(etcdserverpb::ResponseHeader* header) const {
  header->set_cluster_id(options_.cluster_id);
  header->set_member_id(options_.member_id);
  header->set_raft_term(node_->status().term.value);
}

void KvReads::StopIfDamaged(const absl::Status& status) const {
  if (options_.on_fatal && storage::DamageOf(status).has_value()) options_.on_fatal(status);
}

}  // namespace holdfast::server
