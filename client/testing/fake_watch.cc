// gRPC calls no reaction from inside StartRead, StartWrite or Finish: they are safe under the
// mutex.
#include "client/testing/fake_watch.h"

#include <mutex>
#include <utility>

namespace holdfast::testing::internal {
namespace {

using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

constexpr int64_t kNoWatch = -1;
constexpr char kCompacted[] = "etcdserver: mvcc: required revision has been compacted";

}  // namespace

WatchCall::WatchCall(Member* member, grpc::CallbackServerContext* context)
    : GatedCall(member, "Watch", context) {
  const auto& metadata = context->client_metadata();
  const auto it = metadata.find("hasleader");
  needs_leader_ = it != metadata.end() && it->second == "true";
  std::lock_guard lock(world().mutex);
  member_->watches.insert(this);
}

void WatchCall::Run() {
  std::lock_guard lock(world().mutex);
  if (ending_) return Finish(why_);
  running_ = true;
  if (needs_leader_) LoseLeader();
  if (ending_) return;
  StartSendInitialMetadata();
  StartRead(&in_);
}

void WatchCall::Refuse(const grpc::Status& status) {
  std::lock_guard lock(world().mutex);
  if (!ending_) why_ = status;
  ending_ = true;
  Finish(why_);
}

void WatchCall::LoseLeader() {
  if (!needs_leader_ || !member_->cut.has_value()) return;
  End({grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"});
}

void WatchCall::End(const grpc::Status& status) {
  if (ending_) return;
  ending_ = true;
  why_ = status;
  watches_.clear();
  queue_.clear();
  // Before the gate has let it go, Run or Refuse finishes it; while a write is in flight, its end.
  if (running_ && !writing_) Finish(why_);
  world().Happened();
}

void WatchCall::OnCancel() {
  if (OnCancelled()) return;
  std::lock_guard lock(world().mutex);
  End({grpc::StatusCode::CANCELLED, "etcdserver: watch canceled"});
}

void WatchCall::OnDone() {
  {
    std::lock_guard lock(world().mutex);
    member_->watches.erase(this);
    world().Happened();
  }
  delete this;
}

void WatchCall::OnReadDone(bool ok) {
  std::lock_guard lock(world().mutex);
  if (!ok || ending_) return;
  waiting_.push_back(std::move(in_));
  Feed();
  world().Happened();
  if (!ending_) StartRead(&in_);
}

void WatchCall::OnWriteDone(bool ok) {
  std::lock_guard lock(world().mutex);
  writing_ = false;
  if (ending_) return Finish(why_);
  if (!ok) return End(grpc::Status::CANCELLED);
  Write();
}

void WatchCall::Feed() {
  if (silent() || ending_) return;
  for (auto it = watches_.begin(); it != watches_.end();) {
    it = Feed(it->first, it->second) ? std::next(it) : watches_.erase(it);
  }
  for (const WatchRequest& request : std::exchange(waiting_, {})) Handle(request);
  Write();
}

void WatchCall::Handle(const WatchRequest& request) {
  const int64_t now = world().ViewOf(*member_).revision;
  switch (request.request_union_case()) {
    case WatchRequest::kCreateRequest:
      return Create(request.create_request());
    case WatchRequest::kCancelRequest: {
      const int64_t id = request.cancel_request().watch_id();
      if (watches_.erase(id) == 0) return;
      WatchResponse response = Response(id, now);
      response.set_canceled(true);
      return Push(std::move(response));
    }
    case WatchRequest::kProgressRequest:
      return Push(Response(kNoWatch, now));
    case WatchRequest::kHoldfastMark:
      return Mark(request.holdfast_mark());
    case WatchRequest::REQUEST_UNION_NOT_SET:
      return;
  }
}

void WatchCall::Create(const WatchCreateRequest& request) {
  const FakeData::View view = world().ViewOf(*member_);
  const bool taken = request.watch_id() != 0 && watches_.contains(request.watch_id());
  if (taken || request.start_revision() < 0) {
    WatchResponse response = Response(kNoWatch, view.revision);
    response.set_created(true);
    response.set_canceled(true);
    response.set_cancel_reason(taken ? "mvcc: duplicate watch ID provided on the WatchStream"
                                     : kCompacted);
    return Push(std::move(response));
  }
  int64_t id = request.watch_id();
  if (id == 0) {
    while (watches_.contains(next_id_)) ++next_id_;
    id = next_id_++;
  }
  Watch watch = {.key = request.key(),
                 .range_end = request.range_end(),
                 .next = request.start_revision(),
                 .prev_kv = request.prev_kv()};
  if (watch.next == 0) watch.next = view.revision + 1;
  for (const int filter : request.filters()) {
    watch.no_put |= filter == WatchCreateRequest::NOPUT;
    watch.no_delete |= filter == WatchCreateRequest::NODELETE;
  }
  WatchResponse created = Response(id, view.revision);
  created.set_created(true);
  Push(std::move(created));
  if (Feed(id, watch)) watches_.emplace(id, std::move(watch));
}

void WatchCall::Mark(const etcdserverpb::WatchMark& mark) {
  if (world().options.plain_etcd) return;
  ++world().marks;
  const auto it = watches_.find(mark.watch_id());
  if (it == watches_.end()) return;
  const int64_t delivered = std::min(it->second.next - 1, world().ViewOf(*member_).revision);
  WatchResponse response = Response(mark.watch_id(), delivered);
  etcdserverpb::WatchBookmark* const bookmark = response.mutable_holdfast_bookmark();
  bookmark->set_nonce(mark.nonce());
  bookmark->set_delivered_revision(delivered);
  bookmark->set_incarnation(world().IncarnationOf(*member_));
  if (const auto age = world().AgeOf(*member_); age.has_value()) {
    bookmark->set_age_us(
        static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Ceil(*age, absl::Microseconds(1)))));
  }
  Push(std::move(response));
}

bool WatchCall::Feed(int64_t id, Watch& watch) {
  const FakeData::View view = world().ViewOf(*member_);
  if (watch.next < view.compacted) {
    WatchResponse response = Response(id, view.revision);
    response.set_canceled(true);
    response.set_compact_revision(view.compacted);
    response.set_cancel_reason(kCompacted);
    Push(std::move(response));
    return false;
  }
  const auto& events = world().data.events();
  size_t i = world().data.FirstEvent(watch.next);
  while (i < events.size() && events[i].kv().mod_revision() <= view.revision) {
    const int64_t revision = events[i].kv().mod_revision();
    WatchResponse response = Response(id, revision);
    for (; i < events.size() && events[i].kv().mod_revision() == revision; ++i) {
      const bool put = events[i].type() == mvccpb::Event::PUT;
      if (put ? watch.no_put : watch.no_delete) continue;
      if (!Covers(watch.key, watch.range_end, events[i].kv().key())) continue;
      mvccpb::Event* const event = response.add_events();
      *event = events[i];
      if (!watch.prev_kv) event->clear_prev_kv();
    }
    if (response.events_size() > 0) Push(std::move(response));
  }
  watch.next = std::max(watch.next, view.revision + 1);
  return true;
}

WatchResponse WatchCall::Response(int64_t watch_id, int64_t revision) const {
  WatchResponse response;
  world().Fill(*member_, revision, response.mutable_header());
  response.set_watch_id(watch_id);
  return response;
}

void WatchCall::Push(WatchResponse response) { queue_.push_back(std::move(response)); }

void WatchCall::Write() {
  if (writing_ || ending_ || queue_.empty() || silent()) return;
  writing_ = true;
  out_ = std::move(queue_.front());
  queue_.pop_front();
  StartWrite(&out_);
}

}  // namespace holdfast::testing::internal
