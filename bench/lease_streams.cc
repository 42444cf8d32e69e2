#include "bench/lease_streams.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/strings.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/watch_message.h"
#include "etcd/rpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr int64_t kOpenLimitNs = 30'000'000'000;
constexpr absl::Duration kPoll = absl::Milliseconds(2);
constexpr size_t kMaxErrors = 10;

}  // namespace

struct KeepAlives::StreamState {
  // Requests without an answer, the oldest first: at most plan.in_flight.
  struct Sent {
    int64_t lease = 0;
    int64_t at_ns = 0;
  };
  std::deque<Sent> sent;
  size_t next = 0;  // into plan.leases
  LatencyHistogram latency;
  uint64_t lost = 0;
};

KeepAlives::KeepAlives(KeepAlivePlan plan) : plan_(std::move(plan)) {}

KeepAlives::~KeepAlives() = default;

std::unique_ptr<KeepAlives> KeepAlives::Start(const RawChannels& channels, KeepAlivePlan plan) {
  CHECK(plan.leases.size() >= plan.streams);
  std::unique_ptr<KeepAlives> all(new KeepAlives(std::move(plan)));
  for (size_t i = 0; i < all->plan_.streams; ++i) {
    all->states_.push_back(std::make_unique<StreamState>());
    all->states_.back()->next = i;
  }
  all->streams_ = RawStreams::Open(channels, "/etcdserverpb.Lease/LeaseKeepAlive",
                                   all->plan_.streams, all->plan_.threads, all.get());
  // Under the lock, for the answer to a stream's first request may come before the second is noted.
  for (size_t i = 0; i < all->plan_.streams; ++i) {
    std::lock_guard lock(all->mutex_);
    for (uint32_t k = 0; k < all->plan_.in_flight; ++k) all->Renew(*all->states_[i], i);
  }
  return all;
}

// REQUIRES: mutex_ is held.
void KeepAlives::Renew(StreamState& stream, size_t index) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(plan_.leases[stream.next]);
  stream.next += plan_.streams;
  if (stream.next >= plan_.leases.size()) stream.next = index;
  stream.sent.push_back({.lease = request.id(), .at_ns = MonotonicNs()});
  streams_->Send(index, Pack(request));
}

void KeepAlives::OnMessage(size_t index, std::string_view message, int64_t now_ns) {
  etcdserverpb::LeaseKeepAliveResponse reply;
  const bool parsed = reply.ParseFromArray(message.data(), int(message.size()));
  std::lock_guard lock(mutex_);
  StreamState& stream = *states_[index];
  if (!parsed || stream.sent.empty() || stream.sent.front().lease != reply.id()) {
    if (errors_.size() < kMaxErrors) {
      errors_.push_back(fmt::format("keep-alive stream {}: an answer that was not due", index));
    }
    return;
  }
  stream.latency.Record(now_ns - stream.sent.front().at_ns);
  stream.sent.pop_front();
  ++answers_;
  if (reply.ttl() <= 0) ++stream.lost;
  if (!stopping_) Renew(stream, index);
}

void KeepAlives::OnEnd(size_t index, const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  if (errors_.size() >= kMaxErrors) return;
  errors_.push_back(fmt::format("keep-alive stream {} ended: {} {}", index,
                                CodeName(status.error_code()), status.error_message()));
}

KeepAlives::Result KeepAlives::Stop() {
  stopping_ = true;
  streams_->Close();
  Result result;
  for (const auto& state : states_) {
    result.latency.Merge(state->latency);
    result.lost += state->lost;
  }
  std::lock_guard lock(mutex_);
  result.errors = errors_;
  return result;
}

// --- VanishWatch ---

absl::StatusOr<std::unique_ptr<VanishWatch>> VanishWatch::Open(const RawChannels& channels,
                                                               const DataShape& shape,
                                                               uint64_t first, uint64_t count) {
  std::unique_ptr<VanishWatch> watch(new VanishWatch(first, count));
  watch->streams_ = RawStreams::Open(channels, "/etcdserverpb.Watch/Watch", 1, 1, watch.get());
  etcdserverpb::WatchRequest request;
  shape.WriteKey(first, request.mutable_create_request()->mutable_key());
  shape.WriteKey(first + count, request.mutable_create_request()->mutable_range_end());
  watch->streams_->Send(0, Pack(request));
  const int64_t give_up_ns = MonotonicNs() + kOpenLimitNs;
  while (!watch->created_) {
    if (const std::string error = watch->Error(); !error.empty()) {
      return absl::UnavailableError(base::ToAbsl(error));
    }
    if (MonotonicNs() > give_up_ns) return absl::DeadlineExceededError("no watch was confirmed");
    absl::SleepFor(kPoll);
  }
  return watch;
}

void VanishWatch::OnMessage(size_t, std::string_view bytes, int64_t now_ns) {
  WatchMessage message;
  if (!ParseWatchMessage(bytes, &message)) return SetError("a message that is no WatchResponse");
  if (message.canceled) {
    return SetError(
        fmt::format("the watch was cancelled: {}", base::Printable(message.cancel_reason)));
  }
  if (message.created) created_ = true;
  WatchEvent event;
  while (NextWatchEvent(&message.events, &event)) {
    if (!event.is_delete) continue;
    const std::optional<uint64_t> number = NumberOfKey(event.key);
    if (!number.has_value() || *number < first_ || *number - first_ >= at_ns_.size()) {
      SetError("an event of a key that is not watched");
    } else if (at_ns_[*number - first_] != 0) {
      SetError("a key was deleted twice");
    } else {
      at_ns_[*number - first_] = now_ns;
      ++vanished_;
    }
  }
  if (!message.events.empty()) SetError("an event does not parse");
}

void VanishWatch::OnEnd(size_t, const grpc::Status& status) {
  SetError(
      fmt::format("the watch ended: {} {}", CodeName(status.error_code()), status.error_message()));
}

void VanishWatch::SetError(const std::string& text) {
  std::lock_guard lock(mutex_);
  if (error_.empty()) error_ = text;
}

std::string VanishWatch::Error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

std::vector<int64_t> VanishWatch::Close() {
  streams_->Close();
  return at_ns_;
}

std::optional<uint64_t> NumberOfKey(std::string_view key) {
  const size_t last_other = key.find_last_not_of("0123456789");
  const std::string_view digits =
      last_other == std::string_view::npos ? key : key.substr(last_other + 1);
  uint64_t number = 0;
  if (!absl::SimpleAtoi(base::ToAbsl(digits), &number)) return std::nullopt;
  return number;
}

}  // namespace holdfast::bench
