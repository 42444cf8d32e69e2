#include "bench/watchers.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/strings.h"
#include "bench/monotonic.h"
#include "bench/operation.h"
#include "bench/report.h"
#include "bench/watch_message.h"
#include "etcd/rpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr int64_t kOpenLimitNs = 60'000'000'000;
constexpr absl::Duration kPoll = absl::Milliseconds(2);
constexpr size_t kMaxErrors = 10;  // told by their text; more are counted

}  // namespace

struct Watchers::ThreadState {
  LatencyHistogram latency;
  std::atomic<uint64_t> events{0};  // written by its thread alone
  uint64_t responses = 0;
  uint64_t out_of_order = 0;
  uint64_t strangers = 0;
  std::vector<uint32_t> seen;  // deliveries by the put's sequence
};

struct Watchers::StreamState {
  size_t index = 0;
  ThreadState* thread = nullptr;
  std::vector<int64_t> last_revision;  // by the watcher's place in the stream
};

Watchers::Watchers(const WatcherPlan& plan)
    : plan_(plan), per_stream_(plan.watchers / plan.streams) {}

Watchers::~Watchers() = default;

absl::StatusOr<std::unique_ptr<Watchers>> Watchers::Open(const RawChannels& channels,
                                                         const WatcherPlan& plan,
                                                         const std::atomic<bool>& cancelled) {
  CHECK(plan.watchers % plan.streams == 0);
  std::unique_ptr<Watchers> watchers(new Watchers(plan));
  const size_t threads = std::min(plan.threads, plan.streams);
  for (size_t i = 0; i < threads; ++i) {
    watchers->threads_.push_back(std::make_unique<ThreadState>());
    watchers->threads_.back()->seen.resize(plan.puts_max);
  }
  for (size_t i = 0; i < plan.streams; ++i) {
    auto stream = std::make_unique<StreamState>();
    stream->index = i;
    stream->thread = watchers->threads_[i % threads].get();
    stream->last_revision.resize(watchers->per_stream_);
    watchers->streams_by_index_.push_back(std::move(stream));
  }
  watchers->streams_ = RawStreams::Open(channels, "/etcdserverpb.Watch/Watch", plan.streams,
                                        threads, watchers.get());
  for (uint64_t w = 0; w < plan.watchers; ++w) {
    etcdserverpb::WatchRequest request;
    etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
    auto [key, end] = plan.range(w);
    create.set_key(std::move(key));
    create.set_range_end(std::move(end));
    // From 1, for 0 lets the server choose.
    create.set_watch_id(int64_t(w % watchers->per_stream_) + 1);
    watchers->streams_->Send(size_t(w / watchers->per_stream_), Pack(request));
  }
  const int64_t give_up_ns = MonotonicNs() + kOpenLimitNs;
  while (watchers->created_ < plan.watchers) {
    if (cancelled) return absl::CancelledError("interrupted");
    {
      std::lock_guard lock(watchers->mutex_);
      if (!watchers->errors_.empty()) {
        return absl::UnavailableError(base::ToAbsl(watchers->errors_.front()));
      }
    }
    if (MonotonicNs() > give_up_ns) {
      return absl::DeadlineExceededError(
          base::ToAbsl(fmt::format("{} of {} watchers were confirmed within a minute",
                                   watchers->created_.load(), plan.watchers)));
    }
    absl::SleepFor(kPoll);
  }
  return watchers;
}

void Watchers::SetWindow(int64_t from_ns, int64_t to_ns) {
  from_ns_ = from_ns;
  to_ns_ = to_ns;
}

uint64_t Watchers::events() const {
  uint64_t events = 0;
  for (const auto& thread : threads_) events += thread->events;
  return events;
}

void Watchers::AddError(const std::string& text) {
  std::lock_guard lock(mutex_);
  if (errors_.size() < kMaxErrors) {
    errors_.push_back(text);
  } else {
    ++errors_more_;
  }
}

void Watchers::OnMessage(size_t index, std::string_view bytes, int64_t now_ns) {
  WatchMessage message;
  if (!ParseWatchMessage(bytes, &message)) {
    AddError(fmt::format("stream {}: a message that is no WatchResponse", index));
    return;
  }
  if (message.canceled) {
    AddError(fmt::format("stream {}, watcher {}: cancelled: {}", index, message.watch_id,
                         base::Printable(message.cancel_reason)));
    return;
  }
  if (message.created) ++created_;
  if (message.events.empty()) return;
  StreamState& stream = *streams_by_index_[index];
  if (message.watch_id < 1 || uint64_t(message.watch_id) > per_stream_) {
    AddError(fmt::format("stream {}: events of watcher {}, which does not exist", index,
                         message.watch_id));
    return;
  }
  ++stream.thread->responses;
  TakeEvents(stream, uint64_t(message.watch_id) - 1, message.events, now_ns);
}

void Watchers::TakeEvents(StreamState& stream, uint64_t local, std::string_view events,
                          int64_t now_ns) {
  ThreadState& thread = *stream.thread;
  const int64_t from_ns = from_ns_.load(std::memory_order_relaxed);
  const int64_t to_ns = to_ns_.load(std::memory_order_relaxed);
  uint64_t taken = 0;
  WatchEvent event;
  while (NextWatchEvent(&events, &event)) {
    ++taken;
    int64_t& last = stream.last_revision[local];
    if (event.mod_revision <= last) ++thread.out_of_order;
    last = std::max(last, event.mod_revision);
    const std::optional<Stamp> stamp = ReadStamp(event.value);
    if (event.is_delete || !stamp.has_value() || stamp->sequence >= thread.seen.size() ||
        !plan_.is_for(stream.index * per_stream_ + local, stamp->sequence)) {
      ++thread.strangers;
      continue;
    }
    ++thread.seen[stamp->sequence];
    if (stamp->due_ns >= from_ns && stamp->due_ns < to_ns) {
      thread.latency.Record(now_ns - stamp->due_ns);
    }
  }
  if (!events.empty()) AddError(fmt::format("stream {}: an event does not parse", stream.index));
  thread.events.store(thread.events.load(std::memory_order_relaxed) + taken,
                      std::memory_order_relaxed);
}

void Watchers::OnEnd(size_t index, const grpc::Status& status) {
  AddError(fmt::format("stream {} ended: {} {}", index, CodeName(status.error_code()),
                       status.error_message()));
}

Watchers::Result Watchers::Close(const std::deque<PutLoad::Put>& puts, uint64_t fan_out) {
  streams_->Close();
  Result result;
  for (const auto& thread : threads_) {
    result.latency.Merge(thread->latency);
    result.events += thread->events;
    result.responses += thread->responses;
    result.out_of_order += thread->out_of_order;
    result.strangers += thread->strangers;
  }
  for (size_t n = 0; n < plan_.puts_max; ++n) {
    uint64_t seen = 0;
    for (const auto& thread : threads_) seen += thread->seen[n];
    const bool sent = n < puts.size();
    const uint64_t most = sent ? fan_out : 0;
    // Whether a put without an answer was made is not known.
    const uint64_t least = sent && puts[n].done_ns > 0 && !puts[n].failed ? fan_out : 0;
    if (seen > most) result.doubled += seen - most;
    if (seen < least) result.missed += least - seen;
  }
  std::lock_guard lock(mutex_);
  result.errors = errors_;
  if (errors_more_ > 0) result.errors.push_back(fmt::format("and {} more", errors_more_));
  return result;
}

}  // namespace holdfast::bench
