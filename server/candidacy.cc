#include "server/candidacy.h"

#include <fmt/format.h>

#include <utility>

#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

void AddCompareCreate(const std::string& key, int64_t revision, TxnRequest* request) {
  Compare* compare = request->add_compare();
  compare->set_key(key);
  compare->set_target(Compare::CREATE);
  compare->set_result(Compare::EQUAL);
  compare->set_create_revision(revision);
}

void FillOldest(const std::string& prefix, RangeRequest* range) {
  SetPrefix(prefix, range);
  range->set_sort_target(RangeRequest::CREATE);
  range->set_sort_order(RangeRequest::ASCEND);
  range->set_limit(1);
  range->set_keys_only(true);
}

}  // namespace

std::shared_ptr<Candidacy> Candidacy::Start(const std::shared_ptr<WaitingCalls>& calls,
                                            Options options, OnEnd on_end) {
  auto candidacy = std::make_shared<Candidacy>(calls, std::move(options), std::move(on_end));
  const absl::Status admitted = calls->Admit(candidacy);
  candidacy->Post([self = candidacy.get(), admitted] {
    if (self->answered_) return;  // stopped meanwhile
    if (!admitted.ok()) return self->Answer(admitted);
    if (self->won_.lease == 0) return self->Grant();
    self->Enter();
  });
  return candidacy;
}

Candidacy::Candidacy(std::shared_ptr<WaitingCalls> calls, Options options, OnEnd on_end)
    : WaitingCall(std::move(calls)),
      options_(std::move(options)),
      prefix_(options_.name + "/"),
      on_end_(std::move(on_end)),
      pause_(this->calls().limits().give_up_after) {
  won_.lease = options_.lease;
}

template <class Response>
InnerClient::Done<Response> Candidacy::OnStrand(
    std::function<void(const absl::Status&, const Response&)> step) {
  return [step = std::move(step), keep = shared_from_this()](const absl::Status& status,
                                                             Response* answer) {
    keep->Post([step, status, answer = std::move(*answer)] { step(status, answer); });
  };
}

void Candidacy::Abandon() {
  Post([this] {
    // A holder that asked once more, and went, has what it had before.
    if (created_ || waited_ || own_lease_) TidyUp();
  });
}

void Candidacy::OnStop(const absl::Status& why) {
  stopped_ = stopped_ || why == ErrStopped();
  if (!answered_) Answer(why);
}

void Candidacy::Grant() {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(kSessionTtlSeconds);
  calling_ = true;
  client().Grant(options_.terms, request,
                 OnStrand<etcdserverpb::LeaseGrantResponse>(
                     [this](const absl::Status& status, const auto& answer) {
                       calling_ = false;
                       own_lease_ = status.ok();
                       won_.lease = answer.id();
                       if (answered_) return TidyUp();
                       if (!status.ok()) return Answer(status);
                       KeepAliveAfter(kKeepAliveEvery);
                       Enter();
                     }));
}

void Candidacy::KeepAliveAfter(std::chrono::milliseconds pause) {
  keep_alive_.Set(pause, [this, keep = shared_from_this()] {
    keep->Post([this] {
      if (answered_) return;
      // A lease that is gone takes the key along, which the wait notices.
      client().KeepAliveOnce(options_.terms, won_.lease,
                             OnStrand<etcdserverpb::LeaseKeepAliveResponse>(
                                 [this](const absl::Status& status, const auto&) {
                                   if (answered_) return;
                                   KeepAliveAfter(status.ok() ? kKeepAliveEvery : kKeepAliveRetry);
                                 }));
    });
  });
}

void Candidacy::Enter() {
  won_.key = fmt::format("{}{:x}", prefix_, won_.lease);
  TxnRequest request;
  AddCompareCreate(won_.key, 0, &request);
  etcdserverpb::PutRequest* put = request.add_success()->mutable_request_put();
  put->set_key(won_.key);
  put->set_value(options_.value);
  put->set_lease(won_.lease);
  FillOldest(prefix_, request.add_success()->mutable_request_range());
  request.add_failure()->mutable_request_range()->set_key(won_.key);
  FillOldest(prefix_, request.add_failure()->mutable_request_range());
  // Not under the caller's deadline: only its answer tells what there is to tidy up.
  CallerTerms terms = options_.terms;
  terms.deadline = CallerTerms().deadline;
  calling_ = true;
  client().Txn(terms, request,
               OnStrand<TxnResponse>([this](const absl::Status& status, const auto& answer) {
                 calling_ = false;
                 OnEntered(status, answer);
               }));
}

void Candidacy::OnEntered(const absl::Status& status, const TxnResponse& answer) {
  const bool malformed =
      status.ok() && (answer.responses_size() != 2 ||
                      (!answer.succeeded() && answer.responses(0).response_range().kvs().empty()));
  if (!status.ok() || malformed) {
    if (answered_) return TidyUp();
    return Answer(malformed ? absl::InternalError("a malformed answer") : status);
  }
  created_ = answer.succeeded();
  won_.entered = answer.header();
  won_.header = answer.header();
  won_.revision = created_ ? answer.header().revision()
                           : answer.responses(0).response_range().kvs(0).create_revision();
  if (answered_) return TidyUp();
  const auto& oldest = answer.responses(1).response_range().kvs();
  is_oldest_ = !oldest.empty() && oldest[0].create_revision() == won_.revision;
  const bool other_value =
      !created_ && answer.responses(0).response_range().kvs(0).value() != options_.value;
  if (options_.announces && other_value) return Announce();
  if (is_oldest_) return Answer(absl::OkStatus());
  Wait();
}

void Candidacy::Announce() {
  TxnRequest request;
  AddCompareCreate(won_.key, won_.revision, &request);
  etcdserverpb::PutRequest* put = request.add_success()->mutable_request_put();
  put->set_key(won_.key);
  put->set_value(options_.value);
  put->set_lease(won_.lease);
  calling_ = true;
  client().Txn(options_.terms, request,
               OnStrand<TxnResponse>([this](const absl::Status& status, const auto& answer) {
                 calling_ = false;
                 OnAnnounced(status, answer.succeeded());
               }));
}

void Candidacy::OnAnnounced(const absl::Status& status, bool succeeded) {
  if (answered_) return TidyUp();
  if (!status.ok()) return Answer(status);
  if (!succeeded) {
    gone_ = true;
    return Answer(ErrElectionNotLeader());
  }
  if (is_oldest_) return Answer(absl::OkStatus());
  Wait();
}

void Candidacy::Wait() {
  waited_ = true;
  wait_.emplace(this, options_.terms,
                QueueWait::Place{.prefix = prefix_, .key = won_.key, .revision = won_.revision},
                [this](const absl::Status& status, const etcdserverpb::ResponseHeader& header) {
                  gone_ = absl::IsNotFound(status);
                  if (status.ok()) won_.header = header;
                  Answer(gone_ ? options_.expired : status);
                });
  wait_->Start();
}

void Candidacy::Answer(const absl::Status& status) {
  answered_ = true;
  keep_alive_.Cancel();
  if (wait_.has_value()) wait_->Cancel();
  // What it refers to may go with the answer.
  const OnEnd on_end = std::exchange(on_end_, nullptr);
  on_end(status, won_);
  if (!status.ok() && !calling_) TidyUp();
}

void Candidacy::TidyUp() {
  const auto tidied = [this](const absl::Status& status, const auto&) { OnTidied(status); };
  if (own_lease_) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(won_.lease);
    client().Revoke(options_.terms.Detached(), request,
                    OnStrand<etcdserverpb::LeaseRevokeResponse>(tidied));
  } else if ((created_ || waited_) && !gone_) {
    TxnRequest request;
    AddCompareCreate(won_.key, won_.revision, &request);
    request.add_success()->mutable_request_delete_range()->set_key(won_.key);
    client().Txn(options_.terms.Detached(), request, OnStrand<TxnResponse>(tidied));
  }
}

void Candidacy::OnTidied(const absl::Status& status) {
  if (status.ok() || stopped_ || !RetryPause::WorthRetrying(status, false)) return;
  const auto pause = pause_.Next(RetryPause::Clock::now());
  if (!pause.has_value()) return;
  retry_.Set(*pause, [this, keep = shared_from_this()] { keep->Post([this] { TidyUp(); }); });
}

}  // namespace holdfast::server
