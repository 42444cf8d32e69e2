#include "kv_model.h"

#include <algorithm>
#include <utility>

#include "server/etcd_errors.h"

namespace holdfast::server::testing {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using mvccpb::KeyValue;

bool InRange(const std::string& key, const std::string& begin, const std::string& end) {
  if (end.empty()) return key == begin;
  if (end == std::string(1, '\0')) return key >= begin;
  return key >= begin && key < end;
}

bool SortsBefore(const RangeRequest& request, const KeyValue& a, const KeyValue& b) {
  const bool down = request.sort_order() == RangeRequest::DESCEND;
  const auto by = [&](const auto& x, const auto& y) -> std::optional<bool> {
    if (x == y) return std::nullopt;
    return (x < y) != down;
  };
  std::optional<bool> before;
  switch (request.sort_target()) {
    case RangeRequest::VERSION:
      before = by(a.version(), b.version());
      break;
    case RangeRequest::CREATE:
      before = by(a.create_revision(), b.create_revision());
      break;
    case RangeRequest::MOD:
      before = by(a.mod_revision(), b.mod_revision());
      break;
    case RangeRequest::VALUE:
      before = by(a.value(), b.value());
      break;
    default:
      before = by(a.key(), b.key());
  }
  return before.value_or(a.key() < b.key());
}

}  // namespace

// The keys are found by their records' lease fields: the twin knows no attachments.
bool Model::Revoke(int64_t id) {
  if (leases_.erase(id) == 0) return false;
  State state = states_.back();
  if (std::erase_if(state, [id](const auto& entry) { return entry.second.lease() == id; }) > 0) {
    states_.push_back(std::move(state));
  }
  return true;
}

Model::Outcome Model::ApplyLease(const command::v1::Command& command) {
  Outcome outcome;
  if (command.has_lease_grant()) {
    const auto& grant = command.lease_grant();
    if (!leases_.emplace(grant.id(), grant.ttl_s()).second) return {ErrLeaseExist(), nullptr};
    auto response = std::make_unique<etcdserverpb::LeaseGrantResponse>();
    response->mutable_header()->set_revision(revision());
    response->set_id(grant.id());
    response->set_ttl(grant.ttl_s());
    outcome.response = std::move(response);
  } else if (command.has_lease_revoke()) {
    if (!Revoke(command.lease_revoke().id())) return {ErrLeaseNotFound(), nullptr};
    auto response = std::make_unique<etcdserverpb::LeaseRevokeResponse>();
    response->mutable_header()->set_revision(revision());
    outcome.response = std::move(response);
  } else if (command.lease_expiry().term() == 1) {  // the tests' entries are of term 1
    for (const int64_t id : command.lease_expiry().ids()) Revoke(id);
  }
  return outcome;
}

Model::Outcome Model::Apply(const command::v1::Command& command) {
  if (command.has_lease_grant() || command.has_lease_revoke() || command.has_lease_expiry()) {
    return ApplyLease(command);
  }
  Work work{states_.back(), false};
  Outcome outcome;
  etcdserverpb::ResponseHeader* header = nullptr;
  if (command.has_put()) {
    auto response = std::make_unique<etcdserverpb::PutResponse>();
    outcome.status = Put(command.put(), &work, response.get());
    header = response->mutable_header();
    outcome.response = std::move(response);
  } else if (command.has_delete_range()) {
    auto response = std::make_unique<etcdserverpb::DeleteRangeResponse>();
    outcome.status = Delete(command.delete_range(), &work, response.get());
    header = response->mutable_header();
    outcome.response = std::move(response);
  } else if (command.has_txn()) {
    auto response = std::make_unique<etcdserverpb::TxnResponse>();
    Choices choices;
    Choose(command.txn(), &choices);
    outcome.status = Txn(command.txn(), choices, &work, response.get());
    header = response->mutable_header();
    outcome.response = std::move(response);
  } else {
    auto response = std::make_unique<etcdserverpb::CompactionResponse>();
    const int64_t to = command.compaction().revision();
    if (to <= compact_revision_) {
      outcome.status = ErrCompacted();
    } else if (to > revision()) {
      outcome.status = ErrFutureRev();
    } else {
      compact_revision_ = to;
    }
    header = response->mutable_header();
    outcome.response = std::move(response);
  }
  if (!outcome.status.ok()) return outcome;
  if (work.wrote) states_.push_back(std::move(work.state));
  header->set_revision(revision());
  return outcome;
}

void Model::Choose(const etcdserverpb::TxnRequest& txn, Choices* choices) const {
  (*choices)[&txn] = std::all_of(txn.compare().begin(), txn.compare().end(),
                                 [this](const Compare& compare) { return Holds(compare); });
  for (const auto* branch : {&txn.success(), &txn.failure()}) {
    for (const auto& op : *branch) {
      if (op.has_request_txn()) Choose(op.request_txn(), choices);
    }
  }
}

bool Model::Holds(const Compare& compare) const {
  const auto one = [&compare](const KeyValue& kv) {
    int order = 0;
    const auto set = [&order](const auto& x, const auto& y) { order = x < y ? -1 : x > y ? 1 : 0; };
    if (compare.target() == Compare::VERSION) set(kv.version(), compare.version());
    if (compare.target() == Compare::CREATE) set(kv.create_revision(), compare.create_revision());
    if (compare.target() == Compare::MOD) set(kv.mod_revision(), compare.mod_revision());
    if (compare.target() == Compare::VALUE) set(kv.value(), compare.value());
    if (compare.target() == Compare::LEASE) set(kv.lease(), compare.lease());
    if (compare.result() == Compare::EQUAL) return order == 0;
    if (compare.result() == Compare::NOT_EQUAL) return order != 0;
    return compare.result() == Compare::LESS ? order < 0 : order > 0;
  };
  bool any = false;
  for (const auto& [key, kv] : states_.back()) {
    if (!InRange(key, compare.key(), compare.range_end())) continue;
    any = true;
    if (!one(kv)) return false;
  }
  return any || (compare.target() != Compare::VALUE && one(KeyValue()));
}

absl::Status Model::Txn(const etcdserverpb::TxnRequest& txn, const Choices& choices, Work* work,
                        etcdserverpb::TxnResponse* response) const {
  const bool success = choices.at(&txn);
  response->set_succeeded(success);
  for (const auto& op : success ? txn.success() : txn.failure()) {
    auto* out = response->add_responses();
    absl::Status status;
    if (op.has_request_put()) {
      status = Put(op.request_put(), work, out->mutable_response_put());
    } else if (op.has_request_delete_range()) {
      status = Delete(op.request_delete_range(), work, out->mutable_response_delete_range());
    } else if (op.has_request_range()) {
      status = Range(op.request_range(), *work, out->mutable_response_range());
    } else {
      out->mutable_response_txn()->mutable_header();
      status = Txn(op.request_txn(), choices, work, out->mutable_response_txn());
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Model::Put(const etcdserverpb::PutRequest& put, Work* work,
                        etcdserverpb::PutResponse* response) const {
  if (put.lease() != 0 && !leases_.contains(put.lease())) return ErrLeaseNotFound();
  const auto old = work->state.find(put.key());
  const bool there = old != work->state.end();
  if ((put.ignore_value() || put.ignore_lease()) && !there) return ErrKeyNotFound();
  KeyValue kv;
  kv.set_key(put.key());
  kv.set_value(put.ignore_value() ? old->second.value() : put.value());
  kv.set_create_revision(there ? old->second.create_revision() : revision() + 1);
  kv.set_mod_revision(revision() + 1);
  kv.set_version(there ? old->second.version() + 1 : 1);
  kv.set_lease(put.ignore_lease() ? old->second.lease() : put.lease());
  if (put.prev_kv() && there) *response->mutable_prev_kv() = old->second;
  work->state[put.key()] = kv;
  work->wrote = true;
  response->mutable_header()->set_revision(HeaderRevision(*work));
  return absl::OkStatus();
}

absl::Status Model::Delete(const etcdserverpb::DeleteRangeRequest& request, Work* work,
                           etcdserverpb::DeleteRangeResponse* response) const {
  for (auto it = work->state.begin(); it != work->state.end();) {
    if (!InRange(it->first, request.key(), request.range_end())) {
      ++it;
      continue;
    }
    if (request.prev_kv()) *response->add_prev_kvs() = it->second;
    response->set_deleted(response->deleted() + 1);
    it = work->state.erase(it);
    work->wrote = true;
  }
  response->mutable_header()->set_revision(HeaderRevision(*work));
  return absl::OkStatus();
}

absl::Status Model::Range(const RangeRequest& request, const Work& work,
                          etcdserverpb::RangeResponse* response) const {
  if (request.revision() > revision()) return ErrFutureRev();
  if (request.revision() > 0 && request.revision() < compact_revision_) return ErrCompacted();
  const State& state = request.revision() > 0 ? states_.at(request.revision()) : work.state;
  std::vector<KeyValue> kvs;
  for (const auto& [key, kv] : state) {
    if (InRange(key, request.key(), request.range_end())) kvs.push_back(kv);
  }
  response->mutable_header()->set_revision(HeaderRevision(work));
  response->set_count(static_cast<int64_t>(kvs.size()));
  if (request.count_only()) return absl::OkStatus();
  std::erase_if(kvs, [&request](const KeyValue& kv) {
    return (request.min_mod_revision() != 0 && kv.mod_revision() < request.min_mod_revision()) ||
           (request.max_mod_revision() != 0 && kv.mod_revision() > request.max_mod_revision());
  });
  std::sort(kvs.begin(), kvs.end(), [&request](const KeyValue& a, const KeyValue& b) {
    return SortsBefore(request, a, b);
  });
  for (KeyValue& kv : kvs) {
    if (request.limit() > 0 && response->kvs_size() == request.limit()) {
      response->set_more(true);
      break;
    }
    if (request.keys_only()) kv.clear_value();
    *response->add_kvs() = kv;
  }
  return absl::OkStatus();
}

}  // namespace holdfast::server::testing
