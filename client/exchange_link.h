// The tries of one endpoint over one stream of the service Exchange (api/holdfast/exchange.proto):
// many requests a message, many replies a message. What a try is answered, and what is known of
// whether it was sent, is as with Rpc, so that Call's rules are the same for both.
//
// Batching has no timer. A request goes out at once if no message is being written; what comes
// while one is, goes with the next. On the loop's thread "at once" is the end of the event that
// runs, so that the callbacks of one message's replies fill one message.
//
// The stream is opened by the first try that needs it. Nothing is sent on it before the server's
// first message has come, with its limits:
//   - a server without the service (UNIMPLEMENTED: etcd) is then proven to have got nothing, and
//     the tries that wait go on as unary calls. It is asked again after a reconnect, or kAskAgain.
//     So is one that refuses the stream for a reason that is no lost connection; sooner.
//   - a request that waits there is proven to be unsent, like one that waits in the queue.
// A stream that breaks answers what was handed to gRPC with UNAVAILABLE and `sent`, and what was
// not with UNAVAILABLE and not `sent`. The next try opens another.
//
// Memory: what waits to be sent is bounded by kQueueBytesMax, tries by TryTable::kTriesMax; beyond,
// a try ends with RESOURCE_EXHAUSTED, not sent. Replies in parts are bounded by kPartsBytesMax.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/event_loop.h"
#include "client/rpc.h"
#include "client/send_queue.h"
#include "client/try_table.h"

namespace holdfast::internal {

class ExchangeLink;

// A try under way. Threads: whoever has it, one at a time; Cancel from any.
class TryHandle {
 public:
  TryHandle() = default;
  explicit TryHandle(std::shared_ptr<Rpc> rpc) : rpc_(std::move(rpc)) {}
  TryHandle(ExchangeLink* link, uint64_t id) : link_(link), id_(id) {}

  // It ends with CANCELLED soon, unless it has ended before; never inside this.
  void Cancel() const;

 private:
  std::shared_ptr<Rpc> rpc_ = nullptr;
  ExchangeLink* link_ = nullptr;
  uint64_t id_ = 0;
};

// Threads: all methods from any thread. Owners are called on the loop's, and under no lock.
class ExchangeLink : private Deferred {
 public:
  static constexpr size_t kQueueBytesMax = size_t{64} << 20;
  static constexpr size_t kPartsBytesMax = size_t{256} << 20;
  static constexpr absl::Duration kAskAgain = absl::Hours(1);
  static constexpr absl::Duration kAskAgainRefused = absl::Seconds(10);
  // What a try that found the queue full is told to wait.
  static constexpr absl::Duration kRetryAfterFull = absl::Milliseconds(50);
  // Cancels that wait to be sent; one beyond is not told to the server.
  static constexpr size_t kCancelsMax = 4096;

  // `loop` outlives this.
  explicit ExchangeLink(EventLoop* loop);
  // REQUIRES: Close() was called.
  ~ExchangeLink() override;

  // `owner` is told exactly once, never inside this. REQUIRES: OnStream(request.method).
  TryHandle Start(const std::shared_ptr<grpc::Channel>& channel, RpcRequest request,
                  std::shared_ptr<TryOwner> owner, bool hedge);
  void Cancel(uint64_t id);

  // Ends the stream, and waits until it is gone. REQUIRES: no try is under way, and none is started
  // any more; not on the loop's thread.
  void Close();

  // For people.
  struct Counts {
    uint64_t tries = 0;  // that went into messages
    uint64_t messages = 0;
    uint64_t replies = 0;  // messages
    uint64_t streams = 0;
  };
  Counts counts() const;

 private:
  using Steady = TryTable::Steady;
  using Where = TryTable::Where;
  class Stream;
  enum class State {
    kNone,
    kOpening,  // until the server's first message
    kOpen,
  };
  struct Held {
    uint64_t id = 0;
    RpcRequest request;
  };
  // What an owner is told once the lock is released.
  struct Ended {
    std::shared_ptr<TryOwner> owner;
    bool hedge = false;
    bool sent = false;
    v1::ExchangeReply* reply = nullptr;  // null: see where it is told
  };

  // Of the streams; on the loop's thread. A stream that was replaced is not heard.
  void OnMessage(Stream* stream, const grpc::ByteBuffer& bytes);
  void OnWritten(Stream* stream);
  void OnEnd(Stream* stream, const grpc::Status& status);
  void OnGone(Stream* stream);

  void RunDeferred() override;
  void OnTimer();
  void OnCancelled();

  void OpenStream(const std::shared_ptr<grpc::Channel>& channel)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a try that waits may be put into the queue, or has to go on as a call of its own.
  bool Fits(const RpcRequest& request, uint64_t id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Enqueue(uint64_t id, const RpcRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartUnary(uint64_t id, RpcRequest request);
  void OnUnary(uint64_t id, RpcReply reply);
  void OnOpened(const v1::ExchangeLimits& limits, std::vector<Held>* unary)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is queued becomes the message that is written now. False: nothing is to be written.
  bool TakeMessage(std::string* message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send();
  // The try is over; what it took of the queue is given back.
  Ended TakeEnded(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropQueued(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Alive(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmTimer(Steady::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AddPart(const v1::ExchangePart& part, v1::ExchangeReply** whole,
               google::protobuf::Arena* arena) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // `refused`: by a server that was there.
  static void Tell(std::vector<Ended>* ended, bool refused, const grpc::Status& status);

  EventLoop& loop_;

  mutable absl::Mutex mutex_;
  absl::CondVar gone_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kNone;
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);  // null: kNone
  std::shared_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mutex_);
  int streams_alive_ ABSL_GUARDED_BY(mutex_) = 0;
  // Unary only, until then or a reconnect.
  std::optional<Steady::time_point> unary_until_ ABSL_GUARDED_BY(mutex_);

  TryTable tries_ ABSL_GUARDED_BY(mutex_);
  std::vector<Held> held_ ABSL_GUARDED_BY(mutex_);  // while the stream opens
  size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;   // of all in `held_`
  size_t held_dead_ ABSL_GUARDED_BY(mutex_) = 0;    // of those that are over
  SendQueue queue_ ABSL_GUARDED_BY(mutex_);
  size_t max_request_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: not told
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool deferred_ ABSL_GUARDED_BY(mutex_) = false;  // a message is written when the event is over
  std::vector<uint64_t> cancels_ ABSL_GUARDED_BY(mutex_);
  std::vector<Ended> cancelled_ ABSL_GUARDED_BY(mutex_);  // to be told
  std::vector<Ended> refused_ ABSL_GUARDED_BY(mutex_);    // for want of room; to be told
  bool telling_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Rpc>> unary_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, std::string> parts_ ABSL_GUARDED_BY(mutex_);
  size_t parts_bytes_ ABSL_GUARDED_BY(mutex_) = 0;

  std::shared_ptr<EventLoop::Timer> timer_ ABSL_GUARDED_BY(mutex_);  // null: none is set
  Steady::time_point timer_at_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::internal
