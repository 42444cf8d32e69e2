#include "server/observation.h"

#include <utility>

#include "server/queue_wait.h"

namespace holdfast::server {

using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchResponse;

std::shared_ptr<Observation> Observation::Start(const std::shared_ptr<WaitingCalls>& calls,
                                                CallerTerms terms, const std::string& name,
                                                OnLeader on_leader, OnEnd on_end) {
  auto observation = std::make_shared<Observation>(calls, std::move(terms), name,
                                                   std::move(on_leader), std::move(on_end));
  const absl::Status admitted = calls->Admit(observation);
  observation->Post([self = observation.get(), admitted] {
    if (self->ended_) return;  // stopped meanwhile
    if (!admitted.ok()) return self->End(admitted);
    self->Look();
  });
  return observation;
}

Observation::Observation(std::shared_ptr<WaitingCalls> calls, CallerTerms terms,
                         const std::string& name, OnLeader on_leader, OnEnd on_end)
    : WaitingCall(std::move(calls)),
      terms_(std::move(terms)),
      prefix_(name + "/"),
      on_leader_(std::move(on_leader)),
      on_end_(std::move(on_end)),
      pause_(this->calls().limits().give_up_after) {}

void Observation::OnStop(const absl::Status& why) { End(why); }

void Observation::Look() {
  RangeRequest request;
  SetPrefix(prefix_, &request);
  request.set_sort_target(RangeRequest::CREATE);
  request.set_sort_order(RangeRequest::ASCEND);
  request.set_limit(1);
  look_ = client().Range(
      terms_, request,
      [this, keep = shared_from_this()](const absl::Status& status, RangeResponse* answer) {
        keep->Post([this, status, answer = std::move(*answer)] { OnLook(status, answer); });
      });
}

void Observation::OnLook(const absl::Status& status, const RangeResponse& answer) {
  if (ended_) return;
  look_.reset();
  if (!status.ok()) return Retry(status);
  from_ = answer.header().revision() + 1;
  then_ = Then::kWatch;
  if (answer.kvs().empty()) {
    leader_key_.clear();
  } else {
    leader_key_ = answer.kvs(0).key();
    Add(answer.header(), answer.kvs(0));
  }
  Proceed();
}

// The leader's key; while nobody leads, all keys, for the first one to come.
void Observation::Watch() {
  WatchCreateRequest request;
  request.set_start_revision(from_);
  if (leader_key_.empty()) {
    request.set_key(prefix_);
    request.set_range_end(PrefixEnd(prefix_));
    request.add_filters(WatchCreateRequest::NODELETE);
  } else {
    request.set_key(leader_key_);
  }
  const uint64_t number = ++watch_number_;
  watching_since_ = RetryPause::Clock::now();
  const std::shared_ptr<WaitingCall> keep = shared_from_this();
  watch_ = InnerWatch::Start(
      client(), terms_, {std::move(request)},
      [this, keep, number](WatchResponse response) {
        keep->Post([this, number, response = std::move(response)] {
          if (!ended_ && number == watch_number_) OnWatch(response);
        });
      },
      [this, keep, number](const absl::Status& status) {
        keep->Post([this, number, status] {
          if (ended_ || number != watch_number_) return;
          watch_.reset();
          // See QueueWait.
          if (RetryPause::Clock::now() - watching_since_ > RetryPause::kPauseMax) {
            pause_.Succeeded();
          }
          then_ = Then::kWatch;
          Retry(status);
        });
      });
}

void Observation::OnWatch(const WatchResponse& response) {
  if (!response.canceled()) pause_.Progress();
  if (response.canceled() && response.compact_revision() == 0) {
    return End(CancelStatus(response));
  }
  then_ = response.canceled() ? Then::kLook : Then::kReadOn;
  TakeEvents(response);
  if (then_ != Then::kReadOn) CloseWatch();
  Proceed();
}

void Observation::TakeEvents(const WatchResponse& response) {
  for (const mvccpb::Event& event : response.events()) {
    from_ = event.kv().mod_revision() + 1;
    if (event.type() == mvccpb::Event::DELETE) {
      // Whoever is the oldest now is not to be known from the rest of these events.
      then_ = Then::kLook;
      return;
    }
    if (!leader_key_.empty()) {
      Add(response.header(), event.kv());
      continue;
    }
    // The first to come leads. The header may be of a later revision than this key's.
    etcdserverpb::ResponseHeader header = response.header();
    header.set_revision(event.kv().mod_revision());
    leader_key_ = event.kv().key();
    Add(header, event.kv());
    then_ = Then::kWatch;
    return;
  }
}

void Observation::CloseWatch() {
  ++watch_number_;
  if (watch_ != nullptr) watch_->Cancel();
  watch_.reset();
}

void Observation::Add(const etcdserverpb::ResponseHeader& header, const mvccpb::KeyValue& kv) {
  // A look after a lost watch may find what was told already.
  if (kv.key() == told_key_ && kv.mod_revision() == told_mod_revision_) return;
  told_key_ = kv.key();
  told_mod_revision_ = kv.mod_revision();
  v3electionpb::LeaderResponse& leader = to_tell_.emplace_back();
  *leader.mutable_header() = header;
  *leader.mutable_kv() = kv;
}

void Observation::Proceed() {
  if (ended_ || telling_ || pausing_) return;
  if (!to_tell_.empty()) {
    telling_ = true;
    on_leader_(&to_tell_.front());
    return;
  }
  switch (then_) {
    case Then::kLook:
      return Look();
    case Then::kWatch:
      return Watch();
    case Then::kReadOn:
      return watch_->Next();
  }
}

void Observation::Told(bool ok) {
  Post([this, ok] {
    telling_ = false;
    to_tell_.pop_front();
    if (end_.has_value()) return std::exchange(on_end_, nullptr)(*end_);
    if (!ok) return End(absl::CancelledError("nobody observes any more"));
    Proceed();
  });
}

void Observation::Retry(const absl::Status& status) {
  const auto pause = RetryPause::WorthRetrying(status, terms_.wants_leader())
                         ? pause_.Next(RetryPause::Clock::now())
                         : std::nullopt;
  if (!pause.has_value()) return End(status);
  pausing_ = true;
  retry_.Set(*pause, [this, keep = shared_from_this()] {
    keep->Post([this] {
      pausing_ = false;
      Proceed();
    });
  });
}

void Observation::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  if (look_ != nullptr) look_->TryCancel();
  CloseWatch();
  retry_.Cancel();
  if (telling_) {
    end_ = status;
  } else {
    std::exchange(on_end_, nullptr)(status);
  }
}

}  // namespace holdfast::server
