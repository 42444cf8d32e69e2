#include "server/exchange_service.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/prctl.h>

#include "absl/container/flat_hash_set.h"
#include "holdfast/exchange.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/exchange_stream.h"
#include "server/grpc_status.h"

namespace holdfast::server {
namespace {

class RefusedStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

using RawService = v1::Exchange::WithRawCallbackMethod_Stream<v1::Exchange::Service>;

class ExchangeServiceImpl : public ExchangeService, public RawService, private ExchangeHost {
 public:
  ExchangeServiceImpl(const Options& options_in, raft::RaftNode* node_in,
                      RequestPipeline* pipeline_in, KvStateMachine* machine_in,
                      const Admission* admission_in, KvReads* reads_in) {
    options = options_in;
    node = node_in;
    pipeline = pipeline_in;
    machine = machine_in;
    admission = admission_in;
    reads = reads_in;
    sweeper_ = std::thread([this] { SweepLoop(); });
  }
  ~ExchangeServiceImpl() override {
    Stop();
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      wake_.notify_one();
    }
    sweeper_.join();
  }

  grpc::Service* service() override { return this; }
  void RegisterMetrics(MetricsRegistry* registry) override;

  void Stop() override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (ExchangeStream* stream : streams_) stream->StopReading();
  }

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Stream(
      grpc::CallbackServerContext* context) override {
    // Who may not ask anything at all is told so at once, not request by request.
    absl::Status status = admission->Admit(false, Admission::Call::kLocal);
    {
      const std::lock_guard lock(mutex_);
      if (closed_) status = ErrStopped();
    }
    if (!status.ok()) return new RefusedStream(status);
    return ExchangeStream::Start(this, context);
  }

 private:
  // ExchangeHost
  bool Add(ExchangeStream* stream) override {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    streams_.insert(stream);
    return true;
  }
  void Remove(ExchangeStream* stream) override {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }
  void WakeSweeper() override {
    if (awake_.load()) return;
    const std::lock_guard lock(mutex_);
    timed_ = true;
    wake_.notify_one();
  }

  void SweepLoop() {
    prctl(PR_SET_NAME, "hf-exchange");
    std::unique_lock lock(mutex_);
    for (;;) {
      awake_ = false;
      wake_.wait(lock, [this] { return timed_ || over_; });
      // Before the streams are looked at: who adds a timeout later sees the flag down, or is seen.
      awake_ = true;
      timed_ = false;
      bool waits = true;
      while (waits && !over_) {
        wake_.wait_for(lock, absl::ToChronoNanoseconds(options.sweep_interval),
                       [this] { return over_; });
        waits = timed_;
        timed_ = false;
        const base::ClockSample now = options.clock->Sample();
        for (ExchangeStream* stream : streams_) waits = stream->SweepTimeouts(now) || waits;
        if (!waits) {
          // One more look with the flag down.
          awake_ = false;
          for (ExchangeStream* stream : streams_) waits = stream->SweepTimeouts(now) || waits;
          awake_ = waits;
        }
      }
      if (over_) return;
    }
  }

  // The standard library's: its timed wait goes by the steady clock. Taken before a stream's.
  std::mutex mutex_;
  std::condition_variable wake_;
  absl::flat_hash_set<ExchangeStream*> streams_;  // these four under mutex_
  bool closed_ = false;
  bool timed_ = false;
  bool over_ = false;
  std::atomic<bool> awake_ = false;
  std::thread sweeper_;
};

void ExchangeServiceImpl::RegisterMetrics(MetricsRegistry* registry) {
  const auto counter = [registry](const char* name, const char* help, const Counter* value) {
    registry->AddCounterOf(name, help, [value] { return static_cast<double>(value->value()); });
  };
  counter("holdfast_exchange_requests_total", "KV requests that came in batches.",
          &counters.requests);
  counter("holdfast_exchange_batches_total", "Messages in which they came.", &counters.batches);
  counter("holdfast_exchange_replies_total", "Replies to them.", &counters.replies);
  counter("holdfast_exchange_messages_total", "Messages in which the replies went.",
          &counters.messages);
  counter("holdfast_exchange_timeouts_total", "Requests whose timeout came before their result.",
          &counters.timeouts);
  registry->AddSamples(
      "holdfast_exchange_streams", "Streams that are open.", MetricKind::kGauge, [this] {
        const std::lock_guard lock(mutex_);
        return std::vector<MetricSample>{{{}, static_cast<double>(streams_.size())}};
      });
}

}  // namespace

std::unique_ptr<ExchangeService> ExchangeService::Create(
    const Options& options, raft::RaftNode* node, RequestPipeline* pipeline,
    KvStateMachine* machine, const Admission* admission, KvReads* reads) {
  return std::make_unique<ExchangeServiceImpl>(options, node, pipeline, machine, admission, reads);
}

}  // namespace holdfast::server
