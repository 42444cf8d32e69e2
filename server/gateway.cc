#include "server/gateway.h"

#include <fmt/format.h>

#include <atomic>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"
#include "etcd/rpc.pb.h"
#include "server/gateway_codec.h"
#include "server/gateway_stream.h"
#include "server/grpc_status.h"

namespace holdfast::server {
namespace {

// Descriptors are found by name, which alone would not link their files in.
void LinkDescriptors() {
  etcdserverpb::RangeRequest::descriptor();
  v3electionpb::LeaderRequest::descriptor();
  v3lockpb::LockRequest::descriptor();
}

struct UnaryCall {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
};

}  // namespace

grpc::ChannelArguments Gateway::ChannelArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxAnswerBytes));
  return arguments;
}

Gateway::Gateway(const Options& options, const std::vector<GatewayRoute>& routes,
                 std::shared_ptr<grpc::Channel> channel)
    : options_(options), channel_(std::move(channel)) {
  LinkDescriptors();
  for (const GatewayRoute& route : routes) {
    const google::protobuf::MethodDescriptor* method =
        google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
            std::string(route.method));
    CHECK_MSG(method != nullptr, std::string(route.method));
    targets_[std::string(route.path)] = {
        method, fmt::format("/{}/{}", method->service()->full_name(), method->name()),
        route.outlives_body};
  }
}

const Gateway::Target* Gateway::Find(std::string_view path) const {
  const auto it = targets_.find(base::ToAbsl(path));
  return it == targets_.end() ? nullptr : &it->second;
}

bool Gateway::StreamsBody(const HttpRequest& request) const {
  const Target* target = Find(request.path);
  return target != nullptr && request.method == "POST" && target->method->client_streaming();
}

void Gateway::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  const Target* target = Find(request.path);
  if (target == nullptr) return exchange->Send(PlainError(404, "Not Found"));
  if (request.method != "POST") return exchange->Send(PlainError(405, "Method Not Allowed"));
  if (!target->method->server_streaming()) {
    return CallUnary(*target, std::move(request), std::move(exchange));
  }
  StartGatewayStream({.method = target->method,
                      .rpc = target->rpc,
                      .outlives_body = target->outlives_body,
                      .max_request_bytes = options_.max_request_bytes},
                     channel_, std::move(request), std::move(exchange));
}

void Gateway::CallUnary(const Target& target, HttpRequest request,
                        std::shared_ptr<HttpExchange> exchange) {
  absl::StatusOr<grpc::ByteBuffer> message = JsonToGrpc(target.method->input_type(), request.body);
  if (!message.ok()) return exchange->Send(ErrorResponse(ToGrpc(message.status())));
  auto call = std::make_shared<UnaryCall>();
  call->request = *std::move(message);
  SetMetadata(request, &call->context);
  // A client that leaves ends what waits for it: a lock must not be taken for nobody.
  exchange->callbacks.on_closed = [weak = std::weak_ptr(call)] {
    if (const std::shared_ptr<UnaryCall> present = weak.lock()) present->context.TryCancel();
  };
  // A stub of its own: it only holds the channel.
  grpc::GenericStub(channel_).UnaryCall(
      &call->context, target.rpc, {}, &call->request, &call->response,
      [call, exchange = std::move(exchange),
       type = target.method->output_type()](const grpc::Status& status) {
        if (!status.ok()) {
          HttpResponse response = ErrorResponse(status);
          AddTrailers(call->context, &response);
          return exchange->Send(std::move(response));
        }
        absl::StatusOr<std::string> json = GrpcToJson(type, call->response);
        if (!json.ok()) return exchange->Send(ErrorResponse(ToGrpc(json.status())));
        HttpResponse response = {.content_type = "application/json", .body = *std::move(json)};
        AddTrailers(call->context, &response);
        exchange->Send(std::move(response));
      });
}

}  // namespace holdfast::server
