#include "server/queue_wait.h"

#include <utility>
#include <vector>

namespace holdfast::server {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchResponse;

// If the key is as it was created: the youngest of the older ones.
TxnRequest LookRequest(const QueueWait::Place& place) {
  TxnRequest request;
  Compare* compare = request.add_compare();
  compare->set_key(place.key);
  compare->set_target(Compare::CREATE);
  compare->set_result(Compare::EQUAL);
  compare->set_create_revision(place.revision);
  RangeRequest* range = request.add_success()->mutable_request_range();
  SetPrefix(place.prefix, range);
  range->set_sort_target(RangeRequest::CREATE);
  range->set_sort_order(RangeRequest::DESCEND);
  // Never 0, which would be no bound: an empty store is at revision 1 already.
  range->set_max_create_revision(place.revision - 1);
  range->set_limit(1);
  range->set_keys_only(true);
  return request;
}

WatchCreateRequest WatchDeletionOf(const std::string& key, int64_t from) {
  WatchCreateRequest request;
  request.set_key(key);
  request.set_start_revision(from);
  request.add_filters(WatchCreateRequest::NOPUT);
  return request;
}

}  // namespace

std::string PrefixEnd(const std::string& prefix) {
  std::string end = prefix;
  ++end.back();  // '/' becomes '0'
  return end;
}

void SetPrefix(const std::string& prefix, RangeRequest* range) {
  range->set_key(prefix);
  range->set_range_end(PrefixEnd(prefix));
}

QueueWait::QueueWait(WaitingCall* owner, CallerTerms terms, Place place, OnEnd on_end)
    : owner_(owner),
      terms_(std::move(terms)),
      place_(std::move(place)),
      on_end_(std::move(on_end)),
      pause_(owner->calls().limits().give_up_after) {}

void QueueWait::Start() { Look(); }

void QueueWait::Cancel() {
  ended_ = true;
  if (look_ != nullptr) look_->TryCancel();
  CloseWatch();
  timer_.Cancel();
}

void QueueWait::Look() {
  look_ = owner_->client().Txn(
      terms_, LookRequest(place_),
      [this, keep = owner_->shared_from_this()](const absl::Status& status, TxnResponse* answer) {
        keep->Post([this, status, answer = std::move(*answer)] { OnLook(status, answer); });
      });
}

void QueueWait::OnLook(const absl::Status& status, const TxnResponse& answer) {
  if (ended_) return;
  look_.reset();
  if (!status.ok()) return Retry(status);
  if (!answer.succeeded()) return End(absl::NotFoundError("the key is gone"));
  if (answer.responses_size() != 1) return End(absl::InternalError("a malformed answer"));
  const etcdserverpb::RangeResponse& older = answer.responses(0).response_range();
  if (older.kvs().empty()) return End(absl::OkStatus(), answer.header());
  Watch(older.kvs(0).key(), answer.header().revision() + 1);
}

void QueueWait::Watch(const std::string& predecessor, int64_t from) {
  const uint64_t number = ++watch_number_;
  watching_since_ = RetryPause::Clock::now();
  const std::shared_ptr<WaitingCall> keep = owner_->shared_from_this();
  watch_ = InnerWatch::Start(
      owner_->client(), terms_,
      {WatchDeletionOf(predecessor, from), WatchDeletionOf(place_.key, from)},
      [this, keep, number](WatchResponse response) {
        keep->Post([this, number, response = std::move(response)] {
          if (!ended_ && number == watch_number_) OnWatch(response);
        });
      },
      [this, keep, number](const absl::Status& status) {
        keep->Post([this, number, status] {
          if (ended_ || number != watch_number_) return;
          watch_.reset();
          // Streams that break as soon as they stand are opened at a slow pace.
          if (RetryPause::Clock::now() - watching_since_ > RetryPause::kPauseMax) {
            pause_.Succeeded();
          }
          Retry(status);
        });
      });
}

void QueueWait::OnWatch(const WatchResponse& response) {
  if (!response.canceled()) pause_.Progress();
  if (response.canceled() && response.compact_revision() == 0) {
    return End(CancelStatus(response));
  }
  bool changed = response.canceled();
  for (const mvccpb::Event& event : response.events()) {
    if (event.type() != mvccpb::Event::DELETE) continue;
    if (event.kv().key() == place_.key) return End(absl::NotFoundError("the key is gone"));
    changed = true;
  }
  if (!changed) return watch_->Next();
  CloseWatch();
  Look();
}

void QueueWait::CloseWatch() {
  ++watch_number_;
  if (watch_ != nullptr) watch_->Cancel();
  watch_.reset();
}

void QueueWait::Retry(const absl::Status& status) {
  const auto pause = RetryPause::WorthRetrying(status, terms_.wants_leader())
                         ? pause_.Next(RetryPause::Clock::now())
                         : std::nullopt;
  if (!pause.has_value()) return End(status);
  timer_.Set(*pause, [this, keep = owner_->shared_from_this()] {
    keep->Post([this] {
      if (!ended_) Look();
    });
  });
}

void QueueWait::End(const absl::Status& status, const etcdserverpb::ResponseHeader& header) {
  Cancel();
  on_end_(status, header);
}

}  // namespace holdfast::server
