// A streaming call of the gateway: JSON objects in, one line of JSON out for each message.
// Internal to the gateway.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "google/protobuf/descriptor.h"
#include "server/http_server.h"

namespace holdfast::server {

struct GatewayStreamOptions {
  const google::protobuf::MethodDescriptor* method = nullptr;
  std::string rpc;
  bool outlives_body = false;
  size_t max_request_bytes = 0;
};

// Ends with the call, or with the client, or with the server, whichever comes first.
void StartGatewayStream(const GatewayStreamOptions& options,
                        const std::shared_ptr<grpc::Channel>& channel, HttpRequest request,
                        std::shared_ptr<HttpExchange> exchange);

}  // namespace holdfast::server
