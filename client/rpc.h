// One try of one request: what is asked, what it is answered, and whether it ever left this
// process. Rpc carries it as a unary call on one connection; ExchangeLink, as a part of a stream's
// messages.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "client/endpoint.h"
#include "client/event_loop.h"
#include "etcd/rpc.pb.h"
#include "holdfast/exchange.pb.h"
#include "holdfast/freshness.h"

namespace holdfast::internal {

// What a connection does that could not be made.
enum class Dialing {
  kByItself,     // tries again by itself: soon at first, every three seconds then
  kLessAndLess,  // the same, but more and more seldom, up to two minutes
  kOnce,         // rests; whoever wants another attempt makes another channel
};
// A connection to one endpoint, made on first use.
std::shared_ptr<grpc::Channel> MakeChannel(const Endpoint& endpoint,
                                           Dialing dialing = Dialing::kByItself);

// What the server's trailing metadata says about the age of its answer (Freshness 5).
struct AgeReport {
  std::optional<absl::Duration> age;  // only if the server calls it proven
  Source source = Source::kUnknown;
};

// How long a server that pushes back asks to be left alone. nullopt: not told, or not readable.
std::optional<absl::Duration> ParseRetryAfter(std::optional<std::string_view> ms);

// 0: not told, or not readable.
uint64_t ParseIncarnation(std::optional<std::string_view> hex);

enum class Method : uint8_t { kRange, kPut, kDeleteRange, kTxn, kSessionOpen, kSessionClose };
// "/package.Service/Method"
const char* PathOf(Method method);

// Of a write in a session (docs/sessions.md).
struct Stamp {
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint64_t lowest_unacknowledged = 0;
  uint64_t digest = 0;

  std::string ToText() const;  // as metadata has it
};

struct RpcRequest {
  Method method = Method::kRange;
  std::string body;             // the encoded message
  bool require_leader = false;  // hasleader
  std::optional<absl::Duration> max_age = std::nullopt;
  std::optional<Stamp> stamp = std::nullopt;
  absl::Duration timeout = absl::ZeroDuration();
};

struct RpcReply {
  grpc::Status status;
  // False: proven that the request never left this process. Not by gRPC's error texts, but by
  // holding the message back until a connection has taken the call.
  bool sent = true;
  // Of one that was not sent: a server was there all the same, and refused what was to carry it. It
  // has no effect, and it has cost that server a request.
  bool refused_unsent = false;
  // The answer, of a status that is OK: one of the two. What `exchange` points to may be moved
  // from, and is gone when the reply has been handled; its header is in `header`.
  grpc::ByteBuffer body;
  v1::ExchangeReply* exchange = nullptr;
  const etcdserverpb::ResponseHeader* header = nullptr;  // with `exchange`; without a revision
  AgeReport age;
  uint64_t incarnation = 0;  // 0: not told
  // Of a stamped write: this is what its stamp is answered for good; whether it was answered
  // before.
  std::optional<bool> deduplicated = std::nullopt;
  std::optional<absl::Duration> retry_after = std::nullopt;
};

// No server is obeyed for longer.
inline constexpr absl::Duration kRetryAfterMax = absl::Minutes(5);
// A century: far above any age, far below overflow.
inline constexpr int64_t kAgeMsMax = 100LL * 366 * 24 * 3600 * 1000;

// Who waits for tries. `hedge`: which of the two that may be under way at once.
// Threads: the loop's.
class TryOwner {
 public:
  virtual ~TryOwner() = default;
  virtual void OnTryDone(bool hedge, RpcReply& reply) = 0;
};

class Rpc {
 public:
  using Done = absl::AnyInvocable<void(RpcReply) &&>;

  // `done` runs exactly once, on the loop's thread. The handle may be dropped.
  static std::shared_ptr<Rpc> Start(EventLoop* loop, const std::shared_ptr<grpc::Channel>& channel,
                                    RpcRequest request, Done done);
  // Any thread; the RPC then ends with CANCELLED unless it has ended before.
  void Cancel() { context_.TryCancel(); }

 private:
  class Step : public Event {
   public:
    using Handler = void (Rpc::*)(bool ok);
    Step(Rpc* rpc, Handler handler) : rpc_(rpc), handler_(handler) {}
    void Run(bool ok) override { (rpc_->*handler_)(ok); }
    void* tag() { return static_cast<Event*>(this); }

   private:
    Rpc* const rpc_;
    const Handler handler_;
  };

  Rpc(EventLoop* loop, const std::shared_ptr<grpc::Channel>& channel, RpcRequest request,
      Done done);
  grpc::ByteBuffer TakeBody();
  void StartOnConnection();
  void StartHeldBack();
  void OnStarted(bool ok);
  void OnWritten(bool ok);
  void OnRead(bool ok);
  void OnFinished(bool ok);

  EventLoop* const loop_;
  grpc::GenericStub stub_;
  RpcRequest request_;
  Done done_;
  grpc::ClientContext context_;
  RpcReply reply_;
  std::shared_ptr<Rpc> self_;  // until done_ has run
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> unary_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  int pending_ = 0;  // of write and read
  Step started_{this, &Rpc::OnStarted};
  Step written_{this, &Rpc::OnWritten};
  Step read_{this, &Rpc::OnRead};
  Step finished_{this, &Rpc::OnFinished};
};

// Pure; for tests. Anything that is not exactly what the specification says counts as unknown.
AgeReport ParseAgeReport(std::optional<std::string_view> age_ms,
                         std::optional<std::string_view> proof,
                         std::optional<std::string_view> source);

}  // namespace holdfast::internal
