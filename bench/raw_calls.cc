#include "bench/raw_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "bench/monotonic.h"
#include "bench/report.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr int64_t kCancelPollNs = 100'000'000;

gpr_timespec InNs(int64_t ns) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(ns, GPR_TIMESPAN));
}

// One client of RunCalls().
struct Call {
  uint64_t n = 0;
  int64_t sent_ns = 0;
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;  // goes before the context
  grpc::ByteBuffer reply;
  grpc::Status status;
};

class CallLoop {
 public:
  CallLoop(const RawChannels& channels, const CallPlan& plan, const std::atomic<bool>& cancelled)
      : channels_(channels), plan_(plan), cancelled_(cancelled) {}

  absl::StatusOr<CallsResult> Run() {
    const int64_t begin_ns = MonotonicNs();
    const int64_t give_up_ns = begin_ns + absl::ToInt64Nanoseconds(plan_.limit);
    std::vector<Call> calls(size_t(std::min<uint64_t>(plan_.clients, plan_.calls)));
    for (size_t i = 0; i < calls.size(); ++i) Send(calls[i], i);
    in_flight_ = calls.size();
    while (in_flight_ > 0) {
      void* tag = nullptr;
      bool ok = false;
      const auto next = queue_.AsyncNext(&tag, &ok, InNs(kCancelPollNs));
      if (next == grpc::CompletionQueue::GOT_EVENT) Take(*static_cast<Call*>(tag));
      if (!status_.ok()) continue;
      if (cancelled_) Abandon(absl::CancelledError("interrupted"), calls);
      if (MonotonicNs() > give_up_ns) {
        Abandon(absl::DeadlineExceededError(base::ToAbsl(
                    fmt::format("{}: {} of {} calls within {}", plan_.method, result_.calls,
                                plan_.calls, absl::FormatDuration(plan_.limit)))),
                calls);
      }
    }
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
    if (!status_.ok()) return status_;
    result_.seconds = double(MonotonicNs() - begin_ns) * 1e-9;
    return std::move(result_);
  }

 private:
  void Send(Call& call, size_t connection) {
    call.n = next_++;
    call.reader.reset();
    call.reply.Clear();
    call.context.emplace();
    call.context->set_deadline(InNs(absl::ToInt64Nanoseconds(plan_.timeout)));
    call.sent_ns = MonotonicNs();
    call.reader =
        channels_.stub(connection)
            .PrepareUnaryCall(&*call.context, plan_.method, plan_.request(call.n), &queue_);
    call.reader->StartCall();
    call.reader->Finish(&call.reply, &call.status, &call);
  }

  void Take(Call& call) {
    const int64_t now_ns = MonotonicNs();
    --in_flight_;
    if (!status_.ok()) return;
    if (!call.status.ok()) {
      status_ = absl::UnavailableError(base::ToAbsl(
          fmt::format("{}: call {} of {} ended with {}: {}", plan_.method, call.n, plan_.calls,
                      CodeName(call.status.error_code()), call.status.error_message())));
      return;
    }
    ++result_.calls;
    result_.latency.Record(now_ns - call.sent_ns);
    if (plan_.reply) status_ = plan_.reply(call.n, call.sent_ns, now_ns, call.reply);
    if (!status_.ok() || next_ == plan_.calls) return;
    Send(call, size_t(next_));
    ++in_flight_;
  }

  void Abandon(const absl::Status& why, std::vector<Call>& calls) {
    status_ = why;
    for (Call& call : calls) call.context->TryCancel();
  }

  const RawChannels& channels_;
  const CallPlan& plan_;
  const std::atomic<bool>& cancelled_;
  grpc::CompletionQueue queue_;
  uint64_t next_ = 0;
  size_t in_flight_ = 0;
  absl::Status status_;
  CallsResult result_;
};

enum Kind { kStarted, kRead, kWritten, kFinished };
constexpr int kKinds = 4;

}  // namespace

absl::StatusOr<std::unique_ptr<RawChannels>> RawChannels::Open(
    const std::vector<std::string>& endpoints, size_t count) {
  CHECK(count > 0);
  CHECK(!endpoints.empty());
  grpc::ChannelArguments args;
  // Else channels of equal address and arguments would share one TCP connection.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  args.SetMaxReceiveMessageSize(-1);
  auto channels = std::make_unique<RawChannels>();
  const auto deadline =
      std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kConnectTimeout);
  for (size_t i = 0; i < count; ++i) {
    const std::string& endpoint = endpoints[i % endpoints.size()];
    auto channel = grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
    if (!channel->WaitForConnected(deadline)) {
      return absl::UnavailableError(base::ToAbsl(fmt::format("cannot connect to {}", endpoint)));
    }
    channels->stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
  }
  return channels;
}

absl::StatusOr<CallsResult> RunCalls(const RawChannels& channels, const CallPlan& plan,
                                     const std::atomic<bool>& cancelled) {
  if (plan.calls == 0) return CallsResult();
  CHECK(plan.clients > 0);
  return CallLoop(channels, plan, cancelled).Run();
}

// --- streams ---

struct RawStreams::Tag {
  Stream* stream = nullptr;
  int kind = kStarted;
};

struct RawStreams::Stream {
  size_t index = 0;
  Tag tags[kKinds];
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::ByteBuffer incoming;
  grpc::Status status;
  std::mutex mutex;
  // Guarded by mutex.
  std::deque<grpc::ByteBuffer> unsent;  // the front is being written if `writing`
  bool started = false;
  bool writing = false;
  bool broken = false;  // no write goes through any more
};

std::unique_ptr<RawStreams> RawStreams::Open(const RawChannels& channels, const std::string& method,
                                             size_t streams, size_t threads, StreamReader* reader) {
  CHECK(streams > 0);
  CHECK(threads > 0);
  std::unique_ptr<RawStreams> all(new RawStreams);
  all->reader_ = reader;
  for (size_t i = 0; i < std::min(threads, streams); ++i) {
    all->queues_.push_back(std::make_unique<grpc::CompletionQueue>());
  }
  for (size_t i = 0; i < streams; ++i) {
    auto stream = std::make_unique<Stream>();
    stream->index = i;
    for (int kind = 0; kind < kKinds; ++kind) stream->tags[kind] = {stream.get(), kind};
    stream->call = channels.stub(i).PrepareCall(&stream->context, method,
                                                all->queues_[i % all->queues_.size()].get());
    stream->call->StartCall(&stream->tags[kStarted]);
    all->streams_.push_back(std::move(stream));
  }
  for (const auto& queue : all->queues_) {
    all->threads_.emplace_back([raw = all.get(), queue = queue.get()] { raw->Run(queue); });
  }
  return all;
}

RawStreams::RawStreams() = default;

RawStreams::~RawStreams() { Close(); }

void RawStreams::Send(size_t index, const grpc::ByteBuffer& message) {
  Stream& stream = *streams_[index];
  std::lock_guard lock(stream.mutex);
  stream.unsent.push_back(message);
  WriteNext(stream);
}

// REQUIRES: stream.mutex is held.
void RawStreams::WriteNext(Stream& stream) {
  if (!stream.started || stream.writing || stream.broken || stream.unsent.empty()) return;
  stream.writing = true;
  stream.call->Write(stream.unsent.front(), &stream.tags[kWritten]);
}

void RawStreams::Close() {
  if (threads_.empty()) return;
  closing_ = true;
  for (const auto& stream : streams_) stream->context.TryCancel();
  // Each stream still reports its end; its queue is shut down when all of its streams have.
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void RawStreams::Run(grpc::CompletionQueue* queue) {
  size_t left = 0;
  for (const auto& stream : streams_) {
    if (queues_[stream->index % queues_.size()].get() == queue) ++left;
  }
  void* tag = nullptr;
  bool ok = false;
  while (left > 0 && queue->Next(&tag, &ok)) {
    const Tag& what = *static_cast<Tag*>(tag);
    if (what.kind == kFinished) {
      --left;
      if (!closing_) reader_->OnEnd(what.stream->index, what.stream->status);
    } else {
      Handle(*what.stream, what.kind, ok);
    }
  }
  queue->Shutdown();
  while (queue->Next(&tag, &ok)) {
  }
}

void RawStreams::Handle(Stream& stream, int kind, bool ok) {
  if (kind == kRead && ok) {
    const int64_t now_ns = MonotonicNs();
    grpc::Slice slice;
    if (!stream.incoming.TrySingleSlice(&slice).ok()) {
      CHECK(stream.incoming.DumpToSingleSlice(&slice).ok());
    }
    reader_->OnMessage(stream.index, {reinterpret_cast<const char*>(slice.begin()), slice.size()},
                       now_ns);
    stream.incoming.Clear();
    stream.call->Read(&stream.incoming, &stream.tags[kRead]);
    return;
  }
  std::lock_guard lock(stream.mutex);
  if (kind == kWritten) {
    stream.writing = false;
    if (ok) stream.unsent.pop_front();
    if (!ok) stream.broken = true;
    WriteNext(stream);
    return;
  }
  if (kind == kStarted && ok) {
    stream.started = true;
    stream.call->Read(&stream.incoming, &stream.tags[kRead]);
    WriteNext(stream);
    return;
  }
  // The start failed, or there is nothing more to read.
  stream.broken = true;
  stream.call->Finish(&stream.status, &stream.tags[kFinished]);
}

}  // namespace holdfast::bench
