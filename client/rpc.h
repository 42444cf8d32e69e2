// One try of one unary RPC on one connection: bytes out, bytes in, and whether it ever left.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "client/endpoint.h"
#include "client/event_loop.h"
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

struct RpcRequest {
  std::string method;  // "/package.Service/Method"
  grpc::ByteBuffer body;
  std::vector<std::pair<std::string, std::string>> metadata;
  absl::Duration timeout;
};

struct RpcReply {
  grpc::Status status;
  // False: proven that the request never left this process. Not by gRPC's error texts, but by
  // holding the message back until a connection has taken the call.
  bool sent = true;
  grpc::ByteBuffer body;
  AgeReport age;
  uint64_t incarnation = 0;  // 0: not told
  // Of a stamped write: this is what its stamp is answered for good; whether it was answered
  // before.
  std::optional<bool> deduplicated = std::nullopt;
  std::optional<absl::Duration> retry_after = std::nullopt;
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
