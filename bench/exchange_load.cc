#include "bench/exchange_load.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <future>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "base/strings.h"
#include "bench/monotonic.h"
#include "holdfast/exchange.grpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr size_t kMessageBytes = size_t{1} << 20;  // the server's own limit is 1.5 MiB and more
constexpr size_t kRequestOverhead = 32;
constexpr absl::Duration kBeyond = absl::Seconds(20);  // for the last answers

class Stream {
 public:
  Stream(const ExchangePlan& plan, const DataShape& shape, const Window& window, uint32_t callers,
         uint64_t seed, const std::atomic<bool>& cancelled)
      : plan_(plan),
        shape_(shape),
        window_(window),
        cancelled_(cancelled),
        rng_(seed),
        stats_(window) {
    for (uint32_t i = 0; i < callers; ++i) free_.push_back(i);
    began_.resize(callers);
  }

  absl::Status Run(const std::shared_ptr<grpc::Channel>& channel) {
    const auto stub = v1::Exchange::NewStub(channel);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoNanoseconds(plan_.warmup + plan_.duration + kBeyond));
    const auto stream = stub->Stream(&context);
    v1::ExchangeReplies replies;
    bool open = stream->Read(&replies);  // the limits
    while (open && Fill()) {
      open = Send(*stream) && stream->Read(&replies);
      if (open) Take(replies);
    }
    stream->WritesDone();
    if (cancelled_) context.TryCancel();
    const grpc::Status status = stream->Finish();
    if (cancelled_) return absl::CancelledError("interrupted");
    if (open && status.ok()) return absl::OkStatus();
    return absl::UnavailableError(
        base::ToAbsl(fmt::format("Exchange at {}: {}", plan_.endpoint, status.error_message())));
  }
  const RunStats& stats() const { return stats_; }

 private:
  // False: it is over, and nothing is under way.
  bool Fill() {
    over_ = over_ || cancelled_ || MonotonicNs() >= window_.end_ns;
    return over_ ? !cancelled_ && free_.size() < began_.size() : true;
  }

  template <class Call>
  bool Send(Call& stream) {
    while (!over_ && !free_.empty()) {
      requests_.Clear();
      const size_t each =
          shape_.key_size() + (plan_.read ? 0 : shape_.value_size()) + kRequestOverhead;
      const size_t most = std::max<size_t>(1, kMessageBytes / each);
      const int64_t now_ns = MonotonicNs();
      while (!free_.empty() && size_t(requests_.requests_size()) < most) {
        Add(free_.back(), now_ns);
        free_.pop_back();
      }
      if (!stream.Write(requests_)) return false;
    }
    return true;
  }

  void Add(uint32_t caller, int64_t now_ns) {
    began_[caller] = now_ns;
    v1::ExchangeRequest* const request = requests_.add_requests();
    request->set_id(caller + 1);
    const uint64_t number = rng_.Below(plan_.key_space);
    shape_.WriteKey(number, &key_);
    if (plan_.read) {
      request->mutable_range()->set_key(key_);
      return;
    }
    request->mutable_put()->set_key(key_);
    request->mutable_put()->set_value(std::string(shape_.Value(number, ++salt_)));
  }

  void Take(const v1::ExchangeReplies& replies) {
    const int64_t now_ns = MonotonicNs();
    for (const v1::ExchangeReply& reply : replies.replies()) {
      const uint32_t caller = uint32_t(reply.id() - 1);
      Outcome outcome;
      outcome.code = int(reply.code());
      outcome.message = reply.message();
      outcome.found = !plan_.read || reply.range().kvs_size() > 0;
      stats_.Record(plan_.read ? OpKind::kGet : OpKind::kPut, began_[caller], now_ns, outcome);
      free_.push_back(caller);
    }
  }

  const ExchangePlan& plan_;
  const DataShape& shape_;
  const Window window_;
  const std::atomic<bool>& cancelled_;
  base::Rng rng_;
  RunStats stats_;
  std::vector<uint32_t> free_;  // callers with nothing under way
  std::vector<int64_t> began_;  // by caller
  v1::ExchangeRequests requests_;
  std::string key_;
  uint64_t salt_ = 0;
  bool over_ = false;
};

}  // namespace

absl::StatusOr<RunStats> RunExchange(const ExchangePlan& plan, const DataShape& shape,
                                     const std::atomic<bool>& cancelled) {
  Window window;
  window.start_ns = MonotonicNs();
  window.begin_ns = window.start_ns + absl::ToInt64Nanoseconds(plan.warmup);
  window.end_ns = window.begin_ns + absl::ToInt64Nanoseconds(plan.duration);
  const uint32_t count = std::clamp(plan.streams, 1u, plan.callers);
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::future<absl::Status>> running;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t callers = plan.callers / count + (i < plan.callers % count ? 1 : 0);
    streams.push_back(
        std::make_unique<Stream>(plan, shape, window, callers, plan.seed + i, cancelled));
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    arguments.SetMaxReceiveMessageSize(-1);
    const auto channel =
        grpc::CreateCustomChannel(plan.endpoint, grpc::InsecureChannelCredentials(), arguments);
    running.push_back(std::async(std::launch::async, [stream = streams.back().get(), channel] {
      return stream->Run(channel);
    }));
  }
  absl::Status status;
  for (auto& one : running) status.Update(one.get());
  if (!status.ok()) return status;
  RunStats stats(window);
  for (const auto& stream : streams) stats.Merge(stream->stats());
  return stats;
}

}  // namespace holdfast::bench
