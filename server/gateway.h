// etcd's JSON gateway: POST /v3/... with a JSON body for every call of the gRPC services.
//
// The mapping is grpc-gateway's: proto field names, 64-bit numbers as strings, bytes in base64,
// unset fields left out; unknown fields of a request are passed over, as etcd's gateway does.
// A streamed answer is one line {"result":{...}} for each message. Errors are
// {"error":TEXT,"code":GRPC CODE,"message":TEXT} with grpc-gateway's HTTP status.
//
// Every call goes through a channel to this process's own gRPC server, so that what the services
// check is checked once, there.
// Threads: Handle on the HTTP loop; the answer is encoded on gRPC's threads. Nothing blocks.
// Limits: an answer has at most `max_answer_bytes` (ResourceExhausted beyond it); of a streamed
// request, `max_request_bytes` may wait to be sent.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "server/http_server.h"

namespace holdfast::server {

struct GatewayRoute {
  std::string_view path;
  std::string_view method;  // as descriptors name it: etcdserverpb.KV.Range
  // The end of the request's body is no end of the stream: a watch goes on.
  bool outlives_body = false;
};
// All of etcd's that are served. To add a service is to add lines here.
const std::vector<GatewayRoute>& GatewayRoutes();

class Gateway {
 public:
  struct Options {
    size_t max_request_bytes = 2 * 1024 * 1024;
  };
  static constexpr size_t kMaxAnswerBytes = size_t{64} << 20;
  // What the channel to the own server has to be made with.
  static grpc::ChannelArguments ChannelArguments();

  // CHECKs that every route names a method that is linked in.
  Gateway(const Options& options, const std::vector<GatewayRoute>& routes,
          std::shared_ptr<grpc::Channel> channel);

  static bool Serves(std::string_view path) { return path.starts_with("/v3/"); }
  // True for calls that are answered before their request is complete.
  bool StreamsBody(const HttpRequest& request) const;
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange);

 private:
  struct Target {
    const google::protobuf::MethodDescriptor* method;
    std::string rpc;  // /package.Service/Method
    bool outlives_body;
  };
  const Target* Find(std::string_view path) const;
  void CallUnary(const Target& target, HttpRequest request, std::shared_ptr<HttpExchange> exchange);

  const Options options_;
  absl::flat_hash_map<std::string, Target> targets_;
  const std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace holdfast::server
