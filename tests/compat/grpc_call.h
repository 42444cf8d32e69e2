// One gRPC call of any kind (unary, streaming either way), its method named by a text and its
// messages by protobuf's reflection: one piece of code speaks every service of api/.
//
//   auto call = GrpcCall::Start(channel, "Watch.Watch", {{"hasleader", "true"}});
//   (*call)->Send("create_request { key: 'a' }");
//   const GrpcCall::Answer answer = (*call)->Read(absl::Seconds(5));
//
// Threads: one at a time. Every wait has a deadline.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace holdfast::compat {

using Metadata = std::vector<std::pair<std::string, std::string>>;

// "OutOfRange", as gRPC's documents write the codes.
std::string CodeName(grpc::StatusCode code);

class GrpcCall {
 public:
  struct Answer {
    enum class Kind { kMessage, kEnd, kTimeout };
    Kind kind = Kind::kTimeout;
    std::unique_ptr<google::protobuf::Message> message;  // of kMessage
    grpc::Status status;                                 // of kEnd
    bool ok() const { return kind == Kind::kMessage; }
  };

  // `method` as "KV.Range". InvalidArgument: there is no such method. `deadline` bounds the whole
  // call.
  static absl::StatusOr<std::unique_ptr<GrpcCall>> Start(std::shared_ptr<grpc::Channel> channel,
                                                         const std::string& method,
                                                         const Metadata& metadata,
                                                         absl::Duration deadline);
  ~GrpcCall();
  GrpcCall(const GrpcCall&) = delete;
  GrpcCall& operator=(const GrpcCall&) = delete;

  // A request from protobuf's text format. False: it does not parse. A call that has ended takes
  // it without effect.
  bool Send(const std::string& text);
  void HalfClose();
  // The next message, the end, or neither within `timeout`; may be called again after that.
  Answer Read(absl::Duration timeout);
  void Cancel() { context_.TryCancel(); }
  bool server_streaming() const { return method_->server_streaming(); }
  // The end's; empty before.
  const std::multimap<std::string, std::string>& trailers() const { return trailers_; }

 private:
  GrpcCall() = default;
  bool Wait(int tag, absl::Duration timeout, bool* ok);

  std::shared_ptr<grpc::Channel> channel_;
  const google::protobuf::MethodDescriptor* method_ = nullptr;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer incoming_;
  std::map<int, bool> done_;  // tags that came while another was waited for
  bool reading_ = false;
  bool ended_ = false;
  grpc::Status status_;
  std::multimap<std::string, std::string> trailers_;
};

}  // namespace holdfast::compat
