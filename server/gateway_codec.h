// JSON and protobuf, HTTP and gRPC: what one is in terms of the other. Internal to the gateway.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "server/http_message.h"

namespace holdfast::server {

// As grpc-gateway maps them.
int HttpStatusOf(grpc::StatusCode code);

// An empty text is an empty message. InvalidArgument: not JSON, or not of that form.
absl::StatusOr<grpc::ByteBuffer> JsonToGrpc(const google::protobuf::Descriptor* type,
                                            std::string_view json);
// Internal: the bytes are no such message.
absl::StatusOr<std::string> GrpcToJson(const google::protobuf::Descriptor* type,
                                       const grpc::ByteBuffer& bytes);

HttpResponse ErrorResponse(const grpc::Status& status);
// The line that ends a stream.
std::string StreamErrorLine(const grpc::Status& status);

// The caller's headers as metadata: Authorization becomes `authorization` and `token`,
// Grpc-Metadata-X becomes x, Grpc-Timeout the deadline. What gRPC does not allow is left out.
void SetMetadata(const HttpRequest& request, grpc::ClientContext* context);
// What holdfast's services add to their answers (how old the data is), as HTTP headers.
void AddTrailers(const grpc::ClientContext& context, HttpResponse* response);

// Cuts a body into the JSON objects that follow each other in it.
class JsonSplitter {
 public:
  explicit JsonSplitter(size_t max_bytes) : max_bytes_(max_bytes) {}
  // Adds the objects that are complete now to `objects`. InvalidArgument: no object begins where
  // one should; ResourceExhausted: one is too large.
  absl::Status Add(std::string_view piece, std::vector<std::string>* objects);
  // InvalidArgument: the last object is not complete.
  absl::Status End() const;

 private:
  const size_t max_bytes_;
  std::string object_;
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace holdfast::server
