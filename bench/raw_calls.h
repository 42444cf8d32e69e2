// Calls of any method, by its name and as bytes: for the services that Transport does not know.
//
// Messages are not parsed unless the caller does it: of a hundred thousand watch events a second,
// a client on the servers' own machine can only afford to look at what it must.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/histogram.h"

namespace holdfast::bench {

// TCP connections, spread evenly over the endpoints. Threads: all.
class RawChannels {
 public:
  // Waits until all are up. REQUIRES: count > 0, endpoints not empty.
  static absl::StatusOr<std::unique_ptr<RawChannels>> Open(
      const std::vector<std::string>& endpoints, size_t count);
  size_t size() const { return stubs_.size(); }
  grpc::GenericStub& stub(size_t i) const { return *stubs_[i % stubs_.size()]; }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
};

template <class Message>
grpc::ByteBuffer Pack(const Message& message) {
  grpc::ByteBuffer buffer;
  bool own = false;
  const grpc::Status status = grpc::SerializationTraits<Message>::Serialize(message, &buffer, &own);
  return status.ok() ? buffer : grpc::ByteBuffer();
}
// Nothing is taken from `buffer`. False if it does not parse.
template <class Message>
bool Unpack(const grpc::ByteBuffer& buffer, Message* message) {
  grpc::ByteBuffer copy(buffer);  // shares the bytes
  return grpc::SerializationTraits<Message>::Deserialize(&copy, message).ok();
}

// --- unary calls, a closed loop ---

struct CallPlan {
  std::string method;                          // "/etcdserverpb.Lease/LeaseGrant"
  uint64_t calls = 0;                          // numbers 0 .. calls - 1
  uint32_t clients = 16;                       // in flight at most
  absl::Duration timeout = absl::Seconds(30);  // of one call
  absl::Duration limit = absl::Minutes(30);    // of all; DeadlineExceeded after it
  std::function<grpc::ByteBuffer(uint64_t n)> request;
  // May be null. `sent_ns` and `now_ns` are monotonic.
  std::function<absl::Status(uint64_t n, int64_t sent_ns, int64_t now_ns,
                             const grpc::ByteBuffer& reply)>
      reply;
};
struct CallsResult {
  LatencyHistogram latency;
  uint64_t calls = 0;
  double seconds = 0;
  double Rate() const { return seconds > 0 ? double(calls) / seconds : 0; }
};
// Carried by this thread; the functions are called by it alone. The first call that fails (or the
// first error that `reply` returns) ends it: figures over holes mislead.
absl::StatusOr<CallsResult> RunCalls(const RawChannels& channels, const CallPlan& plan,
                                     const std::atomic<bool>& cancelled);

// --- streams ---

// Threads: a stream's calls all come from one thread, the same one each time.
class StreamReader {
 public:
  virtual ~StreamReader() = default;
  // `message` is valid during the call alone.
  virtual void OnMessage(size_t stream, std::string_view message, int64_t now_ns) = 0;
  // The stream is over: its server or network ended it. Not called for Close().
  virtual void OnEnd(size_t stream, const grpc::Status& status) = 0;
};

// Many bidirectional streams on a few threads. Threads: all.
class RawStreams {
 public:
  // Stream s is on connection s and on thread s % threads. `reader` must live longer.
  static std::unique_ptr<RawStreams> Open(const RawChannels& channels, const std::string& method,
                                          size_t streams, size_t threads, StreamReader* reader);
  ~RawStreams();  // Close()

  // In the order of the calls. The queue of what is not yet sent has no bound of its own: callers
  // send a known number, or one message for each they get.
  void Send(size_t stream, const grpc::ByteBuffer& message);
  // Ends all streams and the threads; OnMessage() may be called until it returns.
  void Close();

 private:
  struct Stream;
  struct Tag;
  RawStreams();
  void Run(grpc::CompletionQueue* queue);
  void Handle(Stream& stream, int kind, bool ok);
  void WriteNext(Stream& stream);

  StreamReader* reader_ = nullptr;
  std::atomic<bool> closing_{false};
  std::vector<std::unique_ptr<grpc::CompletionQueue>> queues_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::bench
